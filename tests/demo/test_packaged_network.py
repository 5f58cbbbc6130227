"""The network that comes with the package: it runs without torch, and is as good as its score card says."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import dibr_without_torch, script
from tensorrt_door import environment, exported

from dibr_deploy import demo
from dibr_deploy.cli import main
from dibr_deploy.errors import DibrError
from dibr_deploy.evaluation import MEASURES, evaluate
from dibr_deploy.mesh import read_mesh
from dibr_deploy.runtime import Session

CLASSES = ["bunny", "cone", "duck", "soccerball", "teddy", "wheel"]
FIRST_HELD_OUT = 100


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One object of each class that training never saw, by the recipe that the network was made with."""
    recipe = script("real_meshes")
    assert recipe.FULL.variants == FIRST_HELD_OUT
    return recipe.make_part(tmp_path_factory.mktemp("held_out"), "test", FIRST_HELD_OUT, 1, recipe.HELD_OUT_VIEWS)


def test_it_is_as_good_as_its_score_card_says(held_out: Path) -> None:
    card = demo.scores()
    expected = {row["object_id"]: row for row in card["objects"]}
    assert len(expected) == sum(int(row["object_id"]) for row in card["means"] if row["class_name"] in CLASSES)
    scores = evaluate(Session(demo.MODEL, "cpu"), held_out, views=4)
    assert len(scores) == len(CLASSES)
    for score in scores:
        for name in MEASURES:
            assert getattr(score, name) == pytest.approx(expected[score.object_id][name], abs=0.01, rel=0.01), name


def test_it_knows_its_classes_from_one_image_better_than_their_mean() -> None:
    """The floor of what is shipped: a network that draws blobs is below it."""
    means = {row["class_name"]: row["iou"] for row in demo.scores()["means"]}
    assert min(means[name] for name in CLASSES) > 0.6
    assert means["all"] > 0.8


def test_the_means_are_those_of_the_objects() -> None:
    card = demo.scores()
    for row in card["means"]:
        own = [one for one in card["objects"] if row["class_name"] in (one["class_name"], "all")]
        assert len(own) == int(row["object_id"])
        for name in MEASURES:
            assert row[name] == pytest.approx(np.mean([one[name] for one in own]), abs=1e-3)


def test_the_samples_are_held_out_pictures(held_out: Path) -> None:
    assert list(demo.samples()) == CLASSES
    for name, path in demo.samples().items():
        made = held_out / "images" / f"{name}_{name}_{FIRST_HELD_OUT}_000.png"
        difference = np.asarray(Image.open(path), np.int32) - np.asarray(Image.open(made), np.int32)
        assert np.abs(difference).max() <= 1
    with pytest.raises(DibrError, match=f"sample must be one of {', '.join(CLASSES)}, got lamp"):
        demo.sample("lamp")


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    arguments = ["demo", "--sample", "teddy", "--output", str(tmp_path / "out"), "--frames", "2"]
    printed = dibr_without_torch(arguments)
    assert str(tmp_path / "out" / "mesh.glb") in printed
    mesh = read_mesh(tmp_path / "out" / "mesh.glb")
    assert len(mesh.faces) == 1280
    prediction = np.asarray(Image.open(tmp_path / "out" / "prediction.png"))
    covered = (prediction != 255).any(axis=-1).mean()
    assert 0.05 < covered < 0.9


def test_a_picture_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--image", str(tmp_path / "none.png"), "--output", str(tmp_path / "out")]) == 2
    assert "none.png does not exist" in capsys.readouterr().err
    picture = ["demo", "--image", str(demo.sample("duck")), "--frames", "1"]
    assert main([*picture, "--output", str(tmp_path / "out")]) == 0
    assert main(["demo", "--frames", "1", "--output", str(tmp_path / "default")]) == 0
    for name in ("prediction.png", "mesh.glb"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "default" / name).read_bytes()


def test_it_builds_in_tensorrt() -> None:
    """It was exported before any test, so tests/conftest.py does not see it."""
    environment.python()
    with zipfile.ZipFile(demo.MODEL) as archive:
        content = archive.read("model.onnx")
    assert exported.is_exported(content)
    assert exported.problems(content) == []


def test_the_bundle_agrees_with_torch_and_is_small() -> None:
    """Its sample holds what torch made of it when it was exported."""
    assert main(["verify", "--model", str(demo.MODEL)]) == 0
    assert demo.MODEL.stat().st_size < 4e6
