"""One Render node for a raster and what reads it: what is fused, what stays, and that no bit of any output changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import phong_sphere
import pytest
import torch
from onnx import helper
from onnxruntime_door import modules
from small_networks import coarse
from torch import Tensor, nn

from dibr_deploy import ops, renderer
from dibr_deploy.export import to_half, to_onnx, verify
from dibr_deploy.export.fusion import fuse
from dibr_deploy.models import ImageToMeshRenderer
from dibr_deploy.runtime import Session

SIZE = (19, 35)
FACES = torch.randint(9, (14, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
UV_FACES = torch.randint(7, (14, 3), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
DRAW = Callable[[Tensor, Tensor, Tensor], dict[str, Tensor]]


class Module(nn.Module):
    """A drawing of positions [B, 9, 4], attributes [B, 9, 3] and a texture [B, 3, 6, 5]."""

    def __init__(self, draw: DRAW) -> None:
        super().__init__()
        self.draw = draw
        self.register_buffer("uvs", torch.rand(1, 7, 2))

    def forward(self, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
        return self.draw(self, positions, attributes, texture)


def inputs(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    positions = torch.rand(batch, 9, 4, generator=generator) * 2 - 1
    positions[..., 3] = 1.2
    return positions, torch.rand(batch, 9, 3, generator=generator), torch.rand(batch, 3, 6, 5, generator=generator)


def over(raster: ops.Raster, attributes: Tensor, faces: Tensor = FACES) -> Tensor:
    return ops.interpolate(attributes, faces, raster.face_index, raster.barycentrics)


def everything(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    """uvs of their own faces, shared by the batch; attributes; the mask; nothing of the raster itself."""
    raster = ops.rasterize(positions, FACES, *SIZE, cull="back", perspective_correct=False)
    return {
        "image": ops.texture(texture, over(raster, module.uvs, UV_FACES), filter="nearest", wrap="mirror"),
        "normal": over(raster, attributes),
        "mask": ops.soft_mask(positions, FACES, raster.face_index, sigmainv=50.0, boxlen=0.3, knum=3),
    }


def all_of_it_returned(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    uv = over(raster, module.uvs, UV_FACES)
    return {**raster._asdict(), "uv": uv, "image": ops.texture(texture, uv), "twice": uv * 2}


def two_masks(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    sharp, soft = (ops.soft_mask(positions, FACES, raster.face_index, sigmainv=s) for s in (7000.0, 70.0))
    return {"sharp": sharp, "soft": soft}


def mask_of_another_mesh(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    return {
        "mask": ops.soft_mask(positions * 0.5, FACES, raster.face_index, sigmainv=70.0),
        "colors": over(raster, attributes),
    }


def two_textures(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    uv = over(raster, module.uvs, UV_FACES)
    return {"image": ops.texture(texture, uv), "bumps": ops.texture(texture.flip(1), uv, wrap="repeat")}


def of_the_raster(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    """Attributes and a texture that are made of what was drawn cannot be known before it is drawn."""
    raster = ops.rasterize(positions, FACES, *SIZE)
    mean = raster.depth.mean(dim=(1, 2)).reshape(-1, 1, 1)
    uv = over(raster, module.uvs, UV_FACES)
    return {
        "colors": over(raster, attributes * mean),
        "image": ops.texture(texture * mean.unsqueeze(-1), uv),
        "mask": ops.soft_mask(positions, FACES, raster.face_index, sigmainv=70.0),
    }


def five_attributes(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    return {f"colors_{k}": over(raster, attributes * k) for k in range(1, 6)}


def mixed_types(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    """Attributes in 16 bits beside more of them in float32, and a texture in 16 bits."""
    raster = ops.rasterize(positions, FACES, *SIZE)
    colors, normals, points = (
        over(raster, attributes.half()),
        over(raster, attributes),
        over(raster, positions[..., :3]),
    )
    image = ops.texture(texture.half(), over(raster, module.uvs, UV_FACES))
    return {"colors": colors.float(), "normals": normals, "points": points, "image": image.float()}


def two_rasters(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    """The second is drawn where the first tells it to."""
    first = ops.rasterize(positions, FACES, *SIZE)
    shift = over(first, attributes).mean(dim=(1, 2)).unsqueeze(1)
    moved = positions + torch.nn.functional.pad(shift, (0, 1))
    second = ops.rasterize(moved, FACES, *SIZE)
    return {"first": first.depth, "second": over(second, attributes)}


def raster_alone(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    return {"covered": raster.face_index >= 0, "depth": raster.depth}


def antialiased(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    raster = ops.rasterize(positions, FACES, *SIZE)
    image = ops.antialias(over(raster, attributes), positions, FACES, raster.face_index, raster.barycentrics)
    return {"image": image, "mask": ops.soft_mask(positions, FACES, raster.face_index)}


def packed(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
    """Each image has its own part of the faces, and some of them are taken out."""
    ranges = torch.tensor([[0, 5]], dtype=torch.int32).expand(positions.shape[0], 2)
    valid = (torch.arange(14) % 3 > 0).expand(positions.shape[0], 14)
    raster = ops.rasterize(positions, FACES, *SIZE, face_ranges=ranges, face_valid=valid)
    return {
        "colors": over(raster, attributes),
        "mask": ops.soft_mask(positions, FACES, raster.face_index, face_ranges=ranges, sigmainv=70.0),
        "of_all": ops.soft_mask(positions, FACES, raster.face_index, sigmainv=70.0),
    }


CASES: dict[DRAW, tuple[list[str], list[str]]] = {
    everything: (["Render"], ["color,mask,interpolated_0"]),
    all_of_it_returned: (["Render"], ["color,face_index,depth,barycentrics,uv"]),
    two_masks: (["Render", "SoftMask"], ["mask,face_index"]),
    mask_of_another_mesh: (["Render", "SoftMask"], ["face_index,interpolated_0"]),
    two_textures: (["Render", "Texture"], ["color,uv"]),
    of_the_raster: (["Interpolate", "Render", "Texture"], ["mask,face_index,depth,barycentrics,interpolated_0"]),
    five_attributes: (
        ["Interpolate", "Interpolate", "Render"],
        ["face_index,barycentrics,interpolated_0,interpolated_1,interpolated_2"],
    ),
    mixed_types: (["Interpolate", "Render"], ["color,face_index,barycentrics,interpolated_0,interpolated_1"]),
    two_rasters: (["Render", "Render"], ["depth,interpolated_0", "interpolated_0"]),
    raster_alone: (["Rasterize"], []),
    antialiased: (["Antialias", "Render"], ["mask,face_index,barycentrics,interpolated_0"]),
    packed: (["Render", "SoftMask"], ["mask,face_index,interpolated_0"]),
}


def our_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return sorted((node for node in model.graph.node if node.domain == "ai.dibr"), key=lambda node: node.op_type)


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return helper.get_attribute_value(next(a for a in node.attribute if a.name == name))


def both_forms(module: nn.Module, args: tuple[Tensor, ...], folder: Path, **options: Any) -> tuple[Path, Path]:
    """The fused and the unfused file, after both have been found to agree in all but our nodes' names."""
    fused = to_onnx(module, args, folder / "fused.onnx", fused=True, **options)
    return fused, to_onnx(module, args, folder / "unfused.onnx", fused=False, **options)


def assert_same_bits(fused: Path, unfused: Path, args: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    arrays = [arg.numpy() for arg in args]
    results = [Session(path, threads=1).run(*arrays) for path in (fused, unfused)]
    assert list(results[0]) == list(results[1])
    for name, value in results[0].items():
        assert value.dtype == results[1][name].dtype, name
        assert value.tobytes() == results[1][name].tobytes(), name
    return results[0]


@pytest.mark.parametrize("draw", CASES, ids=lambda draw: draw.__name__)
def test_what_is_fused_gives_the_same_bits(draw: DRAW, tmp_path: Path) -> None:
    module = Module(draw)
    fused, unfused = both_forms(module, inputs(2), tmp_path)
    expected_ops, expected_outputs = CASES[draw]
    nodes = our_nodes(onnx.load(fused))
    assert [node.op_type for node in nodes] == expected_ops
    written = sorted(attribute(node, "outputs").decode() for node in nodes if node.op_type == "Render")
    assert written == sorted(expected_outputs)
    for node in nodes:
        if node.op_type == "Render":
            assert sum(map(bool, node.output)) == len(attribute(node, "outputs").split(b","))
            assert all(node.input), "TensorRT's parser takes no absent input"
    assert "Render" not in {node.op_type for node in onnx.load(unfused).graph.node}
    for batch in (1, 3):
        results = assert_same_bits(fused, unfused, inputs(batch))
        assert any(np.unique(value).size > 2 for value in results.values() if value.dtype == np.float32)
        report = verify(module, fused, inputs(batch), threads=1)
        assert report.passed, str(report)


def test_an_image_size_that_is_an_input(tmp_path: Path) -> None:
    module = modules.SizedSphereRenderer()
    args = modules.sized_inputs(2, 9, 7)
    fused, unfused = both_forms(module, args, tmp_path, dynamic_shapes=modules.SIZED_AXES)
    render = next(node for node in our_nodes(onnx.load(fused)) if node.op_type == "Render")
    assert [node.op_type for node in our_nodes(onnx.load(fused))] == ["Antialias", "Render"]
    assert attribute(render, "tensorrt_plugin_shape_input_indices") == [13]
    assert len(render.input) == 14 and all(render.input)
    for batch, height, width in ((1, 6, 7), (3, 40, 70)):
        assert_same_bits(fused, unfused, modules.sized_inputs(batch, height, width))


def model_inputs(model: ImageToMeshRenderer) -> tuple[Tensor, Tensor]:
    from dibr_deploy.export.views import cameras, noise

    photos = noise(2, 32)
    return photos, cameras(model, photos)


def test_the_model_that_training_makes(tmp_path: Path) -> None:
    """Texture, normals, mask and the face index that covers: one node instead of five."""
    model = coarse()
    args = model_inputs(model)
    fused, unfused = both_forms(model, args, tmp_path)
    (render,) = our_nodes(onnx.load(fused))
    assert attribute(render, "outputs") == b"color,mask,face_index,interpolated_0"
    assert len(our_nodes(onnx.load(unfused))) == 5
    assert_same_bits(fused, unfused, args)


def test_a_phong_sphere_with_every_output(tmp_path: Path) -> None:
    """Normals, positions and uvs; the second texture, of bumps, samples the same uvs."""

    args = phong_sphere.inputs()
    sphere = phong_sphere.PhongSphere(renderer.MeshRenderer(20, 33), bumpy=True)
    fused, unfused = both_forms(sphere, args, tmp_path)
    assert [node.op_type for node in our_nodes(onnx.load(fused))] == ["Render", "Texture"]
    assert_same_bits(fused, unfused, args)


@pytest.mark.parametrize("order", ["half, then fused", "fused, then half"])
def test_float16(order: str, tmp_path: Path) -> None:
    model = coarse()
    args = model_inputs(model)
    if order == "half, then fused":
        path = to_onnx(model, args, tmp_path / "model.onnx", fp16=True, fused=True)
    else:
        path = to_onnx(model, args, tmp_path / "model.onnx", fused=True)
        onnx.save(to_half(onnx.load(path)), path)
    (render,) = our_nodes(onnx.load(path))
    types = {value.name: value.type.tensor_type.elem_type for value in onnx.load(path).graph.value_info}
    assert types[render.input[4]] == onnx.TensorProto.FLOAT16
    assert types[render.input[5]] == onnx.TensorProto.FLOAT16
    report = verify(model, path, args)
    assert report.passed, str(report)


def test_a_filter_that_render_does_not_know_stays(tmp_path: Path) -> None:
    path = to_onnx(Module(everything), inputs(2), tmp_path / "model.onnx", fused=False)
    model = onnx.load(path)
    texture = next(node for node in model.graph.node if node.op_type == "Texture")
    next(a for a in texture.attribute if a.name == "filter").s = b"trilinear"
    nodes = our_nodes(fuse(model))
    assert [node.op_type for node in nodes] == ["Render", "Texture"]
    assert attribute(nodes[0], "outputs") == b"mask,interpolated_0,interpolated_1"


def test_a_model_without_a_raster_is_left_as_it_is(tmp_path: Path) -> None:
    path = to_onnx(nn.Linear(3, 4), torch.rand(2, 3), tmp_path / "model.onnx", fused=False)
    model = onnx.load(path)
    assert [node.op_type for node in fuse(model).graph.node] == [node.op_type for node in model.graph.node]


def test_a_module_may_call_render_itself(tmp_path: Path) -> None:
    """All that it asks for is an output of the node, and the rest of its places are empty."""

    def draw(module: Module, positions: Tensor, attributes: Tensor, texture: Tensor) -> dict[str, Tensor]:
        return ops.render(
            *(positions, FACES, *SIZE),
            outputs=("mask", "barycentrics"),
            attributes=[attributes, attributes * 2],
            sigmainv=70.0,
        )

    module = Module(draw)
    path = to_onnx(module, inputs(2), tmp_path / "model.onnx")
    (render,) = our_nodes(onnx.load(path))
    assert attribute(render, "outputs") == b"mask,barycentrics,interpolated_0,interpolated_1"
    assert [bool(name) for name in render.output] == [False, True, False, False, True, False, True, True]
    assert all(render.input)
    report = verify(module, path, inputs(3), threads=1)
    assert report.passed, str(report)
