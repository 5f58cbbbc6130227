"""Trainings as `torchrun` starts them, and what they log."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from training import stopping

DIBR = ("-m", "dibr_deploy.cli")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMANDS = {
    "train": ("train", "--batch=2", "--image-size=32", "--texture-size=32"),
    "generate train": ("generate", "train", "--objects=2", "--latent=4"),
}


def rows_of(run: Path) -> list[dict[str, str]]:
    """The log of a run."""
    with (run / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def train_by_one_and_two(folder: Path, arguments: Sequence[str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The logs of one run by one process, and by two that share its steps, each with one thread.

    With another number of threads, one process alone was seen 1.3e-4 away in a single step, and nowhere else.
    """
    for name, launcher in (("one", ()), ("two", TWO)):
        run(*launcher, *DIBR, *arguments, "--output", str(folder / name))
    return rows_of(folder / "one"), rows_of(folder / "two")


def run(*arguments: str) -> None:
    """Python with these arguments, in processes of one thread each, which must do what they should."""
    subprocess.run([sys.executable, *arguments], check=True, timeout=600, env=ONE_THREAD)


def kill_two(step: int, folder: Path, arguments: Sequence[str]) -> None:
    """Trains in two processes and sends SIGKILL to both and to their launcher when so many steps are done.

    Args:
        folder: an empty one, to tell that both have come so far.
    """
    command = [sys.executable, *TWO, stopping.__file__, str(step), str(folder), *arguments]
    launcher = subprocess.Popen(command, env=ONE_THREAD)
    deadline = time.monotonic() + 600
    while len(list(folder.iterdir())) < 2 and launcher.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in folder.iterdir()]
    for process in (launcher.pid, *workers):
        os.kill(process, signal.SIGKILL)
    assert launcher.wait(600) == -signal.SIGKILL
    assert len(workers) == 2


def assert_close_logs(
    one: Sequence[dict[str, str]], two: Sequence[dict[str, str]], names: Sequence[str], tolerance: float
) -> None:
    """Row by row, relative."""
    assert len(one) == len(two)
    for alone, shared in zip(one, two, strict=True):
        for name in names:
            assert float(shared[name]) == pytest.approx(float(alone[name]), rel=tolerance), (alone["step"], name)
