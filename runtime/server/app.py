"""The service over HTTP, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import http_infer, metrics
from .auth import Keys
from .errors import Reason, RequestError
from .http_body import PartsResponse, packed, read_body, wanted_coding
from .http_protocol import CROWDED
from .repository import Model
from .service import EXTENSIONS, NAME, Service
from .tensors import datatype_of, metadata_shape

log = logging.getLogger(__name__)

PROBES = ("/v2/health/live", "/v2/health/ready")
"""Answered on connections beyond the limit too: a service with many clients is not to be taken for a dead one."""
PUBLIC_PATHS = ("/", *PROBES)
"""What needs no API key, and what begins with one of PUBLIC_PREFIXES."""
PUBLIC_PREFIXES: tuple[str, ...] = ("/static/",)
PLATFORM = "dibr_deploy_onnx"


def build_app(service: Service, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The protocol's endpoints, metrics, and further routes, which find the service as ``request.app.state.service``.

    Errors of a route that are RequestError become its status and ``{"error": sentence}``.
    """
    model = "/v2/models/{name}"
    version = model + "/versions/{version}"
    app = Starlette(
        routes=[
            Route("/v2", _server_metadata),
            Route("/v2/health/live", _live),
            Route("/v2/health/ready", _ready),
            Route("/v2/repository/index", _index, methods=["POST"]),
            Route("/metrics", _metrics),
            *(Route(path, _model_metadata) for path in (model, version)),
            *(Route(f"{path}/ready", _model_ready) for path in (model, version)),
            *(Route(f"{path}/infer", _infer, methods=["POST"]) for path in (model, version)),
            *routes,
        ],
        exception_handlers={RequestError: _refused, HTTPException: _http_error, Exception: _failed},
    )
    app.router.redirect_slashes = False  # to whatever host the request names, and out of TLS behind a proxy
    app.state.service = service
    return _Door(app, service)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def model_of(request: Request) -> tuple[str, str]:
    """Name and version in the path; "" for no version."""
    return request.path_params["name"], request.path_params.get("version", "")


async def unless_gone(request: Request, task: Awaitable[Any]) -> Any:
    """The result, or a cancelled task and ``RequestError`` as soon as the client has closed its connection.

    The body must have been read.
    """
    work = asyncio.ensure_future(task)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        raise RequestError(Reason.CANCELLED, "the client went away")
    finally:
        gone.cancel()
        work.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


_LEFT = {"type": "http.response.body", "more_body": True}
"""Waits until what was sent before has left for the client, but for some kilobytes; messages with content do not."""
_END = {"type": "http.response.body"}
_MOST_DROPPED = 1 << 26
"""Bytes of a request that are read after its answer."""


class _Door:
    """Asks for the API key, holds the service until the client has taken its answer, and logs what it was.

    What is left of the request is read and dropped before the connection may be closed: the system resets a connection
    that is closed with something unread, and a client that still sends would lose its answer.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._keys = Keys(service.settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500
        read = False
        crowded = scope.get("state", {}).get(CROWDED)

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if crowded:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif not message.get("more_body"):
                await send({**message, "more_body": True})
                message = _LEFT
            await send(message)

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            read = not message.get("more_body")
            return message

        try:
            with self._service.held():
                await self._handler(scope)(scope, receiving, sending)
        finally:
            client = scope.get("client")
            log.info(
                "request",
                extra={
                    "protocol": "http", "method": scope["method"], "path": scope["path"][:200], "status": status,
                    "client": client[0] if client else None, "seconds": round(time.monotonic() - began, 6),
                },
            )  # fmt: skip
        if not read:
            await self._drop_rest(receive)
        await send(_END)

    async def _drop_rest(self, receive: Receive) -> None:
        """For as long as a whole request may take to come."""

        async def drop() -> None:
            dropped, more = 0, True
            while more and dropped <= _MOST_DROPPED:
                message = await receive()
                dropped += len(message.get("body", b""))
                more = message.get("more_body", False)

        with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(drop(), self._service.settings.upload_timeout)

    def _handler(self, scope: Scope) -> ASGIApp:
        try:
            self._admit(scope)
        except RequestError as error:
            self._service.metrics.turned_away.labels("http", error.reason.name.lower()).inc()
            return _refusal(error)
        return self._app

    def _admit(self, scope: Scope) -> None:
        """Raises RequestError."""
        path = scope["path"]
        if scope.get("state", {}).get(CROWDED) and path not in PROBES:
            raise RequestError(Reason.CROWDED, "there are too many connections: try later")
        if path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES):
            return
        headers = dict(scope["headers"])
        shown = (headers.get(name, b"").decode("latin-1") for name in (b"authorization", b"x-api-key"))
        if not self._keys.admit(*shown):
            raise RequestError(Reason.UNAUTHENTICATED, "this needs an API key: Authorization: Bearer KEY")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


def _refusal(error: RequestError) -> Response:
    headers = {}
    if error.reason in (Reason.QUEUE_FULL, Reason.CROWDED, Reason.UNAVAILABLE):
        headers["retry-after"] = "1"
    if error.reason in (Reason.TOO_LARGE, Reason.SLOW_UPLOAD, Reason.CROWDED, Reason.UNAVAILABLE):
        headers["connection"] = "close"  # the rest of the body is not worth keeping the connection
    if error.reason is Reason.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return _error(error.reason.http_status, str(error), headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _refusal(error)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, dict(error.headers or {}))


async def _failed(_: Request, error: Exception) -> Response:
    log.error("request failed", extra={"why": repr(error)})
    return _error(500, "the service failed at this request")


async def _live(_: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(request: Request) -> Response:
    ready = service_of(request).ready
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _server_metadata(request: Request) -> Response:
    return JSONResponse({"name": NAME, "version": service_of(request).version, "extensions": list(EXTENSIONS)})


async def _index(request: Request) -> Response:
    state = "READY" if service_of(request).ready else "UNAVAILABLE"
    return JSONResponse(
        [
            {"name": model.name, "version": model.version, "state": state, "reason": ""}
            for model in service_of(request).models.all()
        ]
    )


async def _metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.text(), media_type=metrics.CONTENT_TYPE)


async def _model_metadata(request: Request) -> Response:
    models = service_of(request).models
    model = models.find(*model_of(request))
    return JSONResponse({"versions": models.versions(model.name), **model_metadata(model)})


def model_metadata(model: Model) -> dict[str, Any]:
    """As the protocol has it, without the versions."""
    session = model.session
    tensors = {
        kind: [
            {"name": info.name, "datatype": datatype_of(info.dtype), "shape": metadata_shape(info)} for info in infos
        ]
        for kind, infos in (("inputs", session.inputs), ("outputs", session.outputs))
    }
    return {"name": model.name, "platform": PLATFORM, **tensors}


async def _model_ready(request: Request) -> Response:
    service = service_of(request)
    service.models.find(*model_of(request))
    return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)


async def _infer(request: Request) -> Response:
    service = service_of(request)
    with service.accepted(*model_of(request), "http") as model:
        body = await read_body(request, service.settings)
        received = time.monotonic()
        stated = request.headers.get(http_infer.HEADER_LENGTH)
        asked = await http_infer.parse(service, body, stated, service.deadline(None, received))
        deadline = service.deadline(asked.request.timeout, received)
        outputs = await unless_gone(request, service.infer(model, asked.request, deadline))
        parts, json_length = await http_infer.answer(service, asked, model.name, model.version, outputs, deadline)
    headers = {}
    if json_length is not None:
        headers[http_infer.HEADER_LENGTH] = str(json_length)
    coding = wanted_coding(request)
    if coding is not None:
        parts = await packed(parts, coding)
        headers["content-encoding"] = coding
    media = "application/json" if json_length is None else "application/octet-stream"
    return PartsResponse(parts, headers, media)
