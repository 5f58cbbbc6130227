"""Run an exported model: numpy arrays in, numpy arrays out, without torch."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy import _native
from dibr_deploy.errors import DibrError

from . import schema
from .onnx_file import OnnxHeader, read_header

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

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


class TensorInfo(NamedTuple):
    """An input or output of a model."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]
    """A number, a name that stands for one size wherever it occurs, or None for any size."""


class Session:
    """One model, opened once and run many times; several threads may run it at the same time.

    Args:
        path: a model written by ``dibr export`` or any other ONNX file.
        provider: where to run: "cpu", "cuda", or "auto" for cuda where this onnxruntime offers it.
        threads: how many threads one operator may use; None lets ONNX Runtime take one per core. Results of our ops do
            not depend on it.

    Raises:
        FileNotFoundError: there is no such file, or the model needs our custom-op library and it is not installed.
        DibrError: the file is cut off or no ONNX model, it needs a newer op schema than is installed, the provider is
            not available, or ONNX Runtime refuses the model; one sentence that says why.
    """

    def __init__(self, path: str | Path, provider: str = "auto", *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise DibrError(f"threads must be at least 1, got {threads}")
        self.path = Path(path)
        header = read_header(self.path)
        onnxruntime = _import_onnxruntime()
        providers = _providers(provider, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads or 0
        try:
            if schema.OP_DOMAIN in header.opsets:
                _check_schema_version(self.path, header)
                options.register_custom_ops_library(str(_library(self.path, "libdibr_onnxruntime.so")))
            self._session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except _runtime_errors() as error:
            raise DibrError(f"model {self.path} cannot be opened: {_sentence(error)}") from error
        self.metadata: dict[str, str] = header.metadata
        self.inputs = [_info(value) for value in self._session.get_inputs()]
        self.outputs = [_info(value) for value in self._session.get_outputs()]

    def run(self, *arrays: Any, **named_arrays: Any) -> dict[str, np.ndarray]:
        """Run the model once.

        Args:
            arrays: the first inputs in the model's order.
            named_arrays: the other inputs by name. Every input must have the model's dtype and shape.

        Returns:
            Every output by name.

        Raises:
            DibrError: an input is missing, unknown, given twice, or of another dtype or shape, or an operator refuses
                its input; one sentence that says which and why.
        """
        feed = self._by_name(arrays, named_arrays)
        sizes: dict[str, int] = {}
        feed = {info.name: _checked(info, feed[info.name], sizes) for info in self.inputs}
        try:
            values = self._session.run(None, feed)
        except _runtime_errors() as error:
            raise DibrError(f"the model could not be run: {_sentence(error)}") from error
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}

    def _by_name(self, arrays: tuple[Any, ...], named_arrays: dict[str, Any]) -> dict[str, Any]:
        names = [info.name for info in self.inputs]
        listed = ", ".join(names)
        if len(arrays) > len(names):
            raise DibrError(f"the model takes {len(names)} inputs ({listed}), got {len(arrays)} arrays")
        feed = dict(zip(names, arrays, strict=False))
        for name, array in named_arrays.items():
            if name not in names:
                raise DibrError(f"the model has no input {name}, its inputs are {listed}")
            if name in feed:
                raise DibrError(f"input {name} is given twice, by position and by name")
            feed[name] = array
        missing = [name for name in names if name not in feed]
        if missing:
            raise DibrError(f"input {missing[0]} is missing, the model's inputs are {listed}")
        return feed


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DibrError(
            "onnxruntime is not installed: install it, or dibr_deploy with the extra [onnxruntime]"
        ) from error
    return onnxruntime


def _runtime_errors() -> tuple[type[BaseException], ...]:
    """Everything onnxruntime raises; its classes have no public base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    raised = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*raised, RuntimeError)


def _sentence(error: BaseException) -> str:
    """First line of an error of ONNX Runtime, without the codes that stand before an operator's own words."""
    return _STATUS_PREFIX.sub("", str(error)).strip().splitlines()[0]


def _providers(provider: str, available: list[str]) -> list[str]:
    if provider == "auto":
        provider = "cuda" if PROVIDERS["cuda"] in available else "cpu"
    if provider not in PROVIDERS:
        raise DibrError(f"provider must be one of auto, {', '.join(PROVIDERS)}, got {provider!r}")
    if PROVIDERS[provider] not in available:
        raise DibrError(f"provider {provider} is not in this onnxruntime, which offers {', '.join(available)}")
    return list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))


def _library(path: Path, name: str) -> Path:
    try:
        return _native.library_path(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"model {path} needs the {schema.OP_DOMAIN} custom ops, but {error}") from None


def _check_schema_version(path: Path, header: OnnxHeader) -> None:
    """Refuse a model whose ops may mean something else than this library's."""
    wanted = header.opsets[schema.OP_DOMAIN]
    stated = header.metadata.get(schema.METADATA_SCHEMA_VERSION, "")
    if stated.isdecimal():
        wanted = max(wanted, int(stated))
    known = ctypes.CDLL(str(_library(path, "libdibr.so"))).dibr_schema_version()
    if wanted > known:
        raise DibrError(
            f"model {path} uses version {wanted} of the {schema.OP_DOMAIN} ops, but this dibr_deploy knows versions "
            f"up to {known}: update dibr_deploy, or export the model again with this one"
        )


def _info(value: Any) -> TensorInfo:
    if value.type not in _DTYPES:
        raise DibrError(f"the model's {value.name} has type {value.type}, which numpy has no dtype for")
    return TensorInfo(value.name, np.dtype(_DTYPES[value.type]), tuple(value.shape))


def _checked(info: TensorInfo, value: Any, sizes: dict[str, int]) -> np.ndarray:
    """The array, if it fits the input; ``sizes`` collects the sizes that names in shapes stand for."""
    array = np.asarray(value)
    if array.dtype != info.dtype:
        raise DibrError(f"input {info.name} must be {info.dtype}, got {array.dtype}")
    fits = array.ndim == len(info.shape)
    for expected, size in zip(info.shape, array.shape, strict=False):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, size) if fits else size
        fits = fits and expected in (None, size)
    if not fits:
        raise DibrError(f"input {info.name} must have shape {_described(info, sizes)}, got {list(array.shape)}")
    return np.ascontiguousarray(array)


def _described(info: TensorInfo, sizes: dict[str, int]) -> str:
    """For example "[batch, 3, 64, 64] with batch = 5"."""
    known = [f"{name} = {sizes[name]}" for name in info.shape if isinstance(name, str) and name in sizes]
    shape = ", ".join("any" if size is None else str(size) for size in info.shape)
    return f"[{shape}]" + (f" with {', '.join(known)}" if known else "")
