"""A model in ONNX Runtime: on the CPU, on CUDA, or through ONNX Runtime's own TensorRT provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy.errors import DibrError, DoorAbsent

from . import schema
from .backend import TensorInfo
from .libraries import library_for
from .onnx_file import OnnxHeader

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
EXECUTION_PROVIDERS = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "onnxruntime-tensorrt": (TENSORRT, CUDA, CPU),
}
"""For each provider of ours those of ONNX Runtime, the first of which must run and the others take what it leaves."""

_NEEDS = {
    CUDA: "an NVIDIA driver, and the CUDA and cuDNN libraries of this onnxruntime's major versions",
    TENSORRT: "an NVIDIA driver, and the CUDA, cuDNN and TensorRT libraries of this onnxruntime's major versions",
}
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}
_FATAL = 4
_STATUS_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : "
    r"(Exception during initialization: )?"
    r"(Non-zero status code returned while running \w+ node\. Name:'[^']*' Status Message: )?"
)


class OnnxModel(NamedTuple):
    """What ONNX Runtime is to open."""

    path: Path
    """Named in errors."""
    content: Path | bytes
    """A file to read, or what was read."""
    header: OnnxHeader


class OnnxRuntimeBackend:
    """An ONNX Runtime session.

    Args:
        provider: a key of ``EXECUTION_PROVIDERS``.
        threads: how many threads one operator may use; None lets ONNX Runtime take one per core.
        device: number of the CUDA device.
        engine_cache: folder in which ONNX Runtime's TensorRT provider keeps its engines; None keeps none.

    Raises:
        FileNotFoundError: the model needs a library of ours that is not installed.
        DoorAbsent: onnxruntime is not installed, or does not offer the provider, or cannot load it.
        DibrError: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: OnnxModel,
        provider: str,
        *,
        threads: int | None = None,
        device: int = 0,
        engine_cache: Path | None = None,
    ) -> None:
        onnxruntime = import_onnxruntime()
        wanted = _offered(provider, onnxruntime)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads or 0
        has_our_ops = schema.OP_DOMAIN in model.header.opsets
        providers = [_with_options(name, model, device, engine_cache) for name in wanted]
        content = str(model.content) if isinstance(model.content, Path) else model.content
        try:
            if has_our_ops:
                options.register_custom_ops_library(str(library_for(model.path, "libdibr_onnxruntime.so")))
            self._session = onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)
        except _runtime_errors() as error:
            raise DibrError(f"model {model.path} cannot be opened: {_sentence(error)}") from error
        _check_runs_on(provider, wanted[0], self._session.get_providers())
        self._provider = provider
        self.inputs = [_info(value) for value in self._session.get_inputs()]
        self.outputs = [_info(value) for value in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self._check_on_host(feed)
        try:
            values = self._session.run(None, dict(feed))
        except _runtime_errors() as error:
            raise DibrError(f"the model could not be run: {_sentence(error)}") from error
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def run_into(self, feed: Mapping[str, Any], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``run`` with some outputs written into arrays that fit them."""
        self._check_on_host(feed)
        binding = self._session.io_binding()
        try:
            for name, array in feed.items():
                binding.bind_cpu_input(name, array)
            for info in self.outputs:
                array = outputs.get(info.name)
                if array is None:
                    binding.bind_output(info.name)
                else:
                    binding.bind_output(info.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
            values = binding.get_outputs()
        except _runtime_errors() as error:
            raise DibrError(f"the model could not be run: {_sentence(error)}") from error
        return {
            info.name: outputs[info.name] if info.name in outputs else value.numpy()
            for info, value in zip(self.outputs, values, strict=True)
        }

    def _check_on_host(self, feed: Mapping[str, Any]) -> None:
        for name, value in feed.items():
            if not isinstance(value, np.ndarray):
                raise DibrError(
                    f"input {name} lies on a device, but provider {self._provider} reads host memory: pass a numpy "
                    f"array or a CPU tensor, or open a bundle with provider tensorrt"
                )

    def run_on_device(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """``run``: ONNX Runtime returns host memory."""
        return dict(self.run(feed))

    def close(self) -> None:
        del self._session


def import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DoorAbsent(
            "onnxruntime is not installed: install it, or dibr_deploy with the extra [onnxruntime]"
        ) from error
    return onnxruntime


def offers(provider: str) -> bool:
    """Whether onnxruntime is installed and has this provider of ours, which it may still be unable to load."""
    try:
        return EXECUTION_PROVIDERS[provider][0] in import_onnxruntime().get_available_providers()
    except DoorAbsent:
        return False


def check_api(path: Path, api: int) -> None:
    """Refuse a bundle that needs a newer ONNX Runtime than the installed one, 1.N for API N."""
    version = str(import_onnxruntime().__version__)
    if is_older(version, api):
        raise DibrError(
            f"bundle {path} needs ONNX Runtime 1.{api} or newer, but onnxruntime {version} is installed: "
            f"pip install --upgrade 'onnxruntime>=1.{api}'"
        )


def is_older(version: str, api: int) -> bool:
    """Whether a version of ONNX Runtime is below 1.N for API N."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < (1, api)


def _offered(provider: str, onnxruntime: Any) -> tuple[str, ...]:
    """ONNX Runtime's providers for one of ours, of which it must have the first."""
    available = onnxruntime.get_available_providers()
    first, *others = EXECUTION_PROVIDERS[provider]
    if first not in available:
        raise DoorAbsent(f"provider {provider} is not in this onnxruntime, which offers {', '.join(available)}")
    return (first, *(name for name in others if name in available))


def _with_options(name: str, model: OnnxModel, device: int, engine_cache: Path | None) -> Any:
    """An entry of InferenceSession's ``providers``."""
    if name == CPU:
        return name
    options = {"device_id": str(device)}
    if name == TENSORRT:
        if schema.OP_DOMAIN in model.header.opsets:
            options["trt_extra_plugin_lib_paths"] = str(_plugins(model.path))
        if engine_cache is not None:
            options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engine_cache)}
            options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engine_cache)}
    return name, options


def _plugins(path: Path) -> Path:
    try:
        return library_for(path, "libdibr_tensorrt_static.so")
    except FileNotFoundError as error:
        raise DoorAbsent(f"provider onnxruntime-tensorrt: {error}") from None


def _check_runs_on(provider: str, wanted: str, loaded: list[str]) -> None:
    """ONNX Runtime leaves out a provider whose libraries it cannot load, and says so in its log alone."""
    if wanted not in loaded:
        raise DoorAbsent(
            f"provider {provider}: ONNX Runtime could not load its {wanted} and would run on {', '.join(loaded)}; it "
            f"needs {_NEEDS[wanted]}: `dibr doctor` says which are missing"
        )


def _runtime_errors() -> tuple[type[BaseException], ...]:
    """Everything onnxruntime raises; its classes have no public base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    raised = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*raised, RuntimeError)


def _sentence(error: BaseException) -> str:
    """First line of an error of ONNX Runtime, without the codes that stand before an operator's own words."""
    return _STATUS_PREFIX.sub("", str(error)).strip().splitlines()[0]


def _info(value: Any) -> TensorInfo:
    if value.type not in _DTYPES:
        raise DibrError(f"the model's {value.name} has type {value.type}, which numpy has no dtype for")
    return TensorInfo(value.name, np.dtype(_DTYPES[value.type]), tuple(value.shape))
