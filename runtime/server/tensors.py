"""Tensors of the Open Inference Protocol: names of their types, raw bytes and JSON numbers to arrays and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from dibr_deploy.runtime.backend import TensorInfo

from .errors import Reason, RequestError

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
MAX_RANK = 8
_LEAVES = {int, float, bool}
"""What JSON has for numbers and truth values."""
_SHOWN = 64


def invalid(message: str) -> RequestError:
    return RequestError(Reason.INVALID, message)


def quoted(text: str) -> str:
    """What a client sent, short and printable, as part of a sentence."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def metadata_shape(info: TensorInfo) -> list[int]:
    """-1 for a size that is not fixed."""
    return [size if isinstance(size, int) else -1 for size in info.shape]


def dtype_of(name: str, datatype: str) -> np.dtype:
    if datatype not in DTYPES:
        raise invalid(f"input {quoted(name)} has datatype {quoted(datatype)}, which must be one of {', '.join(DTYPES)}")
    return DTYPES[datatype]


def check_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) > MAX_RANK or any(not 0 <= size < 1 << 48 for size in shape):
        raise invalid(f"input {quoted(name)} has a shape that is no shape of at most {MAX_RANK} sizes from 0 on")
    return tuple(shape)


def check_count(name: str, sizes: Sequence[int], count: int) -> None:
    if count != math.prod(sizes):
        raise invalid(f"input {quoted(name)} of shape {list(sizes)} takes {math.prod(sizes)} values, got {count}")


def from_bytes(name: str, datatype: str, shape: Sequence[int], content: bytes | memoryview) -> np.ndarray:
    """Little-endian values in C order, not copied where they are aligned."""
    dtype, sizes = dtype_of(name, datatype), check_shape(name, shape)
    expected = math.prod(sizes) * dtype.itemsize
    if len(content) != expected:
        raise invalid(f"input {quoted(name)} of {datatype} {list(sizes)} takes {expected} bytes, got {len(content)}")
    if expected == 0:
        return np.empty(sizes, dtype)
    array = np.frombuffer(content, dtype)
    if not array.flags.aligned:  # behind a JSON header of any length
        array = array.copy()
    if dtype == np.bool_ and (array.view(np.uint8) > 1).any():
        raise invalid(f"input {quoted(name)} has bytes that are neither 0 nor 1 for BOOL")
    return array.reshape(sizes)


def from_numbers(name: str, datatype: str, shape: Sequence[int], data: Any) -> np.ndarray:
    """Numbers or booleans, in nested lists or flat, in C order, or in an array [N]. Numbers must be values of the
    datatype: nothing is truncated or wrapped around, and real numbers are rounded to its precision."""
    dtype, sizes = dtype_of(name, datatype), check_shape(name, shape)
    leaves, shape = (data, data.shape) if isinstance(data, np.ndarray) else _leaves(name, datatype, data)
    check_count(name, sizes, len(leaves))
    if len(shape) > 1 and shape != sizes:
        raise invalid(f"input {quoted(name)} has shape {list(sizes)}, but its data {list(shape)}")
    try:
        values = np.asarray(leaves)
    except OverflowError:
        raise invalid(f"input {quoted(name)} has data that are no values of {datatype}") from None
    if not _holds(dtype, values):
        raise invalid(f"input {quoted(name)} has data that are no values of {datatype}")
    return values.astype(dtype, copy=False).reshape(sizes)


def _leaves(name: str, datatype: str, data: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The numbers in nested lists, and the shape of these. numpy itself would take as much memory again for the lists,
    and of texts it would make as many copies of the longest one."""
    level: list[Any] = [data]
    shape: list[int] = []
    while not (kinds := set(map(type, level))) <= _LEAVES:
        if not kinds <= _LEAVES | {list}:
            raise invalid(f"input {quoted(name)} has data that are no values of {datatype}")
        lengths = set(map(len, level)) if kinds == {list} else set()
        if len(lengths) != 1:
            raise invalid(f"input {quoted(name)} has data that are no regular array of numbers")
        shape += lengths
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def _holds(dtype: np.dtype, values: np.ndarray) -> bool:
    """Whether these are values of the type, whatever type numpy has read them as."""
    if values.size == 0:
        return True
    if dtype.kind == "b":
        return values.dtype.kind == "b"
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return values.dtype.kind in "iu" and limits.min <= values.min() and values.max() <= limits.max
    if values.dtype.kind not in "iuf":
        return False
    return bool((~np.isfinite(values) | (np.abs(values.astype(np.float64)) <= np.finfo(dtype).max)).all())


def view_of(array: np.ndarray) -> memoryview:
    """Its bytes, little-endian, in C order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def finite(name: str, array: np.ndarray) -> np.ndarray:
    """The array, for JSON, which has no word for NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise invalid(f"output {name} has values that JSON cannot hold, NaN or infinity: ask for binary_data")
    return array


def datatype_of(dtype: np.dtype) -> str:
    return DATATYPES[np.dtype(dtype)]
