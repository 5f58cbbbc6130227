"""dibr_deploy through its torch functions: what a training loop calls."""

from __future__ import annotations

import functools

import numpy as np

from ..scenes import Scene
from . import Peer, Task


class Ours(Peer):
    """The ops of ``dibr_deploy.ops``, outputs allocated by torch in every call."""

    threaded = True

    def __init__(self, threads: int) -> None:
        import torch

        from dibr_deploy import ops

        torch.set_num_threads(threads)
        self.torch, self.ops = torch, ops

    def version(self) -> str:
        import dibr_deploy

        return f"dibr_deploy {dibr_deploy.__version__}, torch {self.torch.__version__}"

    def load(self, scene: Scene) -> None:
        self.scene = scene
        self.positions, self.faces = self.torch.from_numpy(scene.positions), self.torch.from_numpy(scene.faces)
        self.__dict__.pop("raster", None)

    @functools.cached_property
    def raster(self):
        return self._rasterize(self.positions)

    def face_index(self) -> np.ndarray:
        return self.raster.face_index.numpy()

    def prepare_rasterize(self) -> Task:
        return self._without_gradient(lambda: self._rasterize(self.positions))

    def prepare_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.scene.colours)
        raster = self._rasterize(positions)
        image = self.ops.interpolate(colours, self.faces, raster.face_index, raster.barycentrics)
        gradient = self.torch.from_numpy(self.scene.image_gradient)
        return lambda: self.torch.autograd.grad(image, [positions, colours], gradient, retain_graph=True)

    def prepare_interpolate(self) -> Task:
        colours = self.torch.from_numpy(self.scene.colours)
        face_index, barycentrics, _ = self.raster
        return self._without_gradient(lambda: self.ops.interpolate(colours, self.faces, face_index, barycentrics))

    def prepare_soft_mask(self) -> Task:
        return self._without_gradient(lambda: self.ops.soft_mask(self.positions, self.faces, self.raster.face_index))

    def prepare_soft_mask_backward(self) -> Task:
        (positions,) = self._leaves(self.positions)
        gradient = self.torch.from_numpy(self.scene.mask_gradient)

        def run() -> object:
            mask = self.ops.soft_mask(positions, self.faces, self.raster.face_index)
            return self.torch.autograd.grad(mask, positions, gradient)

        return run

    def prepare_texture(self) -> Task:
        texels, uv = (self.torch.from_numpy(array) for array in (self.scene.texels, self.scene.uv))
        return self._without_gradient(lambda: self.ops.texture(texels, uv))

    def prepare_texture_backward(self) -> Task:
        texels, uv = self._leaves(self.scene.texels, self.scene.uv)
        gradient = self.torch.from_numpy(self.scene.image_gradient)
        return lambda: self.torch.autograd.grad(self.ops.texture(texels, uv), [texels, uv], gradient)

    def prepare_render(self) -> Task:
        colours = self.torch.from_numpy(self.scene.colours)
        return self._without_gradient(lambda: self._render(self.positions, colours))

    def prepare_render_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.scene.colours)
        gradients = [self.torch.from_numpy(g) for g in (self.scene.image_gradient, self.scene.mask_gradient)]
        return lambda: self.torch.autograd.grad(self._render(positions, colours), [positions, colours], gradients)

    def _rasterize(self, positions):
        size = self.scene.size
        return self.ops.rasterize(positions, self.faces, size, size, cull="back")

    def _render(self, positions, colours):
        face_index, barycentrics, _ = self._rasterize(positions)
        image = self.ops.interpolate(colours, self.faces, face_index, barycentrics)
        return [image, self.ops.soft_mask(positions, self.faces, face_index)]

    def _leaves(self, *arrays):
        return [self.torch.as_tensor(array).clone().requires_grad_() for array in arrays]

    def _without_gradient(self, task: Task) -> Task:
        return self.torch.no_grad()(task)
