"""Kills a training anywhere: FOLDER/whole is never stopped, FOLDER/killed is killed and resumed again and again.

    python killing.py FOLDER STEPS SEED dibr-arguments...    # prints how many steps the log had after each kill

Each run is a fork of this process, which has imported torch, what an optimizer's first step would import included, and
never computed with it. It counts what Python calls and returns from its first step on, and sends itself SIGKILL at a
number drawn at random, one in each fifth of the training: within a step, a line of the log, a picture or a checkpoint.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from dibr_deploy.cli import main

for module in ("dibr_deploy.training.adversarial", "dibr_deploy.training.trainer", "torch._dynamo"):  # before any fork
    importlib.import_module(module)

KILLS = 5
CHECKPOINT_EVERY = 3  # steps
FORK = multiprocessing.get_context("fork")


class Training:
    """A run that counts, and kills itself when it has counted far enough."""

    def __init__(self, arguments: Sequence[str], limit: int = 0) -> None:
        self.counted = FORK.RawValue("q", 0)
        self._arguments, self._limit = arguments, limit

    def exit_code(self) -> int:
        process = FORK.Process(target=self._train)
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode

    def _train(self) -> None:
        sys.setprofile(self._wait)
        sys.exit(main(self._arguments))

    def _wait(self, frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_name == "_train_step":
            sys.setprofile(self._count)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        self.counted.value += 1
        if self.counted.value == self._limit:
            os.kill(os.getpid(), signal.SIGKILL)


def kill(folder: Path, steps: int, draws: random.Random, arguments: Sequence[str]) -> list[int]:
    arguments = [*arguments, f"--checkpoint-every={CHECKPOINT_EVERY}"]
    whole = Training([*arguments, f"--steps={steps}", "--output", str(folder / "whole")])
    assert whole.exit_code() == 0
    run, done = folder / "killed", [0]
    command = [*arguments, f"--steps={steps}", "--output", str(run)]
    for fifth in range(KILLS):
        # One checkpoint late where the kill came between a line of the log and its checkpoint.
        resumed = (done[-1] - done[-1] % CHECKPOINT_EVERY) / steps
        limit = int(whole.counted.value * (draws.uniform(fifth, fifth + 1) / KILLS - resumed))
        code = Training(command, max(limit, 1)).exit_code()
        assert code == -signal.SIGKILL, code
        done.append(len((run / "losses.csv").read_text().splitlines()) - 1)
        command = [*arguments, "--resume", "--output", str(run)]
    assert Training(command).exit_code() == 0
    return done[1:]


if __name__ == "__main__":
    folder, steps, seed, *arguments = sys.argv[1:]
    print(json.dumps(kill(Path(folder), int(steps), random.Random(int(seed)), arguments)))
