"""TensorRT engines of a bundle: whether one can run here, asked of its manifest before anything is loaded, and loading.

An engine is code for one version of TensorRT, some devices and one build of our plugin library.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy import _native
from dibr_deploy.errors import DibrError, DoorAbsent, EngineRefused, one_line

from . import schema
from .bundle import Bundle, sha256
from .manifest import FLAVOURS, Engine, Profile

PLUGIN_LIBRARY = "libdibr_tensorrt.so"

MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
"""By flavour: the Python modules that load its engines; the second one is what the first one imports."""
LEAN_MODULES = ("tensorrt_lean", "tensorrt_lean_bindings", "tensorrt_dispatch", "tensorrt_dispatch_bindings")
"""TensorRT's runtimes without a builder, which load version-compatible engines."""
_AMPERE = (8, 0)
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}
"""By the names of TensorRT's DataType; it has others that numpy lacks."""


class CheckedEngine(NamedTuple):
    """An engine that may be loaded here, since everything that its manifest asks for is there."""

    entry: Engine
    content: bytes
    module: ModuleType
    """TensorRT's, which will load it."""


def choose_engine(bundle: Bundle, compute_capability: tuple[int, int]) -> CheckedEngine:
    """The bundle's first engine that may be loaded here.

    Args:
        compute_capability: of the device that shall run it.

    Raises:
        DoorAbsent: the bundle has no engine, or TensorRT or our plugin library is missing.
        EngineRefused: TensorRT is here, but none of the engines is for this machine; it says why for each.
        DibrError: there is none for this machine, and one is damaged.
    """
    engines = bundle.manifest.engines
    if not engines:
        raise DoorAbsent(f"bundle {bundle.path} has no TensorRT engine: build one here with {rebuild_command(bundle)}")
    refusals = []
    for entry in engines:
        try:
            return check_engine(bundle, entry, compute_capability)
        except DibrError as error:
            refusals.append(error)
    kind: type[DibrError] = EngineRefused if any(isinstance(error, EngineRefused) for error in refusals) else DoorAbsent
    if not all(isinstance(error, DoorAbsent) for error in refusals):
        kind = DibrError
    raise kind("; ".join(map(str, refusals))) from refusals[0]


def rebuild_command(bundle: Bundle) -> str:
    return f"`dibr export --bundle {bundle.path} --tensorrt`"


def check_engine(bundle: Bundle, entry: Engine, compute_capability: tuple[int, int]) -> CheckedEngine:
    """Compare what the manifest says of an engine with this machine. Nothing of the bundle is loaded.

    Args:
        entry: of ``bundle.manifest.engines``.
        compute_capability: of the device that shall run it.

    Raises:
        DoorAbsent: its TensorRT or our plugin library is missing.
        EngineRefused: it is for another version of these, or for other devices.
        DibrError: the file is not the one of the manifest.
    """
    what = f"engine {entry.file} of bundle {bundle.path}"
    module = _module_for(what, entry, bundle)
    _check_device(what, entry, compute_capability, bundle)
    if not entry.carries_plugin:
        _check_plugin(what, entry, bundle)
    return CheckedEngine(entry, bundle.read(entry.file), module)


def _module_for(what: str, entry: Engine, bundle: Bundle) -> ModuleType:
    names: tuple[str, ...] = MODULES[entry.flavour]
    if entry.version_compatible and entry.flavour == "tensorrt":
        names += LEAN_MODULES
    problems = []
    for name in names:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            problems.append(f"the Python package {name} cannot be loaded ({one_line(error)})")
            continue
        if _loads(module.__version__, entry):
            return module
        problems.append(f"{name} {module.__version__} is installed")
    flavour = FLAVOURS[entry.flavour]
    if not problems:
        raise DoorAbsent(
            f"{what} needs {flavour} {entry.version}, and the Python package {names[0]} is not installed: install that "
            f"version of it, or build the engine again with {rebuild_command(bundle)}"
        )
    wanted = (
        f"{entry.version} or a later {entry.version.split('.')[0]}.x" if entry.version_compatible else entry.version
    )
    raise EngineRefused(
        f"{what} needs {flavour} {wanted}, but {' and '.join(dict.fromkeys(problems))}: install that version, or build "
        f"the engine again with {rebuild_command(bundle)}"
    )


def _loads(installed: str, entry: Engine) -> bool:
    """Whether a version of TensorRT loads the engine: the very same one, or of version-compatible ones any later one of
    the same major."""
    built_by = _numbers(entry.version)
    installed_numbers = _numbers(installed)[: len(built_by)]
    if entry.version_compatible:
        return installed_numbers[0] == built_by[0] and installed_numbers >= built_by
    return installed_numbers == built_by


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def _check_device(what: str, entry: Engine, compute_capability: tuple[int, int], bundle: Bundle) -> None:
    here = "{}.{}".format(*compute_capability)
    built_for = ", ".join(entry.compute_capability)
    # TensorRT-RTX, when it is told no devices, builds for all from Ampere on.
    from_ampere = entry.hardware_compatible == "ampere_plus" or not entry.compute_capability
    if from_ampere and compute_capability < _AMPERE:
        built_for = "8.0 and later"
    elif from_ampere or here in entry.compute_capability:
        return
    raise EngineRefused(
        f"{what} was built for devices of compute capability {built_for}, and this one has {here}: build the engine "
        f"again here with {rebuild_command(bundle)}"
    )


def _check_plugin(what: str, entry: Engine, bundle: Bundle) -> None:
    try:
        path = _native.library_path(PLUGIN_LIBRARY)
    except FileNotFoundError as error:
        raise DoorAbsent(f"{what} needs the {schema.OP_DOMAIN} plugins, but {error}") from None
    actual = sha256(path.read_bytes())
    if actual != entry.plugin_sha256:
        raise EngineRefused(
            f"{what} was built with another {PLUGIN_LIBRARY} than {path} (SHA-256 {entry.plugin_sha256[:12]}..., not "
            f"{actual[:12]}...): build the engine again with {rebuild_command(bundle)}"
        )


class Complaints:
    """The errors that TensorRT reports, kept by the thread that they come from."""

    _MOST = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._errors: deque[tuple[int, str]] = deque(maxlen=self._MOST)

    def add(self, error: str) -> None:
        with self._lock:
            self._errors.append((threading.get_ident(), one_line(error)))

    def take(self) -> list[str]:
        """This thread's, each once; where there are none, those of threads that TensorRT started."""
        with self._lock:
            mine = [entry for entry in self._errors if entry[0] == threading.get_ident()]
            known = {thread.ident for thread in threading.enumerate()}
            taken = mine or [entry for entry in self._errors if entry[0] not in known]
            self._errors = deque((entry for entry in self._errors if entry not in taken), maxlen=self._MOST)
        return list(dict.fromkeys(error for _, error in taken))


class Listener(NamedTuple):
    """What a TensorRT module is given to report to. It lives as long as the process: TensorRT keeps the first logger
    that it sees."""

    complaints: Complaints
    logger: Any
    recorder: Any

    @contextmanager
    def explained(self, task: str) -> Iterator[None]:
        """Makes every exception of TensorRT's Python module, and what TensorRT reports with it, one DibrError.

        task: what could not be done, for example "run the engine".
        """
        self.complaints.take()
        try:
            yield
        except DibrError:
            raise
        except Exception as error:  # of pybind11, or whatever a plugin's host raises
            raise self.failure(task, one_line(error)) from error

    def failure(self, task: str, *more: str) -> DibrError:
        """What went wrong, by all that TensorRT has reported in this thread."""
        said = "; ".join([*self.complaints.take(), *filter(None, more)])
        return DibrError(f"TensorRT could not {task}: {said or 'it does not say why'}")


_listeners: dict[str, Listener] = {}
_lock = threading.Lock()


def listener_of(trt: Any) -> Listener:
    """The process's listener for a TensorRT module."""
    with _lock:
        if trt.__name__ not in _listeners:
            complaints = Complaints()
            _listeners[trt.__name__] = Listener(complaints, _logger(trt, complaints), _recorder(trt, complaints))
        return _listeners[trt.__name__]


def _logger(trt: Any, complaints: Complaints) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                complaints.add(message)

    return Logger()


def _recorder(trt: Any, complaints: Complaints) -> Any:
    """Takes the errors that TensorRT, once it has a recorder, reports to that and no longer to the logger."""

    class Recorder(trt.IErrorRecorder):
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def report_error(self, code: Any, description: str) -> bool:
            complaints.add(description)
            return False

        def num_errors(self) -> int:
            return 0

        def get_error_code(self, index: int) -> Any:
            raise IndexError(index)

        def get_error_desc(self, index: int) -> str:
            raise IndexError(index)

        def has_overflowed(self) -> bool:
            return False

        def clear(self) -> None:
            pass

    return Recorder()


class EngineTensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    """-1 where the size is dynamic."""
    on_host: bool
    """TensorRT reads or writes its values in host memory: it is a shape."""


class LoadedEngine:
    """An engine in device memory, from which execution contexts are made. The device's context must be current."""

    def __init__(self, checked: CheckedEngine, bundle: Bundle) -> None:
        entry, trt = checked.entry, checked.module
        self.listener = listener_of(trt)
        self.profiles = entry.profiles
        task = f"load engine {entry.file} of bundle {bundle.path}"
        with self.listener.explained(task):
            self.runtime = _start(trt, self.listener, task)
            self.runtime.error_recorder = self.listener.recorder
            if entry.carries_plugin or entry.version_compatible:
                self.runtime.engine_host_code_allowed = True
            if not entry.carries_plugin:
                load_plugins(trt, self.listener)
            self.engine = self.runtime.deserialize_cuda_engine(checked.content)
            if self.engine is None:
                raise self.listener.failure(task)
            self.inputs, self.outputs = self._tensors(trt)
        self._check_interface(bundle, entry)

    def close(self) -> None:
        """The engine first: it must not outlive the runtime. Execution contexts must be gone."""
        self.engine = None
        self.runtime = None

    def _tensors(self, trt: Any) -> tuple[list[EngineTensor], list[EngineTensor]]:
        inputs: list[EngineTensor] = []
        outputs: list[EngineTensor] = []
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            dtype = self.engine.get_tensor_dtype(name).name
            if dtype not in _DTYPES:
                raise DibrError(f"the engine's {name} has type {dtype}, which numpy has no dtype for")
            on_host = self.engine.get_tensor_location(name) == trt.TensorLocation.HOST
            tensor = EngineTensor(name, _DTYPES[dtype], tuple(self.engine.get_tensor_shape(name)), on_host)
            is_input = self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(tensor)
        return inputs, outputs

    def _check_interface(self, bundle: Bundle, entry: Engine) -> None:
        """Refuse an engine that is not of the model that the manifest describes. Inputs may be missing: what the model
        does not use, TensorRT drops."""
        manifest = bundle.manifest
        stated = {tensor.name: tensor for tensor in (*manifest.inputs, *manifest.outputs)}
        names = [tensor.name for tensor in self.outputs]
        fits = sorted(names) == sorted(tensor.name for tensor in manifest.outputs)
        for tensor in (*self.inputs, *self.outputs):
            of_model = stated.get(tensor.name)
            fits = fits and of_model is not None and of_model.dtype == tensor.dtype.name
            fits = fits and of_model is not None and _fits(tensor.shape, of_model.shape)
        fits = fits and self._has_profiles(entry)
        if not fits:
            raise DibrError(
                f"engine {entry.file} of bundle {bundle.path} is not what the manifest describes: its inputs, outputs "
                f"or profiles are others; build it again with {rebuild_command(bundle)}"
            )

    def _has_profiles(self, entry: Engine) -> bool:
        for tensor in self.inputs:
            if any(tensor.name in profile for profile in entry.profiles) and not tensor.on_host:
                stated = [_shapes(profile.get(tensor.name)) for profile in entry.profiles]
                actual = [
                    [tuple(shape) for shape in self.engine.get_tensor_profile_shape(tensor.name, index)]
                    for index in range(self.engine.num_optimization_profiles)
                ]
                if stated != actual:
                    return False
            elif -1 in tensor.shape and not tensor.on_host:
                return False
        return True


def _start(trt: Any, listener: Listener, task: str) -> Any:
    """TensorRT's Runtime.

    Where TensorRT cannot start, there is an object too, around a null pointer: only what TensorRT reports tells, and
    whatever is asked of the object ends the process. So does its destruction, which is why it stays.
    """
    runtime = trt.Runtime(listener.logger)
    complaints = listener.complaints.take()
    if complaints:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
        raise listener.failure(task, *complaints)
    return runtime


def _fits(sizes: tuple[int, ...], stated: tuple[int | str, ...]) -> bool:
    return len(sizes) == len(stated) and all(
        size in (-1, expected) or isinstance(expected, str) for size, expected in zip(sizes, stated, strict=True)
    )


def _shapes(profile: Profile | None) -> list[tuple[int, ...]]:
    return [profile.min, profile.opt, profile.max] if profile else []


def load_plugins(trt: Any, listener: Listener) -> None:
    """Our plugins into TensorRT's registry, once per process.

    Raises:
        DibrError: TensorRT does not load the library, or then lacks one of them.
    """
    with _lock:
        registry = trt.get_plugin_registry()
        if not _missing_plugins(registry):
            return
        path = _native.library_path(PLUGIN_LIBRARY)
        if registry.load_library(str(path)) is None:
            raise listener.failure(f"load the plugins of {path}")
        if missing := _missing_plugins(registry):
            raise DibrError(f"TensorRT's registry does not list {', '.join(missing)} after it has loaded {path}")


def _missing_plugins(registry: Any) -> list[str]:
    ours = {creator.name for creator in registry.all_creators if creator.plugin_namespace == schema.OP_DOMAIN}
    return [name for name in schema.OPS if name not in ours]


def choose_profile(
    profiles: tuple[dict[str, Profile], ...],
    shapes: dict[str, tuple[int, ...]],
    values: dict[str, tuple[int, ...]],
    axes: dict[str, tuple[Any, ...]],
) -> int:
    """Number of the first optimization profile that covers these inputs.

    Args:
        profiles: of the manifest.
        shapes: by input name.
        values: of the shape inputs, by name.
        axes: shapes in the model, which have names for dynamic axes, by input name.

    Raises:
        DibrError: none does; it names an input, an axis or value of it and the ranges of the profiles.
    """
    if not profiles:
        return 0
    given = {**shapes, **values}
    misfits = [_misfits(profile, given) for profile in profiles]
    if [] in misfits:
        return misfits.index([])
    name, index = min(misfits, key=len)[0]
    ranges = [f"{profile[name].min[index]} to {profile[name].max[index]}" for profile in profiles if name in profile]
    place = f"value {index}"
    if name in shapes:
        axis = axes[name][index]
        place = f"axis {index} ({axis})" if isinstance(axis, str) else f"axis {index}"
    raise DibrError(
        f"input {name} has {given[name][index]} in {place}, but the engine was built for "
        f"{' or '.join(dict.fromkeys(ranges))}: build one for more sizes with `dibr export --tensorrt`"
    )


def _misfits(profile: dict[str, Profile], given: dict[str, tuple[int, ...]]) -> list[tuple[str, int]]:
    """Inputs and axes whose sizes are out of range."""
    return [
        (name, axis)
        for name, shapes in profile.items()
        if name in given
        for axis, (low, size, high) in enumerate(zip(shapes.min, given[name], shapes.max, strict=True))
        if not low <= size <= high
    ]
