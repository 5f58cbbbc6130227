"""Which models can be run in batches, and which of their outputs have the batch axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .backend import TensorInfo


def batched_outputs(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> frozenset[str] | None:
    """Names of the outputs with the batch axis; None where the model has none.

    A model can be batched where axis 0 of every input has one name, and every output either has that name in axis 0 and
    nowhere else, or fixed sizes alone: then it is the same for the whole batch, like the faces of a template.
    """
    names = {info.shape[0] if info.shape else None for info in inputs}
    [name] = names if len(names) == 1 else [None]
    if not isinstance(name, str) or any(name in info.shape[1:] for info in (*inputs, *outputs)):
        return None
    batched = frozenset(info.name for info in outputs if info.shape and info.shape[0] == name)
    shared = [info for info in outputs if info.name not in batched]
    if not batched or any(not isinstance(size, int) for info in shared for size in info.shape):
        return None
    return batched


def join(parts: Sequence[Mapping[str, np.ndarray]], batched: frozenset[str]) -> dict[str, np.ndarray]:
    """One batch of several: those in ``batched`` are concatenated, of the others the first one is taken."""
    if len(parts) == 1:
        return dict(parts[0])
    return {
        name: np.concatenate([part[name] for part in parts]) if name in batched else array
        for name, array in parts[0].items()
    }


def part(arrays: Mapping[str, np.ndarray], start: int, stop: int, batched: frozenset[str]) -> dict[str, np.ndarray]:
    """A part of a batch: views, not copies."""
    return {name: array[start:stop] if name in batched else array for name, array in arrays.items()}
