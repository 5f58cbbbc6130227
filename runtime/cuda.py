"""What running an engine needs of CUDA: memory, copies, streams and graphs of one device.

It comes from cuda-python (its package cuda-bindings) or from pycuda, whichever is installed; both use the device's
primary context, as torch and TensorRT do, so that all of them see each other's memory.
"""

from __future__ import annotations

import importlib.util
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dibr_deploy.errors import DibrError, DoorAbsent, one_line

_NAME_BYTES = 256
_NO_DRIVER = "install the NVIDIA driver, or run on a machine that has an NVIDIA GPU"


def open_device(index: int = 0) -> CudaDevice:
    """A device of this machine, through cuda-python where it is installed, else through pycuda.

    Raises:
        DoorAbsent: neither package is installed, there is no driver, or no device of this number.
    """
    if _is_installed("cuda.bindings"):
        return _CudaPython(index)
    if _is_installed("pycuda"):
        return _PyCuda(index)
    raise DoorAbsent(
        "device memory is reached through cuda-python or pycuda, and neither is installed: install dibr_deploy with "
        "the extra [cuda-python]"
    )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the folder above
        return False


class CudaDevice(ABC):
    """One device and its primary context. Addresses, streams and graphs are integers.

    Every method but ``current`` expects the context to be current in the calling thread. Each raises DibrError where
    CUDA refuses; the sentence has CUDA's name for the error. The context is given back when the object goes away.
    """

    index: int
    name: str
    """For example "NVIDIA L4"."""
    compute_capability: tuple[int, int]
    supports_graphs: bool

    def __init__(self) -> None:
        self._thread = threading.local()
        self._kept_for_later: deque[int] = deque()

    @abstractmethod
    def current(self) -> Any:
        """Context manager: inside of it the primary context is the calling thread's. It may be nested."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Address of new device memory, a multiple of 256. size: bytes, at least 1."""

    def free(self, address: int) -> None:
        """Give back what ``allocate`` gave. In a thread that captures a graph it happens after the capture."""
        if getattr(self._thread, "captures", False):
            self._kept_for_later.append(address)
        else:
            self._free(address)

    @abstractmethod
    def _free(self, address: int) -> None: ...

    @abstractmethod
    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Enqueue a copy of a contiguous array, which must live until the stream is synchronised."""

    @abstractmethod
    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Enqueue a copy into a contiguous array, which is complete once the stream is synchronised."""

    @abstractmethod
    def create_stream(self) -> int:
        """A stream that does not wait for the legacy default stream."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None: ...

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until all work of the stream is done; an error of that work is raised here."""

    def begin_capture(self, stream: int) -> None:
        """From here to ``end_capture`` work enqueued on the stream by this thread is recorded and does not run."""
        self._begin_capture(stream)
        self._thread.captures = True

    def end_capture(self, stream: int) -> int:
        """A graph that can be launched. Raises DibrError where something could not be captured."""
        try:
            return self._end_capture(stream)
        finally:
            self._thread.captures = False
            while self._kept_for_later:
                self._free(self._kept_for_later.popleft())

    def _begin_capture(self, stream: int) -> None:
        raise NotImplementedError

    def _end_capture(self, stream: int) -> int:
        raise NotImplementedError

    def launch_graph(self, graph: int, stream: int) -> None:
        raise NotImplementedError

    def destroy_graph(self, graph: int) -> None:
        raise NotImplementedError


class _CudaPython(CudaDevice):
    """Over the driver API of cuda-bindings, whose functions return their CUresult first."""

    supports_graphs = True

    def __init__(self, index: int) -> None:
        super().__init__()
        try:
            from cuda.bindings import driver
            from cuda.bindings.utils import get_cuda_native_handle

            self._driver = driver
            self._handle_of = get_cuda_native_handle
            self._call(driver.cuInit, 0)
        except (ImportError, RuntimeError, DibrError) as error:  # a RuntimeError where there is no driver library
            raise DoorAbsent(f"CUDA cannot be used here ({_sentence(error)}): {_NO_DRIVER}") from error
        count = self._call(driver.cuDeviceGetCount)
        _check_index(index, count)
        self.index = index
        handle = self._call(driver.cuDeviceGet, index)
        name: bytes = self._call(driver.cuDeviceGetName, _NAME_BYTES, handle)
        self.name = name.split(b"\0")[0].decode(errors="replace")
        attributes = driver.CUdevice_attribute
        self.compute_capability = (
            self._call(driver.cuDeviceGetAttribute, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, handle),
            self._call(driver.cuDeviceGetAttribute, attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, handle),
        )
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, handle)
        weakref.finalize(self, driver.cuDevicePrimaryCtxRelease, handle).atexit = False

    def _call(self, function: Any, *arguments: Any) -> Any:
        result, *values = function(*arguments)
        if result != self._driver.CUresult.CUDA_SUCCESS:
            raise DibrError(f"CUDA refuses {function.__name__}: {self._described(result)}")
        return values[0] if values else None

    def _described(self, result: Any) -> str:
        texts = [self._driver.cuGetErrorName(result)[1], self._driver.cuGetErrorString(result)[1]]
        return ", ".join(text.decode(errors="replace") for text in texts if text) or f"error {int(result)}"

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._driver.cuCtxPopCurrent)

    def allocate(self, size: int) -> int:
        return int(self._call(self._driver.cuMemAlloc, size))

    def _free(self, address: int) -> None:
        self._call(self._driver.cuMemFree, address)

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        self._call(self._driver.cuMemcpyHtoDAsync, address, array.ctypes.data, array.nbytes, stream)

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._call(self._driver.cuMemcpyDtoHAsync, array.ctypes.data, address, array.nbytes, stream)

    def create_stream(self) -> int:
        flag = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        return self._handle_of(self._call(self._driver.cuStreamCreate, flag))

    def destroy_stream(self, stream: int) -> None:
        self._call(self._driver.cuStreamDestroy, stream)

    def synchronize(self, stream: int) -> None:
        self._call(self._driver.cuStreamSynchronize, stream)

    def _begin_capture(self, stream: int) -> None:
        # Of this thread alone: what other threads allocate and free meanwhile must not spoil the capture.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(self._driver.cuStreamBeginCapture, stream, mode)

    def _end_capture(self, stream: int) -> int:
        graph = self._call(self._driver.cuStreamEndCapture, stream)
        try:
            return self._handle_of(self._call(self._driver.cuGraphInstantiate, graph, 0))
        finally:
            self._call(self._driver.cuGraphDestroy, graph)

    def launch_graph(self, graph: int, stream: int) -> None:
        self._call(self._driver.cuGraphLaunch, graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call(self._driver.cuGraphExecDestroy, graph)


class _PyCuda(CudaDevice):
    """Over pycuda, which has no graphs. Its objects free themselves, so they are kept by their handles."""

    supports_graphs = False
    _NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING

    def __init__(self, index: int) -> None:
        super().__init__()
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise DoorAbsent(f"pycuda cannot be used here ({_sentence(error)}): {_NO_DRIVER}") from error
        self._driver = driver
        try:
            driver.init()
            _check_index(index, driver.Device.count())
            device = driver.Device(index)
            self.index = index
            self.name = device.name()
            self.compute_capability = device.compute_capability()
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise DoorAbsent(f"CUDA cannot be used here ({_sentence(error)}): {_NO_DRIVER}") from error
        self._allocations: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise DibrError(f"CUDA refuses: {_sentence(error)}") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._explained():
            self._context.push()
        try:
            yield
        finally:
            with self._explained():
                self._driver.Context.pop()

    def allocate(self, size: int) -> int:
        with self._explained():
            allocation = self._driver.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def _free(self, address: int) -> None:
        with self._explained():
            self._allocations.pop(address).free()

    def copy_to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        with self._explained():
            self._driver.memcpy_htod_async(address, array, self._streams[stream])

    def copy_to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        with self._explained():
            self._driver.memcpy_dtoh_async(array, address, self._streams[stream])

    def create_stream(self) -> int:
        with self._explained():
            stream = self._driver.Stream(self._NON_BLOCKING)
        self._streams[stream.handle] = stream
        return stream.handle

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        with self._explained():
            self._streams[stream].synchronize()


def _check_index(index: int, count: int) -> None:
    if count == 0:
        raise DoorAbsent(f"this machine has no CUDA device: {_NO_DRIVER}")
    if not 0 <= index < count:
        raise DoorAbsent(f"device must be from 0 to {count - 1}, got {index}: this machine has {count} CUDA devices")


def _sentence(error: BaseException) -> str:
    return one_line(error).rstrip(".") or type(error).__name__
