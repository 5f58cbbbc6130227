"""Swap kaolin for this: one program, one import changed, running on the CPU.

    python examples/kaolin_swap.py
    python examples/kaolin_swap.py --kaolin    # where NVIDIA Kaolin and a GPU are installed

Below the import everything is written for ``kaolin.render.mesh``: a sphere's vertices and texture are fitted to views
of an ellipsoid, as kaolin's DIB-R tutorial does it. It prints the losses before and after.
"""

from __future__ import annotations

import argparse
import importlib
import math
from types import ModuleType

import torch
from torch import Tensor

from dibr_deploy.mesh import icosphere

SIZE, VIEWS, STEPS = 48, 6, 60
TARGET = (0.5, 0.8, 0.6)


def load(use_kaolin: bool) -> ModuleType:
    """The one line that differs."""
    return importlib.import_module("kaolin" if use_kaolin else "dibr_deploy.kaolin")


class Scene:
    """What stays the same while the mesh is fitted: cameras, faces, texture coordinates."""

    def __init__(self, kal: ModuleType, device: str) -> None:
        self.kal, sphere = kal, icosphere(2).to(device)
        assert sphere.uvs is not None and sphere.uv_faces is not None
        self.sphere, self.faces = sphere.vertices, sphere.faces
        turn = torch.arange(VIEWS, device=device) * (2 * math.pi / VIEWS)
        places = torch.stack([3 * turn.sin(), 1.0 + 0 * turn, 3 * turn.cos()], dim=-1)
        self.camera = kal.render.camera.generate_transformation_matrix(
            camera_position=places,
            look_at=torch.zeros_like(places),
            camera_up_direction=torch.tensor([[0.0, 1.0, 0.0]], device=device).expand(VIEWS, -1),
        )
        self.projection = kal.render.camera.generate_perspective_projection(0.7).to(device)
        # kaolin has v = 0 at the bottom of a texture.
        uvs = torch.stack([sphere.uvs[:, 0], 1 - sphere.uvs[:, 1]], dim=-1)
        self.features = uvs[sphere.uv_faces][None].expand(VIEWS, -1, -1, -1)

    def draw(self, vertices: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [VIEWS, H, W, 3] and soft masks [VIEWS, H, W] of vertices [V, 3] with a texture [1, 3, Ht, Wt]."""
        in_camera, in_image, normals = self.kal.render.mesh.prepare_vertices(
            vertices.expand(VIEWS, -1, -1), self.faces, self.projection, camera_transform=self.camera
        )
        corners = torch.ones_like(self.features[..., :1])
        (coordinates, hard), soft, _ = self.kal.render.mesh.dibr_rasterization(
            SIZE, SIZE, in_camera[..., 2], in_image, [self.features, corners], normals[..., 2]
        )
        texture = texture.expand(VIEWS, -1, -1, -1)
        return hard * self.kal.render.mesh.texture_mapping(coordinates, texture, mode="bilinear"), soft


def fit(kal: ModuleType, device: str = "cpu", steps: int = STEPS) -> dict[str, tuple[float, float]]:
    """Losses before and after: 1 - mask IoU, and L1 of the images."""
    scene = Scene(kal, device)
    rows = torch.linspace(0, math.pi, 16, device=device)
    truth = 0.5 + 0.4 * torch.sin(rows[:, None] + torch.arange(3, device=device)[:, None, None] + 2 * rows[None, :])
    image, mask = scene.draw(scene.sphere * torch.tensor(TARGET, device=device), truth[None])
    image, mask = image.detach(), (mask.detach() > 0.5).float()
    vertices = (0.7 * scene.sphere).requires_grad_()
    texture = torch.full((1, 3, 16, 16), 0.5, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [vertices], "lr": 0.01}, {"params": [texture], "lr": 0.05}])
    history = []
    for _ in range(steps + 1):
        color, soft = scene.draw(vertices, texture)
        losses = kal.metrics.render.mask_iou(soft, mask), (color - image).abs().mean()
        history.append([float(loss.detach()) for loss in losses])
        optimizer.zero_grad()
        (losses[0] + losses[1]).backward()
        optimizer.step()
    return {"1 - mask IoU": (history[0][0], history[-1][0]), "L1": (history[0][1], history[-1][1])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kaolin", action="store_true", help="import kaolin itself; it needs a CUDA device")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the optimiser (default %(default)s)")
    arguments = parser.parse_args()
    losses = fit(load(arguments.kaolin), "cuda" if arguments.kaolin else "cpu", arguments.steps)
    for name, (before, after) in losses.items():
        print(f"{name:>12}: {before:.4f} at the start, {after:.4f} after {arguments.steps} steps")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
