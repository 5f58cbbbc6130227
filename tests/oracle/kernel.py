"""Runs the torch ops on a Scene: the bridge between the oracle's numpy input and the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from dibr_deploy import ops
from oracle.scenes import Scene


def tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))


def rasterize(scene: Scene, *, perspective_correct: bool = True, positions: torch.Tensor | None = None) -> ops.Raster:
    """ops.rasterize of the scene, or of other positions [B, V, 4] with the scene's faces."""
    drawn = tensor(scene.positions) if positions is None else positions
    return ops.rasterize(drawn, **arguments(scene), perspective_correct=perspective_correct)


def arguments(scene: Scene) -> dict[str, Any]:
    """What ops.rasterize and ops.render take of a scene beside its positions."""
    return {
        "faces": tensor(scene.faces),
        "height": scene.height,
        "width": scene.width,
        "face_ranges": tensor(scene.face_ranges),
        "face_valid": tensor(scene.face_valid),
        "cull": scene.cull,
        "depth_clip": scene.depth_clip,
    }


def soft_mask(
    scene: Scene, face_index: torch.Tensor, *, positions: torch.Tensor | None = None, **options: float
) -> torch.Tensor:
    """ops.soft_mask of the scene, or of other positions [B, V, 4] with the scene's faces."""
    return ops.soft_mask(
        tensor(scene.positions) if positions is None else positions,
        tensor(scene.faces),
        face_index,
        face_ranges=tensor(scene.face_ranges),
        **options,
    )


def antialias(
    scene: Scene,
    image: torch.Tensor,
    face_index: torch.Tensor,
    barycentrics: torch.Tensor,
    *,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """ops.antialias of the scene, or of other positions [B, V, 4] with the scene's faces."""
    return ops.antialias(
        image,
        tensor(scene.positions) if positions is None else positions,
        tensor(scene.faces),
        face_index,
        barycentrics,
        face_ranges=tensor(scene.face_ranges),
    )


def assert_same_bits_for_every_number_of_threads(run: Callable[[], Sequence[torch.Tensor]]) -> None:
    """Fails unless all that `run` returns is bit-identical in two runs on one thread and in runs on 2 and 7."""
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 1, 2, 7):
            torch.set_num_threads(count)
            results.append([output.detach().clone() for output in run()])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first.nan_to_num(), second.nan_to_num())
            assert torch.equal(first.signbit(), second.signbit())
