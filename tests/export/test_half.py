"""Float16 models: what they compute in which type, and how near they are to float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime_door import modules
from small_networks import EXAMPLE, coarse
from torch import Tensor, nn

from dibr_deploy import cameras, ops
from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_half, to_onnx
from dibr_deploy.mesh import icosphere, vertex_face_table, vertex_normals
from dibr_deploy.runtime import Session

TOLERANCE, MISMATCHES = 2e-2, 5e-3
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


class Pair:
    """A model in float32 and in float16."""

    def __init__(self, full: Path, half: Path) -> None:
        self.full, self.half = onnx.load(full), onnx.load(half)
        self.sessions = Session(full, "cpu"), Session(half, "cpu")

    def run(self, *tensors: Tensor) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        arrays = [tensor.numpy() for tensor in tensors]
        full, half = (session.run(*arrays) for session in self.sessions)
        return full, half


def export(module: nn.Module, example: tuple[Tensor, ...], folder: Path, **options: Any) -> Pair:
    options = {"fused": False, **options}
    full = to_onnx(module, example, folder / "full.onnx", **options)
    return Pair(full, to_onnx(module, example, folder / "half.onnx", fp16=True, **options))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    model = coarse()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return export(model, EXAMPLE, tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return export(modules.SphereRenderer(), modules.inputs(1), tmp_path_factory.mktemp("sphere"))


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("sized")
    return export(
        modules.SizedSphereRenderer(), modules.sized_inputs(1, 6, 7), folder, dynamic_shapes=modules.SIZED_AXES
    )


PAIRS = ("network", "sphere", "sized")


def tensor_types(model: ModelProto) -> dict[str, int]:
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def nodes(model: ModelProto, op: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def test_a_network_gives_nearly_the_same(network: Pair) -> None:
    views = 4
    images = torch.rand(views, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    turn = torch.linspace(0, 5, views)
    world_to_clip = cameras.perspective(0.8) @ cameras.orbit(turn, 0.3 + 0 * turn, torch.full_like(turn, 3.0))
    full, half = network.run(images, world_to_clip)
    same = full["face_index"] == half["face_index"]
    assert (full["face_index"] >= 0).mean() > 0.1
    assert 1 - same.mean() <= MISMATCHES
    assert np.abs(full["image"] - half["image"])[same].max() <= TOLERANCE
    assert np.abs(full["vertices"] - half["vertices"]).max() <= 1e-3
    assert (np.abs(full["mask"] - half["mask"])[same] > TOLERANCE).mean() <= MISMATCHES
    for name in ("texture", "light"):
        assert 0 < np.abs(full[name] - half[name]).max() <= TOLERANCE


def test_the_weights_take_half_of_the_room(network: Pair) -> None:
    full, half = learned_bytes(network.full), learned_bytes(network.half)
    assert full == 2 * half > 0


def learned_bytes(model: ModelProto) -> int:
    """Of the weights of its layers."""
    read = {name for node in model.graph.node if node.op_type in ("Conv", "Gemm") for name in node.input[1:]}
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer if tensor.name in read)


@pytest.mark.parametrize("name", ["sphere", "sized"])
def test_geometry_from_inputs_is_the_same_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    """Positions, coverage, depth and mask come from inputs alone, with no layer between."""
    pair = request.getfixturevalue(name)
    full, half = pair.run(*(modules.inputs(3) if name == "sphere" else modules.sized_inputs(3, 20, 30)))
    for output in ("face_index", "depth", "mask"):
        assert np.array_equal(full[output], half[output])
    assert (full["face_index"] >= 0).mean() > 0.1
    assert 0 < np.abs(full["image"] - half["image"]).max() <= TOLERANCE


@pytest.mark.parametrize("name", PAIRS)
def test_our_ops_take_the_types_they_are_made_for(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name).half
    types = tensor_types(model)
    for node in nodes(model, "Rasterize") + nodes(model, "SoftMask"):
        assert types[node.input[0]] == FLOAT
    uvs = [node.input[1] for node in nodes(model, "Texture")]
    assert all(types[uv] == FLOAT for uv in uvs)
    assert all(types[node.input[0]] == HALF for node in nodes(model, "Texture"))
    for node in nodes(model, "Interpolate"):
        assert types[node.input[0]] == (FLOAT if node.output[0] in uvs else HALF)
        assert types[node.input[3]] == FLOAT


def test_layers_and_resize(network: Pair) -> None:
    """Network layers compute in float16; what the schema fixes to float32, such as Resize's scales, stays."""
    types = tensor_types(network.half)
    layers = [node for op in ("Conv", "Gemm", "InstanceNormalization") for node in nodes(network.half, op)]
    assert len(layers) > 10
    assert all(types[name] == HALF for node in layers for name in (*node.input, *node.output))
    resizes = nodes(network.half, "Resize")
    assert [(types[node.input[0]], types[node.input[2]]) for node in resizes] == [(HALF, FLOAT)] * 2


@pytest.mark.parametrize("name", PAIRS)
def test_the_interface_stays_and_no_cast_is_for_nothing(name: str, request: pytest.FixtureRequest) -> None:
    pair = request.getfixturevalue(name)
    full, half = pair.sessions
    assert (full.inputs, full.outputs) == (half.inputs, half.outputs)
    onnx.checker.check_model(pair.half, full_check=True)
    casts, types = nodes(pair.half, "Cast"), tensor_types(pair.half)
    reals = {node.output[0] for node in casts if types[node.output[0]] in (FLOAT, HALF)}
    assert not reals & {node.input[0] for node in casts}, "a cast of a cast"
    asked = [(node.input[0], node.attribute[0].i) for node in casts]
    assert len(set(asked)) == len(asked), "the same cast twice"
    read = {name for node in pair.half.graph.node for name in node.input}
    assert {tensor.name for tensor in pair.half.graph.initializer} <= read | {o.name for o in pair.half.graph.output}


def graph(
    node_list: list[NodeProto], inputs: dict[str, list], outputs: dict[str, list], **constants: np.ndarray
) -> ModelProto:
    """A model of float32 inputs and outputs."""
    made = helper.make_graph(
        node_list,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def rasterized(node_list: list[NodeProto], inputs: dict[str, list], **constants: np.ndarray) -> ModelProto:
    """A model whose value "positions" [2, 3, 4] is rasterised."""
    raster = helper.make_node(
        "Rasterize",
        ["positions", "faces"],
        ["face_index", "barycentrics", "depth"],
        domain="ai.dibr",
        height=4,
        width=4,
    )
    faces = np.array([[0, 1, 2]], np.int32)
    return graph([*node_list, raster], inputs, {"depth": [2, 4, 4]}, faces=faces, **constants)


@pytest.mark.parametrize(("size", "expected"), [(4, FLOAT), (5, HALF)])
def test_a_product_is_a_layer_where_its_constant_is_no_transform(size: int, expected: int) -> None:
    product = helper.make_node("MatMul", ["x", "matrix"], ["positions"])
    model = rasterized([product], {"x": [2, 3, size]}, matrix=np.ones((size, 4), np.float32))
    half = to_half(model)
    [converted] = nodes(half, "MatMul")
    assert tensor_types(half)[converted.output[0]] == expected


def test_what_is_computed_from_geometry_and_depth_stays() -> None:
    """Here edges between positions and the reciprocal of depth, which float16 would spoil."""
    made = [
        helper.make_node("Relu", ["x"], ["positions"]),
        helper.make_node("Sub", ["positions", "x"], ["edges"]),
        helper.make_node("Reciprocal", ["depth"], ["inverse"]),
        helper.make_node("Exp", ["y"], ["shade"]),
    ]
    model = rasterized(made[:2], {"x": [2, 3, 4], "y": [7]})
    model.graph.node.extend(made[2:])
    for name in ("edges", "inverse", "shade"):
        model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    half = to_half(model)
    types = tensor_types(half)
    inputs = {node.op_type: types[node.input[0]] for node in half.graph.node}
    assert (inputs["Sub"], inputs["Reciprocal"], inputs["Exp"]) == (FLOAT, FLOAT, HALF)


def test_a_constant_beyond_float16_is_named() -> None:
    model = graph([helper.make_node("Mul", ["x", "scale"], ["y"])], {"x": [2]}, {"y": [2]}, scale=np.float32([1, -7e4]))
    with pytest.raises(DibrError, match="the constant scale reaches 70000, beyond 65504"):
        to_half(model)


def test_infinite_and_tiny_constants_stay_what_they_are() -> None:
    """A bound of a divisor must not become 0, nor an infinity a number."""
    made = [helper.make_node("Clip", ["x", "low"], ["clipped"]), helper.make_node("Min", ["clipped", "top"], ["y"])]
    low, top = np.float32(1e-12), np.float32([np.inf, np.inf, 1e-9])
    half = to_half(graph(made, {"x": [3]}, {"y": [3]}, low=np.asarray(low), top=top))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    assert set(constants) == {"low_half", "top_half"}
    assert 0 < constants["low_half"] < 1e-4
    assert np.isinf(constants["top_half"]).tolist() == [True, True, False]
    assert constants["top_half"][2] > 0


def test_subgraphs_and_what_they_read_stay(tmp_path: Path) -> None:
    """A branch reads a value of the graph around it by its name, which must still be float32."""
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["inner"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", FLOAT, [4])],
        )
        for op in ("Exp", "Neg")
    ]
    made = [
        helper.make_node("Sqrt", ["x"], ["inner"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "limit"], ["large"]),
        helper.make_node("If", ["large"], ["chosen"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Add", ["chosen", "inner"], ["y"]),
    ]
    model = graph(made, {"x": [4]}, {"y": [4]}, limit=np.asarray(3, np.float32))
    half = to_half(model)
    types = tensor_types(half)
    [square_root], [addition] = nodes(half, "Sqrt"), nodes(half, "Add")
    assert (types[square_root.output[0]], types[addition.output[0]]) == (HALF, HALF)
    onnx.save(model, tmp_path / "full.onnx")
    onnx.save(half, tmp_path / "half.onnx")
    for scale in (0.1, 2.0):
        x = scale * np.array([1, 2, 3, 0.5], np.float32)
        full, rounded = (Session(tmp_path / f"{name}.onnx", "cpu").run(x)["y"] for name in ("full", "half"))
        assert np.abs(full - rounded).max() < 2e-2


def test_a_cast_of_a_cast_is_one() -> None:
    """Integers cast to float32 and used in float16 are cast once."""
    made = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("Cast", ["size"], ["real"], to=FLOAT),
        helper.make_node("Mul", ["x", "real"], ["y"]),
    ]
    half = to_half(graph(made, {"x": ["n"]}, {"y": ["n"]}))
    [cast] = [node for node in nodes(half, "Cast") if node.input[0] == "size"]
    assert cast.attribute[0].i == HALF
    assert [node.input[0] for node in nodes(half, "Shape")] == ["x"]


def test_the_model_given_is_left_as_it_is(sphere: Pair) -> None:
    before = sphere.full.SerializeToString()
    to_half(sphere.full)
    assert sphere.full.SerializeToString() == before


def test_a_broken_model_is_refused() -> None:
    model = graph([helper.make_node("MatMul", ["x", "x"], ["y"])], {"x": [2, 3]}, {"y": [2, 2]})
    with pytest.raises(DibrError, match="to_half: the model is no valid ONNX"):
        to_half(model)


class Normals(nn.Module):
    """Per-vertex normals of a fine mesh, whose faces are too small for float16."""

    def __init__(self) -> None:
        super().__init__()
        sphere = icosphere(4)
        self.register_buffer("vertices", sphere.vertices)
        self.register_buffer("faces", sphere.faces)
        self.register_buffer("vertex_faces", vertex_face_table(sphere.faces, len(sphere.vertices)))

    def forward(self, scale: Tensor, world_to_clip: Tensor) -> dict[str, Tensor]:
        vertices = self.vertices * scale
        positions = cameras.project(vertices, world_to_clip)
        raster = ops.rasterize(positions, self.faces, 32, 32)
        normals = vertex_normals(vertices, self.faces, self.vertex_faces)
        shown = ops.interpolate(normals, self.faces, raster.face_index, raster.barycentrics)
        return {"image": shown, "face_index": raster.face_index}


def test_normals_of_a_fine_mesh(tmp_path: Path) -> None:
    scale = torch.full((2, 1, 1), 0.05)
    world_to_clip = modules.inputs(2)[1] @ torch.diag(torch.tensor([20.0, 20, 20, 1]))
    full, half = export(Normals(), (scale, world_to_clip), tmp_path).run(scale, world_to_clip)
    assert np.array_equal(full["face_index"], half["face_index"])
    assert (full["face_index"] >= 0).mean() > 0.1
    assert np.abs(full["image"] - half["image"]).max() < 2e-3
