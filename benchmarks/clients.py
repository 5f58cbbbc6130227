"""Clients of tritonclient that ask a service at the same time, from a few processes of their own."""

from __future__ import annotations

import bisect
import itertools
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from benchmarks import doors

PROTOCOLS = {"HTTP": "tritonclient.http", "gRPC": "tritonclient.grpc"}
REFUSED = {"HTTP": "429", "gRPC": "StatusCode.RESOURCE_EXHAUSTED"}
"""Status where the queue is full."""
PATIENCE = 0.05
"""Seconds until a client that was refused tries again."""
_LONGEST = 600.0


class Asked(NamedTuple):
    """What became of many requests."""

    spans: list[tuple[float, float]]
    """When each request that was answered left and had its answer, by the one clock of the machine."""
    refused: int

    @property
    def seconds(self) -> list[float]:
        return [ended - began for began, ended in self.spans]

    @property
    def answers(self) -> list[int]:
        """For each request, how many had their answers after it left and until it had its own."""
        ends = sorted(ended for _, ended in self.spans)
        return [bisect.bisect_right(ends, ended) - bisect.bisect_right(ends, began) for began, ended in self.spans]

    @property
    def gaps(self) -> list[float]:
        """Seconds between an answer and the next one, whoever had it."""
        ends = sorted(ended for _, ended in self.spans)
        return [after - before for before, after in itertools.pairwise(ends)]

    @property
    def wall(self) -> float:
        """Seconds from the first request to the last answer."""
        return max(ended for _, ended in self.spans) - min(began for began, _ in self.spans)


class Clients:
    """Processes with a few threads each, every thread with a client of its own; they stay until the end of a ``with``
    block."""

    def __init__(self, processes: int, threads: int) -> None:
        self.count = processes * threads
        self._processes, self._threads = processes, threads
        spawn = multiprocessing.get_context("spawn")
        gate = spawn.Barrier(self.count, timeout=_LONGEST)
        self._pool = ProcessPoolExecutor(processes, spawn, initializer=_set_gate, initargs=(gate,))

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def ask(self, protocol: str, address: str, feed: Mapping[str, np.ndarray], each: int) -> Asked:
        """Every client asks until it has so many answers, and the next time when it has one.

        A client that is refused since the queue is full tries again after PATIENCE; what fails otherwise, raises.
        """
        tasks = [
            self._pool.submit(_ask_from_here, protocol, address, feed, each, self._threads)
            for _ in range(self._processes)
        ]
        return _together([task.result() for task in tasks])


def client_of(protocol: str, address: str) -> tuple[Any, Any]:
    """tritonclient's module for a protocol, and a client that waits for long answers."""
    import importlib

    module = importlib.import_module(PROTOCOLS[protocol])
    options = {"network_timeout": _LONGEST, "connection_timeout": _LONGEST} if protocol == "HTTP" else {}
    return module, module.InferenceServerClient(address, **options)


_gate: Any = None
"""Of a client process: where all clients wait for each other before the first request."""


def _set_gate(gate: Any) -> None:
    global _gate
    _gate = gate


def _ask_from_here(protocol: str, address: str, feed: Mapping[str, np.ndarray], each: int, threads: int) -> Asked:
    with ThreadPoolExecutor(threads) as pool:
        return _together([*pool.map(lambda _: _ask_in_turn(protocol, address, feed, each), range(threads))])


def _together(parts: Sequence[Asked]) -> Asked:
    return Asked([*itertools.chain(*(part.spans for part in parts))], sum(part.refused for part in parts))


def _ask_in_turn(protocol: str, address: str, feed: Mapping[str, np.ndarray], each: int) -> Asked:
    from tritonclient.utils import InferenceServerException

    module, client = client_of(protocol, address)
    client.is_server_ready()
    _gate.wait()
    spans: list[tuple[float, float]] = []
    refused = 0
    while len(spans) < each:
        began = time.monotonic()
        try:
            doors.ask(module, client, feed)
        except InferenceServerException as error:
            if error.status() != REFUSED[protocol]:
                raise
            refused += 1
            time.sleep(PATIENCE)
        else:
            spans.append((began, time.monotonic()))
    client.close()
    return Asked(spans, refused)
