"""scripts/real_meshes.py at its smallest: its recipe holds, and nothing that is judged was trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import programs
import pytest
import torch
from PIL import Image

from dibr_deploy.data.truth import read_truth
from dibr_deploy.training import load_checkpoint
from dibr_deploy.training.checkpoint import save_checkpoint


def test_all_of_it_runs_at_its_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = programs.script("real_meshes")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["real_meshes.py", "--smoke", "--output", str(out)])
    assert script.main() == 0
    trained, judged = (read_truth(out / part) for part in ("train", "test"))
    assert {entry.class_name for entry in trained.values()} == set(script.NAMES)
    assert {entry.class_name for entry in judged.values()} == set(script.NAMES)
    assert not set(trained) & set(judged)
    assert (len(trained), len(judged)) == (2 * len(script.NAMES), len(script.NAMES))
    page = (out / "real_meshes.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1].strip() for row in rows] == [*script.NAMES, "all"]
    assert "Lights are not learned" in page
    assert "Nobody has looked" in page
    with Image.open(out / "real_meshes.png") as picture:
        assert picture.size == (len(script.NAMES) * 64, 5 * 64)
    check_looks_follow_the_network(script, out, monkeypatch)
    card = json.loads((out / "demo/scores.json").read_text())
    assert card["f_score_threshold"] == 0.05
    assert {row["object_id"] for row in card["objects"]} == set(judged)
    assert sorted(path.stem for path in (out / "demo").glob("*.png")) == script.NAMES
    assert (out / "demo/model.zip").stat().st_size > 1e6
    with Image.open(out / "dibr_demo.png") as picture:
        side = script.DEMO_SIZE
        assert picture.size == (len(script.NAMES) * side, (1 + len(script.SIDES)) * side)


def check_looks_follow_the_network(script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen in the pictures of one network is not put beside those of another one."""
    with pytest.raises(
        SystemExit, match=r"LOOKS .* but this is [0-9a-f]{16}: look at .*real_meshes.png, write"
    ) as refused:
        script.check_looks(folder)
    found = str(refused.value).split('weights="')[1][:16]
    monkeypatch.setattr(script, "LOOKS", script.Looks(found, "Good."))
    script.check_looks(folder)
    assert script.looks_of(folder) == "Good."
    checkpoint = folder / script.RUN.name / "checkpoint.pt"
    model = load_checkpoint(checkpoint)
    with torch.no_grad():
        model.network.light_head.bias[0] += 1e-3
    save_checkpoint(checkpoint, model)
    with pytest.raises(SystemExit, match="LOOKS"):
        script.check_looks(folder)
