"""Several replicas of a model behind Ray Serve: placement, scaling and restarts are Ray's, the model is a Session.

    pip install 'ray[serve]' 'dibr_deploy[onnxruntime]'
    python examples/ray_serve.py model.zip --replicas 2

Each replica is a process with a session of its own, so that one model uses several machines or devices. What waits for
a replica is batched by Ray. With --measure it compares one replica with several, in turns, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray
from ray import serve

from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample

MAX_BATCH = 8
ROUNDS = 3


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=2 * MAX_BATCH)
class Model:
    """A replica: arrays in by name, each with a batch of one; arrays out by name."""

    def __init__(self, path: str) -> None:
        self.session = Session(path, threads=1)
        self.session.warm_up()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.0)
    async def __call__(self, feeds: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        outputs = await asyncio.to_thread(self.session.run, **joined)
        # Outputs without the batch axis, such as the faces, are the same for all.
        dynamic = {info.name for info in self.session.outputs if info.shape and not isinstance(info.shape[0], int)}
        return [
            {name: array[number : number + 1] if name in dynamic else array for name, array in outputs.items()}
            for number in range(len(feeds))
        ]


def start(path: Path, replicas: int) -> Any:
    """A handle of the running replicas."""
    return serve.run(Model.options(num_replicas=replicas).bind(str(path.resolve())), route_prefix=None)


def example(path: Path) -> dict[str, np.ndarray]:
    """The first of the batch in the bundle's own sample."""
    inputs, _ = read_sample(Bundle(path))
    return {name: array[:1] for name, array in inputs.items()}


async def ask_many(handle: Any, feed: dict[str, np.ndarray], requests: int, at_once: int) -> list[float]:
    """Seconds of every request, with so many at a time."""
    gate = asyncio.Semaphore(at_once)

    async def ask() -> float:
        async with gate:
            began = time.monotonic()
            await handle.remote(feed)
            return time.monotonic() - began

    return list(await asyncio.gather(*(ask() for _ in range(requests))))


def measure(path: Path, replicas: int, requests: int) -> None:
    """Requests of one image per second, MAX_BATCH per replica at a time; every replica has one thread."""
    feed = example(path)
    rates: dict[int, list[float]] = {1: [], replicas: []}
    for _ in range(ROUNDS):  # in turns, so that what else the machine does falls on both
        for count, own in rates.items():
            handle = start(path, count)
            asyncio.run(ask_many(handle, feed, 2 * count, 2 * count))
            began = time.monotonic()
            seconds = asyncio.run(ask_many(handle, feed, requests, MAX_BATCH * count))
            own.append(requests / (time.monotonic() - began))
            print(f"{count} replicas: {own[-1]:.1f} requests/s, p50 {1e3 * statistics.median(seconds):.0f} ms")
            serve.delete("default")
    ratio = statistics.median(rates[replicas]) / statistics.median(rates[1])
    load = os.getloadavg()[0]
    print(
        f"{replicas} replicas: {ratio:.2f} times the throughput of one (medians of {ROUNDS}; load average {load:.0f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a bundle with several replicas behind Ray Serve.")
    parser.add_argument("model", type=Path, help="a bundle whose model has a dynamic batch")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--measure", type=int, metavar="REQUESTS", help="compare with one replica, and end")
    arguments = parser.parse_args()
    ray.init(include_dashboard=False, logging_level="warning")
    if arguments.measure:
        measure(arguments.model, arguments.replicas, arguments.measure)
        return
    handle = start(arguments.model, arguments.replicas)
    outputs = asyncio.run(_once(handle, example(arguments.model)))
    print({name: array.shape for name, array in outputs.items()})
    while True:
        time.sleep(1)


async def _once(handle: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return await handle.remote(feed)


if __name__ == "__main__":
    main()
