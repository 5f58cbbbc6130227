"""The service over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from .app import model_metadata
from .auth import Keys
from .errors import Reason, RequestError
from .http_body import IN_THREAD
from .http_protocol import MOST_REFUSED
from .messages import MESSAGES, SERVICE
from .service import EXTENSIONS, NAME, InferRequest, Service, timeout_of
from .tensors import check_count, check_shape, datatype_of, dtype_of, from_bytes, from_numbers, invalid, quoted, view_of

log = logging.getLogger(__name__)

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Where the protocol puts values that are not raw."""
_HELD: dict[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
}
"""As what."""
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}
"""Wire types; of those of fixed size, bytes."""
_FRAME = 1 << 20
"""Bytes that a message may have around its tensors."""
_MOST_FIELDS = 256
"""Of a message: protobuf makes an object of each, and an empty one has two bytes."""

Call = Callable[[Any, Any], Awaitable[Any]]


class _Asked(NamedTuple):
    """A ModelInferRequest."""

    model_name: str
    model_version: str
    id: str
    request: InferRequest | RequestError
    """The second where it is none."""
    deadline: float
    """Of ``time.monotonic``."""


class GrpcServer:
    """The gRPC port of a service, once ``start`` has been awaited.

    port: the one it listens at.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_request + _FRAME),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.max_connections + MOST_REFUSED,
        )
        self._server.add_generic_rpc_handlers((_handlers(service),))
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        if settings.tls_certificate is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_certificate.read_bytes())
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            self.port = self._server.add_insecure_port(address)

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, timeout: float) -> None:
        """Refuse new calls, and end those that are not finished after so many seconds."""
        await self._server.stop(timeout)


def _handlers(service: Service) -> grpc.GenericRpcHandler:
    calls = _Calls(service)
    short: dict[str, Call] = {
        "ServerLive": calls.server_live,
        "ServerReady": calls.server_ready,
        "ServerMetadata": calls.server_metadata,
        "ModelReady": calls.model_ready,
        "ModelMetadata": calls.model_metadata,
        "RepositoryIndex": calls.repository_index,
    }
    most = service.settings.max_json
    unary = {name: _of_message(name, call, most) for name, call in short.items()} | {"ModelInfer": calls.model_infer}
    door = _Door(service)
    # To a client they are unary. As grpc reads the message of a unary call before it calls anybody, for as long as that
    # takes, nobody could ask for the key first, or stop waiting.
    handlers = {name: grpc.stream_unary_rpc_method_handler(door.guarded(name, call)) for name, call in unary.items()}
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(door.guarded_stream(calls.model_stream_infer))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _of_message(name: str, call: Call, most: int) -> Call:
    """The call, of bytes: grpc's own answer to bytes that are no message would be UNKNOWN, and a traceback."""

    async def of_bytes(content: bytes, context: Any) -> Any:
        _check_size(content, most)
        return await call(_parsed(f"{name}Request", content), context)

    return of_bytes


class _Door:
    """Asks for the API key before a message is read, serves so many calls at a time, waits for messages no longer than
    an upload may take, holds the service from its message until a call has ended, turns RequestErrors into statuses,
    and logs."""

    _PUBLIC = ("ServerLive", "ServerReady")
    """Need no key. Their requests are empty: they are answered unread, so that nobody without a key takes a place."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._keys = Keys(service.settings.api_keys)
        self._served = 0

    def guarded(self, name: str, call: Call) -> Call:
        async def guarded(_: AsyncIterator[bytes], context: Any) -> Any:
            async with _answering(name, context):
                content: bytes | None = b""
                if name not in self._PUBLIC:
                    self._let_in(context)
                    content = await self._next(context)
                if content is None:
                    raise _no_message()
                release = self._service.hold()
                context.add_done_callback(lambda _: release())
                response = await call(content, context)
                return response if isinstance(response, bytes) else response.SerializeToString()

        return guarded

    def guarded_stream(self, call: Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]) -> Any:
        async def guarded(_: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async with _answering("ModelStreamInfer", context):
                self._let_in(context)
                async for response in call(self._messages(context), context):
                    yield response

        return guarded

    async def _messages(self, context: Any) -> AsyncIterator[bytes]:
        while (content := await self._next(context)) is not None:
            yield content

    async def _next(self, context: Any) -> bytes | None:
        """The client's next message, None where no other will come. Raises RequestError: it does not come in time."""
        reading = asyncio.ensure_future(context.read())
        # It ends with the call. Were it cancelled, grpc would write into memory that Python has freed.
        reading.add_done_callback(lambda task: task.exception())
        done, _ = await asyncio.wait((reading,), timeout=self._service.settings.upload_timeout)
        if not done:
            raise RequestError(Reason.SLOW_UPLOAD, "the request's message did not come in time")
        content = reading.result()
        return None if content is grpc.aio.EOF else content

    def _let_in(self, context: Any) -> None:
        """Gives the call a place until it ends. Raises RequestError: it shows no key, or no place is free."""
        shown = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        if not self._keys.admit(shown.get("authorization"), shown.get("x-api-key")):
            raise self._turned_away(
                Reason.UNAUTHENTICATED, "this needs an API key: metadata authorization = Bearer KEY"
            )
        if self._served >= self._service.settings.max_connections:
            raise self._turned_away(Reason.CROWDED, "there are too many calls: try later")
        self._served += 1
        context.add_done_callback(lambda _: self._leave())

    def _leave(self) -> None:
        self._served -= 1

    def _turned_away(self, reason: Reason, message: str) -> RequestError:
        self._service.metrics.turned_away.labels("grpc", reason.name.lower()).inc()
        return RequestError(reason, message)


@asynccontextmanager
async def _answering(name: str, context: Any) -> AsyncIterator[None]:
    """What goes wrong inside ends the call with its status; the call is logged however it ends.

    A stream that its client leaves may be finalised after grpc has freed the call, whose context then crashes the
    process: at the end nothing asks the context any more.
    """
    began, client = time.monotonic(), context.peer()
    status = "CANCELLED"
    try:
        yield
        status = "OK"
    except RequestError as error:
        status = error.reason.grpc_status
        await context.abort(grpc.StatusCode[status], str(error))
    except Exception as error:
        status = "INTERNAL"
        await _failed(context, error)
    finally:
        _log(name, status, client, began)


def _parsed(name: str, content: bytes) -> Any:
    try:
        return MESSAGES[name].FromString(content)
    except DecodeError:
        raise _no_message() from None


def _no_message() -> RequestError:
    return invalid("the request is no message of its type")


async def _failed(context: Any, error: Exception) -> None:
    log.error("request failed", extra={"why": repr(error)}, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "the service failed at this request")


def _log(call: str, status: str, client: str, began: float) -> None:
    log.info(
        "request",
        extra={
            "protocol": "grpc", "method": call, "status": status, "client": client,
            "seconds": round(time.monotonic() - began, 6),
        },
    )  # fmt: skip


class _Calls:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def server_live(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerLiveResponse"](live=True)

    async def server_ready(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerReadyResponse"](ready=self._service.ready)

    async def server_metadata(self, request: Any, context: Any) -> Any:
        return MESSAGES["ServerMetadataResponse"](name=NAME, version=self._service.version, extensions=EXTENSIONS)

    async def model_ready(self, request: Any, context: Any) -> Any:
        try:
            self._service.models.find(request.name, request.version)
        except RequestError:  # the answer to this question, as Triton gives it
            return MESSAGES["ModelReadyResponse"](ready=False)
        return MESSAGES["ModelReadyResponse"](ready=self._service.ready)

    async def model_metadata(self, request: Any, context: Any) -> Any:
        model = self._service.models.find(request.name, request.version)
        versions = self._service.models.versions(model.name)
        return MESSAGES["ModelMetadataResponse"](versions=versions, **model_metadata(model))

    async def repository_index(self, request: Any, context: Any) -> Any:
        state = "READY" if self._service.ready else "UNAVAILABLE"
        models = [
            {"name": model.name, "version": model.version, "state": state} for model in self._service.models.all()
        ]
        return MESSAGES["RepositoryIndexResponse"](models=models)

    async def model_infer(self, content: bytes, context: Any) -> bytes:
        return await self._infer(await self._asked(content, context.time_remaining()))

    async def model_stream_infer(self, contents: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """One answer per request, in their order; a refused request does not end the stream, and an idle stream does
        not hold the service."""
        async for content in contents:
            with self._service.held():
                identity = ""
                try:
                    asked = await self._asked(content, context.time_remaining())
                    identity = asked.id
                    response = await self._infer(asked)
                except RequestError as error:
                    failed = MESSAGES["ModelStreamInferResponse"](error_message=str(error))
                    failed.infer_response.id = identity
                    yield failed.SerializeToString()
                else:
                    yield b"".join(_field("ModelStreamInferResponse", "infer_response", response))

    async def _asked(self, content: bytes, remaining: float | None) -> _Asked:
        """The request that the bytes are, whose objects are not kept.

        remaining: seconds until the client's deadline.
        """
        received = time.monotonic()
        deadline = self._service.deadline(remaining, received)
        beside = _check_size(content, self._service.settings.max_json)
        if beside < IN_THREAD:
            asked = _read(content)
        else:
            asked = await self._service.in_turn(deadline, _read, content)
        if isinstance(asked.request, InferRequest):
            deadline = min(deadline, self._service.deadline(asked.request.timeout, received))
        return asked._replace(deadline=deadline)

    async def _infer(self, asked: _Asked) -> bytes:
        """A ModelInferResponse, serialised with one copy of the tensors: protobuf itself would take three."""
        with self._service.accepted(asked.model_name, asked.model_version, "grpc") as model:
            if isinstance(asked.request, RequestError):
                raise asked.request
            outputs = await self._service.infer(model, asked.request, asked.deadline)
            response = MESSAGES["ModelInferResponse"](model_name=model.name, model_version=model.version, id=asked.id)
            raw: list[Any] = []
            for name, array in outputs.items():
                response.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
                raw += _field("ModelInferResponse", "raw_output_contents", view_of(array))
            return b"".join([response.SerializeToString(), *raw])


def _field(message: str, name: str, content: bytes | memoryview) -> list[Any]:
    """A field of bytes as it stands in a serialised message, in parts; fields may follow each other in any order.

    https://protobuf.dev/programming-guides/encoding/
    """
    number = MESSAGES[message].DESCRIPTOR.fields_by_name[name].number
    return [_varint(number << 3 | _LENGTH_DELIMITED), _varint(len(content)), content]


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last have the eighth bit."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _check_size(content: bytes, most: int) -> int:
    """Bytes of a message without its raw tensors. As protobuf's and Python's objects they take many times as much, so
    they are counted, and the message's fields, before it is parsed.

    Raises RequestError where they are more than ``most``, there are too many fields, or these are no message.
    """
    raw = MESSAGES["ModelInferRequest"].DESCRIPTOR.fields_by_name["raw_input_contents"].number
    beside = fields = place = 0
    while place < len(content):
        key, end = _read_varint(content, place)
        if key & 7 == _LENGTH_DELIMITED:
            size, end = _read_varint(content, end)
            end += size
        elif key & 7 == _VARINT:
            _, end = _read_varint(content, end)
        elif key & 7 in _FIXED:
            end += _FIXED[key & 7]
        else:
            raise _no_message()
        if end > len(content):
            raise _no_message()
        fields += 1
        if fields > _MOST_FIELDS:
            raise invalid(f"a request may have {_MOST_FIELDS} inputs, outputs, parameters and raw tensors together")
        beside += 0 if key >> 3 == raw else end - place
        place = end
    if beside > most:
        raise RequestError(Reason.TOO_LARGE, f"a request may have {most} bytes that are no raw tensors: send these raw")
    return beside


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    """What ``_varint`` writes, and the place behind it; ten bytes at most."""
    number = 0
    for shift, byte in enumerate(content[place : place + 10]):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, place + shift + 1
    raise _no_message()


def _read(content: bytes) -> _Asked:
    request = _parsed("ModelInferRequest", content)
    try:
        parsed: InferRequest | RequestError = _parse(request)
    except RequestError as error:
        parsed = error.with_traceback(None)  # it would keep the objects
    return _Asked(request.model_name, request.model_version, request.id, parsed, 0.0)


def _parse(request: Any) -> InferRequest:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise invalid(f"there are {len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    inputs: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(request.inputs):
        if tensor.name in inputs:
            raise invalid(f"input {quoted(tensor.name)} is there twice")
        _refuse_shared_memory(tensor)
        if raw and tensor.HasField("contents"):
            raise invalid(f"input {quoted(tensor.name)} has both contents and raw_input_contents")
        inputs[tensor.name] = (
            from_bytes(tensor.name, tensor.datatype, tensor.shape, raw[index]) if raw else _from_contents(tensor)
        )
    for output in request.outputs:
        _refuse_shared_memory(output)
    names = [output.name for output in request.outputs]
    if len(set(names)) < len(names):
        raise invalid("an output is asked for twice")
    return InferRequest(inputs, names or None, timeout_of(_parameters(request.parameters)))


def _from_contents(tensor: Any) -> np.ndarray:
    dtype_of(tensor.name, tensor.datatype)
    sizes = check_shape(tensor.name, tensor.shape)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise invalid(f"input {quoted(tensor.name)} of {tensor.datatype} must be in raw_input_contents")
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise invalid(f"input {quoted(tensor.name)} of {tensor.datatype} must be in {field}, not {other.name}")
    values = getattr(tensor.contents, field)
    check_count(tensor.name, sizes, len(values))
    return from_numbers(tensor.name, tensor.datatype, sizes, np.fromiter(values, _HELD[field], len(values)))


def _refuse_shared_memory(tensor: Any) -> None:
    for name in tensor.parameters:
        if name.startswith("shared_memory"):
            raise invalid(f"{quoted(tensor.name)}: shared memory is not offered")
        if name == "classification":
            raise invalid(f"{quoted(tensor.name)}: classification is not offered")


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        found[name] = getattr(parameter, kind) if kind else None
    return found
