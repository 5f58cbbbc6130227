"""dibr_deploy through its torch functions: what a training loop calls."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..scenes import Scene
from . import Peer, Task
from .torch_tasks import TorchPeer


class Ours(TorchPeer):
    """The ops of ``dibr_deploy.ops``, outputs allocated by torch in every call."""

    threaded = True

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        from dibr_deploy import ops

        self.ops = ops

    def version(self) -> str:
        import dibr_deploy

        return f"dibr_deploy {dibr_deploy.__version__}, torch {self.torch.__version__}"

    def load(self, scene: Scene) -> None:
        self.scene = scene
        self.positions, self.faces = self.torch.from_numpy(scene.positions), self.torch.from_numpy(scene.faces)
        self.forget_raster()

    def face_index(self) -> np.ndarray:
        return self.raster.face_index.numpy()

    def rasterize(self, positions):
        size = self.scene.size
        return self.ops.rasterize(positions, self.faces, size, size, cull="back")

    def prepare_rasterize_all_faces(self) -> Task:
        size = self.scene.size
        return self._without_gradient(lambda: self.ops.rasterize(self.positions, self.faces, size, size))

    def interpolate(self, colours, face_index, barycentrics):
        return self.ops.interpolate(colours, self.faces, face_index, barycentrics)

    def soft_mask(self, positions, face_index):
        return self.ops.soft_mask(positions, self.faces, face_index)

    def texture(self, texels, uv):
        return self.ops.texture(texels, uv)


class OursSpinning(Peer):
    """Rasterize alone, by threads that wait as torch has them wait by default: they spin before they sleep."""

    threaded = True
    least_threads = 2

    def __init__(self, threads: int) -> None:
        self.ours = Ours(threads)

    @staticmethod
    def environment(threads: int) -> Mapping[str, str | None]:
        return {"OMP_WAIT_POLICY": None}

    def version(self) -> str:
        return self.ours.version()

    def load(self, scene: Scene) -> None:
        self.ours.load(scene)

    def face_index(self) -> np.ndarray:
        return self.ours.face_index()

    def prepare_rasterize(self) -> Task:
        return self.ours.prepare_rasterize()
