"""The ops as a careful user would write them in torch, without native code; texture is torch's own grid_sample."""

from __future__ import annotations

import numpy as np

from ..scenes import Scene
from .torch_tasks import TorchPeer


class VectorisedTorch(TorchPeer):
    """benchmarks/torch_reference.py, which takes one image at a time."""

    threaded = False

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        from .. import torch_reference

        self.reference = torch_reference

    def version(self) -> str:
        return f"torch {self.torch.__version__}"

    def load(self, scene: Scene) -> None:
        if scene.batch != 1:
            raise ValueError(f"the torch reference takes one image, got {scene.batch}")
        self.scene = scene
        self.positions = self.torch.from_numpy(scene.positions[0])
        self.faces = self.torch.from_numpy(scene.faces).long()
        self.forget_raster()

    def face_index(self) -> np.ndarray:
        return self.raster[0][None].int().numpy()

    def of_ops(self, array: np.ndarray) -> np.ndarray:
        return array[0]

    def rasterize(self, positions):
        size = self.scene.size
        return self.reference.rasterize(positions, self.faces, size, size)

    def interpolate(self, colours, face_index, barycentrics):
        return self.reference.interpolate(colours, self.faces, face_index, barycentrics)

    def soft_mask(self, positions, face_index):
        return self.reference.soft_mask(positions, self.faces, face_index, sigmainv=7000.0, boxlen=0.02, knum=30)

    def texture(self, texels, uv):
        return self.reference.texture(texels, uv)
