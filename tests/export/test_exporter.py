"""Exported graphs: onnx accepts them, and they equal the torch module at other sizes than they were traced with."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from onnxruntime_door import modules
from torch import Tensor, nn

from dibr_deploy import ops
from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_onnx, verify
from dibr_deploy.export.exporter import named_outputs
from dibr_deploy.runtime import Session

POSITIONS = torch.tensor([[[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [0, 0.9, 0, 1]]])
FACES = torch.tensor([[0, 1, 2]])


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    module = modules.SphereRenderer()
    path = tmp_path_factory.mktemp("fixed") / "model.onnx"
    return module, to_onnx(module, modules.inputs(1), path, fused=False)


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    module = modules.SizedSphereRenderer()
    path = tmp_path_factory.mktemp("sized") / "model.onnx"
    return module, to_onnx(module, modules.sized_inputs(1, 6, 7), path, dynamic_shapes=modules.SIZED_AXES, fused=False)


def our_nodes(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.domain == "ai.dibr"]


def attributes(node: onnx.NodeProto) -> dict:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


@pytest.mark.parametrize("batch", [1, 5])
def test_exported_with_batch_1_runs_with_any_batch(fixed: tuple[nn.Module, Path], batch: int) -> None:
    module, path = fixed
    report = verify(module, path, modules.inputs(batch))
    assert report.passed, str(report)
    assert report.covered > 0.1
    face_index = next(difference for difference in report.differences if difference.output == "face_index")
    assert (face_index.shape, face_index.differing) == ((batch, 24, 17), 0)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 6, 7), (5, 40, 33), (2, 1, 70)])
def test_height_and_width_are_dynamic(sized: tuple[nn.Module, Path], batch: int, height: int, width: int) -> None:
    module, path = sized
    report = verify(module, path, modules.sized_inputs(batch, height, width))
    assert report.passed, str(report)
    assert report.differences[0].shape == (batch, height, width, 3)


def test_exported_from_a_trace_of_more_than_one_image(tmp_path: Path) -> None:
    module = modules.SphereRenderer()
    path = to_onnx(module, modules.inputs(3), tmp_path / "model.onnx")
    assert verify(module, path, modules.inputs(1)).passed


@pytest.mark.parametrize("name", ["fixed", "sized"])
def test_onnx_accepts_the_file_and_knows_every_shape(name: str, request: pytest.FixtureRequest) -> None:
    model = onnx.load(request.getfixturevalue(name)[1])
    onnx.checker.check_model(model, full_check=True)
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in (*inferred.value_info, *inferred.output)}
    outputs = [name for node in model.graph.node if node.domain == "ai.dibr" for name in node.output]
    assert len(outputs) == 7
    assert all(ranks[name] in (3, 4) for name in outputs)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 18, "ai.dibr": 1}


def test_nodes_say_what_tensorrt_needs(fixed: tuple[nn.Module, Path], sized: tuple[nn.Module, Path]) -> None:
    """Plugin name, version and namespace on every node, the shape input marked, and no absent input before a present
    one."""
    nodes = our_nodes(fixed[1]) + our_nodes(sized[1])
    expected = ["Antialias", "Interpolate", "Rasterize", "SoftMask", "Texture"]
    assert sorted(node.op_type for node in nodes) == sorted(expected * 2)
    for node in nodes:
        given = attributes(node)
        assert (given["plugin_version"], given["plugin_namespace"]) == (b"1", b"ai.dibr")
        assert "" not in node.input
        dynamic = node.op_type == "Rasterize" and len(node.input) == 5
        assert given.get("tensorrt_plugin_shape_input_indices") == ([4] if dynamic else None)
    rasterize = [node for node in nodes if node.op_type == "Rasterize"]
    assert [len(node.input) for node in rasterize] == [2, 5]
    assert (attributes(rasterize[0])["height"], attributes(rasterize[0])["width"]) == (24, 17)


def test_metadata(fixed: tuple[nn.Module, Path]) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(fixed[1]).metadata_props}
    assert metadata["dibr.schema_version"] == "1"
    assert metadata["dibr.opset"] == "18"
    assert metadata["dibr.producer"].startswith("dibr_deploy ")
    meanings = json.loads(metadata["dibr.outputs"])
    assert list(meanings) == ["image", "mask", "face_index", "depth"]
    assert "background" in meanings["face_index"]


def test_the_file_tells_nothing_of_the_machine(fixed: tuple[nn.Module, Path]) -> None:
    content = fixed[1].read_bytes()
    assert str(Path(__file__).parent).encode() not in content
    assert b".py" not in content


def test_options(tmp_path: Path) -> None:
    path = to_onnx(
        modules.SphereRenderer(),
        modules.inputs(2),
        tmp_path / "model.onnx",
        dynamic_batch=False,
        opset=20,
        meanings={"image": "a sphere"},
    )
    session = Session(path, "cpu")
    assert [info.shape for info in session.inputs] == [(2, 1, 3), (2, 4, 4)]
    assert session.metadata["dibr.opset"] == "20"
    assert json.loads(session.metadata["dibr.outputs"])["image"] == "a sphere"


class EveryOption(nn.Module):
    """Every attribute away from its default, packed faces and absent faces as inputs."""

    def forward(self, positions: Tensor, faces: Tensor, face_ranges: Tensor, face_valid: Tensor) -> dict[str, Tensor]:
        raster = ops.rasterize(
            positions,
            faces,
            19,
            23,
            face_ranges=face_ranges,
            face_valid=face_valid,
            perspective_correct=False,
            cull="back",
            depth_clip=False,
        )
        settings = {"face_ranges": face_ranges, "sigmainv": 90.0, "boxlen": 0.3, "knum": 2}
        mask = ops.soft_mask(positions, faces, raster.face_index, **settings)
        texture = positions[:, :, :2].mT.unsqueeze(1)
        sampled = ops.texture(texture, 3 * raster.barycentrics[..., :2], filter="nearest", wrap="mirror")
        shown = positions, faces, raster.face_index, raster.barycentrics
        picture = ops.antialias(sampled, *shown, face_ranges=face_ranges)
        return {"face_index": raster.face_index, "barycentrics": raster.barycentrics, "mask": mask, "picture": picture}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_option_reaches_the_graph(tmp_path: Path, dtype: torch.dtype) -> None:
    def arguments(batch: int) -> tuple[Tensor, ...]:
        positions = torch.randn(batch, 30, 4, dtype=dtype)
        positions[..., 3] = positions[..., 3].abs() + 0.5
        faces = torch.randint(0, 30, (40, 3))
        face_ranges = torch.tensor([[0, 25], [10, 30], [40, 0]])[:batch]
        return positions, faces, face_ranges, torch.rand(batch, 40) > 0.2

    module = EveryOption()
    path = to_onnx(module, arguments(2), tmp_path / "model.onnx", fused=False)
    report = verify(module, path, arguments(3), tolerance=0.0)
    assert all(difference.differing == 0 for difference in report.differences), str(report)
    assert 0.1 < report.covered < 0.9
    given = [attributes(node) for node in our_nodes(path)]
    assert {key: value for node in given for key, value in node.items() if not key.startswith("plugin")} == {
        "height": 19,
        "width": 23,
        "perspective_correct": 0,
        "cull": b"back",
        "depth_clip": 0,
        "sigmainv": 90.0,
        "boxlen": pytest.approx(0.3),
        "knum": 2,
        "filter": b"nearest",
        "wrap": b"mirror",
    }


class DynamicWithout(nn.Module):
    """A dynamic size and one optional input or the other: what is absent must become its default."""

    def __init__(self, argument: str) -> None:
        super().__init__()
        self.argument = argument

    def forward(self, picture: Tensor, positions: Tensor, faces: Tensor, extra: Tensor) -> Tensor:
        height, width = picture.shape[2:]
        return ops.rasterize(positions, faces, height, width, **{self.argument: extra}).face_index


@pytest.mark.parametrize(
    ("argument", "extra"),
    [("face_ranges", torch.tensor([[1, 2], [0, 1]])), ("face_valid", torch.tensor([[True] * 3, [True, False, True]]))],
)
def test_absent_middle_inputs_become_their_defaults(tmp_path: Path, argument: str, extra: Tensor) -> None:
    """With the number of faces dynamic too, so that the defaults are computed when the graph runs."""
    axes = {
        "picture": {0: "batch", 2: "height", 3: "width"},
        "positions": {0: "batch"},
        "faces": {0: "faces"},
        "extra": {0: "batch"} if argument == "face_ranges" else {0: "batch", 1: "faces"},
    }
    module = DynamicWithout(argument)
    positions = torch.rand(2, 9, 4) * 2 - 1
    positions[..., 3] = 1
    arguments = (torch.zeros(2, 3, 8, 8), positions, torch.arange(9).view(3, 3), extra)
    path = to_onnx(module, arguments, tmp_path / "model.onnx", dynamic_shapes=axes)
    assert [len(node.input) for node in our_nodes(path)] == [5]
    report = verify(module, path, (torch.zeros(2, 3, 31, 29), *arguments[1:]))
    assert report.passed, str(report)
    assert verify(module, path, (torch.zeros(2, 3, 5, 7), *arguments[1:])).passed


class Named(nn.Module):
    """Names in the way: an output that is an input, one that is a weight, one that is there twice, and an op's name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("faces", FACES.int())

    def forward(self, image: Tensor, positions: Tensor) -> dict[str, Tensor]:
        face_index = ops.rasterize(positions, self.faces, 8, 8).face_index
        doubled = image * 2
        return {
            "mul": face_index,
            "image": image,
            "faces": self.faces,
            "rasterize": doubled,
            "positions": doubled,
        }


def test_outputs_have_their_names_and_inputs_make_room(tmp_path: Path) -> None:
    module, arguments = Named(), (torch.rand(1, 2), POSITIONS)
    path = to_onnx(module, arguments, tmp_path / "model.onnx")
    session = Session(path, "cpu")
    assert [info.name for info in session.inputs] == ["input_image", "input_positions"]
    assert [info.name for info in session.outputs] == ["mul", "image", "faces", "rasterize", "positions"]
    assert verify(module, path, (torch.rand(4, 2), POSITIONS.repeat(4, 1, 1))).passed


RASTER = ops.Raster(FACES, POSITIONS, POSITIONS)


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (POSITIONS, ["output"]),
        ((POSITIONS, FACES), ["output_0", "output_1"]),
        ([POSITIONS], ["output_0"]),
        (RASTER, ["face_index", "barycentrics", "depth"]),
        ({"a": POSITIONS}, ["a"]),
    ],
)
def test_names_of_outputs(returned: object, names: list[str]) -> None:
    assert list(named_outputs(returned)) == names


@pytest.mark.parametrize(("returned", "what"), [(3, "got int"), ((POSITIONS, None), "output output_1 .* got NoneType")])
def test_outputs_that_are_no_tensors(returned: object, what: str) -> None:
    with pytest.raises(DibrError, match=what):
        named_outputs(returned)


def test_the_module_is_exported_in_evaluation_mode_and_left_as_it_was(tmp_path: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)
            self.frozen = nn.Dropout(0.5).eval()

        def forward(self, positions: Tensor) -> Tensor:
            return ops.rasterize(self.frozen(self.drop(positions)), FACES, 8, 8).depth

    module = Noisy()
    path = to_onnx(module, POSITIONS, tmp_path / "model.onnx")
    assert (module.training, module.drop.training, module.frozen.training) == (True, True, False)
    assert verify(module, path, POSITIONS).passed


class Refused(nn.Module):
    """Reads a value while it is being traced, which no graph can hold."""

    def forward(self, positions: Tensor) -> Tensor:
        return positions * 2 if positions.sum() > 0 else positions


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"module": "model"}, "module must be a torch.nn.Module, got str"),
        ({"example_args": [3]}, r"example_args\[0\] must be a tensor, got int"),
        ({"example_args": []}, "example_args must hold at least one tensor"),
        ({"example_args": (POSITIONS, POSITIONS)}, "example_args do not fit Refused.forward: too many"),
        ({"example_args": torch.tensor(1.0)}, r"dynamic_batch needs a first input with a batch axis"),
        ({"opset": 17}, "opset must be at least 18, got 17"),
        ({"path": "/no/such/folder/model.onnx"}, "path must lie in a folder that exists, got /no/such/folder"),
        ({"dynamic_shapes": {"image": {0: "batch"}}}, "names the input image, but the inputs are positions"),
        ({"dynamic_shapes": {"positions": {3: "batch"}}}, "names axis 3 of positions, which has 3 axes"),
        ({}, "Refused cannot be exported: "),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: dict, sentence: str) -> None:
    """In one sentence, and no file is left behind."""
    defaults = {"module": Refused(), "example_args": POSITIONS, "path": tmp_path / "model.onnx"}
    with pytest.raises(DibrError, match=f"^to_onnx: .*{sentence}") as caught:
        to_onnx(**{**defaults, **arguments})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_when_the_export_fails(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with pytest.raises(DibrError):
        to_onnx(Refused(), POSITIONS, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
