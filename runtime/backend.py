"""What every way to run a model offers: ``Session`` checks the arrays and hands them to one of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


class TensorInfo(NamedTuple):
    """An input or output of a model."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]
    """A number, a name that stands for one size wherever it occurs, or None for any size."""


class Backend(Protocol):
    """An opened model. Several threads may run it at the same time; nobody closes it while it runs."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    def run(self, feed: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feed: every input by name: a C-contiguous numpy array, or an object on a device with ``__dlpack__``,
                ``shape`` and ``dtype``; names, dtypes and shapes have been checked.

        Returns:
            Every output by name, in host memory.

        Raises:
            DibrError: an operator refuses its input, or an input lies where this backend cannot read it.
        """

    def run_on_device(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Like ``run``, but outputs stay on the device as objects with ``__dlpack__``; without one, numpy arrays."""

    def close(self) -> None:
        """Give back what the backend holds. It is not used afterwards."""
