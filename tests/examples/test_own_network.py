"""examples/own_network.py trains and exports a user's module; examples/run_bundle.py runs it where torch is absent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import own_network
import run_bundle

from dibr_deploy.runtime import Session
from dibr_deploy.runtime.images import load_square

EXAMPLES = Path(own_network.__file__).parent
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def test_a_network_of_ones_own_is_trained_exported_and_run_without_torch(tmp_path: Path) -> None:
    data = own_network.make_data(tmp_path, objects=6)
    network = own_network.BottleNetwork()
    losses = list(own_network.train(network, data, steps=60))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    assert own_network.export(network, data, tmp_path).passed

    picture = sorted((tmp_path / "dataset/images").iterdir())[0]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(EXAMPLES / "run_bundle.py"), str(tmp_path / "bottles.zip")]
    subprocess.run([*command, "--image", str(picture), "--output", str(tmp_path / "sides.png")], check=True)
    photo = load_square(picture, own_network.SIZE)
    with Session(tmp_path / "bottles.zip") as session:
        shown = run_bundle.sides(session, photo)
    with Image.open(tmp_path / "sides.png") as written:
        columns = np.asarray(written).reshape(own_network.SIZE, run_bundle.SIDES, own_network.SIZE, 3) / 255
    np.testing.assert_allclose(columns.transpose(1, 0, 2, 3), shown.clip(0, 1), atol=0.003)
    with torch.no_grad():
        made = network(torch.from_numpy(photo)[None], data.world_to_clip[:1])
    covered = made.mask[0] > 0.5
    wanted = data.views([0])
    assert (covered & (wanted.mask[0] > 0.5)).sum() > 0.6 * (covered | (wanted.mask[0] > 0.5)).sum()
