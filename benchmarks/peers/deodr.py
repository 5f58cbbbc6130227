"""DEODR, a differentiable rasteriser in C++ (float64, one thread), through its renderScene and renderSceneB."""

from __future__ import annotations

import importlib.metadata

import numpy as np

from ..scenes import Scene
from . import Peer, Task


class Deodr(Peer):
    """Three colours, interpolated linearly in the image, without antialiasing, into buffers that are kept.

    The division by w and the mapping to pixels are done beforehand: they are no part of its core.
    """

    def __init__(self, threads: int) -> None:
        from deodr import differentiable_renderer

        self.deodr = differentiable_renderer

    def version(self) -> str:
        return f"DEODR {importlib.metadata.version('deodr')}"

    def load(self, scene: Scene) -> None:
        self.scene = scene
        self.image = np.zeros((scene.size, scene.size, 3))
        self.depth = np.zeros((scene.size, scene.size))
        self.views = [
            self._view(positions, scene.faces, colours)
            for positions, colours in zip(scene.positions, scene.colours, strict=True)
        ]

    def face_index(self) -> np.ndarray:
        """Drawn as a soup in which every face has its number as colour."""
        count = len(self.scene.faces)
        numbers = np.repeat(np.arange(1.0, count + 1), 3)[:, None].repeat(3, 1)
        soup = np.arange(3 * count).reshape(-1, 3)
        images = []
        for positions in self.scene.positions:
            self._draw(self._view(positions[self.scene.faces.ravel()], soup, numbers))
            images.append(np.rint(self.image[..., 0]).astype(np.int32) - 1)
        return np.stack(images)

    def prepare_rasterize(self) -> Task:
        def run() -> None:
            for view in self.views:
                self._draw(view)

        return run

    def prepare_backward(self) -> Task:
        gradients = [np.ascontiguousarray(gradient, np.float64) for gradient in self.scene.image_gradient]
        drawn = []
        for view in self.views:
            self._draw(view)
            drawn.append((view, self.image.copy(), self.depth.copy()))

        def run() -> None:
            for (view, image, depth), gradient in zip(drawn, gradients, strict=True):
                view.clear_gradients()
                self.deodr.renderSceneB(view, 1.0, image, depth, gradient)

        return run

    def _draw(self, view) -> None:
        self.deodr.renderScene(view, 1.0, self.image, self.depth)

    def _view(self, positions: np.ndarray, faces: np.ndarray, colours: np.ndarray):
        ndc = positions[:, :3].astype(np.float64) / positions[:, 3:]
        pixels = (ndc[:, :2] * [1, -1] + 1) * self.scene.size / 2 - 0.5
        faces = faces.astype(np.uint32)
        nothing, none = np.zeros(len(faces), bool), np.zeros(len(positions))
        return self.deodr.Scene2D(
            faces=faces,
            faces_uv=faces,
            ij=pixels,
            depths=ndc[:, 2] + 2,  # what is at or below 0 counts as behind the camera
            textured=nothing,
            uv=np.zeros((len(positions), 2)),
            shade=none,
            colors=np.ascontiguousarray(colours, np.float64),
            shaded=nothing,
            edgeflags=np.zeros((len(faces), 3), bool),
            height=self.scene.size,
            width=self.scene.size,
            nb_colors=3,
            texture=np.zeros((0, 0, 3)),
            background_color=np.zeros(3),
            backface_culling=True,
        )
