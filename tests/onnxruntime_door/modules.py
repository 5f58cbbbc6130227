"""Small modules that call every op, in the ways a user's module may."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dibr_deploy import cameras, ops
from dibr_deploy.mesh import icosphere


class Pictures(NamedTuple):
    """Output of ``SphereRenderer``."""

    image: Tensor
    mask: Tensor
    face_index: Tensor
    depth: Tensor


class SphereRenderer(nn.Module):
    """A sphere with a learned texture, at places and from cameras that are inputs: all ops at a fixed size."""

    def __init__(self, height: int = 24, width: int = 17) -> None:
        super().__init__()
        sphere = icosphere(1)
        self.size = height, width
        self.texture = nn.Parameter(torch.rand(1, 3, 8, 8))
        self.register_buffer("vertices", sphere.vertices)
        self.register_buffer("faces", sphere.faces)
        self.register_buffer("uvs", sphere.uvs.unsqueeze(0))
        self.register_buffer("uv_faces", sphere.uv_faces)

    def forward(self, offsets: Tensor, world_to_clip: Tensor) -> Pictures:
        """offsets: [B, 1, 3], world_to_clip: [B, 4, 4]."""
        return self.draw(offsets, world_to_clip, *self.size)

    def draw(self, offsets: Tensor, world_to_clip: Tensor, height: int, width: int) -> Pictures:
        positions = cameras.project(self.vertices + offsets, world_to_clip)
        raster = ops.rasterize(positions, self.faces, height, width)
        uv = ops.interpolate(self.uvs, self.uv_faces, raster.face_index, raster.barycentrics)
        texels = ops.texture(self.texture, uv, wrap="repeat")
        image = ops.antialias(texels, positions, self.faces, raster.face_index, raster.barycentrics)
        mask = ops.soft_mask(positions, self.faces, raster.face_index, sigmainv=300.0)
        return Pictures(image, mask, raster.face_index, raster.depth)


class SizedSphereRenderer(SphereRenderer):
    """The same, as large as a background picture."""

    def forward(self, background: Tensor, offsets: Tensor, world_to_clip: Tensor) -> Pictures:
        """background: [B, 3, H, W]."""
        pictures = self.draw(offsets, world_to_clip, background.shape[2], background.shape[3])
        behind = background.permute(0, 2, 3, 1)
        covered = (pictures.face_index >= 0).unsqueeze(-1)
        return pictures._replace(image=torch.where(covered, pictures.image, behind))


class AnyMesh(nn.Module):
    """A mesh that is an input, drawn in the colours of its vertices, with whatever number of vertices and faces."""

    def forward(self, positions: Tensor, colors: Tensor, faces: Tensor) -> dict[str, Tensor]:
        """positions: [B, V, 4] clip space, colors: [1, V, 3], faces: [F, 3] int32."""
        raster = ops.rasterize(positions, faces, 20, 30, cull="back")
        image = ops.interpolate(colors, faces, raster.face_index, raster.barycentrics)
        mask = ops.soft_mask(positions, faces, raster.face_index, sigmainv=300.0)
        return {"image": image, "mask": mask, "face_index": raster.face_index}


MESH_AXES = {"positions": {0: "batch", 1: "vertices"}, "colors": {1: "vertices"}, "faces": {0: "faces"}}


def mesh_inputs(batch: int, subdivisions: int) -> tuple[Tensor, Tensor, Tensor]:
    """An icosphere from another side per image: 12 vertices and 20 faces, then 42 and 80, then 162 and 320."""
    sphere = icosphere(subdivisions)
    positions = cameras.project(sphere.vertices.expand(batch, -1, -1), inputs(batch)[1])
    return positions, (sphere.vertices[None] + 1) / 2, sphere.faces.int()


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """Offsets and cameras of ``SphereRenderer``, another view per image."""
    turn = torch.linspace(0.3, 2.0, batch)
    lens = cameras.perspective(0.9)
    return 0.2 * torch.randn(batch, 1, 3), lens @ cameras.orbit(turn, 0.4 * turn, torch.full_like(turn, 3.5))


def sized_inputs(batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(batch, 3, height, width), *inputs(batch)


SIZED_AXES = {
    "background": {0: "batch", 2: "height", 3: "width"},
    "offsets": {0: "batch"},
    "world_to_clip": {0: "batch"},
}
