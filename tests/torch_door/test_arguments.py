"""dibr_deploy.ops refuses bad arguments in one sentence that names the argument, what was expected and what came."""

from __future__ import annotations

import re

import pytest
import torch

from dibr_deploy import ops
from dibr_deploy.errors import DibrError

P, F = torch.zeros(2, 5, 4), torch.zeros(7, 3, dtype=torch.int32)
INDEX, WEIGHTS = torch.zeros(2, 6, 8, dtype=torch.int32), torch.zeros(2, 6, 8, 3)
ATTRIBUTES, TEXTURE, UV = torch.zeros(2, 5, 3), torch.zeros(2, 3, 4, 4), torch.zeros(2, 6, 8, 2)
IMAGE = torch.zeros(2, 6, 8, 3)


def rasterize(positions=P, faces=F, height=6, width=8, **options):
    return ops.rasterize(positions, faces, height, width, **options)


def interpolate(attributes=ATTRIBUTES, faces=F, face_index=INDEX, barycentrics=WEIGHTS):
    return ops.interpolate(attributes, faces, face_index, barycentrics)


def soft_mask(positions=P, faces=F, face_index=INDEX, **options):
    return ops.soft_mask(positions, faces, face_index, **options)


def texture(texture=TEXTURE, uv=UV, **options):
    return ops.texture(texture, uv, **options)


def antialias(image=IMAGE, positions=P, faces=F, face_index=INDEX, barycentrics=WEIGHTS, **options):
    return ops.antialias(image, positions, faces, face_index, barycentrics, **options)


@pytest.mark.parametrize(
    ("function", "bad", "message"),
    [
        (rasterize, {"positions": P[0]}, "be a tensor [B, V, 4] of float32 or float64, got float32 [5, 4] on cpu"),
        (rasterize, {"positions": P[..., :2]}, "be a tensor [B, V, 4] of float32 or float64, got float32 [2, 5, 2]"),
        (rasterize, {"positions": P.half()}, "be a tensor [B, V, 4] of float32 or float64, got float16 [2, 5, 4]"),
        (rasterize, {"positions": P[..., :3].long()}, "be a tensor [B, V, 3] of float32 or float64, got int64"),
        (rasterize, {"positions": P.tolist()}, "be a tensor [B, V, 4] of float32 or float64, got list"),
        (rasterize, {"faces": F.float()}, "be a tensor [F, 3] of int32 or int64, got float32 [7, 3]"),
        (rasterize, {"faces": F[:, :2]}, "be a tensor [F, 3] of int32 or int64, got int32 [7, 2]"),
        (rasterize, {"faces": F.to("meta")}, "be on cpu as the other arguments are, got int32 [7, 3] on meta"),
        (rasterize, {"faces": F.long() + 2**31}, "fit into int32, but has values from 2147483648 to 2147483648"),
        (rasterize, {"faces": F.long() - 2**40}, "fit into int32, but has values from -1099511627776"),
        (rasterize, {"height": 0}, "be an integer of at least 1, got 0"),
        (rasterize, {"width": -3}, "be an integer of at least 1, got -3"),
        (rasterize, {"height": 6.0}, "be an integer of at least 1, got 6.0"),
        (rasterize, {"width": True}, "be an integer of at least 1, got True"),
        (rasterize, {"cull": "front"}, "be one of 'none', 'back', got 'front'"),
        (rasterize, {"face_ranges": F}, "be a tensor [B, 2] of int32 or int64, got int32 [7, 3]"),
        (rasterize, {"face_ranges": F[:3, :2]}, "have shape [2, 2], got int32 [3, 2]"),
        (rasterize, {"face_valid": F[:2].bool()}, "have shape [2, 7], got bool [2, 3]"),
        (rasterize, {"face_valid": torch.zeros(2, 7)}, "be a tensor [B, F] of bool, got float32 [2, 7]"),
        (
            interpolate,
            {"attributes": ATTRIBUTES[:, :, 0]},
            "be a tensor [B or 1, V, D] of float32 or float64 or float16 or bfloat16, got float32 [2, 5]",
        ),
        (
            interpolate,
            {"attributes": ATTRIBUTES.int()},
            "be a tensor [B or 1, V, D] of float32 or float64 or float16 or bfloat16, got int32 [2, 5, 3]",
        ),
        (interpolate, {"attributes": torch.zeros(3, 5, 3)}, "have batch size 1 or 2, got float32 [3, 5, 3]"),
        (interpolate, {"face_index": INDEX.float()}, "be a tensor [B, H, W] of int32 or int64, got float32"),
        (interpolate, {"face_index": INDEX[:, :0]}, "have at least one row and column, got int32 [2, 0, 8]"),
        (interpolate, {"barycentrics": WEIGHTS.double()}, "be float32 on cpu to go with attributes of float32"),
        (interpolate, {"barycentrics": WEIGHTS[:, :5]}, "have shape [2, 6, 8, 3], got float32 [2, 5, 8, 3]"),
        (
            interpolate,
            {"barycentrics": WEIGHTS[..., :2]},
            "be a tensor [B, H, W, 3] of float32 or float64, got float32 [2, 6, 8, 2]",
        ),
        (soft_mask, {"face_index": INDEX[:1]}, "have the batch size 2 of positions, got int32 [1, 6, 8]"),
        (soft_mask, {"sigmainv": 0.0}, "be above 0, got 0.0"),
        (soft_mask, {"sigmainv": float("nan")}, "be above 0, got nan"),
        (soft_mask, {"boxlen": -0.1}, "be at least 0, got -0.1"),
        (soft_mask, {"boxlen": float("nan")}, "be at least 0, got nan"),
        (soft_mask, {"knum": 0}, "be an integer of at least 1, got 0"),
        (
            texture,
            {"texture": TEXTURE[0]},
            "be a tensor [B or 1, C, Ht, Wt] of float32 or float64 or float16 or bfloat16, got float32 [3, 4, 4]",
        ),
        (texture, {"texture": torch.zeros(3, 3, 4, 4)}, "have batch size 1 or 2, got float32 [3, 3, 4, 4]"),
        (texture, {"texture": TEXTURE[:, :, :0]}, "have at least one row and column, got float32 [2, 3, 0, 4]"),
        (texture, {"uv": UV[..., :1]}, "be a tensor [B, H, W, 2] of float32 or float64, got float32 [2, 6, 8, 1]"),
        (texture, {"uv": UV.double()}, "be float32 on cpu to go with texture of float32 [2, 3, 4, 4]"),
        (texture, {"filter": "cubic"}, "be one of 'nearest', 'bilinear', 'trilinear', got 'cubic'"),
        (
            texture,
            {"mip_level": None, "filter": "trilinear"},
            "be given with filter 'trilinear', and with no other, got NoneType",
        ),
        (texture, {"mip_level": UV[..., 0]}, "be given with filter 'trilinear', and with no other, got float32"),
        (texture, {"mip_level": UV, "filter": "trilinear"}, "be a tensor [B, H, W] of float32 or float64"),
        (texture, {"mip_level": UV[:1, ..., 0], "filter": "trilinear"}, "have shape [2, 6, 8], got float32 [1, 6, 8]"),
        (texture, {"mip_level": UV[..., 0].double(), "filter": "trilinear"}, "be float32 on cpu to go with texture"),
        (texture, {"wrap": None}, "be one of 'clamp', 'repeat', 'mirror', got NoneType"),
        (
            antialias,
            {"image": IMAGE[0]},
            "be a tensor [B, H, W, C] of float32 or float64 or float16 or bfloat16, got float32 [6, 8, 3]",
        ),
        (
            antialias,
            {"positions": P.double()},
            "be float32 on cpu to go with image of float32 [2, 6, 8, 3] on cpu, got",
        ),
        (antialias, {"positions": P[:1]}, "have the batch size 2 of image, got float32 [1, 5, 4]"),
        (antialias, {"faces": F[:, :2]}, "be a tensor [F, 3] of int32 or int64, got int32 [7, 2]"),
        (antialias, {"face_index": INDEX[:, :5]}, "have shape [2, 6, 8], got int32 [2, 5, 8]"),
        (antialias, {"barycentrics": WEIGHTS[:, :, :7]}, "have shape [2, 6, 8, 3], got float32 [2, 6, 7, 3]"),
        (antialias, {"barycentrics": WEIGHTS.double()}, "be float32 on cpu to go with image of float32"),
        (antialias, {"face_ranges": F[:3, :2]}, "have shape [2, 2], got int32 [3, 2]"),
    ],
)
def test_refused_by_name(function, bad, message) -> None:
    name, *_ = bad
    with pytest.raises(DibrError, match=f"^{function.__name__}: {name} must " + re.escape(message)):
        function(**bad)


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [(interpolate, "attributes", ATTRIBUTES), (texture, "texture", TEXTURE), (antialias, "image", IMAGE)],
)
def test_halves_have_no_gradient(function, name, value) -> None:
    half = value.half().requires_grad_()
    with pytest.raises(
        DibrError, match=f"{name} must be float32 or float64 where its gradient is asked for, got float16"
    ):
        function(**{name: half})
    with torch.no_grad():
        assert function(**{name: half}).dtype == torch.float16


def test_the_good_arguments_are_good() -> None:
    assert rasterize().face_index.shape == (2, 6, 8)
    assert interpolate().shape == (2, 6, 8, 3)
    assert soft_mask().shape == (2, 6, 8)
    assert texture().shape == (2, 6, 8, 3)
    assert antialias().shape == (2, 6, 8, 3)


def test_limits_are_refused_by_name_before_anything_is_allocated() -> None:
    with pytest.raises(RuntimeError, match=r"rasterize: height must be in \[1, 32768\], got 10000000000"):
        rasterize(height=10**10)


@pytest.mark.parametrize("call", [rasterize, interpolate, antialias])
def test_a_face_of_a_vertex_that_does_not_exist(call) -> None:
    faces = F.clone()
    faces[4, 2] = 5
    with pytest.raises(RuntimeError, match=r"faces\[4, 2\] = 5 is out of range for 5 vertices"):
        call(faces=faces)


def test_int64_indices_and_three_coordinates(mesh, raster) -> None:
    """int64 means the same as int32, [B, V, 3] the same as w = 1, and face ranges and indices may be int64 too."""
    positions = torch.cat([mesh.positions[..., :3], torch.ones(2, 12, 1)], dim=2)
    ranges = torch.tensor([[0, 4], [3, 6]])
    expected = ops.rasterize(positions, mesh.faces, 9, 11, face_ranges=ranges.int())
    actual = ops.rasterize(mesh.positions[..., :3], mesh.faces.long(), 9, 11, face_ranges=ranges)
    for e, a in zip(expected, actual, strict=True):
        assert torch.equal(e, a)
    mask = ops.soft_mask(positions, mesh.faces, expected.face_index, face_ranges=ranges.int())
    assert torch.equal(
        mask, ops.soft_mask(mesh.positions[..., :3], mesh.faces.long(), actual.face_index.long(), face_ranges=ranges)
    )
    image, weights = torch.rand(2, 9, 11, 3, dtype=torch.float64), actual.barycentrics
    smooth = ops.antialias(image, positions, mesh.faces, expected.face_index, weights, face_ranges=ranges.int())
    arguments = mesh.positions[..., :3], mesh.faces.long(), actual.face_index.long(), weights
    assert torch.equal(smooth, ops.antialias(image, *arguments, face_ranges=ranges))


def test_face_valid_takes_faces_out_of_one_image(mesh) -> None:
    valid = torch.ones(2, 9, dtype=torch.bool)
    valid[1] = False
    raster = ops.rasterize(mesh.positions, mesh.faces, 13, 17, face_valid=valid)
    everything = ops.rasterize(mesh.positions, mesh.faces, 13, 17)
    assert torch.equal(raster.face_index[0], everything.face_index[0])
    assert (raster.face_index[1] == -1).all()
