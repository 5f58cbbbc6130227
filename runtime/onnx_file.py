"""What an ONNX file says about itself, read without loading it: no onnx package, no weights in memory.

An ONNX file is one protobuf message, ModelProto. This walks over its top-level fields, skips the graph and reads the
versions and metadata beside it; a file that ends inside of a field is cut off.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dibr_deploy.errors import DibrError

# Field numbers of ModelProto, OperatorSetIdProto and StringStringEntryProto in onnx.proto.
_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET_IMPORT, _MODEL_METADATA = 1, 7, 8, 14
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class OnnxHeader(NamedTuple):
    """Versions and metadata of an ONNX file."""

    ir_version: int
    opsets: dict[str, int]
    """Version of each opset that the file imports, by domain; "" is the standard one."""
    metadata: dict[str, str]


def read_header(path: str | Path) -> OnnxHeader:
    """Read the header of an ONNX file.

    Raises FileNotFoundError where there is no file, DibrError where it is cut off or no ONNX model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"model {path} does not exist" if not path.exists() else f"model {path} is no file")
    header = OnnxHeader(0, {}, {})
    has_graph = False
    with path.open("rb") as file:
        try:
            for number, value in _fields(file, os.path.getsize(path), skip=_MODEL_GRAPH):
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
            raise DibrError(f"model {path} is cut off: it ends after {os.path.getsize(path)} bytes") from None
        except ValueError:
            raise DibrError(f"model {path} is not an ONNX file") from None
    if not has_graph or not header.opsets:
        raise DibrError(f"model {path} is cut off or not an ONNX file: it has no {'opset' if has_graph else 'graph'}")
    return header


def _fields(file: BinaryIO, size: int, skip: int = 0) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protobuf message; the value of a field numbered ``skip`` is left unread.

    Raises EOFError where the message ends inside of a field, ValueError where it is no protobuf message.
    """
    while file.tell() < size:
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("field number 0")
        if wire_type == _VARINT:
            yield number, _varint(file)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
        if wire_type == _BYTES:
            length = _varint(file)
        if length is None:
            raise ValueError(f"wire type {wire_type}")
        if file.tell() + length > size:
            raise EOFError
        if number == skip:
            file.seek(length, os.SEEK_CUR)
            yield number, b""
        else:
            yield number, file.read(length)


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


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("a string where an integer should be")
    return value
