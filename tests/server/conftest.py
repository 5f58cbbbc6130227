"""Small models as bundles, sessions that say what a service must answer, and a service that is shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnxruntime_door import modules
from small_networks import EXAMPLE, coarse

from dibr_deploy.export import to_bundle
from dibr_deploy.export.stages import renderer_of
from dibr_deploy.runtime import Session
from server.service import Running, running


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sphere at places and from cameras that are inputs: no network, all ops, a dynamic batch."""
    path = tmp_path_factory.mktemp("served") / "sphere.zip"
    return to_bundle(modules.SphereRenderer(), modules.inputs(1), path)


@pytest.fixture(scope="session")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that makes meshes of photos, as `dibr export --checkpoint` packs it, its renderer beside it."""
    model = coarse()
    path = tmp_path_factory.mktemp("shape") / "shape.zip"
    return to_bundle(model, EXAMPLE, path, photo_input="image", renderer=renderer_of(model))


@pytest.fixture(scope="session")
def session(bundle: Path) -> Session:
    return Session(bundle, "cpu", threads=1)


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    offsets, world_to_clip = modules.inputs(3)
    return {"offsets": offsets.numpy(), "world_to_clip": world_to_clip.numpy()}


@pytest.fixture(scope="session")
def service(bundle: Path) -> Iterator[Running]:
    with running([f"sphere={bundle}"]) as service:
        yield service
