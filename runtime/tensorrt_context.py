"""One execution context of a TensorRT engine: what one thread uses at a time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy.errors import DibrError

from . import dlpack
from .cuda import CudaDevice
from .cuda_graphs import CudaGraphs, GraphKey
from .device_arrays import ALIGNMENT, DeviceArray, GrowingBuffer, device_view
from .tensorrt_engine import EngineTensor, LoadedEngine, choose_profile


class InputState(NamedTuple):
    """What an execution context has to be told before it runs; a CUDA graph is of one such state."""

    profile: int
    shapes: tuple[tuple[int, ...], ...]
    """Of every input."""
    values: tuple[tuple[int, ...], ...]
    """Of every shape input."""


class ExecutionContext:
    """An execution context with a stream, buffers and graphs of its own. The device's context must be current.

    Args:
        engine: from which any number of contexts may be made.
        axes: the inputs' shapes in the model, for errors.
        cuda_graphs: record and replay the launches of each shape.
    """

    def __init__(
        self, engine: LoadedEngine, device: CudaDevice, axes: dict[str, tuple[Any, ...]], *, cuda_graphs: bool
    ) -> None:
        self.last_shapes: tuple[tuple[int, ...], ...] = ()
        """Of the inputs of the last run."""
        self._engine = engine
        self._device = device
        self._axes = axes
        with engine.listener.explained("make an execution context"):
            self._context = engine.engine.create_execution_context()
            if self._context is None:
                raise engine.listener.failure("make an execution context")
        self._stream = device.create_stream()
        self._graphs = CudaGraphs(device, self._stream)
        # What TensorRT writes to host memory while it enqueues would not be written by a replay.
        self._uses_graphs = cuda_graphs and device.supports_graphs and not any(out.on_host for out in engine.outputs)
        self._buffers = {
            tensor.name: GrowingBuffer(device, self._graphs.forget)
            for tensor in (*engine.inputs, *engine.outputs)
            if not tensor.on_host
        }
        self._host_values: dict[str, np.ndarray] = {}
        self._told: InputState | None = None
        """What the context was told last; None where that is not sure."""
        self._has_run_as_told = False
        self._addresses: dict[str, int] = {}
        """That the context was told last."""

    def run(self, feed: Mapping[str, Any], *, on_device: bool) -> dict[str, Any]:
        """Run once.

        Args:
            feed: every input by name, in host memory or as a tensor on the device, checked against the model.
            on_device: leave outputs in device memory of their own.

        Returns:
            Every output by name. All work is done, and no input is read any more.

        Raises:
            DibrError: an input is not where or what it must be, fits no profile, or TensorRT or CUDA refuses.
        """
        try:
            views = self._views(feed)
            self._tell(self._state(feed, views))
            addresses = {
                tensor.name: views[tensor.name].address
                if tensor.name in views
                else self._uploaded(tensor, feed[tensor.name])
                for tensor in self._engine.inputs
                if not tensor.on_host
            }
            outputs = self._outputs(on_device)
            addresses |= {
                name: output.address if isinstance(output, DeviceArray) else self._buffers[name].at_least(output.nbytes)
                for name, output in outputs.items()
                if name in self._buffers
            }
            self._enqueue(addresses)
            for name, output in outputs.items():
                if name in self._buffers and isinstance(output, np.ndarray) and output.nbytes:
                    self._device.copy_to_host(output, addresses[name], self._stream)
        except BaseException:
            self._told = None
            with suppress(DibrError):  # the first error says more
                self._device.synchronize(self._stream)
            raise
        self._synchronize()
        for name in self._host_values.keys() & outputs.keys():
            outputs[name] = outputs[name].copy()
        return outputs

    def _views(self, feed: Mapping[str, Any]) -> dict[str, dlpack.View]:
        """The inputs that are on a device already, to be read in place."""
        views = {}
        for tensor in self._engine.inputs:
            value = feed[tensor.name]
            if isinstance(value, np.ndarray):
                continue
            if tensor.on_host:
                raise DibrError(f"input {tensor.name} is a shape, which must be in host memory: pass a numpy array")
            views[tensor.name] = device_view(tensor.name, value, self._device, self._stream, tensor.dtype)
        return views

    def _state(self, feed: Mapping[str, Any], views: Mapping[str, dlpack.View]) -> InputState:
        inputs = self._engine.inputs
        shapes = {tensor.name: tuple(views.get(tensor.name, feed[tensor.name]).shape) for tensor in inputs}
        values = {tensor.name: tuple(map(int, feed[tensor.name].flat)) for tensor in inputs if tensor.on_host}
        on_device = {tensor.name: shapes[tensor.name] for tensor in inputs if not tensor.on_host}
        profile = choose_profile(self._engine.profiles, on_device, values, self._axes)
        self.last_shapes = tuple(shapes.values())
        return InputState(profile, self.last_shapes, tuple(values.values()))

    def _tell(self, state: InputState) -> None:
        """Profile, shapes and shape values to the context, where they are not those of the last run."""
        if state == self._told:
            return
        self._told, self._has_run_as_told = None, False
        listener, context = self._engine.listener, self._context
        with listener.explained("take the inputs' shapes"):
            fits = True
            if context.active_optimization_profile != state.profile:
                fits = context.set_optimization_profile_async(state.profile, self._stream)
            values = iter(state.values)
            for tensor, shape in zip(self._engine.inputs, state.shapes, strict=True):
                if tensor.on_host:
                    fits = fits and self._place_on_host(tensor, shape, next(values))
                else:
                    fits = fits and context.set_input_shape(tensor.name, shape)
            missing = context.infer_shapes() if fits else []
            if not fits or missing:
                raise listener.failure("take the inputs' shapes", *(f"{name} is not specified" for name in missing))
        self._told = state

    def _place_on_host(self, tensor: EngineTensor, shape: tuple[int, ...], values: tuple[int, ...]) -> bool:
        """The values of a shape input where TensorRT reads them."""
        memory = self._host_memory(tensor.name, len(values), tensor.dtype)
        memory[:] = values
        return self._context.set_tensor_address(tensor.name, memory.ctypes.data)

    def _host_memory(self, name: str, count: int, dtype: np.dtype) -> np.ndarray:
        """Memory for a shape, [count] at an aligned address, the same one as before while the count is."""
        memory = self._host_values.get(name)
        if memory is None or len(memory) != count:
            size = max(count, 1) * dtype.itemsize
            block = np.zeros(size + ALIGNMENT, np.uint8)
            start = -block.ctypes.data % ALIGNMENT
            memory = self._host_values[name] = block[start : start + size].view(dtype)[:count]
        return memory

    def _uploaded(self, tensor: EngineTensor, array: np.ndarray) -> int:
        """Address of a copy of an input, which is complete in the order of the stream."""
        address = self._buffers[tensor.name].at_least(array.nbytes)
        if array.nbytes:
            self._device.copy_to_device(address, array, self._stream)
        return address

    def _outputs(self, on_device: bool) -> dict[str, Any]:
        """Uninitialised arrays of the outputs' shapes, by name."""
        outputs: dict[str, Any] = {}
        for tensor in self._engine.outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if -1 in shape:
                raise DibrError(
                    f"output {tensor.name} has a shape that depends on the inputs' values: provider tensorrt takes "
                    f"none of these, cpu and cuda do"
                )
            if tensor.on_host:
                memory = self._host_memory(tensor.name, int(np.prod(shape)), tensor.dtype)
                self._set_address(tensor.name, memory.ctypes.data)
                outputs[tensor.name] = memory.reshape(shape)
            elif on_device:
                outputs[tensor.name] = DeviceArray(self._device, shape, tensor.dtype)
            else:
                outputs[tensor.name] = np.empty(shape, tensor.dtype)
        return outputs

    def _enqueue(self, addresses: Mapping[str, int]) -> None:
        def ordinary() -> None:
            for name, address in addresses.items():
                self._set_address(name, address)
            with self._engine.listener.explained("run the engine"):
                if not self._context.execute_async_v3(self._stream):
                    raise self._engine.listener.failure("run the engine")

        if self._uses_graphs:
            # TensorRT brings a context up to date with new shapes in the next ordinary run, and a graph is of a context
            # that is: where shapes have changed, even a shape that has a graph runs once the ordinary way.
            key = GraphKey(self._told, tuple(addresses.values()))
            self._graphs.run(key, ordinary, may_replay=self._has_run_as_told and self._may_be_captured())
        else:
            ordinary()
        self._has_run_as_told = True

    def _may_be_captured(self) -> bool:
        """TensorRT-RTX knows; TensorRT does not say before."""
        asked = getattr(self._context, "is_stream_capturable", None)
        return asked is None or asked(self._stream)

    def _set_address(self, name: str, address: int) -> None:
        if self._addresses.get(name) != address:
            with self._engine.listener.explained(f"take the address of {name}"):
                if not self._context.set_tensor_address(name, address):
                    raise self._engine.listener.failure(f"take the address of {name}")
            self._addresses[name] = address

    def _synchronize(self) -> None:
        try:
            self._device.synchronize(self._stream)
        except DibrError as error:
            self._told = None
            raise self._engine.listener.failure("run the engine", str(error)) from error

    def close(self) -> None:
        """Give back graphs, buffers, the execution context and its stream, in this order."""
        self._graphs.clear()
        for buffer in self._buffers.values():
            buffer.free()
        self._context = None
        self._device.destroy_stream(self._stream)
