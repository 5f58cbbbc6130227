"""Both trainings, interrupted at random (SIGINT) and resumed: each step is whole, and they end as if never stopped."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from training.launching import rows_of
from training.states import assert_same

from dibr_deploy.training import Trainer, TrainingConfig
from dibr_deploy.training.adversarial import AdversarialTrainer
from dibr_deploy.training.adversarial_config import AdversarialConfig
from dibr_deploy.training.checkpoint import read_checkpoint
from dibr_deploy.training.runs import TrainingRun

STEPS, INTERRUPTS, SEED = 14, 6, 2
RUNS = {
    "train": (Trainer, TrainingConfig(steps=STEPS, batch=1, image_size=32, texture_size=32, checkpoint_every=5)),
    "generate train": (
        AdversarialTrainer,
        AdversarialConfig(steps=STEPS, objects=1, latent=4, critic_channels=4, critic_steps=2, checkpoint_every=5),
    ),
}


class Count:
    """Counts what Python calls and returns from a run's first step on, and sends SIGINT at a number of them."""

    def __init__(self, run: TrainingRun[Any], limit: int = 0) -> None:
        self.counted, self._limit = 0, limit
        sys.setprofile(self._count)
        try:
            run.run()
        finally:
            sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.counted or frame.f_code.co_name == "_train_step":
            self.counted += 1
            if self.counted == self._limit:
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def _python_handles_interrupts() -> Iterator[None]:
    """Which it does not where SIGINT was ignored when it started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_python_handles_interrupts")
@pytest.mark.parametrize("command", RUNS)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(command: str, dataset: Path, tmp_path: Path) -> None:
    trainer, config = RUNS[command]
    draws, stopped = random.Random(SEED), tmp_path / "stopped"
    each = Count(trainer(dataset, tmp_path / "whole", config)).counted // STEPS
    for resumed in range(INTERRUPTS):
        run = trainer(dataset, stopped, config, resume=resumed > 0)
        with pytest.raises(KeyboardInterrupt):
            Count(run, draws.randint(1, each))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert run.step == len(rows_of(stopped)) == read_checkpoint(stopped)["training"]["step"]
        torch.rand(17)  # somebody else's draws change nothing
    trainer(dataset, stopped, config, resume=True).run()
    assert_same(read_checkpoint(tmp_path / "whole"), read_checkpoint(stopped))
    for name in ("losses.csv", *(f"samples/step_{step:06d}.png" for step in (5, 10, STEPS))):
        assert (tmp_path / "whole" / name).read_bytes() == (stopped / name).read_bytes()
