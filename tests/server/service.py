"""A service in this process, on ports of its own, until the end of a ``with`` block."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from dibr_deploy.runtime.server.lifecycle import Ports, serve
from dibr_deploy.runtime.server.repository import parse_specs
from dibr_deploy.runtime.server.settings import settings_of


class Running(NamedTuple):
    ports: Ports
    stop: Callable[[], bool]
    """Ends the service, and returns what ``serve`` has returned."""

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports.http}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Come back when it holds; fail where it does not come to hold."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.005)


@contextmanager
def running(models: Sequence[str], **settings: Any) -> Iterator[Running]:
    """Serves models, named as on the command line."""
    chosen = settings_of(**{"http_port": 0, "grpc_port": 0, "threads": 1, **settings})
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    found: list[Ports] = []
    up = threading.Event()

    def announce(ports: Ports) -> None:
        found.append(ports)
        up.set()

    async def main() -> bool:
        return await serve(parse_specs(models), chosen, started=announce, stop=stop)

    failures: list[BaseException] = []
    results: list[bool] = []

    def target() -> None:
        try:
            results.append(loop.run_until_complete(main()))
        except BaseException as error:
            failures.append(error)
        finally:
            up.set()

    def end() -> bool:
        if found:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    thread = threading.Thread(target=target)
    thread.start()
    up.wait()
    try:
        if failures:
            raise failures[0]
        yield Running(found[0], end)
    finally:
        if found:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
