"""The CUDA driver's API as far as these tests use it, and libdibr on device memory: no framework, no toolkit."""

from __future__ import annotations

import ctypes as c
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from cuda_backend.abi import CUDA, Launch, Library, make_params
from cuda_backend.test_bad_input import OUTPUTS


class DriverError(RuntimeError):
    """A call of the driver failed; the message has its name and the driver's own words."""


class Driver:
    def __init__(self) -> None:
        self._library = c.CDLL("libcuda.so.1")
        self.call("cuInit", c.c_uint(0))

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            words = c.c_char_p()
            self._library.cuGetErrorString(status, c.byref(words))
            raise DriverError(f"{name}: {words.value.decode() if words.value else status}")

    def device_count(self) -> int:
        count = c.c_int()
        self.call("cuDeviceGetCount", c.byref(count))
        return count.value


@cache
def driver() -> Driver:
    """Raises OSError where there is no driver library, DriverError where it finds no device."""
    return Driver()


def has_device() -> bool:
    try:
        return driver().device_count() > 0
    except (OSError, DriverError):
        return False


class Context:
    """A context of device 0: the primary one, which torch and every CUDA runtime use, or a new one."""

    def __init__(self, *, primary: bool):
        self.handle, self._device, self._primary = c.c_void_p(), c.c_int(), primary
        driver().call("cuDeviceGet", c.byref(self._device), c.c_int(0))
        if primary:
            driver().call("cuDevicePrimaryCtxRetain", c.byref(self.handle), self._device)
        else:
            driver().call("cuCtxCreate_v2", c.byref(self.handle), c.c_uint(0), self._device)
            driver().call("cuCtxPopCurrent_v2", c.byref(c.c_void_p()))

    @contextmanager
    def current(self) -> Iterator[None]:
        driver().call("cuCtxPushCurrent_v2", self.handle)
        try:
            yield
        finally:
            driver().call("cuCtxPopCurrent_v2", c.byref(c.c_void_p()))

    def destroy(self) -> None:
        if self._primary:
            driver().call("cuDevicePrimaryCtxRelease_v2", self._device)
        else:
            driver().call("cuCtxDestroy_v2", self.handle)


class Buffer:
    """Device memory of exactly the bytes asked for, in the current context."""

    def __init__(self, size: int):
        self.address = c.c_uint64()
        driver().call("cuMemAlloc_v2", c.byref(self.address), c.c_size_t(max(size, 1)))

    def upload(self, array: np.ndarray) -> None:
        if array.nbytes > 0:
            driver().call("cuMemcpyHtoD_v2", self.address, c.c_void_p(array.ctypes.data), c.c_size_t(array.nbytes))

    def download(self, array: np.ndarray) -> None:
        if array.nbytes > 0:
            driver().call("cuMemcpyDtoH_v2", c.c_void_p(array.ctypes.data), self.address, c.c_size_t(array.nbytes))

    def free(self) -> None:
        driver().call("cuMemFree_v2", self.address)


class DriverLibrary(Library):
    """libdibr whose CUDA ops take and return numpy arrays: copied to device memory, one allocation each, and back.

    Outputs and workspace are not initialised on the device, so that initcheck sees what is read before it is written.
    Raises AssertionError where this libdibr has no CUDA kernels."""

    def __init__(self, path: Path, context: Context):
        super().__init__(path)
        self._context = context
        sizes = {"vertices": 1, "faces": 1, "height": 1, "width": 1}
        try:
            self.workspace_size("rasterize", make_params("rasterize", 0, batch=1, **sizes), CUDA)
        except RuntimeError as error:
            raise AssertionError(f"{path} has no CUDA kernels; build with DIBR_CUDA=ON ({error})") from error

    def run(self, op: str, device: int, dtype: int, **values: object) -> None:
        if device != CUDA:
            return super().run(op, device, dtype, **values)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in values.items() if name not in arrays}
        with self._context.current():
            buffers = {name: Buffer(array.nbytes) for name, array in arrays.items()}
            try:
                self._run(op, dtype, plain, arrays, buffers)
            finally:
                for buffer in buffers.values():
                    buffer.free()

    def _run(
        self, op: str, dtype: int, plain: dict[str, object], arrays: dict[str, np.ndarray], buffers: dict[str, Buffer]
    ) -> None:
        for name in arrays.keys() - OUTPUTS[op]:
            assert arrays[name].flags.c_contiguous, name
            buffers[name].upload(arrays[name])
        addresses = {name: buffer.address.value for name, buffer in buffers.items()}
        params = make_params(op, dtype, **plain, **addresses)
        size = self.workspace_size(op, params, CUDA)
        workspace = buffers["workspace"] = Buffer(size)
        self.launch(op, params, Launch(CUDA, None, None, None, workspace.address.value, size))
        driver().call("cuCtxSynchronize")
        for name in arrays.keys() & OUTPUTS[op]:
            buffers[name].download(arrays[name])
