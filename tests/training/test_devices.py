"""Where trainings compute: on the device that they were given, which is a GPU only where this package can use it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from devices import MadeElsewhere

from dibr_deploy import _native
from dibr_deploy.errors import DibrError
from dibr_deploy.training import Trainer, TrainingConfig
from dibr_deploy.training.adversarial import AdversarialTrainer
from dibr_deploy.training.adversarial_config import AdversarialConfig
from dibr_deploy.training.distributed import join_processes
from dibr_deploy.training.runs import TrainingRun

RUNS: dict[str, Callable[[Path, Path], TrainingRun]] = {
    "train": lambda data, output: Trainer(
        data, output, TrainingConfig(batch=2, image_size=32, texture_size=32, shading_weight=0.3)
    ),
    "generate train": lambda data, output: AdversarialTrainer(
        data, output, AdversarialConfig(objects=2, latent=4, critic_channels=4)
    ),
}
MOVED_WHEN_MADE = ("data", "models", "renderer")


@pytest.mark.parametrize("command", RUNS)
def test_all_that_a_training_makes_lies_on_its_device(command: str, dataset: Path, tmp_path: Path) -> None:
    with MadeElsewhere(but=MOVED_WHEN_MADE):
        run = RUNS[command](dataset, tmp_path / "run")
    with MadeElsewhere():
        row = run._train_step()
        run._samples()
        if isinstance(run, Trainer):
            run.held_out_iou()
    assert float(row["loss"]) != 0


@pytest.fixture
def _a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of one that torch sees."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize(("has_kernels", "expected"), [(False, "cpu"), (True, "cuda:0")])
def test_auto_takes_a_gpu_that_this_package_has_kernels_for(
    has_kernels: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_native, "has_cuda_kernels", lambda: has_kernels)
    with join_processes("auto") as processes:
        assert processes.device == torch.device(expected)


@pytest.mark.usefixtures("_a_gpu")
def test_a_gpu_without_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "has_cuda_kernels", lambda: False)
    with (
        pytest.raises(DibrError, match="device is cuda, but this dibr_deploy was built without CUDA kernels"),
        join_processes("cuda"),
    ):
        pass


def test_a_gpu_that_torch_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DibrError, match="process 0 of this machine has no GPU: torch sees 0"), join_processes("cuda"):
        pass
