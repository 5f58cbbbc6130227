"""PyTorch3D's CPU rasteriser, with a torch of its own (scripts/setup_bench.py)."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

from ..scenes import Scene
from . import Peer, Task

SIGMA, FACES_PER_PIXEL = 1e-4, 50
"""Of its soft silhouette, as its tutorials set them."""


class PyTorch3D(Peer):
    """rasterize_meshes on vertices in NDC, whose x and y point the other way there, with depths above 0."""

    threaded = True

    @staticmethod
    def python() -> str:
        """That of the environment beside the other peers', where there is one."""
        own = Path(sys.prefix) / "pytorch3d" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def __init__(self, threads: int) -> None:
        import pytorch3d
        import torch
        from pytorch3d.ops import interpolate_face_attributes
        from pytorch3d.renderer.blending import BlendParams, sigmoid_alpha_blend
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.renderer.mesh.rasterizer import Fragments
        from pytorch3d.structures import Meshes

        torch.set_num_threads(threads)
        self.torch, self.release = torch, pytorch3d.__version__
        self.meshes, self.rasterize, self.interpolate = Meshes, rasterize_meshes, interpolate_face_attributes
        self.fragments, self.blend, self.blend_parameters = Fragments, sigmoid_alpha_blend, BlendParams(sigma=SIGMA)

    def version(self) -> str:
        return f"PyTorch3D {self.release}, torch {self.torch.__version__}"

    def load(self, scene: Scene) -> None:
        self.scene = scene
        ndc = scene.positions[..., :3] / scene.positions[..., 3:]
        self.vertices = self.torch.from_numpy(np.ascontiguousarray(ndc * [-1, 1, 1] + [0, 0, 2], np.float32))
        self.faces = self.torch.from_numpy(scene.faces).long()

    def face_index(self) -> np.ndarray:
        packed = self._raster(self.vertices)[0][..., 0].numpy()
        return np.where(packed < 0, -1, packed % len(self.scene.faces)).astype(np.int32)

    def prepare_rasterize(self) -> Task:
        return self.torch.no_grad()(lambda: self._raster(self.vertices))

    def prepare_backward(self) -> Task:
        vertices = self.vertices.clone().requires_grad_()
        colours = self.torch.from_numpy(self.scene.colours).requires_grad_()
        pix_to_face, _, weights, _ = self._raster(vertices)
        image = self.interpolate(pix_to_face, weights, colours[:, self.faces].flatten(0, 1))[..., 0, :]
        gradient = self.torch.from_numpy(self.scene.image_gradient)
        return lambda: self.torch.autograd.grad(image, [vertices, colours], gradient, retain_graph=True)

    def prepare_soft_mask_backward(self) -> Task:
        """Its soft silhouette, with the rasterisation that it is made of."""
        vertices = self.vertices.clone().requires_grad_()
        gradient = self.torch.from_numpy(self.scene.mask_gradient)
        radius = math.log(1 / 1e-4 - 1) * SIGMA

        def run() -> object:
            fragments = self.fragments(*self._raster(vertices, radius, FACES_PER_PIXEL))
            white = vertices.new_ones(*fragments.pix_to_face.shape, 3)
            silhouette = self.blend(white, fragments, self.blend_parameters)[..., 3]
            return self.torch.autograd.grad(silhouette, vertices, gradient)

        return run

    def _raster(self, vertices, blur_radius: float = 0.0, faces_per_pixel: int = 1):
        meshes = self.meshes(vertices, self.faces.expand(len(vertices), -1, -1))
        return self.rasterize(
            meshes,
            image_size=self.scene.size,
            blur_radius=blur_radius,
            faces_per_pixel=faces_per_pixel,
            cull_backfaces=True,
        )
