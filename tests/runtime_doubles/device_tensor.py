"""A tensor of another library on the double's device: torch's own DLPack capsule, which says that it is on CUDA."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from .cuda_driver import ALIGNMENT, UNINITIALIZED, Driver

CUDA = 2
_DEVICE_TYPE_OFFSET, _DEVICE_INDEX_OFFSET = 8, 12
"""In DLTensor, bytes."""

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.PyDLL(None))
)


class DeviceTensor:
    """Its library still computes it: the values are written in the order of the consumer's stream, so that who reads
    without telling its stream reads garbage.

    Args:
        offset: bytes from an aligned address.
        transposed: its rows are columns in memory.
        device: number that it claims to be on.
    """

    def __init__(
        self, driver: Driver, values: np.ndarray, *, offset: int = 0, transposed: bool = False, device: int = 0
    ) -> None:
        self._driver = driver
        self._device = device
        self._values = values
        storage = torch.full((values.nbytes + 2 * ALIGNMENT,), UNINITIALIZED, dtype=torch.uint8)
        start = -storage.data_ptr() % ALIGNMENT + offset
        memory = storage[start : start + values.nbytes].view(torch.from_numpy(values[:0].copy()).dtype)
        self.tensor = memory.view(values.shape[::-1]).permute(*range(values.ndim)[::-1]) if transposed else memory
        self.tensor = self.tensor.view(values.shape) if not transposed else self.tensor
        self.address = memory.data_ptr()
        self.streams: list[int] = []
        """That consumers gave."""
        driver.foreign[self.address] = storage[start : start + values.nbytes].numpy()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None and stream > 2, "of a device tensor a consumer says on which stream it reads"
        self.streams.append(stream)
        self._driver.enqueue(stream, lambda: self.tensor.copy_(torch.from_numpy(self._values)))
        capsule = self.tensor.__dlpack__()
        pointer = _pointer_of(capsule, b"dltensor")
        ctypes.c_int32.from_address(pointer + _DEVICE_TYPE_OFFSET).value = CUDA
        ctypes.c_int32.from_address(pointer + _DEVICE_INDEX_OFFSET).value = self._device
        return capsule
