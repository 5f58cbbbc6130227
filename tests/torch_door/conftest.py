"""A small scene with a batch of two, and the arguments of every op on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from dibr_deploy import ops

HEIGHT, WIDTH = 13, 17


class Mesh(NamedTuple):
    """Clip-space triangles of which some overlap, and what the ops need besides them."""

    positions: Tensor  # [2, 12, 4]
    faces: Tensor  # [9, 3] int32
    attributes: Tensor  # [2, 12, 5]
    texture: Tensor  # [1, 3, 6, 7]


def make_mesh(dtype: torch.dtype = torch.float64) -> Mesh:
    generator = torch.Generator().manual_seed(7)
    positions = torch.rand(2, 12, 4, generator=generator, dtype=dtype) * 1.8 - 0.9
    positions[..., 3] = 1.0 + positions[..., 3].abs()
    faces = torch.stack([torch.randperm(12, generator=generator)[:3] for _ in range(9)]).to(torch.int32)
    attributes = torch.rand(2, 12, 5, generator=generator, dtype=dtype)
    return Mesh(positions, faces, attributes, torch.rand(1, 3, 6, 7, generator=generator, dtype=dtype))


@pytest.fixture
def mesh() -> Mesh:
    return make_mesh()


@pytest.fixture
def raster(mesh: Mesh) -> ops.Raster:
    raster = ops.rasterize(mesh.positions, mesh.faces, HEIGHT, WIDTH)
    covered = (raster.face_index >= 0).double().mean()
    assert 0.1 < covered < 0.9
    return raster


@pytest.fixture
def arguments(mesh: Mesh, raster: ops.Raster) -> dict[str, tuple[Any, ...]]:
    """For every torch op its arguments; the real ones of an op with a gradient ask for it."""
    face_index, barycentrics = raster.face_index, raster.barycentrics
    ranges = torch.tensor([[0, 9], [2, 5]], dtype=torch.int32)
    valid = (torch.arange(18).reshape(2, 9) % 4 != 0).to(torch.int32)
    uv = torch.rand(2, HEIGHT, WIDTH, 2, dtype=torch.float64) * 3 - 1
    mip_level = torch.rand(2, HEIGHT, WIDTH, dtype=torch.float64) * 4 - 1
    forward = {
        "rasterize": (mesh.positions, mesh.faces, ranges, valid, HEIGHT, WIDTH, True, ops.CULL["none"], True),
        "interpolate": (mesh.attributes, mesh.faces, face_index, barycentrics),
        "interpolate_raster": (
            *(mesh.attributes, mesh.faces, face_index, barycentrics, mesh.positions, mesh.faces, True),
        ),
        "soft_mask": (mesh.positions, mesh.faces, face_index, ranges, 70.0, 0.2, 4),
        "soft_mask_keeping": (mesh.positions, mesh.faces, face_index, ranges, 70.0, 0.2, 4),
        "texture": (mesh.texture, uv, mip_level, ops.FILTER["trilinear"], ops.WRAP["mirror"]),
        "antialias": (
            *(torch.rand(2, HEIGHT, WIDTH, 3, dtype=torch.float64), mesh.positions, mesh.faces),
            *(face_index, barycentrics, ranges),
        ),
    }
    grad_image = torch.rand(2, HEIGHT, WIDTH, 5, dtype=torch.float64)
    backward = {
        "rasterize_backward": (
            *(mesh.positions, mesh.faces, face_index, barycentrics),
            *(torch.rand_like(barycentrics), torch.rand_like(raster.depth), True),
        ),
        "interpolate_backward": (*forward["interpolate"], grad_image),
        "interpolate_raster_backward": (*forward["interpolate_raster"][:6], grad_image, True),
        "soft_mask_backward": (*forward["soft_mask"][:4], grad_image[..., 0].contiguous(), 70.0, 0.2, 4, False, None),
        "texture_backward": (mesh.texture, uv, mip_level, grad_image[..., :3].contiguous(), 2, 2),
        "antialias_backward": (*forward["antialias"], grad_image[..., :3].contiguous()),
        "render": (
            *(mesh.positions, mesh.faces, ranges, valid, mesh.attributes[:1, :, :2].contiguous(), mesh.faces),
            *(mesh.texture, [mesh.attributes], [mesh.faces], HEIGHT, WIDTH, True, ops.CULL["none"], True),
            *(70.0, 0.2, 4, ops.FILTER["bilinear"], ops.WRAP["mirror"], (1 << len(ops.RENDER_OUTPUTS) + 1) - 1),
        ),
    }

    def asking(value: Any) -> Any:
        real = isinstance(value, Tensor) and value.is_floating_point()
        return value.detach().clone().requires_grad_() if real else value

    return {op: tuple(map(asking, values)) for op, values in forward.items()} | backward


@pytest.fixture
def make_scene_gradients():
    """Renders 400 triangles, many on each pixel, and returns all outputs and gradients."""

    def render(dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator().manual_seed(3)
        centres = torch.rand(2, 400, 1, 3, generator=generator, dtype=torch.float64) * 2 - 1
        corners = centres + 0.2 * torch.randn(2, 400, 3, 3, generator=generator, dtype=torch.float64)
        positions = corners.reshape(2, 1200, 3).to(dtype).requires_grad_()
        faces = torch.arange(1200).reshape(400, 3)
        texture = torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        uvs = torch.rand(1, 1200, 2, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        raster = ops.rasterize(positions, faces, 70, 90)
        mask = ops.soft_mask(positions, faces, raster.face_index, sigmainv=700.0)
        uv = ops.interpolate(uvs, faces, raster.face_index, raster.barycentrics)
        texels = ops.texture(texture, uv, wrap="repeat")
        image = ops.antialias(texels, positions, faces, raster.face_index, raster.barycentrics)
        loss = image.square().sum() + mask.square().sum() + raster.depth.sum()
        return [*raster, mask, image, *torch.autograd.grad(loss, (positions, texture, uvs))]

    return render
