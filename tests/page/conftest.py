"""A model that predicts something to look at, a service with it, a browser, and images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from server.service import Running, running

from dibr_deploy.export import to_bundle
from dibr_deploy.export.stages import renderer_of
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.runtime import Session
from page import browser as browsers

SIZE = 64


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network whose last layers are strong: a coloured lump in light from one side."""
    torch.manual_seed(3)
    network = ImageToMesh(ModelConfig(image_size=SIZE, subdivisions=3, texture_size=32, channels=8, features=32))
    with torch.no_grad():
        network.vertex_head[-1].weight.mul_(40)
        network.texture_head.colour.weight.mul_(2000)
        network.light_head.bias.copy_(torch.tensor([-0.6, 0.9, 0.7, 0.8]))
    model = ImageToMeshRenderer(network, 160, 160)
    example = (torch.zeros(1, 3, SIZE, SIZE), torch.eye(4).unsqueeze(0))
    path = tmp_path_factory.mktemp("page") / "lump.zip"
    return to_bundle(model, example, path, photo_input="image", renderer=renderer_of(model))


@pytest.fixture(scope="session")
def session(bundle: Path) -> Session:
    return Session(bundle, "cpu", threads=1)


@pytest.fixture(scope="session")
def service(bundle: Path) -> Iterator[Running]:
    with running([f"lump={bundle}"]) as service:
        yield service


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsers.Browser]:
    with browsers.opened(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: first.png and second.jpg are images, notes.txt is none, cut.png is half of one."""
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:90, :120]
    first = np.stack([rows * 2, columns * 2, 255 - rows], axis=-1).astype(np.uint8)
    Image.fromarray(first).save(folder / "first.png")
    Image.fromarray(first[::-1, ::-1] // 2).save(folder / "second.jpg")
    (folder / "notes.txt").write_text("No image at all.")
    content = (folder / "first.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    return folder
