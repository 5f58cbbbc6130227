"""A double of TensorRT's Python module: an engine is an ONNX file, which ONNX Runtime executes on the CPU.

It has what the runner uses and nothing more, under the names and with the parameters of the real module, and refuses
what TensorRT refuses. tests/runtime/test_tensorrt_backend.py compares it with the real bindings.
"""

from __future__ import annotations

import ctypes
import enum
import json
import weakref
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

from dibr_deploy import _native
from dibr_deploy.runtime import schema

from .cuda_driver import ALIGNMENT, Driver

_MAGIC = b"engine of the double\n"
_TYPES = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
}


def engine_bytes(model: bytes, profiles: list[dict[str, list[list[int]]]], shape_inputs: tuple[str, ...] = ()) -> bytes:
    """An engine for the double. profiles: for each, [min, opt, max] by input name."""
    header = {"profiles": profiles, "shape_inputs": shape_inputs}
    return _MAGIC + json.dumps(header).encode() + b"\n" + model


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None: ...


class IErrorRecorder:
    def __init__(self) -> None: ...


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    UINT8 = 5
    INT64 = 8


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Behaviour:
    """What tests want to go wrong, and what they ask."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.calls: list[tuple[str, str, tuple[Any, ...]]] = []
        """Class, method and arguments of every call."""
        self.executions: list[tuple[int, ...]] = []
        """Batches of all executions, in order."""
        self.starts = True
        self.fails: str = ""
        """What an execution fails with; with a recorder it goes there, else to the logger."""
        self.capturable = True
        self.creators: list[Any] = []
        self.alive: list[str] = []
        """Classes of the objects that exist, in the order of their making."""
        self.gone: list[str] = []
        """Of those that no longer exist, in the order of their end."""
        self.has_another_logger = False
        """Another part of the process came first: what goes to our logger is lost."""

    def count(self, method: str) -> int:
        return sum(name == method for _, name, _ in self.calls)


class _Object:
    """Keeps account of itself and of every call of a public method."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        behaviour.alive.append(type(self).__name__)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if name.startswith("_") or not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            behaviour = object.__getattribute__(self, "_behaviour")
            behaviour.calls.append((type(self).__name__, name, arguments))
            assert behaviour.driver.has_current_context(), f"{name} without a current context"
            return value(*arguments)

        return call

    def __del__(self) -> None:
        self._behaviour.alive.remove(type(self).__name__)
        self._behaviour.gone.append(type(self).__name__)


class Runtime(_Object):
    def __init__(self, behaviour: Behaviour, logger: Any) -> None:
        super().__init__(behaviour)
        behaviour.calls.append(("Runtime", "__init__", (logger,)))
        self._logger = logger
        self.error_recorder: Any = None
        self.engine_host_code_allowed = False
        if not behaviour.starts:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")

    def _report(self, message: str) -> None:
        if self.error_recorder is None and not self._behaviour.has_another_logger:
            self._logger.log(Severity.ERROR, message)
        if self.error_recorder is not None:
            self.error_recorder.report_error(1, message)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        if not serialized_engine.startswith(_MAGIC):
            self._report("Serialization assertion failed.\nmagic tag does not match")
            return None
        header, model = serialized_engine.removeprefix(_MAGIC).split(b"\n", 1)
        return ICudaEngine(self, model, **json.loads(header))


class ICudaEngine(_Object):
    def __init__(self, runtime: Runtime, model: bytes, profiles: list, shape_inputs: list[str]) -> None:
        super().__init__(runtime._behaviour)
        # Not the runtime itself: who lets it go before the engine must be seen to do so.
        self._runtime = weakref.proxy(runtime)
        self._profiles = profiles
        self._shape_inputs = shape_inputs
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.register_custom_ops_library(str(_native.library_path("libdibr_onnxruntime.so")))
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._infos = {info.name: info for info in (*self._session.get_inputs(), *self._session.get_outputs())}
        self._inputs = [info.name for info in self._session.get_inputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self._infos)

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(self._profiles), 1)

    def get_tensor_name(self, index: int) -> str:
        return list(self._infos)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[_TYPES[self._infos[name].type][0]]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self._shape_inputs else TensorLocation.DEVICE

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in self._infos[name].shape]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        ranges = self._profiles[profile_index] if self._profiles else {}
        return ranges.get(name, [self.get_tensor_shape(name)] * 3)

    def create_execution_context(self) -> IExecutionContext | None:
        return IExecutionContext(self)

    def _dtype(self, name: str) -> np.dtype:
        return np.dtype(_TYPES[self._infos[name].type][1])

    def _outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [name for name in self._infos if name not in self._inputs]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


class IExecutionContext(_Object):
    def __init__(self, engine: ICudaEngine) -> None:
        super().__init__(engine._behaviour)
        self._engine = weakref.proxy(engine)
        self.active_optimization_profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._output_shapes: dict[str, tuple[int, ...]] = {}
        self._is_up_to_date = False
        """With the shapes: an execution outside of a capture has brought it there."""

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.active_optimization_profile = profile_index
        self._shapes, self._is_up_to_date = {}, False
        return 0 <= profile_index < len(self._engine._profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        bounds = zip(low, shape, high, strict=True)
        if len(low) != len(shape) or not all(a in (-1, size) or a <= size <= b for a, size, b in bounds):
            self._engine._runtime._report(f"setInputShape: {name} does not satisfy any optimization profiles")
            return False
        if self._shapes.get(name) != shape:
            self._is_up_to_date = False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % ALIGNMENT == 0, f"{name} is not aligned"
        if name not in self._engine._infos:
            return False
        if name in self._engine._shape_inputs:
            self._is_up_to_date = False
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> list[str]:
        engine = self._engine
        missing = [
            name
            for name in engine._inputs
            if name not in (self._addresses if name in engine._shape_inputs else self._shapes)
        ]
        if not missing:
            values = self._host_values()
            inputs = {name: np.zeros(self._shapes[name], engine._dtype(name)) for name in self._shapes}
            outputs = engine._outputs({**inputs, **values})
            self._output_shapes = {name: value.shape for name, value in outputs.items()}
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._output_shapes[name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        behaviour, engine = self._engine._behaviour, self._engine
        driver = behaviour.driver
        if behaviour.fails:
            engine._runtime._report(behaviour.fails)
            return False
        if driver.is_capturing(stream_handle):
            assert self._is_up_to_date, "a capture of shapes that no ordinary execution has seen"
            if not behaviour.capturable:
                driver.spoil_capture(stream_handle)
                engine._runtime._report("operation not permitted when stream is capturing")
                return False
        self._is_up_to_date = True
        shapes, addresses, values = dict(self._shapes), dict(self._addresses), self._host_values()
        output_shapes = dict(self._output_shapes)

        def execute() -> None:
            state = (self._shapes, {name: value.tolist() for name, value in self._host_values().items()})
            captured = (shapes, {name: value.tolist() for name, value in values.items()})
            assert self._is_up_to_date and state == captured, "a graph of a context that has gone on to other shapes"
            inputs = {}
            for name, shape in shapes.items():
                dtype = engine._dtype(name)
                memory = driver.bytes_at(addresses[name], int(np.prod(shape)) * dtype.itemsize)
                inputs[name] = memory.view(dtype).reshape(shape)
            behaviour.executions.append(tuple(shape[0] for shape in shapes.values()))
            for name, value in engine._outputs({**inputs, **values}).items():
                assert value.shape == output_shapes[name]
                memory = driver.bytes_at(addresses[name], value.nbytes)
                memory[:] = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)

        driver.enqueue(stream_handle, execute)
        return True

    def _host_values(self) -> dict[str, np.ndarray]:
        values = {}
        for name in self._engine._shape_inputs:
            [count] = self._engine._infos[name].shape
            dtype = self._engine._dtype(name)
            content = ctypes.string_at(self._addresses[name], count * dtype.itemsize)
            values[name] = np.frombuffer(content, dtype)
        return values


class IPluginRegistry:
    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    @property
    def all_creators(self) -> list[Any]:
        return self._behaviour.creators

    def load_library(self, plugin_path: str) -> object | None:
        self._behaviour.calls.append(("IPluginRegistry", "load_library", (plugin_path,)))
        if any(creator.plugin_namespace == "ai.dibr" for creator in self._behaviour.creators):
            return None
        self._behaviour.creators += map(Creator, schema.OPS)
        return object()


class Creator:
    plugin_namespace = "ai.dibr"

    def __init__(self, name: str) -> None:
        self.name = name


CLASSES = (ILogger, IErrorRecorder, Runtime, ICudaEngine, IExecutionContext, IPluginRegistry)
ENUMERATIONS = (DataType, TensorLocation, TensorIOMode)


def make_module(driver: Driver, name: str = "tensorrt", version: str = "10.16.1.11") -> ModuleType:
    """The module, with its ``behaviour``; for sys.modules."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    behaviour = Behaviour(driver)
    registry = IPluginRegistry(behaviour)
    contents = {one.__name__: one for one in (*CLASSES, *ENUMERATIONS)}
    contents |= {
        "__version__": version,
        "behaviour": behaviour,
        "Runtime": lambda logger: Runtime(behaviour, logger),
        "get_plugin_registry": lambda: registry,
    }
    vars(module).update(contents)
    return module
