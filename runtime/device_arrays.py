"""Device memory that frees itself, buffers that grow, and arrays that other libraries take through DLPack."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from dibr_deploy.errors import DibrError, one_line

from . import dlpack
from .cuda import CudaDevice


class DeviceMemory:
    """An allocation on a device, given back when the object goes away. At the end of the process CUDA does that.

    size: bytes; an allocation has at least one.
    """

    def __init__(self, device: CudaDevice, size: int) -> None:
        self.device = device
        self.size = max(size, 1)
        self.address = device.allocate(self.size)
        self._finalizer = weakref.finalize(self, _free, device, self.address)
        self._finalizer.atexit = False

    def free(self) -> None:
        """Now, rather than when the object goes away; the context must be current."""
        if self._finalizer.detach():
            self.device.free(self.address)


def _free(device: CudaDevice, address: int) -> None:
    with device.current():
        device.free(address)


class GrowingBuffer:
    """Device memory for a tensor whose size changes: it grows and never shrinks.

    before_free: called with the old address before it is given back.
    """

    def __init__(self, device: CudaDevice, before_free: Callable[[int], None]) -> None:
        self._device = device
        self._before_free = before_free
        self._memory: DeviceMemory | None = None

    def at_least(self, size: int) -> int:
        """Address of at least so many bytes; the same one as before while they fit. What was in it is lost."""
        if self._memory is None or self._memory.size < size:
            self.free()
            self._memory = DeviceMemory(self._device, size)
        return self._memory.address

    def free(self) -> None:
        if self._memory is not None:
            self._before_free(self._memory.address)
            self._memory.free()
            self._memory = None


class DeviceArray:
    """A contiguous array in device memory of its own, for ``torch.from_dlpack`` and its like. Its values are complete:
    a consumer has nothing to wait for.

    shape: any rank. dtype: numpy's.
    """

    def __init__(self, device: CudaDevice, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self._memory = DeviceMemory(device, math.prod(shape) * dtype.itemsize)

    @property
    def address(self) -> int:
        return self._memory.address

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._memory.device.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of DLPack 0.8, whatever newer version the consumer knows. stream: see the class."""
        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("this array can be handed over where it is and as it is, without a copy")
        return dlpack.export(self.address, self.shape, self.dtype, self.__dlpack_device__(), self._memory)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self._memory.device.index})"


ALIGNMENT = 256
"""Bytes; TensorRT wants every address to be a multiple."""


def device_view(name: str, tensor: Any, device: CudaDevice, stream: int, dtype: np.dtype) -> dlpack.View:
    """A tensor of another library, to be read in place by work on this stream.

    Args:
        name: of the input, for errors.
        tensor: an object with ``__dlpack__``.

    Raises:
        DibrError: it is on another device, of another dtype, not contiguous or not aligned, or its library refuses.
    """
    try:
        view = dlpack.view(tensor, stream)
    except Exception as error:  # whatever another library raises
        raise DibrError(f"input {name} cannot be taken through DLPack: {one_line(error)}") from error
    if view.device != (dlpack.CUDA, device.index):
        raise DibrError(
            f"input {name} must be on CUDA device {device.index} or in host memory, got DLPack device type "
            f"{view.device[0]}, number {view.device[1]}"
        )
    if view.dtype != dtype.name:
        raise DibrError(f"input {name} must be {dtype.name}, got {view.dtype}")
    if not view.contiguous:
        raise DibrError(f"input {name} must be contiguous: call .contiguous() on the tensor")
    if view.address % ALIGNMENT:
        raise DibrError(
            f"input {name} must start at a multiple of {ALIGNMENT} bytes, as a tensor of its own does: call .clone() "
            f"on the tensor"
        )
    return view
