"""Embree, Intel's ray tracer, through embreex: one ray a pixel, the tree built anew for every image."""

from __future__ import annotations

import importlib.metadata
import os

import numpy as np

from ..scenes import Scene
from . import Peer, Task


class Embree(Peer):
    """Vertices in NDC and parallel rays through the pixel centres, on one thread; no face is culled.

    The division by w and the rays are made beforehand.
    """

    def __init__(self, threads: int) -> None:
        from embreex import mesh_construction, rtcore_scene

        self.mesh, self.core = mesh_construction, rtcore_scene
        self._build_on_one_thread()

    def version(self) -> str:
        return f"embreex {importlib.metadata.version('embreex')}"

    def load(self, scene: Scene) -> None:
        self.scene = scene
        self.vertices = [
            np.ascontiguousarray(positions[:, :3] / positions[:, 3:], np.float32) for positions in scene.positions
        ]
        centres = (2 * np.arange(scene.size, dtype=np.float32) + 1 - scene.size) / scene.size
        x, y = np.meshgrid(centres, -centres)
        self.origins = np.stack([x, y, np.full_like(x, -2)], -1).reshape(-1, 3)
        self.direction = np.array([[0, 0, 1]], np.float32)

    def face_index(self) -> np.ndarray:
        images = [self._trace(vertices)["primID"] for vertices in self.vertices]
        return np.stack(images).reshape(self.scene.batch, self.scene.size, self.scene.size)

    def prepare_rasterize(self) -> Task:
        def run() -> None:
            for vertices in self.vertices:
                self._trace(vertices)

        return run

    def _build_on_one_thread(self) -> None:
        """embreex traces rays on the calling thread, but lets Embree build trees on as many as TBB, which asks once,
        finds cores for this process."""
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        try:
            self.core.EmbreeScene()
        finally:
            os.sched_setaffinity(0, cores)

    def _trace(self, vertices: np.ndarray) -> dict[str, np.ndarray]:
        scene = self.core.EmbreeScene()
        self.mesh.TriangleMesh(scene, vertices, self.scene.faces)
        return scene.run(self.origins, self.direction, output=True)
