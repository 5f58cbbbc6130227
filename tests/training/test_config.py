"""Config files: what they may hold, what comes first, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dibr_deploy.cli import main
from dibr_deploy.training.checkpoint import read_checkpoint

SETTINGS = {"steps": 2, "batch": 2, "image_size": 32, "texture_size": 32, "checkpoint_every": 1}


def write_config(path: Path, values: dict[str, object]) -> Path:
    sign = "=" if path.suffix == ".toml" else ":"
    quoted = {name: f'"{value}"' if isinstance(value, str | Path) else value for name, value in values.items()}
    path.write_text("".join(f"{name}{sign} {value}\n" for name, value in quoted.items()))
    return path


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".yml"])
def test_a_file_says_everything_and_the_command_line_comes_first(suffix: str, dataset: Path, tmp_path: Path) -> None:
    values = {**SETTINGS, "data": dataset, "output": tmp_path / "run"}
    file = write_config(tmp_path / f"run{suffix}", values)
    assert main(["train", "--config", str(file), "--steps", "1"]) == 0
    kept = read_checkpoint(tmp_path / "run")["training"]["config"]
    assert {name: kept[name] for name in SETTINGS} == {**SETTINGS, "steps": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.toml", "stesp = 3", "stesp: extra inputs are not permitted"),
        ("run.toml", "steps = 0", "steps: input should be greater than or equal to 1, got 0"),
        ("run.toml", 'steps = "many"', "steps: input should be a valid integer"),
        ("run.toml", "steps = ", "is not TOML"),
        ("run.toml", 'precision = "half"', "precision: input should be 'float32' or 'bfloat16', got half"),
        ("run.yaml", "steps: [", "is not YAML"),
        ("run.yaml", "- steps", "must hold names and values, got list"),
        ("run.json", "{}", "must end in .toml, .yaml, .yml"),
        ("run.toml", None, "does not exist"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    name: str, content: str | None, message: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    command = ["train", "--config", str(tmp_path / name), "--data", str(dataset), "--output", str(tmp_path / "run")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_data_and_output_are_asked_for(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(dataset)]) == 2
    assert "--output is needed" in capsys.readouterr().err
