"""The tasks of a peer whose ops are functions of torch tensors with gradients, whatever computes them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..scenes import Scene
from . import Peer, Task


class TorchPeer(Peer):
    """Subclasses bring the ops; their ``load`` sets scene, positions and faces, and calls ``forget_raster``."""

    scene: Scene
    positions: Any
    faces: Any

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def of_ops(self, array: np.ndarray) -> np.ndarray:
        """One of the scene's arrays in the shape that the ops take; texture takes them as they are."""
        return array

    def rasterize(self, positions: Any) -> Any:
        """face_index, barycentrics and depth."""
        raise NotImplementedError

    def interpolate(self, colours: Any, face_index: Any, barycentrics: Any) -> Any:
        raise NotImplementedError

    def soft_mask(self, positions: Any, face_index: Any) -> Any:
        raise NotImplementedError

    def texture(self, texels: Any, uv: Any) -> Any:
        raise NotImplementedError

    @functools.cached_property
    def raster(self) -> Any:
        return self.rasterize(self.positions)

    def forget_raster(self) -> None:
        """Of the scene before."""
        self.__dict__.pop("raster", None)

    def prepare_rasterize(self) -> Task:
        return self._without_gradient(lambda: self.rasterize(self.positions))

    def prepare_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.of_ops(self.scene.colours))
        face_index, barycentrics, _ = self.rasterize(positions)
        image = self.interpolate(colours, face_index, barycentrics)
        gradient = self.torch.from_numpy(self.of_ops(self.scene.image_gradient))
        return lambda: self.torch.autograd.grad(image, [positions, colours], gradient, retain_graph=True)

    def prepare_interpolate(self) -> Task:
        colours = self.torch.from_numpy(self.of_ops(self.scene.colours))
        face_index, barycentrics, _ = self.raster
        return self._without_gradient(lambda: self.interpolate(colours, face_index, barycentrics))

    def prepare_soft_mask(self) -> Task:
        return self._without_gradient(lambda: self.soft_mask(self.positions, self.raster[0]))

    def prepare_soft_mask_backward(self) -> Task:
        (positions,) = self._leaves(self.positions)
        gradient = self.torch.from_numpy(self.of_ops(self.scene.mask_gradient))
        return lambda: self.torch.autograd.grad(self.soft_mask(positions, self.raster[0]), positions, gradient)

    def prepare_texture(self) -> Task:
        texels, uv = (self.torch.from_numpy(array) for array in (self.scene.texels, self.scene.uv))
        return self._without_gradient(lambda: self.texture(texels, uv))

    def prepare_texture_backward(self) -> Task:
        texels, uv = self._leaves(self.scene.texels, self.scene.uv)
        gradient = self.torch.from_numpy(self.scene.image_gradient)
        return lambda: self.torch.autograd.grad(self.texture(texels, uv), [texels, uv], gradient)

    def prepare_render(self) -> Task:
        colours = self.torch.from_numpy(self.of_ops(self.scene.colours))
        return self._without_gradient(lambda: self._render(self.positions, colours))

    def prepare_render_backward(self) -> Task:
        positions, colours = self._leaves(self.positions, self.of_ops(self.scene.colours))
        of_outputs = (self.scene.image_gradient, self.scene.mask_gradient)
        gradients = [self.torch.from_numpy(self.of_ops(gradient)) for gradient in of_outputs]
        return lambda: self.torch.autograd.grad(self._render(positions, colours), [positions, colours], gradients)

    def _render(self, positions: Any, colours: Any) -> list[Any]:
        face_index, barycentrics, _ = self.rasterize(positions)
        return [self.interpolate(colours, face_index, barycentrics), self.soft_mask(positions, face_index)]

    def _leaves(self, *arrays: Any) -> list[Any]:
        return [self.torch.as_tensor(array).clone().requires_grad_() for array in arrays]

    def _without_gradient(self, task: Task) -> Task:
        return self.torch.no_grad()(task)
