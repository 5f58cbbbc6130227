"""An installed SDK, its programs, and models to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime_door import modules
from runtime_bundles import write_model_bundle
from small_networks import EXAMPLE, fine

from dibr_deploy.export import to_bundle, to_onnx
from dibr_deploy.export.stages import renderer_of
from runtime_cpp import sdk


@pytest.fixture(scope="session")
def prefix() -> Path:
    return sdk.installed()


@pytest.fixture(scope="session")
def programs(prefix: Path) -> Path:
    return sdk.programs(prefix)


@pytest.fixture(scope="session")
def examples(prefix: Path) -> Path:
    return sdk.project(sdk.EXAMPLES, sdk.ROOT / "build" / "sdk-examples", prefix)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All ops at a small size, as a bare ONNX file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return to_onnx(modules.SphereRenderer(), modules.inputs(1), path)


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    torch.manual_seed(1)
    offsets, world_to_clip = modules.inputs(3)
    return {"offsets": offsets.numpy(), "world_to_clip": world_to_clip.numpy()}


@pytest.fixture(scope="session")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a folder."""
    return write_model_bundle(tmp_path_factory.mktemp("bundle") / "bundle", model)


@pytest.fixture(scope="session")
def image_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained image-to-mesh network that takes photos as numbers, in a zip file."""
    return to_bundle(fine(), EXAMPLE, tmp_path_factory.mktemp("image_bundle") / "bundle.zip")


@pytest.fixture(scope="session")
def photo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as `dibr export --checkpoint` packs it: photos as bytes, the graph that makes them fit, and the
    renderer alone."""
    path = tmp_path_factory.mktemp("photo_bundle") / "bundle"
    model = fine()
    return to_bundle(model, EXAMPLE, path, photo_input="image", renderer=renderer_of(model))
