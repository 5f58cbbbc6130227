"""Trainings as `torchrun` starts them, and what they log."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def rows_of(run: Path) -> list[dict[str, str]]:
    """The log of a run."""
    with (run / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def train_by_one_and_two(folder: Path, arguments: Sequence[str]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The logs of one run by one process, and by two that share its steps, each with one thread.

    With another number of threads, one process alone was seen 1.3e-4 away in a single step, and nowhere else.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, before in (("one", []), ("two", launcher)):
        command = [sys.executable, *before, "-m", "dibr_deploy.cli", *arguments, "--output", str(folder / name)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, timeout=600, env=environment)
    return rows_of(folder / "one"), rows_of(folder / "two")


def assert_close_logs(
    one: Sequence[dict[str, str]], two: Sequence[dict[str, str]], names: Sequence[str], tolerance: float
) -> None:
    """Row by row, relative."""
    assert len(one) == len(two)
    for alone, shared in zip(one, two, strict=True):
        for name in names:
            assert float(shared[name]) == pytest.approx(float(alone[name]), rel=tolerance), (alone["step"], name)
