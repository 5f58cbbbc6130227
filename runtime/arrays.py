"""What a caller passes to ``Session.run``: checked against the model's inputs, and never copied without need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dibr_deploy.errors import DibrError

from .backend import TensorInfo

# Of DLDeviceType in dlpack.h.
_CPU, _CUDA_PINNED_HOST = 1, 3


def feed_of(infos: Sequence[TensorInfo], arrays: Sequence[Any], named_arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Every input by name, checked: a C-contiguous numpy array, or an object on a device as it came.

    Args:
        infos: the model's inputs.
        arrays: the first of them in order: numpy arrays, what numpy makes an array of, or DLPack exporters.
        named_arrays: the others by name.

    Raises:
        DibrError: an input is missing, unknown, given twice, or of another dtype or shape.
    """
    given = _by_name([info.name for info in infos], arrays, named_arrays)
    sizes: dict[str, int] = {}
    return {info.name: _checked(info, given[info.name], sizes) for info in infos}


def _by_name(names: list[str], arrays: Sequence[Any], named_arrays: Mapping[str, Any]) -> dict[str, Any]:
    if len(arrays) > len(names):
        raise DibrError(f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(arrays)} arrays")
    given = dict(zip(names, arrays, strict=False))
    for name, array in named_arrays.items():
        if name not in names:
            raise DibrError(f"the model has no input {name}, its inputs are {', '.join(names)}")
        if name in given:
            raise DibrError(f"input {name} is given twice, by position and by name")
        given[name] = array
    for name in names:
        if name not in given:
            raise DibrError(f"input {name} is missing, the model's inputs are {', '.join(names)}")
    return given


def _checked(info: TensorInfo, value: Any, sizes: dict[str, int]) -> Any:
    """The array, if it fits the input; ``sizes`` collects the sizes that names in shapes stand for."""
    array = value if _is_on_device(value) else _host_array(info.name, value)
    on_host = isinstance(array, np.ndarray)
    # Names of dtypes, which numpy makes anew each time, take longer than the dtypes do.
    if not (on_host and array.dtype == info.dtype) and (dtype := _dtype_name(info.name, array)) != info.dtype.name:
        raise DibrError(f"input {info.name} must be {info.dtype}, got {dtype}")
    shape = tuple(array.shape)
    if not _fits(info.shape, shape, sizes):
        raise DibrError(f"input {info.name} must have shape {_described(info, sizes)}, got {list(shape)}")
    return np.ascontiguousarray(array) if on_host and not array.flags.c_contiguous else array


def _fits(wanted: Sequence[int | str | None], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Whether a shape is an input's; ``sizes`` as in ``_checked``."""
    if len(shape) != len(wanted):
        return False
    for expected, size in zip(wanted, shape, strict=True):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, size)
        if expected != size and expected is not None:
            return False
    return True


def check_outputs(
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    feed: Mapping[str, Any],
    given: Mapping[str, Any],
) -> None:
    """Raises DibrError where an array that outputs are to be written into does not fit, for this feed."""
    sizes = {
        expected: size
        for info in inputs
        for expected, size in zip(info.shape, feed[info.name].shape, strict=True)
        if isinstance(expected, str)
    }
    infos = {info.name: info for info in outputs}
    for name, array in given.items():
        if name not in infos:
            raise DibrError(f"the model has no output {name}, its outputs are {', '.join(infos)}")
        info = infos[name]
        if not isinstance(array, np.ndarray) or array.dtype != info.dtype:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise DibrError(f"output {name} must be a numpy array of {info.dtype}, got {got}")
        shape = tuple(sizes.get(size, -1) if isinstance(size, str) else size for size in info.shape)
        fits = len(shape) == array.ndim and all(
            want in (None, -1, size) for want, size in zip(shape, array.shape, strict=True)
        )
        if not fits:
            raise DibrError(f"output {name} must have shape {_described(info, sizes)}, got {list(array.shape)}")
        if not array.flags.c_contiguous or not array.flags.writeable:
            raise DibrError(f"output {name} must be C-contiguous and writable")


def _is_on_device(value: Any) -> bool:
    """Whether it is a DLPack exporter of memory that the CPU cannot read."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    return value.__dlpack_device__()[0] not in (_CPU, _CUDA_PINNED_HOST)


def _host_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DibrError(f"input {name} cannot be read without a copy: {error}") from error


def _dtype_name(name: str, array: Any) -> str:
    """As numpy calls it; torch writes "torch.float32"."""
    if isinstance(array, np.ndarray):
        return str(array.dtype)
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise DibrError(f"input {name} is a {type(array).__name__} on a device without dtype and shape: pass a tensor")
    return str(array.dtype).rpartition(".")[2]


def _described(info: TensorInfo, sizes: Mapping[str, int]) -> str:
    """For example "[batch, 3, 64, 64] with batch = 5"."""
    known = [f"{name} = {sizes[name]}" for name in info.shape if isinstance(name, str) and name in sizes]
    shape = ", ".join("any" if size is None else str(size) for size in info.shape)
    return f"[{shape}]" + (f" with {', '.join(known)}" if known else "")
