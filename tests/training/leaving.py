"""Trainings by two processes, one after the other, and how many threads of gloo each has left behind.

    python leaving.py FOLDER "dibr-arguments"...    # FOLDER/0.json, 1.json: what each process found, a list

Each training is of one step and ends in each of the ways of ENDS.

Both are forks of this process, which has imported torch and never computed with it, with the variables of `torchrun`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist

from dibr_deploy.cli import main
from dibr_deploy.errors import DibrError
from dibr_deploy.training import distributed
from dibr_deploy.training.runs import TrainingRun

FORK = multiprocessing.get_context("fork")
PATIENCE = 120


def interrupt(run: TrainingRun[Any]) -> None:
    signal.raise_signal(signal.SIGINT)


def fail(run: TrainingRun[Any]) -> None:
    """With an error that keeps the run by its own frames, by those of its cause and by those of its context."""
    cause = refusal(run)
    try:
        refuse(run)
    except OSError:
        raise DibrError("no step is good enough") from cause


def refusal(run: TrainingRun[Any]) -> OSError:
    try:
        refuse(run)
    except OSError as error:
        return error
    raise AssertionError


def refuse(run: TrainingRun[Any]) -> None:
    raise OSError("refused")


ENDS: dict[str, Callable[[TrainingRun[Any]], None]] = {
    "done": lambda run: None,
    "interrupted": interrupt,
    "failed": fail,
}


def gloo_threads() -> int:
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended
            names.append(path.read_text().strip())
    return names.count("pt_gloo_runloop")


def gloo_threads_left() -> int:
    """Those that are there to stay: for a moment, one that was joined is listed too."""
    deadline = time.monotonic() + 2
    while gloo_threads() > 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    return gloo_threads()


def train(arguments: Sequence[str], end: str) -> dict[str, Any]:
    """What came of one training with such an end."""
    found: dict[str, Any] = {}
    join, follow = distributed.join_processes, TrainingRun._follow_schedule

    @contextlib.contextmanager
    def join_processes(device: str) -> Iterator[distributed.Processes]:
        try:
            with join(device) as processes:
                yield processes
        finally:
            found["after"] = gloo_threads_left()

    def follow_schedule(run: TrainingRun[Any], *optimizers: Any) -> None:
        found["during"] = gloo_threads()
        ENDS[end](run)
        follow(run, *optimizers)

    with (
        mock.patch.object(distributed, "join_processes", join_processes),
        mock.patch.object(TrainingRun, "_follow_schedule", follow_schedule),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        found["code"] = main(arguments)
    return {"command": " ".join(arguments), "end": end, "said": said.getvalue(), **found}


def train_each(rank: int, folder: Path, commands: Sequence[str]) -> None:
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    init, found = dist.init_process_group, []
    for number, (command, end) in enumerate(itertools.product(commands, ENDS)):
        meeting = f"file://{folder}/meeting_{number}"
        dist.init_process_group = functools.partial(init, init_method=meeting, rank=rank, world_size=2)
        found.append(train([*shlex.split(command), "--steps=1", "--output", f"{folder}/run_{number}"], end))
    (folder / f"{rank}.json").write_text(json.dumps(found))


def exit_codes(folder: Path, commands: Sequence[str]) -> list[int | None]:
    processes = [FORK.Process(target=train_each, args=(rank, folder, commands)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    codes = exit_codes(Path(sys.argv[1]), sys.argv[2:])
    sys.exit(0 if codes == [0, 0] else f"exit codes {codes}")
