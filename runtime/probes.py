"""What `dibr doctor` tries in processes of their own, since each of these loads what may crash or hang.

A probe returns what it found, or raises Absent where something is not there and Broken where something that is there
does not work. ``main`` prints that as one line of JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dibr_deploy import _native
from dibr_deploy.errors import DibrError, DoorAbsent, one_line

from . import schema

NO_DRIVER = "install the NVIDIA driver, or use a machine that has an NVIDIA GPU"
BUILD = "build dibr_deploy again: pip install --no-build-isolation . -C cmake.define.{}=ON"
WITH_CUDA = BUILD.format("DIBR_CUDA")
WITH_TENSORRT = f"{WITH_CUDA} -C cmake.define.DIBR_TENSORRT=ON"
REINSTALL = "pip install --force-reinstall {}"
REPORT = "report this as a bug"

OPENS, ABSENT, BROKEN = "opens", "absent", "broken"
TIMEOUT = 120.0
"""Seconds that a probe may take; torch from a cold disk takes many."""

_CUDA_ERROR_NO_DEVICE = 100
# Of CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")

Found = dict[str, Any]
"""``says`` is for the reader; the rest is for the report."""


class Problem(Exception):
    """Why a door does not open, and what to do."""

    state: str

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class Absent(Problem):
    state = ABSENT


class Broken(Problem):
    state = BROKEN


def main() -> NoReturn:
    """``-c "..." PROBE ARGUMENT...``: the last line of stdout is the answer."""
    name, *arguments = sys.argv[1:]
    try:
        answer = {"state": OPENS, "reason": "", "remedy": "", **PROBES[name](*arguments)}
    except Problem as problem:
        answer = {"state": problem.state, "reason": str(problem), "remedy": problem.remedy}
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        answer = {"state": BROKEN, "reason": reason, "remedy": f"{REINSTALL.format('dibr_deploy')}; else {REPORT}"}
    print(f"\n{json.dumps(answer)}", flush=True)
    # Some libraries crash as a process ends; that is not what was asked.
    os._exit(0)


def driver() -> Found:
    """Of NVIDIA: its versions and devices."""
    library = _libcuda()
    version = ctypes.c_int()
    _check_cuda(library, "cuDriverGetVersion", ctypes.byref(version))
    devices = _devices(library)
    return {"cuda": _cuda_version(version.value), "kernel": _kernel_module(), "devices": devices}


def _libcuda() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Absent(f"there is no NVIDIA driver ({one_line(error)})", NO_DRIVER) from None
    status = library.cuInit(0)
    if status == _CUDA_ERROR_NO_DEVICE:
        raise Absent("the NVIDIA driver finds no GPU", "use a machine that has one, or give the container its GPU")
    if status != 0:
        raise Broken(f"the NVIDIA driver does not start: {_cuda_error(library, status)}", "reboot, or reinstall it")
    return library


def _check_cuda(library: ctypes.CDLL, function: str, *arguments: Any) -> None:
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise Broken(f"the NVIDIA driver refuses {function}: {_cuda_error(library, status)}", "reinstall the driver")


def _cuda_error(library: ctypes.CDLL, status: int) -> str:
    words = ctypes.c_char_p()
    library.cuGetErrorString(status, ctypes.byref(words))
    return f"error {status}" + (f", {words.value.decode(errors='replace')}" if words.value else "")


def _devices(library: ctypes.CDLL) -> list[dict[str, str]]:
    count = ctypes.c_int()
    _check_cuda(library, "cuDeviceGetCount", ctypes.byref(count))
    devices = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        numbers = ctypes.c_int(), ctypes.c_int()
        _check_cuda(library, "cuDeviceGet", ctypes.byref(device), index)
        _check_cuda(library, "cuDeviceGetName", name, len(name), device)
        for number, attribute in zip(numbers, (_CAPABILITY_MAJOR, _CAPABILITY_MINOR), strict=True):
            _check_cuda(library, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
        major, minor = (number.value for number in numbers)
        devices.append({"name": name.value.decode(errors="replace"), "compute_capability": f"{major}.{minor}"})
    return devices


def _kernel_module() -> str | None:
    """Version of the driver's kernel module, for example 580.95.05."""
    try:
        found = re.search(r"\s(\d+(?:\.\d+)+)\s", _DRIVER_VERSION_FILE.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _cuda_version(number: int) -> str:
    """13000 is 13.0."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cuda_runtime() -> Found:
    """The CUDA runtime that other programs use; libdibr has its own inside."""
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12"):
        with contextlib.suppress(OSError):
            number = ctypes.c_int()
            ctypes.CDLL(name).cudaRuntimeGetVersion(ctypes.byref(number))
            return {"file": name, "version": _cuda_version(number.value)}
    raise Absent("no libcudart is on the library path; libdibr needs none")


def library(path: str) -> Found:
    """Version of the op schema that a native library of ours has, and whether it has CUDA kernels; None where the
    library does not show it."""
    if Path(path).name.startswith("libdibr_torch"):
        _package("torch", "pip install 'dibr_deploy[train]'")
    loaded = _dlopen(path)
    found: Found = {"schema_version": None, "cuda_kernels": None}
    with contextlib.suppress(AttributeError):
        found["schema_version"] = int(loaded.dibr_schema_version())
        found["cuda_kernels"] = bool(loaded.dibr_has_device(1))
    return found


def _dlopen(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise Broken(
            f"{Path(path).name} cannot be loaded: {one_line(error)}", REINSTALL.format("dibr_deploy")
        ) from None


def torch(device: str) -> Found:
    """A triangle through ``dibr_deploy.ops`` on "cpu" or "cuda"."""
    module = _package("torch", "pip install 'dibr_deploy[train]'")
    said = f"torch {module.__version__}"
    if device == "cuda":
        if module.version.cuda is None:
            raise Absent(f"{said} is built without CUDA", "install a torch for CUDA, see https://pytorch.org")
        devices = _gpus(said)
        _cuda_kernels(said)
        if not module.cuda.is_available():
            raise Broken(
                f"{said} cannot use {devices}, which the driver lists",
                f"install a driver for CUDA {module.version.cuda}, or a torch for the driver's CUDA",
            )
        said += f", CUDA {module.version.cuda}, {devices}"
    with _native_library(said):
        ops = importlib.import_module("dibr_deploy.ops")
    positions, faces = (module.from_numpy(array).to(device) for array in _triangle().values())
    _check_picture(said, ops.rasterize(positions, faces, *_SIZE).face_index.cpu().numpy())
    return {"reason": said}


def onnxruntime(provider: str) -> Found:
    """A triangle through a one-node graph with a provider of ``Session``."""
    from .onnxruntime_backend import EXECUTION_PROVIDERS, is_older

    extra = "onnxruntime" if provider == "cpu" else "onnxruntime-gpu"
    module = _package("onnxruntime", f"pip install 'dibr_deploy[{extra}]'")
    said = f"onnxruntime {module.__version__}"
    if is_older(module.__version__, schema.ONNXRUNTIME_API):
        floor = f"1.{schema.ONNXRUNTIME_API}"
        raise Broken(f"{said} is older than {floor}", f"pip install --upgrade '{extra}>={floor}'")
    wanted = EXECUTION_PROVIDERS[provider][0]
    if wanted not in module.get_available_providers():
        raise Absent(f"{said} does not offer {wanted}", _GPU_PACKAGE[provider])
    if provider != "cpu":
        said += f", {_gpus(said)}"
        _cuda_kernels(said)
    return _run_onnxruntime(said, provider, Path(module.__file__))


def _run_onnxruntime(said: str, provider: str, package: Path) -> Found:
    from .onnx_file import OnnxHeader
    from .onnxruntime_backend import OnnxModel, OnnxRuntimeBackend

    header = OnnxHeader(_IR_VERSION, {"": _OPSET, schema.OP_DOMAIN: 1}, {})
    model = OnnxModel(Path("one-triangle.onnx"), triangle_model(), header)
    try:
        with _native_library(said):
            backend = OnnxRuntimeBackend(model, provider, threads=1)
    except DoorAbsent as error:
        if "libdibr_tensorrt_static" in str(error):
            raise Absent(f"{said}: {one_line(error)}", WITH_TENSORRT) from None
        raise Broken(f"{said}: {_why_not_loaded(provider, package) or one_line(error)}", _GPU_LIBRARIES) from None
    except DibrError as error:
        raise Broken(f"{said}: {one_line(error)}", REINSTALL.format("dibr_deploy")) from None
    _check_picture(said, backend.run(_triangle())["face_index"])
    return {"reason": said}


_GPU_PACKAGE = {
    "cpu": REINSTALL.format("onnxruntime"),
    "cuda": "pip uninstall onnxruntime; pip install 'dibr_deploy[onnxruntime-gpu]'",
    "onnxruntime-tensorrt": "pip uninstall onnxruntime; pip install 'dibr_deploy[onnxruntime-gpu]'",
}
_GPU_LIBRARIES = (
    "install CUDA, cuDNN and (for its TensorRT provider) TensorRT in the majors that this onnxruntime names at "
    "https://onnxruntime.ai/docs/execution-providers, and put them on LD_LIBRARY_PATH"
)


def _why_not_loaded(provider: str, package: Path) -> str | None:
    """The dynamic loader's words, which ONNX Runtime keeps to its log."""
    name = "cuda" if provider == "cuda" else "tensorrt"
    try:
        ctypes.CDLL(str(package.parent / "capi" / f"libonnxruntime_providers_{name}.so"))
    except OSError as error:
        return one_line(error)
    return None


def tensorrt(flavour: str) -> Found:
    """Everything up to an engine: the bindings, our plugins in the registry, the device, and TensorRT's runtime."""
    from .tensorrt_engine import LEAN_MODULES, MODULES, PLUGIN_LIBRARY, listener_of, load_plugins

    names = MODULES[flavour] + (LEAN_MODULES if flavour == "tensorrt" else ())
    module = _first_package(names)
    said = f"{module.__name__} {module.__version__}"
    _check_tensorrt_version(said, flavour, module.__version__)
    try:
        plugins = str(_native.library_path(PLUGIN_LIBRARY))
    except FileNotFoundError as error:
        raise Absent(f"{said}, but {one_line(error)}", WITH_TENSORRT) from None
    if not hasattr(_dlopen(plugins), "getCreators"):
        raise Broken(f"{said}, but {plugins} has no getCreators", WITH_TENSORRT)
    listener = listener_of(module)
    try:
        load_plugins(module, listener)
    except DibrError as error:
        raise Broken(f"{said}: {one_line(error)}", WITH_TENSORRT) from None
    creators = [
        creator for creator in module.get_plugin_registry().all_creators if creator.plugin_namespace == schema.OP_DOMAIN
    ]
    said += f", plugins {', '.join(sorted({creator.name for creator in creators}))}"
    _check_schema(said, {creator.plugin_version for creator in creators})
    said += f", {_gpus(said)}"
    _cuda_kernels(said)
    _open_device(said)
    runtime = module.Runtime(listener.logger)
    complaints = listener.complaints.take()
    if runtime is None or complaints:
        raise Broken(f"{said}: TensorRT does not start: {'; '.join(complaints)}", "update the NVIDIA driver")
    return {"reason": said}


def _check_tensorrt_version(said: str, flavour: str, version: str) -> None:
    """The plugins know the interfaces of some versions (abi_of in plugins/tensorrt/host.cpp)."""
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if flavour == "tensorrt" and numbers[:1] not in ((10,), (11,)):
        raise Broken(f"{said} is not of the majors that the plugins serve, 10 and 11", "install TensorRT 10 or 11")
    if flavour == "tensorrt_rtx" and not (1, 7) <= numbers < (2,):
        raise Broken(f"{said} is not of those that the plugins serve, 1.7 and later 1.x", "install TensorRT-RTX 1.7")


def _check_schema(said: str, plugin_versions: set[str]) -> None:
    """The plugins' version is that of the op schema, and libdibr_tensorrt.so has a libdibr of its own inside."""
    with _native_library(said):
        version = ctypes.CDLL(str(_native.library_path("libdibr.so"))).dibr_schema_version()
    others = sorted(plugin_versions - {str(version)})
    if others:
        raise Broken(
            f"{said}, of version {', '.join(others)} of the op schema, but this libdibr has version {version}",
            WITH_TENSORRT,
        )


def _first_package(names: tuple[str, ...]) -> Any:
    remedy = f"pip install {names[0].replace('_', '-')}, in the version that fits the CUDA driver"
    for name in names:
        if importlib.util.find_spec(name) is not None:
            return _package(name, remedy)
    raise Absent(f"none of the Python packages {', '.join(names)} is installed", remedy)


def _open_device(said: str) -> None:
    from .cuda import open_device

    try:
        open_device()
    except DoorAbsent as error:
        raise Absent(f"{said}, but {one_line(error)}", "pip install 'dibr_deploy[cuda-python]'") from None
    except DibrError as error:
        raise Broken(f"{said}: {one_line(error)}", "pip install --upgrade 'dibr_deploy[cuda-python]'") from None


def model(path: str, provider: str) -> Found:
    """Open a bundle or an ONNX file with a provider of ``Session``."""
    from .session import Session

    with _refusals():
        return {"reason": f"opens with provider {Session(path, provider).provider}"}


def engine(path: str, flavour: str) -> Found:
    """Open an engine of one flavour of a bundle."""
    from .bundle import Bundle
    from .manifest import FLAVOURS
    from .tensorrt_backend import TensorRtBackend

    bundle = Bundle(path)
    engines = tuple(entry for entry in bundle.manifest.engines if entry.flavour == flavour)
    if not engines:
        raise Absent(
            f"the bundle has no engine of {FLAVOURS[flavour]}",
            f"build one on this machine: dibr export --bundle {path} --tensorrt",
        )
    bundle.manifest = bundle.manifest.model_copy(update={"engines": engines})
    with _refusals():
        TensorRtBackend(bundle)
    return {"reason": "opens with provider tensorrt"}


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (DoorAbsent, FileNotFoundError) as error:
        raise Absent(one_line(error)) from None
    except DibrError as error:
        raise Broken(one_line(error)) from None


PROBES: dict[str, Callable[..., Found]] = {
    "driver": driver,
    "cuda_runtime": cuda_runtime,
    "library": library,
    "torch": torch,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "model": model,
    "engine": engine,
}


def _package(name: str, remedy: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise Absent(f"the Python package {name} is not installed", remedy)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Broken(
            f"the Python package {name} cannot be imported: {type(error).__name__}: {one_line(error)}",
            REINSTALL.format(name),
        ) from None


@contextlib.contextmanager
def _native_library(said: str) -> Iterator[None]:
    """A library of ours that is loaded inside."""
    try:
        yield
    except FileNotFoundError as error:
        raise Absent(f"{said}, but {one_line(error)}", REINSTALL.format("dibr_deploy")) from None
    except (OSError, ImportError) as error:
        reason = error.__cause__ or error  # torch keeps the dynamic loader's words there
        raise Broken(f"{said}: {one_line(reason)}", REINSTALL.format("dibr_deploy")) from None


def _gpus(said: str) -> str:
    """Names of the devices; Absent where there are none."""
    try:
        devices = driver()["devices"]
    except Problem as problem:
        raise type(problem)(f"{said}, but {problem}", problem.remedy) from None
    if not devices:
        raise Absent(f"{said}, but the NVIDIA driver finds no GPU", NO_DRIVER)
    return ", ".join(device["name"] for device in devices)


def _cuda_kernels(said: str) -> None:
    with _native_library(said):
        has_kernels = _native.has_cuda_kernels()
    if not has_kernels:
        raise Absent(f"{said}, but this libdibr was built without CUDA kernels", WITH_CUDA)


_SIZE = (2, 2)


def _triangle() -> dict[str, np.ndarray]:
    """One that covers every pixel."""
    return {
        "positions": np.array([[[-1, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]], np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
    }


def _check_picture(said: str, face_index: np.ndarray) -> None:
    if not np.array_equal(face_index, np.zeros((1, *_SIZE), np.int32)):
        raise Broken(f"{said} draws a triangle wrong: face_index is {face_index.tolist()}", REPORT)


_IR_VERSION, _OPSET = 8, 18
_FLOAT, _INT32 = 1, 6  # of TensorProto.DataType
_ATTRIBUTE_INT = 2  # of AttributeProto.AttributeType


def triangle_model() -> bytes:
    """An ONNX model of one Rasterize node; written by hand, since the onnx package may not be here."""
    size = [_message(1, name) + _message(3, value) + _message(20, _ATTRIBUTE_INT) for name, value in _SIZE_ATTRIBUTES]
    inputs = (("positions", _FLOAT, (1, 3, 4)), ("faces", _INT32, (1, 3)))
    outputs = (
        ("face_index", _INT32, (1, *_SIZE)),
        ("barycentrics", _FLOAT, (1, *_SIZE, 3)),
        ("depth", _FLOAT, (1, *_SIZE)),
    )
    node = b"".join(_message(1, name) for name, _, _ in inputs) + b"".join(_message(2, name) for name, _, _ in outputs)
    node += _message(4, "Rasterize") + b"".join(_message(5, value) for value in size) + _message(7, schema.OP_DOMAIN)
    graph = _message(1, node) + _message(2, "triangle")
    graph += b"".join(_message(11, _value_info(*value)) for value in inputs)
    graph += b"".join(_message(12, _value_info(*value)) for value in outputs)
    opsets = (_message(1, "") + _message(2, _OPSET), _message(1, schema.OP_DOMAIN) + _message(2, 1))
    return _message(1, _IR_VERSION) + _message(7, graph) + b"".join(_message(8, opset) for opset in opsets)


_SIZE_ATTRIBUTES = tuple(zip(("height", "width"), _SIZE, strict=True))


def _value_info(name: str, dtype: int, shape: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_message(1, _message(1, size)) for size in shape)
    return _message(1, name) + _message(2, _message(1, _message(1, dtype) + _message(2, dimensions)))


def _message(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message; every number and length here is below 2^14."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])
