"""`dibr export`, `dibr verify` and `dibr render` on a checkpoint, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from programs import dibr_without_torch
from small_networks import coarse

from dibr_deploy.cli import main
from dibr_deploy.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a checkpoint of a network whose predictions differ from image to image, and its export."""
    model = coarse(colour_features=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "checkpoint.pt", model)
    assert main(["export", "--checkpoint", str(folder), "--output", str(folder / "model.onnx")]) == 0
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 31, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert "Traceback" not in captured
    return captured.strip()


@pytest.mark.parametrize("source", ["noise", "pictures"])
def test_verify_prints_a_table(run: Path, pictures: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = [] if source == "noise" else ["--images", str(pictures)]
    arguments = ["verify", "--checkpoint", str(run), "--model", str(run / "model.onnx"), "--threads", "2", *images]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    batch = 8 if source == "noise" else 3
    assert lines[0] == "reference: torch"
    assert lines[1].split() == ["door", "output", "shape", "compared", "differing", "allowed", "largest", "mean"]
    assert lines[2].startswith(f"cpu   image       [{batch}, 24, 20, 3]")
    assert sum(line.endswith(" ok") for line in lines) == 9
    assert float(lines[-1].split("%")[0]) > 10


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_a_network_with_resnet_agrees(norm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = coarse(encoder="resnet18", norm=norm)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "head" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    save_checkpoint(tmp_path / "checkpoint.pt", model)
    exported = str(tmp_path / "model.onnx")
    assert main(["export", "--checkpoint", str(tmp_path), "--output", exported]) == 0
    assert main(["verify", "--checkpoint", str(tmp_path), "--model", exported, "--threads", "2"]) == 0
    assert sum(line.endswith(" ok") for line in capsys.readouterr().out.splitlines()) == 9


def test_verify_fails_on_another_checkpoint(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dibr_deploy.training import load_checkpoint

    model = load_checkpoint(run)
    model.network.light_head.bias.data += 0.5
    save_checkpoint(tmp_path / "other.pt", model)
    arguments = ["verify", "--checkpoint", str(tmp_path / "other.pt"), "--model", str(run / "model.onnx")]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert captured.err == f"dibr: model {run}/model.onnx: cpu differs in image, texture, light\n"


def test_render_without_torch(run: Path, pictures: Path, tmp_path: Path) -> None:
    """In a process of its own, which must not load torch nor any other package of the training side."""
    arguments = ["render", "--model", str(run / "model.onnx"), "--image", str(pictures / "0.png")]
    arguments += ["--output", str(tmp_path / "out"), "--frames", "3", "--threads", "1"]
    printed = dibr_without_torch(arguments)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "input.png",
        "prediction.png",
        "mask.png",
        "turntable.gif",
        "mesh.glb",
    }
    assert str(tmp_path / "out" / "mesh.glb") in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "--checkpoint", "none.pt", "--output", "{tmp}/m.onnx"], "checkpoint none.pt does not exist"),
        (["export", "--checkpoint", "{run}", "--output", "{tmp}/no/m.onnx"], "path must lie in a folder that exists"),
        (["export", "--checkpoint", "{run}", "--output", "{tmp}/m.onnx", "--opset", "9"], "opset must be at least 18"),
        (["verify", "--checkpoint", "{run}", "--model", "none.onnx"], "model none.onnx does not exist"),
        (["verify", "--checkpoint", "{run}", "--model", "{cut}"], "is cut off"),
        (["verify", "--checkpoint", "{run}", "--model", "{run}/model.onnx", "--images", "none"], "none does not exist"),
        (["verify", "--checkpoint", "{run}", "--model", "{run}/model.onnx", "--images", "{tmp}"], "has no picture"),
        (
            ["verify", "--checkpoint", "{run}", "--model", "{run}/model.onnx", "--count", "0"],
            "count must be at least 1",
        ),
        (["render", "--model", "{cut}", "--image", "none.png", "--output", "{tmp}/out"], "is cut off"),
        (
            ["render", "--model", "{run}/model.onnx", "--image", "none.png", "--output", "{tmp}/out"],
            "none.png does not",
        ),
        (["render", "--model", "{run}/model.onnx", "--image", "{cut}", "--output", "{tmp}/out"], "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout, and no file is left behind."""
    cut, empty = tmp_path / "cut.onnx", tmp_path / "empty"
    cut.write_bytes((run / "model.onnx").read_bytes()[:5000])
    empty.mkdir()
    assert main([argument.format(run=run, tmp=empty, cut=cut) for argument in arguments]) == 2
    said = sentence(capsys)
    assert said.startswith("dibr: ")
    assert expected in said
    assert list(empty.iterdir()) == []


def test_the_sentences(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["render", "--model", str(run / "checkpoint.pt"), "--image", "none.png", "--output", "out"]
    assert main(arguments) == 2
    said = (
        f"dibr: bundle {run}/checkpoint.pt has no manifest.json: it must be what `dibr export` writes"  # a zip file too
    )
    assert sentence(capsys).startswith(said)
