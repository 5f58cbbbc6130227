"""Inference requests over HTTP: JSON, and raw tensors behind it (the binary tensor extension)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .batching import Arrays
from .errors import Reason, RequestError
from .http_body import IN_THREAD, Part
from .service import InferRequest, Service, timeout_of
from .tensors import datatype_of, finite, from_bytes, from_numbers, invalid, quoted, view_of

HEADER_LENGTH = "inference-header-content-length"
_MOST_TENSORS = 64
_VALUES_AT_ONCE = 1 << 14
"""Of a tensor that is written as JSON: Python's objects for all of them would take ten times the tensor's memory."""

_Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Part(BaseModel):
    """Unknown keys are ignored, as the protocol asks."""

    model_config = ConfigDict(strict=True)

    parameters: dict[str, Any] = Field(default_factory=dict)


class InputTensor(_Part):
    name: _Name
    datatype: Annotated[str, Field(max_length=16)]
    shape: Annotated[list[int], Field(max_length=16)]
    data: Any = None


class RequestedOutput(_Part):
    name: _Name


class InferenceRequest(_Part):
    id: Annotated[str, Field(max_length=1024)] = ""
    inputs: Annotated[list[InputTensor], Field(max_length=_MOST_TENSORS)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=_MOST_TENSORS)] = Field(default_factory=list)


class HttpInfer(NamedTuple):
    """A parsed request."""

    request: InferRequest
    id: str
    binary: Mapping[str, bool]
    """By output; of those that are not named, ``all_binary``."""
    all_binary: bool


async def parse(service: Service, body: bytes, header_length: str | None, deadline: float) -> HttpInfer:
    """Raises RequestError where the body is no inference request or has too much JSON, or where its time is over."""
    length, most = _length(header_length, len(body)), service.settings.max_json
    if length > most:
        raise RequestError(Reason.TOO_LARGE, f"a request may have {most} bytes of JSON: send tensors raw")
    if len(body) < IN_THREAD:
        return _parse(body, length)
    if length < IN_THREAD:
        return await asyncio.to_thread(_parse, body, length)
    return await service.in_turn(deadline, _parse, body, length)


def _parse(body: bytes, length: int) -> HttpInfer:
    described = _described(body[:length])
    inputs: dict[str, np.ndarray] = {}
    rest = memoryview(body)[length:]
    for tensor in described.inputs:
        if tensor.name in inputs:
            raise invalid(f"input {quoted(tensor.name)} is there twice")
        array, rest = _array(tensor, rest)
        inputs[tensor.name] = array
    if len(rest):
        raise invalid(f"{len(rest)} bytes follow the inputs: binary_data_size of the inputs says where each one ends")
    names = [output.name for output in described.outputs]
    if len(set(names)) < len(names):
        raise invalid("an output is asked for twice")
    return HttpInfer(
        InferRequest(inputs, names or None, timeout_of(described.parameters)),
        described.id,
        {output.name: _flag(output.parameters, "binary_data") for output in described.outputs if _wants(output)},
        _flag(described.parameters, "binary_data_output"),
    )


def _length(header_length: str | None, body_length: int) -> int:
    """Of the JSON part of the body."""
    if header_length is None:
        return body_length
    if not (header_length.isascii() and header_length.isdecimal()) or int(header_length[:20]) > body_length:
        raise invalid("Inference-Header-Content-Length must be the length of the JSON at the start of the body")
    return int(header_length)


def _described(content: bytes) -> InferenceRequest:
    try:
        return InferenceRequest.model_validate(json.loads(content, parse_constant=_no_constant))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"][:3])
        raise invalid(f"the request's {place or 'JSON'} is not valid: {problem['msg']}") from None
    except (ValueError, RecursionError):
        raise invalid("the request is not valid JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _array(tensor: InputTensor, rest: memoryview) -> tuple[np.ndarray, memoryview]:
    """The input, and what follows it in the body."""
    if any(name.startswith("shared_memory") for name in tensor.parameters):
        raise invalid(f"input {quoted(tensor.name)}: shared memory is not offered")
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return from_numbers(tensor.name, tensor.datatype, tensor.shape, tensor.data), rest
    if tensor.data is not None:
        raise invalid(f"input {quoted(tensor.name)} has both data and binary_data_size")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(rest):
        raise invalid(f"input {quoted(tensor.name)} has a binary_data_size that is not in the body")
    return from_bytes(tensor.name, tensor.datatype, tensor.shape, rest[:size]), rest[size:]


def _wants(output: RequestedOutput) -> bool:
    """Whether it says how it wants its data."""
    if any(name.startswith("shared_memory") for name in output.parameters):
        raise invalid(f"output {quoted(output.name)}: shared memory is not offered")
    if output.parameters.get("classification"):
        raise invalid(f"output {quoted(output.name)}: classification is not offered")
    return "binary_data" in output.parameters


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise invalid(f"parameter {name} must be true or false")
    return value


async def answer(
    service: Service, asked: HttpInfer, name: str, version: str, outputs: Arrays, deadline: float
) -> tuple[list[Part], int | None]:
    """The body in parts, and the length of its JSON where raw tensors follow it. Raises RequestError."""
    numbers = sum(array.size for output, array in outputs.items() if not _is_raw(asked, output))
    if numbers < _VALUES_AT_ONCE:
        return _answer(asked, name, version, outputs)
    return await service.in_turn(deadline, _answer, asked, name, version, outputs)


def _is_raw(asked: HttpInfer, output: str) -> bool:
    return asked.binary.get(output, asked.all_binary)


def _answer(asked: HttpInfer, name: str, version: str, outputs: Arrays) -> tuple[list[Part], int | None]:
    head: dict[str, Any] = {"model_name": name, "model_version": version}
    if asked.id:
        head["id"] = asked.id
    words: list[Part] = [_json(head)[:-1], b', "outputs": [']
    raw: list[Part] = []
    for output, array in outputs.items():
        tensor: dict[str, Any] = {
            "name": output, "datatype": datatype_of(array.dtype), "shape": list(array.shape),
        }  # fmt: skip
        if _is_raw(asked, output):
            raw.append(view_of(array))
            words.append(_json({**tensor, "parameters": {"binary_data_size": len(raw[-1])}}))
        else:
            words += [_json(tensor)[:-1], b', "data": [', *_numbers(output, array), b"]}"]
        words.append(b", ")
    words[-1] = b"]}"
    content = b"".join(words)
    return [content, *raw], len(content) if raw else None


def _numbers(output: str, array: np.ndarray) -> Iterator[bytes]:
    """The values with commas between them."""
    values = finite(output, array).ravel()
    for start in range(0, len(values), _VALUES_AT_ONCE):
        yield b", " * (start > 0) + _json(values[start : start + _VALUES_AT_ONCE].tolist())[1:-1]


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode()
