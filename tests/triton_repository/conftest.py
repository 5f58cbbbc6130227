"""A small image-to-mesh model that takes photos as bytes, as a bundle and as a repository: pictures for every item, and
a template for all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dibr_deploy.export import to_bundle
from dibr_deploy.export.triton import to_triton
from dibr_deploy.export.views import cameras, noise
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig

SIZE = 32


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = ImageToMesh(ModelConfig(image_size=SIZE, subdivisions=1, texture_size=32, channels=8, features=16))
    model = ImageToMeshRenderer(network, 24, 20)
    photos = noise(2, SIZE)
    example = (torch.zeros(1, 3, SIZE, SIZE), torch.eye(4).unsqueeze(0))
    path = tmp_path_factory.mktemp("bundle") / "shape.zip"
    return to_bundle(model, example, path, sample_args=(photos, cameras(model, photos)), photo_input="image")


@pytest.fixture(scope="session")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "repository"
    to_triton(bundle, path, max_batch=4)
    return path
