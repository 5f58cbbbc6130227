"""`dibr serve`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .settings import Settings

_MIB = 1 << 20
_AS_THEY_ARE = (
    "host", "http_port", "provider", "threads", "instances", "max_batch", "queue_limit", "timeout", "upload_timeout",
    "max_pixels", "max_connections", "shutdown_timeout", "tls_certificate", "tls_key",
)  # fmt: skip


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `serve`."""
    serve = subparsers.add_parser("serve", help="answer inference requests over HTTP and gRPC")
    serve.add_argument(
        "models",
        nargs="+",
        metavar="BUNDLE",
        help="PATH, NAME=PATH or NAME:VERSION=PATH of a bundle or ONNX file, or a folder of them",
    )
    ports = serve.add_argument_group("where")
    ports.add_argument("--host", default="127.0.0.1", help="address to listen at (default %(default)s)")
    ports.add_argument("--http-port", type=int, default=8000, metavar="PORT", help="0: a free one (default 8000)")
    ports.add_argument("--grpc-port", type=int, default=8001, metavar="PORT", help="0: a free one (default 8001)")
    ports.add_argument("--no-grpc", action="store_true", help="HTTP alone")
    ports.add_argument("--tls-certificate", type=Path, metavar="FILE", help="PEM, for both protocols")
    ports.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM")
    ports.add_argument("--api-keys", type=Path, metavar="FILE", help="a key per line, any of which lets requests in")

    run = serve.add_argument_group("how models run")
    run.add_argument("--provider", default="auto", help="see Session (default auto)")
    run.add_argument("--threads", type=int, metavar="N", help="of one operator (default: one per core)")
    run.add_argument("--instances", type=int, default=1, metavar="N", help="runs at the same time (default 1)")
    run.add_argument("--max-batch", type=int, default=8, metavar="N", help="of one run (default 8); 1: no batching")
    run.add_argument("--max-delay", type=float, default=0.0, metavar="MS", help="to wait for a full batch (default 0)")
    run.add_argument("--queue-limit", type=int, default=64, metavar="N", help="requests that wait (default 64)")

    limits = serve.add_argument_group("limits")
    limits.add_argument("--timeout", type=float, default=30.0, metavar="S", help="of a request (default 30)")
    limits.add_argument("--upload-timeout", type=float, default=30.0, metavar="S", help="of head, body (default 30)")
    limits.add_argument("--max-request", type=float, default=64, metavar="MIB", help="of its body (default 64)")
    limits.add_argument("--max-json", type=float, default=4, metavar="MIB", help="of it, not raw (default 4)")
    limits.add_argument("--max-pixels", type=int, default=1 << 24, metavar="N", help="of an image file (default 2^24)")
    limits.add_argument("--max-connections", type=int, default=512, metavar="N", help="at a time (default 512)")
    limits.add_argument(
        "--shutdown-timeout", type=float, default=30.0, metavar="S", help="for accepted requests (default 30)"
    )
    serve.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(default %(default)s)"
    )
    serve.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging
    import os

    from . import logs

    logs.set_up(arguments.log_level)
    with _ending_at_once_on_signals():
        from .lifecycle import serve
        from .repository import parse_specs

        answered = asyncio.run(serve(parse_specs(arguments.models), _settings(arguments)))
    if answered:
        return 0
    logging.shutdown()
    os._exit(1)  # a run that hangs must not see the libraries that it is in taken down


@contextmanager
def _ending_at_once_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the process with exit code 0, until the models are open and ``serve`` has signals of its
    own: nothing has been accepted that would have to be finished, and the opening of a model cannot be broken off.
    SIGHUP does nothing, as nothing has been opened that could have changed.

    At the end they are again whose they were. In a thread that is not the main one nothing changes.
    """
    import logging
    import os
    import signal
    import threading

    def end(number: int, _: object) -> None:
        extra = {"signal": signal.Signals(number).name}
        logging.getLogger(__name__).info("stopped before the start", extra=extra)
        logging.shutdown()
        os._exit(0)  # the thread that opens a model must not see the libraries that it is in taken down

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {signal.SIGTERM: end, signal.SIGINT: end, signal.SIGHUP: lambda number, frame: None}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _settings(arguments: argparse.Namespace) -> Settings:
    from .settings import settings_of

    return settings_of(
        **{name: getattr(arguments, name) for name in _AS_THEY_ARE},
        grpc_port=None if arguments.no_grpc else arguments.grpc_port,
        max_delay=arguments.max_delay / 1e3,
        max_request=arguments.max_request * _MIB // 1,
        max_json=arguments.max_json * _MIB // 1,
        api_keys=_keys(arguments.api_keys),
    )


def _keys(path: Path | None) -> tuple[str, ...]:
    """Lines of a file; empty ones and those that begin with # are none."""
    from dibr_deploy.errors import DibrError

    if path is None:
        return ()
    lines = (line.strip() for line in path.read_text().splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise DibrError(f"--api-keys {path} has no key in it")
    return keys
