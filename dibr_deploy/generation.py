"""What a trained generator makes: objects of random codes, and ways between codes."""

from __future__ import annotations

import torch
from torch import Tensor

from .cameras import orbit, perspective
from .data.make import DISTANCE, FIELD_OF_VIEW
from .errors import DibrError
from .mesh import Mesh
from .models import MeshGeneratorRenderer

_CHUNK = 64


def random_codes(model: MeshGeneratorRenderer, count: int, seed: int) -> Tensor:
    """[count, latent], standard normal; the same for the same seed.

    Raises:
        DibrError: count is below 1.
    """
    if count < 1:
        raise DibrError(f"count must be at least 1, got {count}")
    return torch.randn(count, model.network.config.latent, generator=torch.Generator().manual_seed(seed))


def way_through(codes: Tensor, steps: int) -> Tensor:
    """Codes on the way through these and back to the first, along great circles (Shoemake 1985): no jump, no end.

    Codes of a normal distribution lie near a sphere around the origin; a straight way would leave it for shorter codes,
    which the generator has seldom seen.

    Args:
        codes: [K, latent], K >= 2.
        steps: >= 1, from each to the next.

    Returns:
        [K * steps, latent]; every ``steps``-th is a code itself.

    Raises:
        DibrError: fewer than two codes or one step.
    """
    if len(codes) < 2 or steps < 1:
        raise DibrError(f"an interpolation needs two codes and one step between them, got {len(codes)} and {steps}")
    part = (torch.arange(steps, dtype=codes.dtype) / steps).view(-1, 1)
    return torch.cat([_great_circle(a, b, part) for a, b in zip(codes, codes.roll(-1, dims=0), strict=True)])


def _great_circle(start: Tensor, end: Tensor, part: Tensor) -> Tensor:
    """[latent], [latent], [N, 1] -> [N, latent]; the length changes evenly."""
    lengths = torch.linalg.vector_norm(start), torch.linalg.vector_norm(end)
    cosine = (start @ end / (lengths[0] * lengths[1])).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle.sin() < 1e-4:
        return (1 - part) * start + part * end
    direction = (
        ((1 - part) * angle).sin() * start / lengths[0] + (part * angle).sin() * end / lengths[1]
    ) / angle.sin()
    return direction * ((1 - part) * lengths[0] + part * lengths[1])


def turntable(count: int, *, elevation: float = 0.35, turns: float = 1.0) -> Tensor:
    """Cameras around the origin as those of ``dibr data make``, which see the unit sphere: [count, 4, 4]."""
    azimuth = 2 * torch.pi * turns * torch.arange(count) / count
    return perspective(FIELD_OF_VIEW) @ orbit(azimuth, elevation, DISTANCE)


@torch.no_grad()
def pictures(model: MeshGeneratorRenderer, codes: Tensor, world_to_clip: Tensor) -> Tensor:
    """Image and mask of objects, each from its camera: [B, latent], [B, 4, 4] -> [B, 4, H, W]."""
    parts = []
    for code, camera in zip(codes.split(_CHUNK), world_to_clip.split(_CHUNK), strict=True):
        rendered = model(code, camera)
        parts.append(torch.cat([rendered.image, rendered.mask.unsqueeze(-1)], dim=-1).permute(0, 3, 1, 2))
    return torch.cat(parts)


@torch.no_grad()
def meshes(model: MeshGeneratorRenderer, codes: Tensor) -> list[Mesh]:
    """An object per code, with its texture."""
    network = model.network
    vertices, textures, _ = network(codes)
    faces, uv_faces = network.faces.long(), network.uv_faces.long()
    return [
        Mesh(one, faces, uvs=network.uvs, uv_faces=uv_faces, texture=texture)
        for one, texture in zip(vertices, textures, strict=True)
    ]


def rows_of(pictures: Tensor, columns: int) -> Tensor:
    """Pictures [N, 3 or more, H, W] side by side, row by row, white where none is left: [rows * H, columns * W, 3]."""
    images = pictures[:, :3]
    missing = -len(images) % columns
    images = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    return torch.cat([torch.cat(list(row.permute(0, 2, 3, 1)), dim=1) for row in images.split(columns)])
