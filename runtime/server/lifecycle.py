"""A service from its start to its end: ports, signals, and an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from dibr_deploy.errors import DibrError

from .app import build_app
from .grpc_server import GrpcServer
from .http_protocol import limited_protocol
from .reloader import Reloader
from .repository import ModelSpec
from .routes import extra_routes
from .service import Service
from .settings import Settings

log = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGINT)
_TICK = 0.05
_KEEP_ALIVE = 60
_TO_SEND = 5.0
"""Seconds after the shutdown's time that idle connections, refusals and the last bytes of answers have."""
_TO_STOP = 5.0
"""Seconds that models have to finish runs for which nobody waits any more, and a reload to end."""
_TO_GIVE_UP = 1.0
"""Seconds that gRPC has beyond _TO_SEND to end its calls."""
AFTER_SHUTDOWN_TIMEOUT = 2 * _TO_SEND + _TO_GIVE_UP + _TO_STOP
"""Seconds that the end may take beyond the shutdown's time: of HTTP, then of gRPC, then of the models."""
_TCP_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LISTENS = "0A"


class Ports(NamedTuple):
    """Where a started service listens."""

    http: int
    grpc: int | None


class _HttpServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the lifecycle's: one of them ends HTTP and gRPC together."""
        yield


async def serve(
    specs: Sequence[ModelSpec],
    settings: Settings,
    *,
    started: Callable[[Ports], object] = lambda ports: None,
    stop: asyncio.Event | None = None,
) -> bool:
    """Open the models, listen, and return after SIGTERM or SIGINT, when accepted requests are answered.

    SIGHUP opens models again that have changed on disk, also where it comes while they are opened.

    Args:
        specs: the models.
        settings: everything else.
        started: called when requests are taken.
        stop: ends the service when it is set, as SIGTERM does.

    Returns:
        Whether every accepted request was answered, and its client has taken the answer, and no model hangs.

    Raises:
        DibrError: a port or a certificate cannot be had, or what ``Session`` raises of a model.
    """
    stop = stop or asyncio.Event()
    changed = asyncio.Event()
    _on_signals({signal.SIGHUP: changed.set})
    service = await asyncio.to_thread(Service, specs, settings)
    reloader = Reloader(service.models.reload)
    answered = False
    try:
        _on_signals({**dict.fromkeys(_ENDING, stop.set), signal.SIGHUP: reloader.ask})
        if changed.is_set():
            reloader.ask()
        with _listening(settings) as listener:
            http = _HttpServer(_http_config(service, settings))
            grpc_server = _grpc_server(service)
            serving = asyncio.create_task(http.serve(sockets=[listener]))
            while not http.started and not serving.done():
                await asyncio.sleep(_TICK / 10)
            if grpc_server is not None:
                await grpc_server.start()
            ports = Ports(listener.getsockname()[1], grpc_server.port if grpc_server else None)
            log.info("started", extra={"host": settings.host, **ports._asdict(), "models": _names(service)})
            started(ports)
            await asyncio.wait((asyncio.ensure_future(stop.wait()), serving), return_when=asyncio.FIRST_COMPLETED)
            answered = await _shut_down(service, http, grpc_server, serving)
    finally:
        closed = await asyncio.to_thread(_close, service, reloader)
    return answered and closed


def _close(service: Service, reloader: Reloader) -> bool:
    end = time.monotonic() + _TO_STOP
    closed = service.close(_TO_STOP)
    return reloader.stop(max(end - time.monotonic(), 0.0)) and closed


async def _shut_down(
    service: Service, http: _HttpServer, grpc_server: GrpcServer | None, serving: asyncio.Task[None]
) -> bool:
    timeout = service.settings.shutdown_timeout
    log.info("shutting down", extra={"timeout": timeout})
    service.stop_accepting()
    finished = await service.finish(timeout)
    http.should_exit = True
    await serving
    if grpc_server is not None:
        finished &= await _end_calls(grpc_server)
    finished = finished and not any(_unsent(connection) for connection in http.server_state.connections)
    log.info("stopped", extra={"all_answered": finished})
    return finished


async def _end_calls(grpc_server: GrpcServer) -> bool:
    """Stop when the clients have taken their answers, and say whether they have: gRPC closes a connection as soon as
    its last call has ended, and the system forgets what it has not sent yet when the client writes to a closed one, as
    gRPC does while it reads.

    An idle stream holds the server for the time to send; a client that takes nothing would hold it for longer still,
    until gRPC gives its connection up.
    """
    end = time.monotonic() + _TO_SEND
    while (waiting := await asyncio.to_thread(_unacknowledged, grpc_server.port)) and time.monotonic() < end:
        await asyncio.sleep(_TICK)
    left = max(end - time.monotonic(), 0.0)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(grpc_server.stop(left), left + _TO_GIVE_UP)
    return not waiting


def _unacknowledged(port: int) -> bool:
    """Whether the system has bytes for a client of this port that the client's side has not received. Where it does
    not tell, as on other systems than Linux, False.

    https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
    """
    for table in _TCP_TABLES:
        with contextlib.suppress(OSError, ValueError):
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, queues = line.split()[:5]
                if int(local.rpartition(":")[2], 16) == port and state != _LISTENS and int(queues.split(":")[0], 16):
                    return True
    return False


def _unsent(connection: Any) -> bool:
    """Whether the client has left a part of an answer where it was, too small to hold up the one who writes it."""
    return connection.transport.get_write_buffer_size() > 0


def _names(service: Service) -> list[str]:
    return [f"{model.name}:{model.version}" for model in service.models.all()]


def _http_config(service: Service, settings: Settings) -> uvicorn.Config:
    try:
        config = uvicorn.Config(
            build_app(service, extra_routes()),
            http=limited_protocol(settings.upload_timeout, settings.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(_TO_SEND),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        config.load()
    except OSError as error:  # of ssl
        raise DibrError(f"the TLS certificate or key cannot be used: {error}") from error
    return config


def _grpc_server(service: Service) -> GrpcServer | None:
    settings = service.settings
    if settings.grpc_port is None:
        return None
    try:
        return GrpcServer(service)
    except RuntimeError as error:
        raise DibrError(f"gRPC cannot listen at {settings.host}:{settings.grpc_port}: {error}") from error


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY on connections of this protocol alone; without it every answer waits 40 ms for the
    # client's delayed acknowledgement of its headers.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.http_port))
        except OSError as error:
            raise DibrError(f"HTTP cannot listen at {settings.host}:{settings.http_port}: {error.strerror}") from error
        yield listener


def _on_signals(handlers: Mapping[int, Callable[[], None]]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(RuntimeError, ValueError):  # not the main thread: its owner has signals
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
