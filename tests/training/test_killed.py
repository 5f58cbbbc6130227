"""Both trainings, killed at random (SIGKILL) and resumed: they end as those that never stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training import killing
from training.launching import COMMANDS, DIBR, TWO, kill_two, rows_of, run
from training.states import assert_same

from dibr_deploy.training.checkpoint import read_checkpoint

STEPS, SEED = 24, 32


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_was_killed_five_times_ends_as_one_that_was_not(command: str, dataset: Path, tmp_path: Path) -> None:
    arguments = (*COMMANDS[command], "--data", str(dataset))
    program = [sys.executable, killing.__file__, str(tmp_path), str(STEPS), str(SEED), *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout.splitlines()[-1])
    print(f"killed after {kills} of {STEPS} steps")
    middles = [(fifth + 0.5) * STEPS / killing.KILLS for fifth in range(killing.KILLS)]
    assert kills[0] < STEPS / 4
    assert kills == pytest.approx(middles, abs=STEPS / killing.KILLS / 2 + killing.CHECKPOINT_EVERY)
    assert_same(read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "killed"))
    for name in ("losses.csv", *(f"samples/step_{step:06d}.png" for step in (killing.CHECKPOINT_EVERY, STEPS))):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_that_were_killed_end_as_two_that_were_not(command: str, dataset: Path, tmp_path: Path) -> None:
    """Both of them and their launcher, two steps after a checkpoint."""
    arguments = (*COMMANDS[command], "--steps=7", "--checkpoint-every=3", "--device=cpu", "--data", str(dataset))
    whole, killed, stopped = (tmp_path / name for name in ("whole", "killed", "stopped"))
    stopped.mkdir()
    run(*TWO, *DIBR, *arguments, "--output", str(whole))
    kill_two(5, stopped, [*arguments, "--output", str(killed)])
    assert (len(rows_of(killed)), read_checkpoint(killed)["training"]["step"]) == (5, 3)
    run(*TWO, *DIBR, *arguments, "--resume", "--output", str(killed))
    assert_same(read_checkpoint(whole), read_checkpoint(killed))
    assert (whole / "losses.csv").read_bytes() == (killed / "losses.csv").read_bytes()
