"""A small renderer as module, ONNX file, bundle and session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnxruntime_door import modules
from runtime_bundles import write_model_bundle

from dibr_deploy.export import to_onnx
from dibr_deploy.runtime import Session


@pytest.fixture(scope="session")
def module() -> modules.SphereRenderer:
    return modules.SphereRenderer()


@pytest.fixture(scope="session")
def model(module: modules.SphereRenderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_onnx(module, modules.inputs(1), tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="session")
def session(model: Path) -> Session:
    return Session(model, "cpu", threads=2)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    offsets, world_to_clip = modules.inputs(3)
    return offsets.numpy(), world_to_clip.numpy()


@pytest.fixture(params=["bundle", "bundle.zip"], ids=["folder", "zip"])
def bundle(request: pytest.FixtureRequest, model: Path, session: Session, arrays: tuple, tmp_path: Path) -> Path:
    """The model with a sample."""
    inputs = dict(zip(("offsets", "world_to_clip"), arrays, strict=True))
    return write_model_bundle(tmp_path / request.param, model, inputs, session.run(*arrays))
