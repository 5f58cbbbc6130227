"""A textured sphere under Phong's model, with every output of the renderer."""

from __future__ import annotations

import torch
from onnxruntime_door import modules
from torch import Tensor, nn

from dibr_deploy.lighting import Phong
from dibr_deploy.mesh import icosphere, vertex_face_table
from dibr_deploy.renderer import OUTPUTS, MeshRenderer


class PhongSphere(nn.Module):
    """Normals, positions and uvs have several readers; where it is bumpy, its texture's negative is its normal map."""

    def __init__(self, render: MeshRenderer, subdivisions: int = 1, radius: float = 1.0, bumpy: bool = False) -> None:
        super().__init__()
        self.render, self.bumpy = render, bumpy
        self.sphere = icosphere(subdivisions, radius)
        self.vertex_faces = vertex_face_table(self.sphere.faces, len(self.sphere.vertices))

    def forward(self, world_to_clip: Tensor, texture: Tensor, light: Tensor) -> dict[str, Tensor]:
        ball = self.sphere
        return self.render(
            ball.vertices[None],
            ball.faces,
            world_to_clip,
            texture=texture,
            uvs=ball.uvs,
            uv_faces=ball.uv_faces,
            light=light,
            material=Phong(0.4, 12.0),
            normal_map=1 - texture if self.bumpy else None,
            vertex_faces=self.vertex_faces,
            outputs=OUTPUTS,
        )


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Of two images, each in light of its own."""
    return modules.inputs(2)[1], torch.rand(2, 3, 8, 8), torch.tensor([[0.3, 0.2, 0.5, 0.6], [0.1, 0.9, 0.0, -0.2]])
