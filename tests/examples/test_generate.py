"""examples/generate.py makes its data, trains, and shows; docs/generation.md has what it wrote."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import generate

from dibr_deploy.memorising import CHANCE, COPIES, MEASURES, SAMPLES


def test_it_leaves_data_run_pictures_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does nothing anew that is there, when it is started again."""
    monkeypatch.setattr(generate, "VIEWS", 2)
    monkeypatch.setattr(
        sys, "argv", ["generate.py", f"--output={tmp_path}", "--steps=1", "--objects=2", "--samples=10"]
    )
    generate.main()
    found = capsys.readouterr().out
    rows = [len(line.split("|")) - 2 for line in found.splitlines() if line.startswith("|")]
    assert rows == [8] * (2 + 3 * 5) + [4] * (2 + 3 * 2)
    size = generate.SHOWN_SIZE
    for name, columns, rows in (("samples.png", 10, 3), ("nearest.png", 10, 3), ("way.gif", 1, 1)):
        with Image.open(tmp_path / f"generation_{name}") as picture:
            assert picture.size == (columns * size, rows * size)
    before = (tmp_path / "run/checkpoint.pt").stat().st_mtime_ns
    generate.main()
    assert capsys.readouterr().out == found
    assert (tmp_path / "run/checkpoint.pt").stat().st_mtime_ns == before


def test_what_it_writes_takes_the_old_places(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(generate.PAGE.read_text())
    generate.put_into_page("| new |\n", page)
    old, new = generate.PAGE.read_text(), page.read_text()
    assert "| new |" in new
    start, end = (new.index(mark) for mark in generate.MARKS)
    assert old.startswith(new[:start]) and old.endswith(new[end:])


def test_the_page_shows_what_was_measured() -> None:
    """And its verdict is that of its own figures."""
    text = generate.PAGE.read_text()
    written = text[text.index(generate.MARKS[0]) : text.index(generate.MARKS[1])]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in written.splitlines() if line.startswith("|")]
    chances = {row[0]: float(row[-1]) for row in cells if len(row) == 8 and row[-1][:1].isdigit()}
    limit = CHANCE / len(MEASURES)
    assert min(chances[f"{measure}: {SAMPLES}"] for measure in MEASURES) > limit
    assert min(chances[f"{measure}: {COPIES}"] for measure in MEASURES) < limit
    assert written.rstrip().endswith("No repeating was found, but copies as bad as its samples would be.")
    for name in re.findall(r"images/(generation_\w+\.\w+)", text):
        assert (generate.PICTURES / name).is_file()
