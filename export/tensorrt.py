"""ONNX to a TensorRT engine with this project's plugins. Needs TensorRT, or TensorRT-RTX, and neither torch nor onnx.

TensorRT builds on the GPU that shall run the engine. TensorRT-RTX needs no GPU to build: its engines are finished for
the device when they are loaded.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dibr_deploy import _native
from dibr_deploy.errors import DibrError, DoorAbsent, one_line
from dibr_deploy.files import write_atomically
from dibr_deploy.interrupts import collected_interrupts
from dibr_deploy.runtime.bundle import sha256
from dibr_deploy.runtime.manifest import FLAVOURS, Engine, Profile
from dibr_deploy.runtime.onnx_file import parse_interface
from dibr_deploy.runtime.probes import Problem, driver
from dibr_deploy.runtime.schema import OP_DOMAIN
from dibr_deploy.runtime.tensorrt_engine import MODULES, PLUGIN_LIBRARY, Listener, listener_of, load_plugins

from .profiles import Sizes, optimization_profiles

HARDWARE_COMPATIBLE = ("none", "ampere_plus", "same_compute_capability")

# "IBuilder::x: Error Code 4: API Usage Error (what is wrong In f at /_src/file.cpp:12)" says "what is wrong".
_BEFORE_WORDS = re.compile(r"^.*?Error Code \d+: ([\w ]+\()?")
_PLACE = re.compile(r"\.? ?\bIn \S+ at /\S+( \((?=cudaError))?")
_FROM_PARSER = re.compile(r"ModelImporter\.cpp:\d+: ")
"""Its remarks on a node, which ``_parser_words`` says in fewer lines."""
_WITHOUT_CUDA, _CUDA_OPTION = "is not available in this build of libdibr", "-C cmake.define.DIBR_CUDA=ON"
_SAID = 4
"""How many messages of TensorRT an error repeats."""


class Progress(NamedTuple):
    """How far a build is."""

    phase: str
    """What TensorRT says it does."""
    fraction: float
    """Of the whole build, 0 to 1, never less than before."""


def build_engine(
    model: bytes,
    *,
    flavour: str = "auto",
    sizes: Sizes | Sequence[Sizes] = (),
    version_compatible: bool = False,
    hardware_compatible: str = "none",
    compute_capabilities: Sequence[str] = (),
    carry_plugin: bool = False,
    timing_cache: str | Path | None = None,
    optimization_level: int | None = None,
    workspace: int | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> tuple[bytes, Engine]:
    """Build an engine of an ONNX model. Its precision is that of the graph; TF32 is off.

    Args:
        model: content of an ONNX file that ``to_onnx`` wrote.
        flavour: "tensorrt", "tensorrt_rtx", or "auto" for the first of them that is installed.
        sizes: smallest, usual and largest size of each dynamic axis by its name, for example
            ``{"batch": (1, 8, 32)}``, which is the default of an axis called batch; every other axis must be given. By
            the name of an input instead: its smallest, usual and largest shape, or, where the engine reads the input
            as a shape (image_size), its values. A sequence makes an optimization profile of each of its members.
        version_compatible: later versions of the same major may load the engine. TensorRT alone.
        hardware_compatible: one of HARDWARE_COMPATIBLE: which other devices may run it. TensorRT alone.
        compute_capabilities: for example ``("8.9", "12.0")``: the devices to build for. TensorRT-RTX alone; by default
            it builds for 8.0 and all later ones.
        carry_plugin: the plugin library goes into the engine; who loads it must allow code of the engine to run.
        timing_cache: a file that is read where it exists and written after the build, so that the next one measures
            less. One that does not fit is replaced, with a warning. TensorRT alone.
        optimization_level: 0 to 5, of TensorRT, whose default is 3.
        workspace: largest scratch memory of a layer, bytes; by default what the device has.
        progress: called as the build goes on, from the thread that builds. What it raises ends the build.

    Returns:
        The engine, and its entry for a bundle's manifest.

    Raises:
        DoorAbsent: TensorRT, the plugin library or the device that TensorRT needs is missing.
        DibrError: an argument does not fit, or TensorRT refuses the model; one sentence that says why.
        KeyboardInterrupt: Ctrl-C, once TensorRT has stopped.
    """
    flavour, trt = _import_tensorrt(flavour)
    _check_options(flavour, version_compatible, hardware_compatible, compute_capabilities, timing_cache)
    interface = parse_interface(model, "to build")
    listener = listener_of(trt)
    builder = _builder(trt, flavour, listener)
    plugin = _load_plugins(trt, listener)
    network, parser = _parse(trt, flavour, builder, model, listener)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    _set_compatibility(trt, config, version_compatible, hardware_compatible, compute_capabilities)
    _set_effort(trt, config, optimization_level, workspace)
    if carry_plugin:
        config.plugins_to_serialize = [str(plugin)]
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    shape_inputs = {tensor.name for tensor in tensors if tensor.is_shape_tensor}
    profiles = optimization_profiles(interface.inputs, shape_inputs, sizes)
    _add_profiles(builder, config, profiles, shape_inputs)
    devices = tuple(compute_capabilities) if flavour == "tensorrt_rtx" else (_device_compute_capability(),)
    with _timing_cache(config, timing_cache):
        engine = _build(trt, builder, network, config, progress, listener)
    del parser  # which owns the weights that the network refers to
    target = "".join(f"-sm{device.replace('.', '')}" for device in devices)
    fields = {
        "file": f"{flavour}-{trt.__version__}{target}.engine",
        "flavour": flavour,
        "version": trt.__version__,
        "compute_capability": devices,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
        "plugin_sha256": sha256(plugin.read_bytes()),
        "carries_plugin": carry_plugin,
        "profiles": profiles if any(profiles) else (),
    }
    return engine, Engine.model_validate(fields)


def _import_tensorrt(flavour: str) -> tuple[str, Any]:
    """The flavour and its Python module."""
    if flavour not in (*FLAVOURS, "auto"):
        raise DibrError(f"flavour must be auto, {' or '.join(FLAVOURS)}, got {flavour!r}")
    wanted = FLAVOURS if flavour == "auto" else (flavour,)
    for name in wanted:
        for module in MODULES[name]:
            if importlib.util.find_spec(module) is not None:
                return name, _imported(module)
    packages = " or ".join(wanted)
    raise DoorAbsent(
        f"{' and '.join(FLAVOURS[name] for name in wanted)} cannot be used here: the Python package {packages} is not "
        f"installed; install the one from NVIDIA that fits the CUDA driver"
    )


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise DoorAbsent(f"the Python package {module} is installed but cannot be loaded: {error}") from error


def _check_options(
    flavour: str,
    version_compatible: bool,
    hardware_compatible: str,
    compute_capabilities: Sequence[str],
    timing_cache: str | Path | None,
) -> None:
    if timing_cache is not None and not Path(timing_cache).parent.is_dir():
        raise DibrError(f"timing_cache must lie in a folder that exists, got {timing_cache}")
    if hardware_compatible not in HARDWARE_COMPATIBLE:
        raise DibrError(
            f"hardware_compatible must be one of {', '.join(HARDWARE_COMPATIBLE)}, got {hardware_compatible!r}"
        )
    if flavour == "tensorrt" and compute_capabilities:
        raise DibrError(
            "compute_capabilities are of TensorRT-RTX: TensorRT builds for the device that it builds on, and for "
            "others with hardware_compatible"
        )
    if flavour == "tensorrt_rtx" and version_compatible:
        raise DibrError("version_compatible is of TensorRT: TensorRT-RTX has no version-compatible engines")
    if flavour == "tensorrt_rtx" and timing_cache is not None:
        raise DibrError("timing_cache is of TensorRT: TensorRT-RTX measures nothing as it builds")
    if flavour == "tensorrt_rtx" and hardware_compatible != "none":
        raise DibrError(
            "hardware_compatible is of TensorRT: an engine of TensorRT-RTX runs on every device of "
            "compute_capabilities, by default 8.0 and later"
        )


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise DibrError(f"{name} must be in [{low}, {high}], got {value}")
    return value


def _member(enumeration: Any, name: str) -> Any:
    """A member that a version of TensorRT may lack."""
    try:
        return enumeration.__members__[name.upper()]
    except KeyError:
        raise DibrError(f"this TensorRT has no {enumeration.__name__} {name}") from None


def _said(listener: Listener) -> list[str]:
    """What TensorRT reported in this thread since it was last asked."""
    reports = [report for report in listener.complaints.take() if not _FROM_PARSER.match(report)]
    return list(dict.fromkeys(filter(None, map(_words, reports))))[-_SAID:]


def _words(message: str) -> str:
    """A message of TensorRT without the codes and places around it."""
    line = _PLACE.sub("", _BEFORE_WORDS.sub("", one_line(message)))
    surplus = line.count(")") - line.count("(")
    if surplus > 0 and line.endswith(")" * surplus):
        line = line[:-surplus]
    return line.strip()


def _builder(trt: Any, flavour: str, listener: Listener) -> Any:
    listener.complaints.take()
    try:
        return trt.Builder(listener.logger)
    except AttributeError:
        raise DoorAbsent(f"{trt.__name__} {trt.__version__} is a runtime alone and builds no engines") from None
    except (TypeError, RuntimeError):  # which is how the bindings show that TensorRT gave none
        why = "; ".join(_said(listener)) or "it does not say why"
        raise DoorAbsent(
            f"{FLAVOURS[flavour]} cannot build engines here: it needs a CUDA device ({why}); build where the engine "
            f"will run, or with TensorRT-RTX, which needs no device to build"
        ) from None


def _load_plugins(trt: Any, listener: Listener) -> Path:
    """Path of the plugin library, once its plugins are in TensorRT's registry."""
    try:
        path = _native.library_path(PLUGIN_LIBRARY)
    except FileNotFoundError as error:
        raise DoorAbsent(f"engines need the {OP_DOMAIN} plugins, but {error}") from None
    load_plugins(trt, listener)
    return path


def _parse(trt: Any, flavour: str, builder: Any, model: bytes, listener: Listener) -> tuple[Any, Any]:
    """The network, and the parser, which must live as long."""
    if flavour == "tensorrt_rtx":
        _check_parser_library()
    # Networks of TensorRT 11 and of TensorRT-RTX are always strongly typed, and setting the flag is deprecated there.
    flags = 0
    if flavour == "tensorrt" and trt.__version__.startswith("10."):
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, listener.logger)
    listener.complaints.take()
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        said = "; ".join(dict.fromkeys([*_said(listener), *map(_parser_words, errors)]))
        raise DibrError(f"{FLAVOURS[flavour]} cannot take the model: {said or 'it does not say why'}")
    return network, parser


def _parser_words(error: Any) -> str:
    node = " ".join(filter(None, (error.node_operator(), "node", error.node_name())))
    return f"{node}: {_words(error.desc())}" if error.node_operator() else _words(error.desc())


def _check_parser_library() -> None:
    """TensorRT-RTX's parser ends the process where it does not find the library without a version in its name."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    for folder in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
        versioned = sorted(folder.glob("libtensorrt_rtx.so.*"))
        if versioned and not (folder / "libtensorrt_rtx.so").exists():
            raise DoorAbsent(
                f"TensorRT-RTX's ONNX parser opens {folder}/libtensorrt_rtx.so, which its package lacks: "
                f"ln -s {versioned[0].name} {folder}/libtensorrt_rtx.so"
            )


def _set_compatibility(
    trt: Any, config: Any, version_compatible: bool, hardware_compatible: str, compute_capabilities: Sequence[str]
) -> None:
    if version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if hardware_compatible != "none":
        config.hardware_compatibility_level = _member(trt.HardwareCompatibilityLevel, hardware_compatible)
    if compute_capabilities:
        _target(trt, config, compute_capabilities)


def _set_effort(trt: Any, config: Any, optimization_level: int | None, workspace: int | None) -> None:
    if optimization_level is not None:
        config.builder_optimization_level = _within("optimization_level", optimization_level, 0, 5)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _within("workspace", workspace, 0, 1 << 62))


def _target(trt: Any, config: Any, compute_capabilities: Sequence[str]) -> None:
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name[:2] == "SM"
    }
    unknown = [name for name in compute_capabilities if name not in known]
    if unknown:
        raise DibrError(f"compute_capabilities must be among {', '.join(known)}, got {unknown[0]!r}")
    config.num_compute_capabilities = len(compute_capabilities)
    for index, name in enumerate(compute_capabilities):
        if not config.set_compute_capability(known[name], index):
            raise DibrError(f"TensorRT-RTX refuses the compute capability {name}")


def _add_profiles(builder: Any, config: Any, profiles: Sequence[dict[str, Profile]], shape_inputs: set[str]) -> None:
    for ranges in filter(None, profiles):
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            set_range = profile.set_shape_input if name in shape_inputs else profile.set_shape
            set_range(name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) < 0:
            raise DibrError(f"TensorRT refuses the sizes {ranges}")


@contextlib.contextmanager
def _timing_cache(config: Any, path: str | Path | None) -> Iterator[None]:
    """Lends a config the cache in a file, and writes it back where nothing is raised."""
    if path is None:
        yield
        return
    cache = _read_timing_cache(config, Path(path))
    yield
    write_atomically(path, bytes(cache.serialize()))


def _read_timing_cache(config: Any, path: Path) -> Any:
    """The cache in a file, else an empty one. One that does not fit is ignored with a warning."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise DibrError(f"timing_cache must be a file that can be read, got {path}: {error.strerror}") from error
    cache, empty = config.create_timing_cache(content), config.create_timing_cache(b"")
    # TensorRT makes an empty cache of what it cannot read.
    fits = cache is not None and (not content or bytes(cache.serialize()) != bytes(empty.serialize()))
    if not (fits and config.set_timing_cache(cache, False)):
        warnings.warn(f"timing cache {path} is damaged or of another device, and is replaced", stacklevel=2)
        config.set_timing_cache(empty, False)
        return empty
    return cache


def _build(trt: Any, builder: Any, network: Any, config: Any, progress: Any, listener: Listener) -> bytes:
    listener.complaints.take()
    # An exception that TensorRT's own frames meet would end the process.
    with collected_interrupts() as interrupted:
        monitor = _monitor(trt, progress, interrupted)
        config.progress_monitor = monitor
        serialized = builder.build_serialized_network(network, config)
    if interrupted.is_set():
        raise KeyboardInterrupt
    if monitor.failure is not None:
        raise monitor.failure
    if serialized is None:
        said = "; ".join(_said(listener)) or "it does not say why"
        remedy = f"; build dibr_deploy again with {_CUDA_OPTION}" if _WITHOUT_CUDA in said else ""
        raise DibrError(f"TensorRT cannot build the engine: {said}{remedy}")
    return bytes(serialized)


def _monitor(trt: Any, progress: Callable[[Progress], object] | None, interrupted: threading.Event) -> Any:
    """Passes progress on, and stops the build on Ctrl-C or where ``progress`` raises."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self.phases = _Phases()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            event = self.phases.step(phase_name, step)
            if progress is not None and self.failure is None and not interrupted.is_set():
                try:
                    progress(event)
                except BaseException as error:
                    self.failure = error
            return self.failure is None and not interrupted.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.phases.finish(phase_name)

    return Monitor()


class _Phases:
    """Phases under way, which lie in each other, and how far the outermost one is. TensorRT may call from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[float, float]] = {}
        """By name: where it begins in the whole, and how much of the whole one of its steps is."""
        self._fraction = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            begin, width = self._phases.get(parent or "", (0.0, 1.0))
            self._phases[name] = (begin, width / max(steps, 1))

    def step(self, name: str, step: int) -> Progress:
        """The step is complete."""
        with self._lock:
            begin, width = self._phases.get(name, (self._fraction, 0.0))
            self._phases[name] = (begin + width, width)
            self._fraction = min(max(self._fraction, begin + width), 1.0)
            return Progress(name, self._fraction)

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)


def _device_compute_capability() -> str:
    """Of the device that TensorRT built on, the first that CUDA shows."""
    try:
        devices = driver()["devices"]
    except Problem as problem:
        raise DibrError(f"the CUDA driver does not tell the device's compute capability: {problem}") from problem
    return str(devices[0]["compute_capability"])
