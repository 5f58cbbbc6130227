"""One scene and the whole chain of ops on it, through torch, on any device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dibr_deploy import ops

HEIGHT, WIDTH = 70, 90


class Mesh(NamedTuple):
    """400 triangles, many on each pixel."""

    positions: Tensor  # [2, 1200, 4]
    uvs: Tensor  # [1, 1200, 2]
    texture: Tensor  # [1, 3, 16, 16]
    faces: Tensor  # [400, 3] int32


def make_mesh(device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 3) -> Mesh:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(2, 400, 1, 3, generator=generator, dtype=torch.float64) * 2 - 1
    corners = centres + 0.1 * torch.randn(2, 400, 3, 3, generator=generator, dtype=torch.float64)
    w = torch.rand(2, 1200, 1, generator=generator, dtype=torch.float64) + 0.5
    positions = torch.cat([corners.reshape(2, 1200, 3) * w, w], dim=-1)
    uvs = torch.rand(1, 1200, 2, generator=generator, dtype=torch.float64)
    texture = torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float64)
    reals = [value.to(device, dtype).requires_grad_() for value in (positions, uvs, texture)]
    return Mesh(*reals, torch.arange(1200, dtype=torch.int32, device=device).reshape(400, 3))


def render(mesh: Mesh, height: int = HEIGHT, width: int = WIDTH) -> list[Tensor]:
    """face_index, barycentrics, depth, mask, image."""
    raster = ops.rasterize(mesh.positions, mesh.faces, height, width)
    mask = ops.soft_mask(mesh.positions, mesh.faces, raster.face_index, sigmainv=700.0)
    uv = ops.interpolate(mesh.uvs, mesh.faces, raster.face_index, raster.barycentrics)
    levels = 5 * raster.barycentrics[..., 0] - 0.5
    mipped = ops.texture(mesh.texture, uv, filter="trilinear", wrap="repeat", mip_level=levels)
    return [*raster, mask, ops.texture(mesh.texture, uv, wrap="repeat") + mipped]


def gradients(mesh: Mesh, outputs: list[Tensor]) -> list[Tensor]:
    """Of one loss of all outputs, with respect to positions, uvs and texture."""
    _, barycentrics, depth, mask, image = outputs
    loss = image.square().sum() + mask.square().sum() + depth.sum() + barycentrics.square().sum()
    return list(torch.autograd.grad(loss, (mesh.positions, mesh.uvs, mesh.texture)))


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b), f"{torch.count_nonzero(a != b)} of {a.numel()} values differ"


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Within rounding of the largest value of each: sums may be taken in another order."""
    for a, b in zip(actual, expected, strict=True):
        error, largest = (a.cpu() - b.cpu()).abs().max(), b.abs().max().cpu()
        assert error <= (1e-12 if a.dtype == torch.float64 else 1e-5) * largest, f"error {error}, largest {largest}"
