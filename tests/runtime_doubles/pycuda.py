"""A double of pycuda over the double of CUDA's driver, after pycuda 2026.1, which itself was not tried."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from dibr_deploy.runtime import cuda

from .cuda_driver import Driver


class PyCudaDriver(ModuleType):
    """Of ``pycuda.driver`` what the runner uses."""

    class Error(Exception):
        pass

    def __init__(self, driver: Driver) -> None:
        super().__init__("pycuda.driver")
        error = self.Error

        def call(name: str, *arguments: Any) -> Any:
            result, *values = getattr(driver, name)(*arguments)
            if result:
                raise error(f"{name} failed: {result.name}")
            return values[0] if values else None

        class Context:
            def __init__(self, index: int) -> None:
                self.handle = call("cuDevicePrimaryCtxRetain", index)

            def push(self) -> None:
                call("cuCtxPushCurrent", self.handle)

            @staticmethod
            def pop() -> None:
                call("cuCtxPopCurrent")

        class Device:
            def __init__(self, index: int) -> None:
                self.index = index

            @staticmethod
            def count() -> int:
                return call("cuDeviceGetCount")

            def name(self) -> str:
                return "NVIDIA Double"

            def compute_capability(self) -> tuple[int, int]:
                return driver.devices[self.index]

            def retain_primary_context(self) -> Context:
                return Context(self.index)

        class DeviceAllocation:
            def __init__(self, size: int) -> None:
                self.address = int(call("cuMemAlloc", size))

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                call("cuMemFree", self.address)

        class Stream:
            def __init__(self, flags: int) -> None:
                self.handle = call("cuStreamCreate", flags).value

            def synchronize(self) -> None:
                call("cuStreamSynchronize", self.handle)

            def __del__(self) -> None:
                call("cuStreamDestroy", self.handle)

        self.Context, self.Device, self.Stream, self.mem_alloc = Context, Device, Stream, DeviceAllocation
        self.init = lambda: call("cuInit", 0)
        self.memcpy_htod_async = lambda dest, src, stream: call(
            "cuMemcpyHtoDAsync", dest, src.ctypes.data, src.nbytes, stream.handle
        )
        self.memcpy_dtoh_async = lambda dest, src, stream: call(
            "cuMemcpyDtoHAsync", dest.ctypes.data, src, dest.nbytes, stream.handle
        )


def install_pycuda(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    """pycuda without cuda-python beside it."""
    package = ModuleType("pycuda")
    package.__spec__ = ModuleSpec("pycuda", None)
    package.driver = PyCudaDriver(driver)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    monkeypatch.setattr(cuda, "_is_installed", lambda name: name == "pycuda")
