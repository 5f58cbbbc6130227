"""What networks share that deform a sphere and paint it: the template, heads, and the renderer behind them."""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DibrError
from ..mesh import icosphere, vertex_face_table
from ..renderer import MeshRenderer

LIGHT_CHANNELS = 4
COARSE_TEXTURE = 8
"""Side of the grid that textures begin as."""


class MeshPrediction(NamedTuple):
    """What a SphereNetwork returns."""

    vertices: Tensor
    """[B, V, 3], world space."""
    texture: Tensor
    """[B, 3, Ht, Wt] in 0..1, row 0 at v = 0."""
    light: Tensor
    """[B, 4] as in ``dibr_deploy.lighting``; ambient plus directional intensity is at most 1, of ``ImageToMesh`` 1.
    In world space, but in what that returns in the axes of the camera that took the image."""


class RenderedPrediction(NamedTuple):
    """What a SphereRenderer returns; the names are those of the exported graph's outputs."""

    image: Tensor
    """[B, H, W, 3]."""
    mask: Tensor
    """[B, H, W], soft."""
    face_index: Tensor
    """[B, H, W] int32, -1 on background."""
    vertices: Tensor
    """[B, V, 3], world space."""
    texture: Tensor
    """[B, 3, Ht, Wt]."""
    light: Tensor
    """[B, 4], world space."""
    faces: Tensor
    """[F, 3] int32, constant."""
    uvs: Tensor
    """[Vt, 2], constant."""
    uv_faces: Tensor
    """[F, 3] int32, constant."""


class SphereNetwork(nn.Module):
    """Moves the vertices of a sphere and wraps a texture around it. Buffers:

    Attributes:
        template: [V, 3], the sphere. faces: [F, 3] int32. uvs, uv_faces: [Vt, 2] and [F, 3] int32.
        vertex_faces: as ``dibr_deploy.mesh.vertex_face_table`` makes it.
    """

    template: Tensor
    faces: Tensor
    uvs: Tensor
    uv_faces: Tensor
    vertex_faces: Tensor

    def __init__(self, subdivisions: int, radius: float) -> None:
        super().__init__()
        sphere = icosphere(subdivisions, radius)
        assert sphere.uvs is not None
        assert sphere.uv_faces is not None
        self.register_buffer("template", sphere.vertices)
        self.register_buffer("faces", sphere.faces.int())
        self.register_buffer("uvs", sphere.uvs)
        self.register_buffer("uv_faces", sphere.uv_faces.int())
        self.register_buffer("vertex_faces", vertex_face_table(sphere.faces, len(sphere.vertices)), persistent=False)


class SphereRenderer(nn.Module):
    """A SphereNetwork and the renderer in one module: what is trained, exported and served."""

    def __init__(self, network: SphereNetwork, renderer: MeshRenderer) -> None:
        super().__init__()
        self.network = network
        self.renderer = renderer

    def render(self, prediction: MeshPrediction, world_to_clip: Tensor) -> RenderedPrediction:
        """Renders a prediction, its light in world space, for B images from B cameras [B, 4, 4]."""
        network = self.network
        image, mask, face_index, _ = self.renderer(
            prediction.vertices,
            network.faces,
            world_to_clip,
            texture=prediction.texture,
            uvs=network.uvs,
            uv_faces=network.uv_faces,
            light=prediction.light,
            vertex_faces=network.vertex_faces,
        )
        return RenderedPrediction(image, mask, face_index, *prediction, network.faces, network.uvs, network.uv_faces)


class TextureHead(nn.Module):
    """A code to a texture that is continuous across the seam: every convolution wraps around in u.

    forward: [B, features] -> [B, 3, texture_size, texture_size] in 0..1; the first layer has ``channels`` channels.
    """

    def __init__(self, features: int, channels: int, texture_size: int) -> None:
        super().__init__()
        self.start = nn.Linear(features, channels * COARSE_TEXTURE**2)
        steps = (texture_size // COARSE_TEXTURE).bit_length() - 1
        widths = [max(channels >> step, 16) for step in range(steps + 1)]
        self.refine = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.colour = nn.Conv2d(widths[-1], 3, 3)
        start_near_zero(self.colour)

    def forward(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(code))

    def logits(self, code: Tensor) -> Tensor:
        """The same before the sigmoid that brings it to 0..1."""
        grid = F.relu(self.start(code)).unflatten(1, (-1, COARSE_TEXTURE, COARSE_TEXTURE))
        for convolution, norm in zip(self.refine, self.norms, strict=True):
            grid = F.interpolate(grid, scale_factor=2.0, mode="nearest")
            grid = F.relu(norm(convolution(_pad_sphere(grid))))
        return cast(Tensor, self.colour(_pad_sphere(grid)))


def _pad_sphere(grid: Tensor) -> Tensor:
    """One more column at either side, wrapped around, and one more row above and below, repeated: [B, C, H+2, W+2]."""
    grid = torch.cat([grid[..., -1:], grid, grid[..., :1]], dim=-1)
    return torch.cat([grid[..., :1, :], grid, grid[..., -1:, :]], dim=-2)


def enlarged(coarse: Tensor, size: int) -> Tensor:
    """[B, C, 8, 8] -> [B, C, size, size], bilinear, continuous across the seam."""
    factor = size // COARSE_TEXTURE
    padded = F.interpolate(_pad_sphere(coarse), scale_factor=float(factor), mode="bilinear", align_corners=False)
    return padded[..., factor : factor + size, factor : factor + size]


def bounded_light(raw: Tensor) -> Tensor:
    """[B, 4] of any size to a light: ambient in 0..1, a source no stronger than what ambient leaves."""
    ambient = torch.sigmoid(raw[:, :1])
    source = raw[:, 1:]
    return torch.cat([ambient, (1 - ambient) * source / (1 + source.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)


def with_light_of_one(texture: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """The same picture in a light whose ambient part and source are 1 together: the texture is as much darker.

    No picture tells a pale surface in weak light from a dark one in strong light. Settled like this, a surface that
    faces the light shows its own colour.

    Args:
        texture: [B, 3, Ht, Wt] in 0..1, light: [B, 4], together at most 1, as ``bounded_light`` gives it.
    """
    ambient, source = light[:, :1], light[:, 1:]
    # The small number keeps the slope of the length finite where there is no source.
    strength = ambient + (source.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
    return texture * strength[..., None, None], light / strength


def check_texture_size(size: int) -> None:
    """Raises DibrError where a TextureHead cannot make a texture of this side."""
    if size < 4 * COARSE_TEXTURE or size & (size - 1):
        raise DibrError(f"texture_size must be a power of two, at least {4 * COARSE_TEXTURE}, but is {size}")


def start_near_zero(layer: nn.Linear | nn.Conv2d, spread: float = 1e-3) -> None:
    """So that training starts near the template, a grey texture and an even light."""
    nn.init.normal_(layer.weight, std=spread)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
