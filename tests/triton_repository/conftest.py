"""A small image-to-mesh model that takes photos as bytes, as a bundle and as a repository: pictures for every item, and
a template for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_networks import EXAMPLE, SIZE, coarse

from dibr_deploy.export import to_bundle
from dibr_deploy.export.triton import to_triton
from dibr_deploy.export.views import cameras, noise


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = coarse()
    photos = noise(2, SIZE)
    path = tmp_path_factory.mktemp("bundle") / "shape.zip"
    return to_bundle(model, EXAMPLE, path, sample_args=(photos, cameras(model, photos)), photo_input="image")


@pytest.fixture(scope="session")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "repository"
    to_triton(bundle, path, max_batch=4)
    return path
