"""examples/fit_mesh.py fits a sphere to views of a real mesh, and writes what it found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import fit_mesh

from dibr_deploy.mesh import read_mesh


def test_the_program_fits_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code says whether the bar was reached, for which these settings are too small."""
    mesh, picture = tmp_path / "duck.glb", tmp_path / "duck.png"
    options = ["--object=duck", "--size=64", "--steps=100", f"--output={mesh}", f"--picture={picture}"]
    monkeypatch.setattr(sys, "argv", ["fit_mesh.py", *options])
    code = fit_mesh.main()
    before, after = (float(value) for value in re.findall(r"mask IoU (\d\.\d+)", capsys.readouterr().out))
    assert before < 0.6 < 0.85 < after
    assert code == (0 if after > fit_mesh.BAR else 1)
    written = read_mesh(mesh)
    assert len(written.faces) == 1280 and written.texture is not None
    assert written.vertices.norm(dim=1).std() > 0.05, "a sphere no more"
    with Image.open(picture) as sheet:
        assert sheet.size == (fit_mesh.VIEWS * 64, 2 * 64)
