"""DLPack, the protocol by which tensor libraries hand their memory to each other: looking at another's, showing ours.

https://dmlc.github.io/dlpack/latest/python_spec.html; the structures are those of dlpack.h 0.8, which every library
speaks. Written out here, it needs no package and takes bfloat16, which numpy has no dtype for.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np

CPU, CUDA = 1, 2
"""Device types."""

_INT, _UINT, _FLOAT, _BFLOAT, _BOOL = 0, 1, 2, 4, 6
_CODES = {"i": _INT, "u": _UINT, "f": _FLOAT, "b": _BOOL}
_NAMES = {_INT: "int", _UINT: "uint", _FLOAT: "float", _BFLOAT: "bfloat"}
_CAPSULE = b"dltensor"


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("rank", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


# Functions of an own handle: argument types set on ctypes.pythonapi would be everybody's.
_python = ctypes.PyDLL(None)
_python.PyCapsule_New.restype = ctypes.py_object
_python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_python.PyCapsule_GetPointer.restype = ctypes.c_void_p
_python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
# The destructor's capsule has no references left: it must not become a Python object again.
_pointer_of_dying = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))


class View(NamedTuple):
    """A tensor of another library, not copied."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    """As numpy writes it; "bfloat16" too."""
    contiguous: bool
    """Rows follow each other without gaps (C order)."""
    device: tuple[int, int]
    """Device type and number."""
    owner: Any
    """Keeps the memory alive."""


def view(exporter: Any, stream: int | None = None) -> View:
    """Look at an object with ``__dlpack__``.

    Args:
        exporter: a tensor.
        stream: handle of the CUDA stream that will read it: the exporter lets it wait for what still writes the tensor.
            None for tensors in host memory.

    Raises:
        BufferError, or whatever else the exporter raises, where it cannot hand the tensor over.
    """
    capsule = exporter.__dlpack__() if stream is None else exporter.__dlpack__(stream=stream)
    pointer = _python.PyCapsule_GetPointer(capsule, _CAPSULE)
    tensor = _ManagedTensor.from_address(pointer).tensor
    shape = tuple(tensor.shape[: tensor.rank])
    # The capsule stays unused, so that its own destructor gives the tensor back when the view goes away.
    return View(
        (tensor.data or 0) + tensor.byte_offset,
        shape,
        _dtype_name(tensor.dtype),
        _is_contiguous(shape, tensor.strides[: tensor.rank] if tensor.strides else None),
        (tensor.device.type, tensor.device.index),
        capsule,
    )


def _dtype_name(dtype: _DataType) -> str:
    if dtype.code == _BOOL and dtype.bits == 8:
        return "bool"
    name = f"{_NAMES.get(dtype.code, f'type{dtype.code}_')}{dtype.bits}"
    return name if dtype.lanes == 1 else f"{name}x{dtype.lanes}"


def _is_contiguous(shape: tuple[int, ...], strides: list[int] | None) -> bool:
    if strides is None or math.prod(shape) == 0:
        return True
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def export(address: int, shape: tuple[int, ...], dtype: np.dtype, device: tuple[int, int], owner: Any) -> Any:
    """A capsule that shows contiguous memory to another library and keeps ``owner`` alive as long as that uses it."""
    rank = len(shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(rank)]
    sizes = (ctypes.c_int64 * (2 * rank))(*shape, *strides)
    pointer_type = ctypes.POINTER(ctypes.c_int64)
    managed = _ManagedTensor(
        _Tensor(
            address,
            _Device(*device),
            rank,
            _DataType(_CODES[dtype.kind], 8 * dtype.itemsize, 1),
            ctypes.cast(sizes, pointer_type),
            ctypes.cast(ctypes.byref(sizes, 8 * rank), pointer_type),
            0,
        ),
        None,
        ctypes.cast(_delete, ctypes.c_void_p),
    )
    pointer = ctypes.addressof(managed)
    _exported[pointer] = (managed, sizes, owner)
    return _python.PyCapsule_New(pointer, _CAPSULE, ctypes.cast(_destroy_capsule, ctypes.c_void_p))


_exported: dict[int, tuple[Any, ...]] = {}
"""What other libraries use, by the address of its structure."""


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(managed: int, exported: dict[int, tuple[Any, ...]] = _exported) -> None:
    exported.pop(managed, None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _destroy_capsule(
    capsule: int,
    exported: dict[int, tuple[Any, ...]] = _exported,
    is_valid: Any = _is_valid,
    pointer_of: Any = _pointer_of_dying,
    name: bytes = _CAPSULE,
) -> None:
    """A capsule that nobody has taken still has its first name."""
    if is_valid(capsule, name):
        exported.pop(pointer_of(capsule, name), None)


# Tensors may outlive this module at the end of the process and call these then: they stay, with what they use.
for _callback in (_delete, _destroy_capsule):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_callback))
