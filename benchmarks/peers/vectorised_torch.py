"""The ops as a careful user would write them in torch, without native code; texture is torch's own grid_sample."""

from __future__ import annotations

import functools

import numpy as np

from ..scenes import Scene
from . import Peer, Task


class VectorisedTorch(Peer):
    """benchmarks/torch_reference.py, which takes one image at a time."""

    threaded = False

    def __init__(self, threads: int) -> None:
        import torch

        from .. import torch_reference

        torch.set_num_threads(threads)
        self.torch, self.reference = torch, torch_reference

    def version(self) -> str:
        return f"torch {self.torch.__version__}"

    def load(self, scene: Scene) -> None:
        if scene.batch != 1:
            raise ValueError(f"the torch reference takes one image, got {scene.batch}")
        self.scene = scene
        self.positions = self.torch.from_numpy(scene.positions[0])
        self.faces = self.torch.from_numpy(scene.faces).long()
        self.__dict__.pop("raster", None)

    @functools.cached_property
    def raster(self):
        return self._rasterize(self.positions)

    def face_index(self) -> np.ndarray:
        return self.raster[0][None].int().numpy()

    def prepare_rasterize(self) -> Task:
        return self._without_gradient(lambda: self._rasterize(self.positions))

    def prepare_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.scene.colours[0])
        face_index, barycentrics, _ = self._rasterize(positions)
        image = self.reference.interpolate(colours, self.faces, face_index, barycentrics)
        gradient = self.torch.from_numpy(self.scene.image_gradient[0])
        return lambda: self.torch.autograd.grad(image, [positions, colours], gradient, retain_graph=True)

    def prepare_interpolate(self) -> Task:
        colours = self.torch.from_numpy(self.scene.colours[0])
        face_index, barycentrics, _ = self.raster
        return self._without_gradient(lambda: self.reference.interpolate(colours, self.faces, face_index, barycentrics))

    def prepare_soft_mask(self) -> Task:
        return self._without_gradient(lambda: self._soft_mask(self.positions, self.raster[0]))

    def prepare_soft_mask_backward(self) -> Task:
        (positions,) = self._leaves(self.positions)
        gradient = self.torch.from_numpy(self.scene.mask_gradient[0])
        return lambda: self.torch.autograd.grad(self._soft_mask(positions, self.raster[0]), positions, gradient)

    def prepare_texture(self) -> Task:
        texels, uv = (self.torch.from_numpy(array) for array in (self.scene.texels, self.scene.uv))
        return self._without_gradient(lambda: self.reference.texture(texels, uv))

    def prepare_texture_backward(self) -> Task:
        texels, uv = self._leaves(self.scene.texels, self.scene.uv)
        gradient = self.torch.from_numpy(self.scene.image_gradient)
        return lambda: self.torch.autograd.grad(self.reference.texture(texels, uv), [texels, uv], gradient)

    def prepare_render(self) -> Task:
        colours = self.torch.from_numpy(self.scene.colours[0])
        return self._without_gradient(lambda: self._render(self.positions, colours))

    def prepare_render_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.scene.colours[0])
        gradients = [self.torch.from_numpy(g[0]) for g in (self.scene.image_gradient, self.scene.mask_gradient)]
        return lambda: self.torch.autograd.grad(self._render(positions, colours), [positions, colours], gradients)

    def _rasterize(self, positions):
        size = self.scene.size
        return self.reference.rasterize(positions, self.faces, size, size)

    def _soft_mask(self, positions, face_index):
        return self.reference.soft_mask(positions, self.faces, face_index, sigmainv=7000.0, boxlen=0.02, knum=30)

    def _render(self, positions, colours):
        face_index, barycentrics, _ = self._rasterize(positions)
        image = self.reference.interpolate(colours, self.faces, face_index, barycentrics)
        return [image, self._soft_mask(positions, face_index)]

    def _leaves(self, *arrays):
        return [self.torch.as_tensor(array).clone().requires_grad_() for array in arrays]

    def _without_gradient(self, task: Task) -> Task:
        return self.torch.no_grad()(task)
