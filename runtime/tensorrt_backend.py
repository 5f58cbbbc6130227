"""A bundle's TensorRT engine as a backend of ``Session``: several execution contexts, any number of threads."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from typing import Any

import numpy as np

from dibr_deploy.errors import DibrError

from .backend import TensorInfo
from .bundle import Bundle
from .cuda import CudaDevice, open_device
from .libraries import check_schema_version
from .manifest import Tensor
from .tensorrt_context import ExecutionContext
from .tensorrt_engine import LoadedEngine, choose_engine


class TensorRtBackend:
    """Runs the first engine of a bundle that is for this machine. Several threads may run it at the same time.

    Args:
        bundle: with at least one engine.
        instances: execution contexts, each with a stream and buffers of its own: how many runs may be on the device at
            the same time. More threads wait.
        cuda_graphs: record the launches of each shape once and replay them.
        device: number of the CUDA device.

    Raises:
        DoorAbsent: TensorRT, cuda-python and pycuda, the driver, the device or our plugin library is missing, or the
            bundle has no engine for them; one sentence that says which and what to do.
        DibrError: the bundle's ops are newer than this installation, an engine is damaged, or TensorRT refuses it.
    """

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]

    def __init__(self, bundle: Bundle, *, instances: int = 1, cuda_graphs: bool = True, device: int = 0) -> None:
        if instances < 1:
            raise DibrError(f"instances must be at least 1, got {instances}")
        check_schema_version(bundle.path, bundle.manifest.schema_version)
        self.inputs = [_info(tensor) for tensor in bundle.manifest.inputs]
        self.outputs = [_info(tensor) for tensor in bundle.manifest.outputs]
        self._device = open_device(device)
        checked = choose_engine(bundle, self._device.compute_capability)
        axes = {info.name: info.shape for info in self.inputs}
        self._contexts: list[ExecutionContext] = []
        with self._device.current():
            engine = LoadedEngine(checked, bundle)
            # Also where the object goes away without close(); at the end of the process CUDA clears up.
            self._closer = weakref.finalize(self, _close, self._device, self._contexts, engine)
            self._closer.atexit = False
            for _ in range(instances):
                self._contexts.append(ExecutionContext(engine, self._device, axes, cuda_graphs=cuda_graphs))
        self._input_names = [tensor.name for tensor in engine.inputs]
        self._idle = Condition()
        self._closed = False
        self._free = list(self._contexts)

    def run(self, feed: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Run once.

        Args:
            feed: every input by name: a C-contiguous numpy array, or a tensor on the device with ``__dlpack__``, which
                is read where it is. Names, dtypes and shapes have been checked.

        Returns:
            Every output by name, in host memory.

        Raises:
            DibrError: an input is on another device, not contiguous or not aligned, fits no optimization profile, or
                TensorRT or CUDA refuses; or the backend is closed.
        """
        with self._context_for(feed) as context:
            return self._ordered(context.run(feed, on_device=False))

    def run_on_device(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Like ``run``, but every output stays on the device, in memory of its own that no later run touches: an object
        with ``__dlpack__``. Its values are complete."""
        with self._context_for(feed) as context:
            return self._ordered(context.run(feed, on_device=True))

    def close(self) -> None:
        """Give back contexts, buffers and the engine, once every run that has begun has ended. Outputs that
        ``run_on_device`` returned stay."""
        with self._idle:
            self._closed = True
            self._idle.notify_all()
            self._idle.wait_for(lambda: len(self._free) == len(self._contexts))
            self._free = []
            self._closer()

    @contextmanager
    def _context_for(self, feed: Mapping[str, Any]) -> Iterator[ExecutionContext]:
        """An execution context for this thread alone, if possible one that has just run inputs of these shapes, and the
        device's context for the thread."""
        shapes = tuple(tuple(feed[name].shape) for name in self._input_names)
        with self._idle:
            self._idle.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise DibrError("the TensorRT engine is closed: open the bundle again")
            context = next((free for free in self._free if free.last_shapes == shapes), self._free[0])
            self._free.remove(context)
        try:
            with self._device.current():
                yield context
        finally:
            with self._idle:
                self._free.append(context)
                self._idle.notify_all()

    def _ordered(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        return {info.name: outputs[info.name] for info in self.outputs}


def _close(device: CudaDevice, contexts: list[ExecutionContext], engine: LoadedEngine) -> None:
    with device.current():
        while contexts:
            contexts.pop().close()
        engine.close()


def _info(tensor: Tensor) -> TensorInfo:
    if tensor.dtype == "bfloat16":
        raise DibrError(f"the model's {tensor.name} has type bfloat16, which numpy has no dtype for")
    return TensorInfo(tensor.name, np.dtype(tensor.dtype), tensor.shape)
