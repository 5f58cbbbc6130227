"""What an ONNX file says about itself, read without loading it: no onnx package, no weights in memory.

An ONNX file is one protobuf message, ModelProto. This walks over its fields, skips nodes and weights, and reads
versions, metadata, inputs and outputs; a file that ends inside of a field is cut off.
"""

from __future__ import annotations

import io
import os
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dibr_deploy.errors import DibrError

# Field numbers of the messages in onnx.proto.
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET_IMPORT, _MODEL_METADATA = 1, 7, 8, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE_INITIALIZER = 1, 5, 11, 12, 15
_TENSOR_DATA_TYPE, _TENSOR_NAME = 2, 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 2
_SHAPE_DIMENSION = 1
_DIMENSION_VALUE, _DIMENSION_NAME = 1, 2

# Of TensorProto.DataType.
_FLOAT16 = 10
_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    _FLOAT16: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class OnnxHeader(NamedTuple):
    """Versions and metadata of an ONNX file."""

    ir_version: int
    opsets: dict[str, int]
    """Version of each opset that the file imports, by domain; "" is the standard one."""
    metadata: dict[str, str]


class ValueInfo(NamedTuple):
    """An input or output of a graph."""

    name: str
    dtype: str
    """As numpy names it, or "bfloat16"."""
    shape: tuple[int | str, ...]
    """A number, or the name of a dynamic axis. An axis without a name is called INPUT.AXIS."""


class OnnxInterface(NamedTuple):
    """What a model takes and gives."""

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]


def existing_file(path: str | Path) -> Path:
    """The path of a model; FileNotFoundError where there is no file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"model {path} does not exist" if not path.exists() else f"model {path} is no file")
    return path


def read_header(path: str | Path) -> OnnxHeader:
    """Read the header of an ONNX file.

    Raises FileNotFoundError where there is no file, DibrError where it is cut off or no ONNX model.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        return parse_header(file, os.path.getsize(path), path)


def parse_header(file: BinaryIO, size: int, path: str | Path) -> OnnxHeader:
    """Read the header of an ONNX model of ``size`` bytes; ``path`` is named in errors. Raises as ``read_header``."""
    header = OnnxHeader(0, {}, {})
    has_graph = False
    try:
        for number, value in _fields(file, size, skip=(_MODEL_GRAPH,)):
            has_graph = has_graph or number == _MODEL_GRAPH
            if number == _MODEL_IR_VERSION and isinstance(value, int):
                header = header._replace(ir_version=value)
            elif number == _MODEL_OPSET_IMPORT and isinstance(value, bytes):
                opset = _message(value)
                header.opsets[_text(opset.get(_OPSET_DOMAIN, b""))] = _integer(opset.get(_OPSET_VERSION, 0))
            elif number == _MODEL_METADATA and isinstance(value, bytes):
                entry = _message(value)
                header.metadata[_text(entry.get(_ENTRY_KEY, b""))] = _text(entry.get(_ENTRY_VALUE, b""))
    except EOFError:
        raise DibrError(f"model {path} is cut off: it ends after {size} bytes") from None
    except ValueError:
        raise DibrError(f"model {path} is not an ONNX file") from None
    if not has_graph or not header.opsets:
        raise DibrError(f"model {path} is cut off or not an ONNX file: it has no {'opset' if has_graph else 'graph'}")
    return header


def has_half_weights(file: BinaryIO) -> bool:
    """Whether a model, open at its start, has float16 initializers. Reads none of their values.

    Raises EOFError or ValueError where it is no whole ONNX model.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    return any(
        number == _TENSOR_DATA_TYPE and _varint(file) == _FLOAT16
        for graph_end in _messages(file, end, _MODEL_GRAPH)
        for tensor_end in _messages(file, graph_end, _GRAPH_INITIALIZER)
        for number, _, _ in _places(file, tensor_end)
    )


def parse_interface(model: bytes, path: str | Path) -> OnnxInterface:
    """Inputs and outputs of a model; an input that has a weight as its default is none.

    Args:
        model: content of an ONNX file.
        path: named in errors.

    Raises:
        DibrError: it is cut off or no ONNX model, or an input or output is no tensor, has no known shape, or is of a
            type that numpy has no name for.
    """
    inputs: list[bytes] = []
    outputs: list[bytes] = []
    weights: set[str] = set()
    try:
        graph = _message(model).get(_MODEL_GRAPH, b"")
        if not isinstance(graph, bytes):
            raise ValueError("a graph that is no message")
        for number, value in _fields(io.BytesIO(graph), len(graph), skip=(_GRAPH_NODE, _GRAPH_SPARSE_INITIALIZER)):
            if number == _GRAPH_INITIALIZER and isinstance(value, bytes):
                weights.add(_text(_message(value).get(_TENSOR_NAME, b"")))
            elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT) and isinstance(value, bytes):
                (inputs if number == _GRAPH_INPUT else outputs).append(value)
        described = [_value_info(value, path) for value in inputs]
        return OnnxInterface(
            tuple(info for info in described if info.name not in weights),
            tuple(_value_info(value, path) for value in outputs),
        )
    except EOFError:
        raise DibrError(f"model {path} is cut off: it ends after {len(model)} bytes") from None
    except DibrError:
        raise
    except ValueError:
        raise DibrError(f"model {path} is not an ONNX file") from None


def _value_info(content: bytes, path: str | Path) -> ValueInfo:
    value = _message(content)
    name = _text(value.get(_VALUE_NAME, b""))
    tensor = _message(_bytes(_message(_bytes(value.get(_VALUE_TYPE, b""))).get(_TYPE_TENSOR, b"")))
    dtype = _DTYPES.get(_integer(tensor.get(_TENSOR_TYPE_ELEMENT, 0)))
    if dtype is None or _TENSOR_TYPE_SHAPE not in tensor:
        raise DibrError(f"model {path}: {name} must be a tensor of numbers with a shape, or it cannot be described")
    shape = _bytes(tensor[_TENSOR_TYPE_SHAPE])
    dimensions = [
        _message(_bytes(dimension))
        for number, dimension in _fields(io.BytesIO(shape), len(shape))
        if number == _SHAPE_DIMENSION
    ]
    return ValueInfo(name, dtype, tuple(_size(part, f"{name}.{axis}") for axis, part in enumerate(dimensions)))


def _size(dimension: dict[int, int | bytes], default: str) -> int | str:
    if _DIMENSION_VALUE in dimension:
        return _integer(dimension[_DIMENSION_VALUE])
    return _text(dimension.get(_DIMENSION_NAME, b"")) or default


def _fields(file: BinaryIO, size: int, skip: Container[int] = ()) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message; the value of a field whose number is in ``skip`` is left unread.

    Raises as ``_places``.
    """
    for number, wire_type, end in _places(file, size):
        if wire_type == _VARINT:
            yield number, _varint(file)
        else:
            yield number, b"" if number in skip else file.read(end - file.tell())


def _messages(file: BinaryIO, end: int, number: int) -> Iterator[int]:
    """Where each field of this number ends, with the file at its first byte."""
    return (field_end for found, _, field_end in _places(file, end) if found == number)


def _places(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, wire type and end of each field of the message that ends there; the file is at the field's first byte,
    and goes on behind the field wherever the caller has left it.

    Raises EOFError where the message ends inside of a field, ValueError where it is no protobuf message.
    """
    while file.tell() < end:
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        start = file.tell()
        if wire_type == _VARINT:
            _varint(file)
            field_end = file.tell()
        else:
            length = _varint(file) if wire_type == _BYTES else {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
            if length is None:
                raise ValueError(f"wire type {wire_type}")
            start, field_end = file.tell(), file.tell() + length
        if field_end > end:
            raise EOFError
        file.seek(start)
        yield number, wire_type, field_end
        file.seek(field_end)


def _varint(file: BinaryIO) -> int:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value
    raise ValueError("a varint of more than 10 bytes")


def _message(content: bytes) -> dict[int, int | bytes]:
    return dict(_fields(io.BytesIO(content), len(content)))


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise ValueError("an integer where a string should be")
    return value.decode()


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("an integer where a message should be")
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a string where an integer should be")
    return value
