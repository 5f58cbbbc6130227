"""examples/generate.py makes its data, trains, and shows; docs/generation.md has what it wrote."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import generate


def test_it_leaves_data_run_pictures_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does nothing anew that is there, when it is started again."""
    monkeypatch.setattr(generate, "VIEWS", 2)
    monkeypatch.setattr(
        sys, "argv", ["generate.py", f"--output={tmp_path}", "--steps=1", "--objects=2", "--samples=10"]
    )
    generate.main()
    table = capsys.readouterr().out
    assert [len(line.split("|")) for line in table.splitlines()] == [8] * 5
    size = generate.SHOWN_SIZE
    for name, columns, rows in (("samples.png", 10, 3), ("nearest.png", 10, 2), ("way.gif", 1, 1)):
        with Image.open(tmp_path / f"generation_{name}") as picture:
            assert picture.size == (columns * size, rows * size)
    before = (tmp_path / "run/checkpoint.pt").stat().st_mtime_ns
    generate.main()
    assert capsys.readouterr().out == table
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
    text = generate.PAGE.read_text()
    written = text[text.index(generate.MARKS[0]) : text.index(generate.MARKS[1])]
    rows = {row[0].strip(): [float(part) for part in row[1:]] for row in map(_cells, written.splitlines()) if row}
    made, new, _ = rows.values()
    assert made[0] > new[0], "no sample is as near to a training picture as a copy would be"
    for name in re.findall(r"images/(generation_\w+\.\w+)", text):
        assert (generate.PICTURES / name).is_file()


def _cells(line: str) -> list[str]:
    cells = line.strip("|").split("|")
    return cells if len(cells) == 6 and re.match(r" *\d", cells[1]) and "%" not in line else []
