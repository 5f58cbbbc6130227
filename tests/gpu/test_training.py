"""Both trainings on the device, against the same on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_meshes import write_small_meshes
from training.launching import rows_of

from dibr_deploy.data import make_dataset
from dibr_deploy.training import Trainer, TrainingConfig
from dibr_deploy.training.adversarial import AdversarialTrainer
from dibr_deploy.training.adversarial_config import AdversarialConfig
from dibr_deploy.training.distributed import Processes

pytestmark = pytest.mark.gpu

COMMON = {"steps": 2, "checkpoint_every": 2, "lr": 1e-4, "texture_size": 32}
RUNS = {
    "train": (Trainer, TrainingConfig(**COMMON, batch=2, image_size=32), ("loss", "mask", "color", "laplacian")),
    "generate train": (
        AdversarialTrainer,
        AdversarialConfig(**COMMON, objects=2, latent=4, critic_channels=4),
        ("penalty", "laplacian", "flattening"),
    ),
}


@pytest.mark.parametrize("command", RUNS)
def test_two_steps_have_the_losses_of_the_cpu(command: str, device: torch.device, tmp_path: Path) -> None:
    """As near as convolutions in TF32, which torch takes on a GPU, come to float32. A run can go on there, too."""
    trainer, config, losses = RUNS[command]
    data = make_dataset(write_small_meshes(tmp_path / "meshes"), tmp_path / "dataset", views=8, size=32)
    for kind in ("cpu", "cuda"):
        run = trainer(data, tmp_path / kind, config, processes=Processes(device=torch.device(kind)))
        run.run()
        assert all(value.device.type == kind for value in run.model.state_dict().values())
    expected, actual = rows_of(tmp_path / "cpu"), rows_of(tmp_path / "cuda")
    assert len(actual) == 2
    for wanted, row in zip(expected, actual, strict=True):
        for name in losses:
            assert float(row[name]) == pytest.approx(float(wanted[name]), rel=0.02, abs=1e-6), (row["step"], name)
    longer = config.model_copy(update={"steps": 3})
    trainer(data, tmp_path / "cuda", longer, resume=True, processes=Processes(device=device)).run()
    assert [row["step"] for row in rows_of(tmp_path / "cuda")] == ["1", "2", "3"]
