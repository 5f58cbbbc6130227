"""A dataset whose meshes are gone: all that training may use is its images, masks and cameras."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_meshes import write_small_meshes

from dibr_deploy.data import make_dataset
from dibr_deploy.training import TrainingConfig


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    meshes = write_small_meshes(folder / "meshes")
    made = make_dataset(meshes, folder / "dataset", views=8, size=32)
    shutil.rmtree(meshes)
    return made


@pytest.fixture
def config() -> TrainingConfig:
    """As small as it gets."""
    return TrainingConfig(steps=6, batch=3, image_size=32, texture_size=32, checkpoint_every=4)
