"""Trainings by two processes leave no thread behind that Python could meet as it ends."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from training import leaving
from training.launching import COMMANDS, run

STOPPED = "dibr: stopped at step 1; go on with --resume\n"
CODES = {"done": 0, "interrupted": 130, "failed": 2}
SAID = [
    {"done": "", "interrupted": STOPPED, "failed": "dibr: no step is good enough\n"},
    {"done": "", "interrupted": "", "failed": "dibr: no step is good enough\n"},
]
"""On stderr, by each process."""


def test_no_thread_of_gloo_outlives_a_training(dataset: Path, tmp_path: Path) -> None:
    """However it ends, which it does as one by a process alone: with the same words and exit codes."""
    common = ("--device=cpu", "--data", str(dataset))
    run(leaving.__file__, str(tmp_path), *(shlex.join((*command, *common)) for command in COMMANDS.values()))
    for rank, said in enumerate(SAID):
        trainings = json.loads((tmp_path / f"{rank}.json").read_text())
        assert [training["end"] for training in trainings] == [*CODES] * len(COMMANDS)
        for training in trainings:
            assert training["during"] > 0
            assert training["after"] == 0, (rank, training)
            assert (training["code"], training["said"]) == (CODES[training["end"]], said[training["end"]])
