"""One interface for every renderer that takes part. A peer's process loads one scene at a time and times its tasks.

Tasks, named alike everywhere; what is not named "backward" is without gradients:

- ``rasterize``: face index and barycentrics of indexed float32 vertices, from and into this process's memory.
- ``rasterize_all_faces``: the same without culling, of ours alone, since the soft mask takes the faces on both sides.
- ``backward``: the backward pass alone of rasterize + interpolate with three channels, down to vertices and colours.
- ``interpolate``, ``texture``, ``soft_mask``: that op alone. ``texture_backward``, ``soft_mask_backward``: that op
  forward and backward.
- ``render``: rasterize, interpolate, soft_mask; ``render_backward``: forward and backward.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

import numpy as np

from ..scenes import Scene

Task = Callable[[], object]

PEERS = {
    "ours": ("ours", "Ours"),
    "ours, spinning": ("ours", "OursSpinning"),
    "llvmpipe": ("llvmpipe", "Llvmpipe"),
    "DEODR": ("deodr", "Deodr"),
    "Embree": ("embree", "Embree"),
    "PyTorch3D": ("pytorch3d", "PyTorch3D"),
    "torch": ("vectorised_torch", "VectorisedTorch"),
    "ONNX Runtime": ("onnx_runtime", "OnnxRuntime"),
}
"""Module and class of every peer by its name in the report."""


class Peer:
    """What every peer offers. A task ``t`` is offered by a method ``prepare_t() -> Task``: setting up is not timed."""

    threaded = False
    """Whether the number of threads can be chosen; otherwise the peer takes part with one."""
    least_threads = 1
    """With fewer it does not take part."""

    def __init__(self, threads: int) -> None:
        """Raises ImportError, or whatever says that the peer cannot run here."""

    @staticmethod
    def python() -> str:
        """The interpreter of the peer's process."""
        return sys.executable

    @staticmethod
    def environment(threads: int) -> Mapping[str, str | None]:
        """Variables that must be set, or with None must not, before the process starts."""
        return {}

    def version(self) -> str:
        raise NotImplementedError

    def load(self, scene: Scene) -> None:
        """Take a scene's arrays in whatever form suits the peer; not timed."""
        raise NotImplementedError

    def face_index(self) -> np.ndarray:
        """int32 [B, H, W] of the loaded scene, row 0 at the top, -1 on background; for the comparison."""
        raise NotImplementedError

    def facts(self) -> dict[str, float]:
        """Other figures that the peer alone can give about the loaded scene."""
        return {}

    def prepare(self, task: str) -> Task:
        """The function to time. Calling it repeatedly does the same work each time."""
        return getattr(self, f"prepare_{task}")()


def peer_class(name: str) -> type[Peer]:
    """The class behind a name in PEERS. Importing it needs none of the peer's packages."""
    module, attribute = PEERS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def offers(name: str, task: str) -> bool:
    """Whether a peer has a task."""
    return hasattr(peer_class(name), f"prepare_{task}")
