"""The `dibr` command: what it imports, how it ends."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from dibr_deploy import cli
from dibr_deploy.errors import DibrError


def test_building_the_parser_imports_no_framework() -> None:
    code = (
        "import sys; from dibr_deploy.cli import build_parser; build_parser();"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'trimesh', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "",
        "data",
        "data make",
        "data fetch",
        "train",
        "generate train",
        "generate sample",
        "export",
        "verify",
        "render",
        "demo",
        "doctor",
    ],
    ids=lambda c: c or "dibr",
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: {' '.join(['dibr', *command.split()])}" in capsys.readouterr().out


def command_that(action, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command whose work is ``action``."""
    parser = argparse.ArgumentParser()
    parser.set_defaults(run=lambda arguments: action())
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    return cli.main([])


def raiser(error: BaseException):
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (DibrError("the mesh\nis cut off"), "dibr: the mesh is cut off\n"),
        (ValueError("sigma must be positive, got -1"), "dibr: sigma must be positive, got -1\n"),
        (FileNotFoundError("libdibr_torch.so is nowhere"), "dibr: libdibr_torch.so is nowhere\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "dibr: x.png: No such file or directory\n"),
        (FileExistsError(17, "File exists", "meshes"), "dibr: meshes: File exists\n"),
        (PermissionError(13, "Permission denied", "/run"), "dibr: /run: Permission denied\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "dibr: this command needs the Python package torch, which is not installed: "
            "pip install 'dibr_deploy[train]'\n",
        ),
        (
            ModuleNotFoundError("No module named 'moderngl'", name="moderngl"),
            "dibr: this command needs the Python package moderngl, which is not installed\n",
        ),
    ],
)
def test_bad_input_ends_in_one_sentence_and_code_2(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_that(raiser(error), monkeypatch) == 2
    assert capsys.readouterr().err == says


def test_success_and_interrupt_have_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_that(lambda: None, monkeypatch) == 0
    assert command_that(raiser(KeyboardInterrupt()), monkeypatch) == 130


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        command_that(raiser(AssertionError("a bug")), monkeypatch)


def test_a_dataset_is_made_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_meshes import write_small_meshes

    write_small_meshes(tmp_path / "meshes")
    make = f"data make --meshes {tmp_path}/meshes --output {tmp_path}/data --views 4 --size 32"
    train = (
        f"train --data {tmp_path}/data --output {tmp_path}/run --steps 2 --batch 2 --image-size 32 --texture-size 32"
    )
    for command in (make, train, f"train --data {tmp_path}/data --output {tmp_path}/run --resume --steps 3"):
        assert cli.main(command.split()) == 0
    printed = capsys.readouterr().out
    assert f"dataset written to {tmp_path}/data" in printed
    assert "step 3: loss" in printed
    assert "mask IoU on held-out views" in printed


def test_a_failed_start_leaves_no_run_behind(tmp_path: Path) -> None:
    assert cli.main(["train", "--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "run")]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("elevation", ["nan", "95", "-91"])
def test_an_elevation_beyond_the_poles_is_refused(elevation: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", "m.onnx", "--image", "p.png", "--output", "o", f"--elevation={elevation}"]
    assert cli.main(["render", *arguments]) == 2
    assert capsys.readouterr().err == f"dibr: --elevation must be from -90 to 90 degrees, got {elevation}\n"
