"""Checkpoint files that are no checkpoints, and configurations that are out of range."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from dibr_deploy.errors import DibrError
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.training import load_checkpoint
from dibr_deploy.training.checkpoint import save_checkpoint
from dibr_deploy.training.config import parse_config

SMALL = ModelConfig(image_size=16, subdivisions=1, texture_size=32, channels=8, features=16)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, ImageToMeshRenderer(ImageToMesh(SMALL), 20, 24, background=(0.0, 0.5, 1.0), sigmainv=1234.0))
    return path


def test_all_settings_of_the_model_are_kept(checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint)
    renderer = model.renderer
    assert model.network.config == SMALL
    assert not model.training
    assert (renderer.height, renderer.width, renderer.sigmainv) == (20, 24, 1234.0)
    assert renderer.background.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_a_resnet_comes_back(norm: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, encoder="resnet18", norm=norm)
    model = ImageToMeshRenderer(ImageToMesh(config), 20, 24)
    save_checkpoint(tmp_path / "checkpoint.pt", model)
    loaded = load_checkpoint(tmp_path)
    assert loaded.network.config == config
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.network(image).vertices, model.eval().network(image).vertices)


def test_a_checkpoint_from_before_there_were_encoders_is_one_of_convolutions(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name in ("encoder", "norm"):
        del content["model"][name]
    torch.save(content, checkpoint)
    assert load_checkpoint(checkpoint).network.config == SMALL


def test_a_checkpoint_from_before_lights_had_axes_keeps_its_lights_in_the_world(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["model"]["light_axes"]
    torch.save(content, checkpoint)
    model = load_checkpoint(checkpoint)
    image, cameras = torch.rand(2, 3, 16, 16), torch.stack([torch.eye(4), torch.eye(4).roll(1, dims=1)])
    with torch.no_grad():
        assert torch.equal(model(image, cameras).light, model.network(image).light)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_off_is_refused(share: float, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DibrError, match=r"checkpoint .*checkpoint\.pt is cut off or not a checkpoint") as error:
        load_checkpoint(checkpoint)
    assert "\n" not in str(error.value)


class Attack:
    """Unpickling this runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"format": Attack(tmp_path / "ran")}, tmp_path / "checkpoint.pt")
    with pytest.raises(DibrError, match="not a checkpoint"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_other_files_and_newer_versions_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"checkpoint .*nothing\.pt does not exist"):
        load_checkpoint(tmp_path / "nothing.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(DibrError, match=r"other\.pt is not a checkpoint of dibr_deploy"):
        load_checkpoint(tmp_path / "other.pt")
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "version": 2}, checkpoint)
    with pytest.raises(DibrError, match="has version 2, but this dibr_deploy reads up to version 1"):
        load_checkpoint(checkpoint)
    torch.save({**content, "weights": {}}, checkpoint)
    with pytest.raises(DibrError, match="does not fit this dibr_deploy's model"):
        load_checkpoint(checkpoint)


def test_saving_replaces_as_a_whole(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checkpoint.read_bytes()

    def full_disk(content: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(checkpoint, ImageToMeshRenderer(ImageToMesh(SMALL)))
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"steps": 0}, "steps: input should be greater than or equal to 1, got 0"),
        ({"lr": -1.0}, "lr: input should be greater than 0, got -1.0"),
        ({"lr": float("nan")}, "lr: .* got nan"),
        ({"image_size": 50}, "image_size: input should be a multiple of 16, got 50"),
        ({"momentum": 0.9}, "momentum: extra inputs are not permitted, got 0.9"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, float], says: str) -> None:
    with pytest.raises(DibrError, match=says):
        parse_config(values)
