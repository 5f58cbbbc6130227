"""The ops as torch sees them: schemas, fake kernels, autograd, tracing, and the door's own checks."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck
from torch.testing._internal.optests import aot_autograd_check

from dibr_deploy import ops

OPS = ["rasterize", "interpolate", "interpolate_raster", "soft_mask", "texture", "antialias"]
ALL_OPS = [name for op in OPS for name in (op, f"{op}_backward")]


def test_schemas_are_those_of_the_documented_ops() -> None:
    schemas = {op: str(getattr(torch.ops.dibr, op).default._schema) for op in ALL_OPS}
    assert schemas["rasterize"] == (
        "dibr::rasterize(Tensor positions, Tensor faces, Tensor? face_ranges, Tensor? face_valid, SymInt height, "
        "SymInt width, bool perspective_correct, int cull, bool depth_clip) "
        "-> (Tensor face_index, Tensor barycentrics, Tensor depth)"
    )
    assert schemas["rasterize_backward"] == (
        "dibr::rasterize_backward(Tensor positions, Tensor faces, Tensor face_index, Tensor? barycentrics, "
        "Tensor? grad_barycentrics, Tensor? grad_depth, bool perspective_correct, bool deterministic=False) -> Tensor"
    )
    assert schemas["interpolate_backward"] == (
        "dibr::interpolate_backward(Tensor attributes, Tensor faces, Tensor face_index, Tensor barycentrics, "
        "Tensor grad_output, bool needs_attributes=True, bool needs_barycentrics=True, bool deterministic=False) "
        "-> (Tensor grad_attributes, Tensor grad_barycentrics)"
    )
    assert schemas["soft_mask"].endswith("float sigmainv, float boxlen, int knum) -> Tensor")
    assert schemas["antialias"] == (
        "dibr::antialias(Tensor image, Tensor positions, Tensor faces, Tensor face_index, Tensor barycentrics, "
        "Tensor? face_ranges) -> Tensor"
    )
    assert schemas["texture"] == (
        "dibr::texture(Tensor texture, Tensor uv, Tensor? mip_level, int filter, int wrap) -> Tensor"
    )


@pytest.mark.parametrize("op", [*ALL_OPS, "soft_mask_keeping", "render"])
def test_opcheck(op: str, arguments) -> None:
    checks = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if op == "rasterize":
        # opcheck adds up the outputs in place, which fails where the first is an integer one; see the next test.
        checks.remove("test_aot_dispatch_dynamic")
    if op == "soft_mask_keeping":
        checks.remove("test_aot_dispatch_dynamic")  # not all of the bytes are written, nor are they the same each time
    assert set(opcheck(getattr(torch.ops.dibr, op).default, arguments[op], test_utils=checks).values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_rasterize_traces_with_its_gradient(dynamic: bool, arguments) -> None:
    def real_outputs_first(positions, *others):
        face_index, barycentrics, depth = torch.ops.dibr.rasterize(positions, *others)
        return barycentrics, depth, face_index

    aot_autograd_check(real_outputs_first, arguments["rasterize"], {}, dynamic=dynamic)


def to_meta(value):
    if isinstance(value, list):
        return [to_meta(element) for element in value]
    return value.to("meta") if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("op", [*ALL_OPS, "render"])
def test_meta_tensors_give_shapes_and_dtypes(op: str, arguments) -> None:
    kernel = getattr(torch.ops.dibr, op)
    as_tuple = lambda outputs: outputs if isinstance(outputs, (tuple, list)) else (outputs,)  # noqa: E731
    for real, fake in zip(
        as_tuple(kernel(*arguments[op])), as_tuple(kernel(*map(to_meta, arguments[op]))), strict=True
    ):
        assert (real.shape, real.dtype, real.stride()) == (fake.shape, fake.dtype, fake.stride())


def test_attributes_in_half_precision_stay_half(mesh, raster) -> None:
    single = ops.interpolate(mesh.attributes.float(), mesh.faces, raster.face_index, raster.barycentrics.float())
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        half = ops.interpolate(mesh.attributes.to(dtype), mesh.faces, raster.face_index, raster.barycentrics.float())
        assert half.dtype == dtype
        assert (half.float() - single).abs().max() < tolerance
        sampled = ops.texture(mesh.texture.to(dtype), single[..., :2].contiguous())
        assert sampled.dtype == dtype
        assert (sampled.float() - ops.texture(mesh.texture.float(), single[..., :2])).abs().max() < tolerance
        covered = mesh.positions.float(), mesh.faces, raster.face_index, raster.barycentrics.float()
        blended = ops.antialias(half, *covered)
        assert blended.dtype == dtype
        assert (blended.float() - ops.antialias(half.float(), *covered)).abs().max() < tolerance


def spoilt(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])


@pytest.mark.parametrize(
    ("op", "index", "value", "message"),
    [
        ("rasterize", 0, torch.zeros(2, 12, 3), r"rasterize: positions must have shape \[B, V, 4\], got \[2, 12, 3\]"),
        ("rasterize", 0, torch.zeros(2, 12, 4).half(), "positions must be float32 or float64, got float16"),
        ("rasterize", 1, torch.zeros(9, 3, dtype=torch.int64), "rasterize: faces must be int32, got int64"),
        ("rasterize", 1, torch.full((9, 3), 12, dtype=torch.int32), r"faces\[0, 0\] = 12 is out of range for 12"),
        ("rasterize", 2, torch.zeros(3, 2, dtype=torch.int32), r"face_ranges must have shape \[B, 2\] with B = 2"),
        ("rasterize", 2, torch.tensor([[0, 9], [8, 2]], dtype=torch.int32), r"face_ranges\[1\] = \(start 8, count 2\)"),
        ("rasterize", 3, torch.zeros(2, 8, dtype=torch.int32), "face_valid must have shape .* B = 2, F = 9, got"),
        ("rasterize", 4, 0, "rasterize: height must be in .*, got 0"),
        ("rasterize", 5, 1 << 40, "rasterize: width must be in .*, got 1099511627776"),
        ("rasterize", 7, 2, r"rasterize: cull must be in \[0, 1\], got 2"),
        ("rasterize_backward", 4, torch.zeros(2, 13, 17, 3), "grad_barycentrics must be float64, got float32"),
        ("interpolate", 3, torch.zeros(2, 13, 16, 3).double(), "barycentrics must have shape .* W = 17, got"),
        ("interpolate", 0, torch.zeros(3, 12, 5).double(), "interpolate: attribute batch must be 1 or .* 2, got 3"),
        (
            "interpolate_backward",
            4,
            torch.zeros(2, 13, 17, 4).double(),
            r"grad_output must have shape \[2, 13, 17, 5\]",
        ),
        ("interpolate_raster_backward", 4, torch.zeros(2, 12, 4), "positions must be float64, got float32"),
        (
            "interpolate_raster_backward",
            5,
            torch.full((9, 3), 12, dtype=torch.int32),
            r"raster_faces\[0, 0\] = 12 is out of range for 12",
        ),
        ("interpolate_raster_backward", 5, torch.zeros(8, 3, dtype=torch.int32), r"raster_faces must have shape \[9,"),
        ("soft_mask", 4, -1.0, "soft_mask: sigmainv must be above 0 and at most .*, got -1"),
        ("soft_mask", 6, 0, "soft_mask: knum must be in"),
        ("soft_mask_backward", 9, torch.zeros(8), "soft_mask_backward: kept must be uint8, got float32"),
        ("soft_mask_backward", 9, torch.zeros(8, dtype=torch.uint8), r"kept must have shape \[\d{3,}\], got \[8\]"),
        ("antialias", 0, torch.zeros(2, 13, 17, 3), "antialias: positions must be float32, got float64"),
        ("antialias", 1, torch.zeros(1, 12, 4).double(), r"positions must have shape \[B, V, 4\] with B = 2, got \[1,"),
        ("antialias", 2, torch.full((9, 3), 12, dtype=torch.int32), r"faces\[0, 0\] = 12 is out of range for 12"),
        ("antialias", 3, torch.full((2, 13, 17), 9, dtype=torch.int32), r"face_index\[0, 0, 0\] = 9 is out of range"),
        ("antialias", 4, torch.zeros(2, 13, 16, 3).double(), "barycentrics must have shape .* W = 17, got"),
        ("antialias", 5, torch.tensor([[0, 9], [8, 2]], dtype=torch.int32), r"face_ranges\[1\] = \(start 8, count 2\)"),
        ("antialias_backward", 6, torch.zeros(2, 13, 17, 4).double(), r"grad_output must have shape \[2, 13, 17, 3\]"),
        ("texture", 0, torch.zeros(1, 3, 0, 7).double(), "texture: texture height must be in"),
        ("texture", 3, 9, r"texture: filter must be in \[0, 2\], got 9"),
        ("texture", 2, None, "texture: mip_level is NULL"),
        ("texture", 4, -1, r"texture: wrap must be in \[0, 2\], got -1"),
    ],
)
def test_the_door_refuses_by_name_what_was_not_checked_before(op, index, value, message, arguments) -> None:
    """Graphs that were traced or exported call the ops without the checks of dibr_deploy.ops."""
    with pytest.raises(RuntimeError, match=message):
        getattr(torch.ops.dibr, op)(*spoilt(arguments[op], index, value))


@pytest.mark.parametrize("op", ALL_OPS)
def test_inputs_need_not_be_contiguous(op: str, arguments) -> None:
    def strided(value):
        if not isinstance(value, torch.Tensor) or value.dim() < 2:
            return value
        wide = torch.stack([value.detach(), value.detach()], dim=-1).transpose(0, 1).contiguous().transpose(0, 1)
        assert not wide[..., 1].is_contiguous()
        return wide[..., 1]

    kernel = getattr(torch.ops.dibr, op)
    torch.testing.assert_close(kernel(*map(strided, arguments[op])), kernel(*arguments[op]), rtol=0, atol=0)


def test_a_scene_is_the_same_as_its_images_one_by_one_under_vmap(mesh) -> None:
    positions = torch.stack([mesh.positions, mesh.positions.flip(0), mesh.positions * 0.5])
    together = torch.vmap(lambda p: ops.rasterize(p, mesh.faces, 8, 9).barycentrics)(positions)
    one_by_one = torch.stack([ops.rasterize(p, mesh.faces, 8, 9).barycentrics for p in positions])
    assert torch.equal(together, one_by_one)
