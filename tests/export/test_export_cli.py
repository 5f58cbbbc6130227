"""`dibr export` to bundles and engines, as a user calls it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from small_networks import coarse

from dibr_deploy.cli import main
from dibr_deploy.export import cli
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a checkpoint, and beside it its export as a bundle in float16."""
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "checkpoint.pt", coarse())
    assert main(["export", "--checkpoint", str(folder), "--output", str(folder / "b.zip"), "--fp16"]) == 0
    return folder


def test_the_sample_shows_the_mesh(run: Path) -> None:
    """Two views, in which the mesh covers a good part of the picture."""
    with np.load(io.BytesIO(Bundle(run / "b.zip").read("sample.npz"))) as sample:
        face_index, cameras = sample["output.face_index"], sample["input.world_to_clip"]
    assert face_index.shape == (2, 24, 20)
    assert ((face_index >= 0).mean(axis=(1, 2)) > 0.2).all()
    assert np.abs(cameras[0] - cameras[1]).max() > 0.1


def test_fp16_reaches_the_file(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--checkpoint", str(run), "--output", str(tmp_path / "full.onnx")]) == 0
    assert main(["export", "--checkpoint", str(run), "--output", str(tmp_path / "half.onnx"), "--fp16"]) == 0
    full, half = ((tmp_path / f"{name}.onnx").stat().st_size for name in ("full", "half"))
    assert half < 0.75 * full
    in_bundle = len(Bundle(run / "b.zip").read("model.onnx"))
    assert in_bundle < 0.75 * full


def test_a_bundle_takes_photos_as_bytes_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    bundle = Bundle(run / "b.zip").manifest
    assert (bundle.inputs[0].dtype, bundle.inputs[0].shape) == ("uint8", ("batch", 32, 32, 3))
    assert (bundle.preprocess, bundle.renderer) == ("preprocess.onnx", "renderer.onnx")
    command = ["export", "--checkpoint", str(run), "--output", str(tmp_path / "f.zip"), "--float-photos"]
    assert main(command) == 0
    floats = Bundle(tmp_path / "f.zip").manifest
    assert (floats.inputs[0].dtype, floats.inputs[0].shape) == ("float32", ("batch", 3, 32, 32))
    assert floats.preprocess is None


def test_engines_by_the_command(run: Path, in_tensorrt, tmp_path: Path) -> None:
    """With TensorRT-RTX: into another bundle, then an engine for other sizes in place of that one."""
    command = ["-m", "dibr_deploy.cli", "export", "--tensorrt"]
    done = in_tensorrt(*command, "--bundle", run / "b.zip", "--output", tmp_path / "b")
    assert (done.returncode, done.stderr) == (0, "")
    [first] = Bundle(tmp_path / "b").manifest.engines
    assert first.profiles[0]["input_image"].max == (32, 32, 32, 3)
    assert first.file in done.stdout
    options = ["--size", "batch=1,2:4:8", "--compute-capability", "8.9", "--carry-plugin", "--workspace", "1024"]
    done = in_tensorrt(*command, "tensorrt_rtx", "--bundle", tmp_path / "b", *options)
    assert (done.returncode, done.stderr) == (0, "")
    second, old = Bundle(tmp_path / "b").manifest.engines
    assert old == first
    assert [profile["world_to_clip"].opt[0] for profile in second.profiles] == [1, 4]
    assert (second.compute_capability, second.carries_plugin) == (("8.9",), True)
    assert Bundle(run / "b.zip").manifest.engines == ()


def test_engine_of_a_checkpoint_and_of_a_model(run: Path, in_tensorrt, tmp_path: Path) -> None:
    command = ["-m", "dibr_deploy.cli", "export", "--tensorrt", "--size", "batch=4:4:4"]
    done = in_tensorrt(*command, "--checkpoint", run, "--output", tmp_path / "a.zip")
    assert (done.returncode, done.stderr) == (0, "")
    bundle = Bundle(tmp_path / "a.zip")
    assert len(bundle.manifest.engines) == 1
    with np.load(io.BytesIO(bundle.read("sample.npz"))) as sample:
        assert len(sample["input.input_image"]) == 4, "as many views as the engine takes"
    (tmp_path / "model.onnx").write_bytes(bundle.read("model.onnx"))
    done = in_tensorrt(*command, "--model", tmp_path / "model.onnx", "--output", tmp_path / "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert Bundle(tmp_path / "c").manifest.engines[0].profiles == bundle.manifest.engines[0].profiles


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--checkpoint", "{run}", "--output", "{tmp}/m.onnx", "--tensorrt"], "--tensorrt needs a bundle"),
        (["--checkpoint", "{run}"], "--output is missing"),
        (["--checkpoint", "{run}", "--output", "{tmp}/b", "--opset", "0"], "opset must be at least 18, got 0"),
        (["--checkpoint", "{run}", "--output", "{tmp}/no/b"], "the folder {tmp}/no does not exist"),
        (["--checkpoint", "{run}", "--output", "{tmp}/b", "--carry-plugin"], "--carry-plugin needs --tensorrt"),
        (["--checkpoint", "{run}", "--output", "{tmp}/b", "--optimization-level", "0"], "level needs --tensorrt"),
        (["--model", "{run}/none.onnx", "--output", "{tmp}/b"], "none.onnx does not exist"),
        (["--model", "{run}/none.onnx", "--output", "{tmp}/m.onnx"], "--model needs a bundle"),
        (["--model", "{run}/checkpoint.pt", "--output", "{tmp}/b"], "is not an ONNX file"),
        (["--bundle", "{run}/b.zip"], "--bundle needs --tensorrt"),
        (["--bundle", "{run}/b.zip", "--tensorrt", "--fp16"], "--fp16 needs --checkpoint"),
        (["--bundle", "{run}/b.zip", "--tensorrt", "--opset", "18"], "--opset needs --checkpoint"),
        (["--bundle", "{run}/none.zip", "--tensorrt"], "none.zip does not exist"),
        (["--bundle", "{run}/checkpoint.pt", "--tensorrt"], "has no manifest.json"),
        (["--bundle", "{run}/b.zip", "--tensorrt", "rtx", "--output", "{tmp}/b"], "flavour must be auto, tensorrt"),
        (["--bundle", "{run}/b.zip", "--tensorrt", "tensorrt", "--output", "{tmp}/b"], "tensorrt is not installed"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, tmp_path: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout, and no file is left behind."""
    names = {"run": run, "tmp": tmp_path}
    assert main(["export", *(argument.format(**names) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert expected.format(**names) in captured.err
    assert list(tmp_path.iterdir()) == []


def test_two_sources_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "--bundle", "b", "--model", "m.onnx"])
    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        ([], [{}]),
        (["batch=1:8:32", "height=64"], [{"batch": (1, 8, 32), "height": (64, 64, 64)}]),
        (["size=1x1:64x48:512x256"], [{"size": ([1, 1], [64, 48], [512, 256])}]),
        (["a=b=1:2:3"], [{"a=b": (1, 2, 3)}]),
        (["batch=1,2:4:8", "n=5"], [{"batch": (1, 1, 1), "n": (5, 5, 5)}, {"batch": (2, 4, 8), "n": (5, 5, 5)}]),
    ],
)
def test_sizes(texts: list[str], sizes: list[dict]) -> None:
    assert cli._sizes(texts) == sizes


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["batch"], "--size must be NAME=MIN:OPT:MAX, for example batch=1:8:32, got batch"),
        (["=1:2:3"], "got =1:2:3"),
        (["batch=1:2"], "got batch=1:2"),
        (["batch=1:2:3:4"], "got batch=1:2:3:4"),
        (["batch=1:x:3"], "got batch=1:x:3"),
        (["batch="], "got batch="),
        (["batch=1", "batch=2"], "--size batch is given twice"),
        (["a=1,2", "b=1,2,3"], "--size a has 2 ranges, but another one has 3"),
    ],
)
def test_sizes_that_are_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cli._sizes(texts)
