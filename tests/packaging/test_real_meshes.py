"""scripts/real_meshes.py at its smallest: its recipe holds, and nothing that is judged was trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import programs
import pytest
from PIL import Image

from dibr_deploy.data.truth import read_truth


def test_all_of_it_runs_at_its_smallest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(programs.SCRIPTS))
    script = programs.script("real_meshes")
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["real_meshes.py", "--smoke", "--output", str(out)])
    assert script.main() == 0
    trained, judged = (read_truth(out / part) for part in ("train", "test"))
    classes = {*script.NAMES, script.RANDOM}
    assert {entry.class_name for entry in trained.values()} == classes == {e.class_name for e in judged.values()}
    assert not set(trained) & set(judged)
    assert (len(trained), len(judged)) == (2 * len(classes), len(classes))
    page = (out / "real_meshes.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert [row.split("|")[1].strip() for row in rows] == [*sorted(classes), "all"]
    assert "random_002" in " ".join(judged)
    with Image.open(out / "real_meshes.png") as picture:
        assert picture.size == (len(classes) * 64, 5 * 64)
