"""A double of ``cuda.bindings.driver`` whose device memory is host memory.

It is strict where CUDA is lax or silent: work of a stream runs when the stream is synchronised and not before, new
memory is poisoned, freed memory is poisoned and never used again, and every address that work touches must lie in live
device memory. What CUDA refuses it refuses: calls without a current context, and allocating, freeing and waiting in a
thread that captures.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda import bindings
from cuda.bindings import utils

UNINITIALIZED, FREED = 0xA5, 0xDB
ALIGNMENT = 256

Work = Callable[[], None]


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUdevice_attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstream_flags(enum.IntEnum):
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


class Refused(Exception):
    """Becomes the CUresult that a function returns."""

    def __init__(self, result: CUresult) -> None:
        super().__init__(result.name)
        self.result = result


class Handle:
    """What the bindings return for contexts, streams and graphs: no integer."""

    def __init__(self, value: int) -> None:
        self.value = value


class Address(Handle):
    """What they return for memory: ``int`` makes it an integer."""

    def __int__(self) -> int:
        return self.value


def get_cuda_native_handle(handle: Handle) -> int:
    """Of ``cuda.bindings.utils``."""
    assert type(handle) is Handle
    return handle.value


def install(patch: pytest.MonkeyPatch) -> Driver:
    """A driver in the place of cuda-python's."""
    driver = Driver()
    patch.setattr(bindings, "driver", driver, raising=False)
    patch.setattr(utils, "get_cuda_native_handle", get_cuda_native_handle)
    return driver


class _Stream:
    def __init__(self) -> None:
        self.queue: list[Work] = []
        self.captured: list[Work] | None = None
        self.capturing_thread = 0
        self.capture_is_valid = True


def _recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Answers as the bindings do, (CUresult, values...), and keeps the call."""

    @functools.wraps(function)
    def call(self: Driver, *arguments: Any) -> tuple[Any, ...]:
        with self.lock:
            self.calls.append((function.__name__, arguments))
            try:
                value = function(self, *arguments)
            except Refused as refused:
                return (refused.result,) if function.__annotations__["return"] == "None" else (refused.result, None)
        return (CUresult.CUDA_SUCCESS,) if value is None else (CUresult.CUDA_SUCCESS, value)

    return call


class Driver:
    """Stands in for the module; its functions have the names and parameters of the real ones.

    devices: compute capabilities.
    """

    CUresult = CUresult
    CUdevice_attribute = CUdevice_attribute
    CUstream_flags = CUstream_flags
    CUstreamCaptureMode = CUstreamCaptureMode

    def __init__(self, devices: tuple[tuple[int, int], ...] = ((8, 9),)) -> None:
        self.devices = devices
        self.lock = threading.RLock()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.faults: list[BaseException] = []
        """What went wrong in work of streams."""
        self.memory_left = 1 << 40
        self.retained = 0
        self.blocks: dict[int, np.ndarray] = {}
        """Live allocations by address, as bytes."""
        self.foreign: dict[int, Any] = {}
        """Device memory of other libraries."""
        self.streams: dict[int, _Stream] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self._graveyard: list[np.ndarray] = []
        self._thread = threading.local()
        self._handles = iter(range(0x7000, 1 << 30))

    # What tests ask.

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)

    def live(self) -> dict[str, int]:
        """How much of everything exists."""
        return {
            "allocations": len(self.blocks),
            "bytes": sum(block.nbytes for block in self.blocks.values()),
            "streams": len(self.streams),
            "graphs": len(self.graphs) + len(self.executables),
            "contexts": self.retained,
        }

    def pending(self) -> int:
        """How much work streams have not done yet."""
        return sum(len(stream.queue) for stream in self.streams.values())

    # What the TensorRT double and device tensors use.

    def enqueue(self, stream: int, work: Work) -> None:
        """Into the stream's queue, or into the graph that it captures."""
        with self.lock:
            target = self._stream(stream)
            (target.queue if target.captured is None else target.captured).append(work)

    def is_capturing(self, stream: int) -> bool:
        return self._stream(stream).captured is not None

    def spoil_capture(self, stream: int) -> None:
        self._stream(stream).capture_is_valid = False

    def bytes_at(self, address: int, size: int) -> np.ndarray:
        """Device memory; a fault where it is not live."""
        for start, block in (*self.blocks.items(), *self.foreign.items()):
            if start <= address and address + size <= start + block.nbytes:
                return block[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} are not live device memory")

    def has_current_context(self) -> bool:
        return bool(getattr(self._thread, "stack", []))

    # The driver's functions.

    @_recorded
    def cuInit(self, flags: int) -> None:
        if not self.devices:
            raise Refused(CUresult.CUDA_ERROR_NO_DEVICE)

    @_recorded
    def cuDeviceGetCount(self) -> int:
        return len(self.devices)

    @_recorded
    def cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    @_recorded
    def cuDeviceGetName(self, length: int, device: int) -> bytes:
        return f"NVIDIA Double {device}".encode().ljust(length, b"\0")

    @_recorded
    def cuDeviceGetAttribute(self, attribute: CUdevice_attribute, device: int) -> int:
        return self.devices[device][attribute - CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR]

    @_recorded
    def cuDevicePrimaryCtxRetain(self, device: int) -> Handle:
        self.retained += 1
        return Handle(0xC0 + device)

    @_recorded
    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        self.retained -= 1

    @_recorded
    def cuCtxPushCurrent(self, context: Handle) -> None:
        if self.retained < 1:
            raise Refused(CUresult.CUDA_ERROR_INVALID_CONTEXT)
        self._thread.stack = [*getattr(self._thread, "stack", []), context]

    @_recorded
    def cuCtxPopCurrent(self) -> Handle:
        return self._thread.stack.pop()

    @_recorded
    def cuMemAlloc(self, size: int) -> Address:
        self._check_context()
        self._refuse_in_capture()
        if size < 1:
            raise Refused(CUresult.CUDA_ERROR_INVALID_VALUE)
        if size > self.memory_left:
            raise Refused(CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        self.memory_left -= size
        storage = np.full(size + ALIGNMENT, UNINITIALIZED, np.uint8)
        start = -storage.ctypes.data % ALIGNMENT
        block = storage[start : start + size]
        self.blocks[block.ctypes.data] = block
        return Address(block.ctypes.data)

    @_recorded
    def cuMemFree(self, address: int) -> None:
        self._check_context()
        self._refuse_in_capture()
        for stream in self.streams.values():  # freeing waits for the device
            self._run(stream)
        block = self.blocks.pop(address, None)
        if block is None:
            raise Refused(CUresult.CUDA_ERROR_INVALID_VALUE)
        self.memory_left += block.nbytes
        block[:] = FREED
        self._graveyard.append(block)

    @_recorded
    def cuMemcpyHtoDAsync(self, destination: int, source: int, size: int, stream: int) -> None:
        self._check_context()

        def copy() -> None:
            ctypes.memmove(self.bytes_at(destination, size).ctypes.data, source, size)

        self.enqueue(stream, copy)

    @_recorded
    def cuMemcpyDtoHAsync(self, destination: int, source: int, size: int, stream: int) -> None:
        self._check_context()

        def copy() -> None:
            ctypes.memmove(destination, self.bytes_at(source, size).ctypes.data, size)

        self.enqueue(stream, copy)

    @_recorded
    def cuStreamCreate(self, flags: int) -> Handle:
        self._check_context()
        assert flags == CUstream_flags.CU_STREAM_NON_BLOCKING
        handle = next(self._handles)
        self.streams[handle] = _Stream()
        return Handle(handle)

    @_recorded
    def cuStreamDestroy(self, stream: int) -> None:
        self._check_context()
        self._run(self._stream(stream))
        del self.streams[stream]

    @_recorded
    def cuStreamSynchronize(self, stream: int) -> None:
        self._check_context()
        target = self._stream(stream)
        if target.captured is not None:
            target.capture_is_valid = False
            raise Refused(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        faults = len(self.faults)
        self._run(target)
        if len(self.faults) > faults:
            raise Refused(CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)

    @_recorded
    def cuStreamBeginCapture(self, stream: int, mode: CUstreamCaptureMode) -> None:
        assert mode == CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        target = self._stream(stream)
        target.captured, target.capture_is_valid = [], True
        target.capturing_thread = threading.get_ident()

    @_recorded
    def cuStreamEndCapture(self, stream: int) -> Handle:
        target = self._stream(stream)
        captured, target.captured = target.captured, None
        if captured is None or not target.capture_is_valid:
            raise Refused(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        handle = next(self._handles)
        self.graphs[handle] = captured
        return Handle(handle)

    @_recorded
    def cuGraphInstantiate(self, graph: Handle, flags: int) -> Handle:
        handle = next(self._handles)
        self.executables[handle] = self.graphs[graph.value]
        return Handle(handle)

    @_recorded
    def cuGraphDestroy(self, graph: Handle) -> None:
        del self.graphs[graph.value]

    @_recorded
    def cuGraphLaunch(self, executable: int, stream: int) -> None:
        self._check_context()
        for work in self.executables[executable]:
            self.enqueue(stream, work)

    @_recorded
    def cuGraphExecDestroy(self, executable: int) -> None:
        del self.executables[executable]

    @_recorded
    def cuGetErrorName(self, error: CUresult) -> bytes:
        return error.name.encode()

    @_recorded
    def cuGetErrorString(self, error: CUresult) -> bytes:
        return error.name.removeprefix("CUDA_ERROR_").replace("_", " ").lower().encode()

    def _stream(self, stream: int) -> _Stream:
        if stream not in self.streams:
            raise Refused(CUresult.CUDA_ERROR_INVALID_HANDLE)
        return self.streams[stream]

    def _check_context(self) -> None:
        if not self.has_current_context():
            raise Refused(CUresult.CUDA_ERROR_INVALID_CONTEXT)

    def _refuse_in_capture(self) -> None:
        """In the mode of this module a capture minds what its own thread does, and nobody else."""
        for stream in self.streams.values():
            if stream.captured is not None and stream.capturing_thread == threading.get_ident():
                stream.capture_is_valid = False
                raise Refused(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)

    def _run(self, stream: _Stream) -> None:
        queue, stream.queue = stream.queue, []
        for work in queue:
            try:
                work()
            except Exception as error:
                self.faults.append(error)
