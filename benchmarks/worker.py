"""One peer in a process of its own, asked over a pipe: ``python -m benchmarks.worker PEER THREADS KEEP``.

A process for each peer and number of threads keeps thread pools, environment variables and memory apart. Only one of
them is asked at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import clock
from .peers import PEERS, Peer, peer_class
from .scenes import Scene

MOST_CALLS = 50
WARM_UP = 0.05
"""Seconds of calls before those that count."""
LONG_CALL = 0.5
"""Seconds: a task that takes longer fills its caches itself and is not called once more for that, but for the first."""
COUNTED_CALL = 5.0
"""Seconds: of a task that takes longer even the first call counts."""
ROOT = Path(__file__).resolve().parents[1]


class PeerFailed(RuntimeError):
    """A peer cannot run, or cannot do what it was asked; the message is its reason, in one line."""


class Worker:
    """The other end: starts the process and asks it."""

    def __init__(self, peer: str, threads: int, *, keep_memory: bool = True) -> None:
        """``keep_memory``: freed memory is reused, as in the middle of a long run. Raises PeerFailed where the peer
        cannot run."""
        self.peer, self.threads, self.keep_memory = peer, threads, keep_memory
        self.start()

    def start(self) -> None:
        """Start the process, again where it has ended."""
        # As the dibr command sets it: threads that spin while they wait keep others from their core.
        waits = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": None}
        variables = {**os.environ, **waits, **peer_class(self.peer).environment(self.threads)}
        self.process = subprocess.Popen(
            [
                peer_class(self.peer).python(),
                "-m",
                "benchmarks.worker",
                self.peer,
                str(self.threads),
                str(int(self.keep_memory)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in variables.items() if value is not None},
            cwd=ROOT,
        )
        self.version: str = self._answer()

    @property
    def ended(self) -> bool:
        """Whether the process is gone: some peers end theirs where others raise an error."""
        return self.process.poll() is not None

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def load(self, scene: Path) -> None:
        self._ask(do="load", scene=str(scene))

    def face_index(self, path: Path) -> np.ndarray:
        self._ask(do="face_index", path=str(path))
        return np.load(path)

    def outputs(self, task: str, path: Path) -> list[np.ndarray]:
        """What a task returns."""
        self._ask(do="outputs", task=task, path=str(path))
        with np.load(path) as data:
            return [data[name] for name in data.files]

    def time(self, task: str, seconds: float) -> list[tuple[float, float]]:
        """CPU and wall seconds of each call, for about ``seconds``, after some that are not counted."""
        return [(cpu, wall) for cpu, wall in self._ask(do="time", task=task, seconds=seconds)]

    def peak(self, scene: Path, task: str) -> int:
        """Bytes by which loading a scene and one call raise the peak resident size: inputs, outputs and the rest."""
        return self._ask(do="peak", scene=str(scene), task=task)

    def facts(self) -> dict[str, float]:
        return self._ask(do="facts")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def _ask(self, **question: Any) -> Any:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # an ended process is told by its missing answer
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerFailed(f"{self.peer} ended with exit code {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["value"]


class _Desk:
    """What the process answers."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.tasks: dict[str, Any] = {}
        self.last: dict[str, float] = {}
        """Seconds of the last call of a task on the loaded scene."""

    def load(self, scene: str) -> None:
        self.tasks.clear()
        self.last.clear()
        self.peer.load(Scene.load(Path(scene)))

    def face_index(self, path: str) -> None:
        np.save(path, self.peer.face_index())

    def outputs(self, task: str, path: str) -> None:
        np.savez(path, *map(_array, _several(self._task(task)())))

    def time(self, task: str, seconds: float) -> list[tuple[float, float]]:
        run = self._task(task)
        if self.last.get(task, 0.0) <= LONG_CALL:
            first = _warm_up(run, WARM_UP if seconds else 0.0)
            if first[1] > COUNTED_CALL:
                self.last[task] = first[1]
                return [first]
        taken: list[tuple[float, float]] = []
        end = time.perf_counter() + seconds
        while not taken or (time.perf_counter() < end and len(taken) < MOST_CALLS):
            taken.append(_timed(run))
        self.last[task] = taken[-1][1]
        return taken

    def peak(self, scene: str, task: str) -> int:
        before = clock.restart_peak()
        self.load(scene)
        outputs = self._task(task)()
        rise = clock.peak_bytes() - before
        del outputs
        return rise

    def facts(self) -> dict[str, float]:
        return self.peer.facts()

    def _task(self, name: str) -> Any:
        if name not in self.tasks:
            self.tasks[name] = self.peer.prepare(name)
        return self.tasks[name]


def _timed(run: Any) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    watch = clock.Stopwatch()
    run()
    return watch.stop()


def _warm_up(run: Any, seconds: float) -> tuple[float, float]:
    """At least one call, whose CPU and wall seconds are returned. The first after a pause find all threads of a process
    on one core, until the system spreads them."""
    end = time.perf_counter() + seconds
    first = _timed(run)
    while time.perf_counter() < end:
        run()
    return first


def _several(outputs: Any) -> list[Any]:
    """What a task returned, as a list: one output, several, or several by name."""
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _array(output: Any) -> np.ndarray:
    return np.asarray(output.detach() if hasattr(output, "detach") else output)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="One peer of the benchmark, asked through standard input.")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("threads", type=int)
    parser.add_argument("keep_memory", type=int, choices=(0, 1))
    arguments = parser.parse_args()
    (clock.keep_freed_memory if arguments.keep_memory else clock.return_freed_memory)()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        peer = peer_class(arguments.peer)(arguments.threads)
        answer(value=peer.version())
    except Exception as error:
        answer(error=_one_line(error))
        return
    desk = _Desk(peer)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer(value=getattr(desk, question.pop("do"))(**question))
        except Exception as error:
            answer(error=_one_line(error))


if __name__ == "__main__":
    main()
