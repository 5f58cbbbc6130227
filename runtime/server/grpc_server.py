"""The service over gRPC."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from .app import model_metadata
from .auth import Keys
from .errors import Reason, RequestError
from .messages import MESSAGES, SERVICE
from .service import EXTENSIONS, NAME, InferRequest, Service, timeout_of
from .tensors import datatype_of, dtype_of, from_bytes, from_numbers, invalid, quoted, view_of

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
_LENGTH_DELIMITED = 2
"""Wire type."""
_FRAME = 1 << 20
"""Bytes that a message may have around its tensors."""

Call = Callable[[Any, Any], Awaitable[Any]]


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
            maximum_concurrent_rpcs=settings.max_connections,
        )
        self._server.add_generic_rpc_handlers((_handlers(service),))
        address = f"{settings.host}:{settings.grpc_port}"
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
    unary: dict[str, Call] = {
        "ServerLive": calls.server_live,
        "ServerReady": calls.server_ready,
        "ServerMetadata": calls.server_metadata,
        "ModelReady": calls.model_ready,
        "ModelMetadata": calls.model_metadata,
        "ModelInfer": calls.model_infer,
        "RepositoryIndex": calls.repository_index,
    }
    door = _Door(service)
    handlers = {name: grpc.unary_unary_rpc_method_handler(door.guarded(name, call)) for name, call in unary.items()}
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(door.guarded_stream(calls.model_stream_infer))
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


class _Door:
    """Asks for the API key, holds the service until a call has ended, turns RequestErrors into statuses, and logs."""

    _PUBLIC = ("ServerLive", "ServerReady")

    def __init__(self, service: Service) -> None:
        self._service = service
        self._keys = Keys(service.settings.api_keys)

    def guarded(self, name: str, call: Call) -> Call:
        """The call, of bytes: grpc's own answer to bytes that are no message would be UNKNOWN, and a traceback."""

        async def guarded(content: bytes, context: Any) -> Any:
            release = self._service.hold()
            context.add_done_callback(lambda _: release())
            async with _answering(name, context):
                if name not in self._PUBLIC:
                    self._check(context)
                response = await call(_parsed(f"{name}Request", content), context)
                return response if isinstance(response, bytes) else response.SerializeToString()

        return guarded

    def guarded_stream(self, call: Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]) -> Any:
        async def guarded(contents: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            async with _answering("ModelStreamInfer", context):
                self._check(context)
                requests = (_parsed("ModelInferRequest", content) async for content in contents)
                async for response in call(requests, context):
                    yield response

        return guarded

    def _check(self, context: Any) -> None:
        shown = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        if not self._keys.admit(shown.get("authorization"), shown.get("x-api-key")):
            raise RequestError(Reason.UNAUTHENTICATED, "this needs an API key: metadata authorization = Bearer KEY")


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
        raise invalid("the request is no message of its type") from None


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

    async def model_infer(self, request: Any, context: Any) -> Any:
        return await self._infer(request, context.time_remaining())

    async def model_stream_infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """One answer per request, in their order; a refused request does not end the stream, and an idle stream does
        not hold the service."""
        async for request in requests:
            with self._service.held():
                try:
                    response = await self._infer(request, context.time_remaining())
                except RequestError as error:
                    failed = MESSAGES["ModelStreamInferResponse"](error_message=str(error))
                    failed.infer_response.id = request.id
                    yield failed.SerializeToString()
                else:
                    yield b"".join(_field("ModelStreamInferResponse", "infer_response", response))

    async def _infer(self, request: Any, remaining: float | None) -> bytes:
        """A ModelInferResponse, serialised with one copy of the tensors: protobuf itself would take three.

        remaining: seconds until the client's deadline.
        """
        with self._service.accepted(request.model_name, request.model_version, "grpc") as model:
            asked = _parse(request, remaining)
            outputs = await self._service.infer(model, asked)
            response = MESSAGES["ModelInferResponse"](model_name=model.name, model_version=model.version, id=request.id)
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


def _parse(request: Any, remaining: float | None) -> InferRequest:
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
    timeout = timeout_of(_parameters(request.parameters))
    limits = [seconds for seconds in (timeout, remaining) if seconds is not None]
    return InferRequest(inputs, names or None, min(limits, default=None))


def _from_contents(tensor: Any) -> np.ndarray:
    dtype_of(tensor.name, tensor.datatype)
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        raise invalid(f"input {quoted(tensor.name)} of {tensor.datatype} must be in raw_input_contents")
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise invalid(f"input {quoted(tensor.name)} of {tensor.datatype} must be in {field}, not {other.name}")
    values = getattr(tensor.contents, field)
    dtype = bool if tensor.datatype == "BOOL" else None
    return from_numbers(tensor.name, tensor.datatype, tensor.shape, np.array(values, dtype))


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
