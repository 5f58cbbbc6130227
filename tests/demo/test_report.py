"""The demo's page: whole, self-contained, and its drawings show the numbers."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import report


class Checker(HTMLParser):
    """Collects sources and text, and refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_page_is_whole_and_needs_no_other_file(tmp_path: Path) -> None:
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    (tmp_path / "mesh.glb").write_bytes(b"mesh")
    parts = [
        report.paragraph("1 < 2 & so on"),
        report.picture_grid(("a", "b"), [[pixels, pixels]], 10),
        report.table(("name", "count"), [("<b>", 3)]),
        report.line_chart({"loss": ([0, 1], [1.0, 0.5])}, "step"),
        report.download(tmp_path / "mesh.glb", "the mesh"),
    ]
    report.write_page(tmp_path / "page.html", "Tom & Jerry", [("Heading", part) for part in parts])
    checker = Checker()
    checker.feed((tmp_path / "page.html").read_text())
    assert checker.open == []
    assert len(checker.links) == 3
    assert all(link.startswith("data:") for link in checker.links)
    for words in ("Tom & Jerry", "1 < 2 & so on", "<b>", "loss", "step"):
        assert words in checker.words


def test_picture_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = re.search(r"base64,([^\"]+)", report.picture(pixels, "noise", 7))
    assert data is not None
    with Image.open(io.BytesIO(base64.b64decode(data[1]))) as image:
        assert np.array_equal(np.asarray(image), pixels)


def curves(svg: str) -> list[np.ndarray]:
    """Points [N, 2] of every polyline."""
    found = re.findall(r'points="([^"]+)"', svg)
    return [np.array([[float(v) for v in pair.split(",")] for pair in points.split()]) for points in found]


def test_chart_is_linear_across_and_logarithmic_upwards() -> None:
    (curve,) = curves(report.line_chart({"loss": ([0, 1, 4], [1.0, 0.1, 0.0001])}, "step"))
    steps = np.diff(curve, axis=0)
    assert steps[1, 0] == pytest.approx(3 * steps[0, 0], abs=0.4)
    assert steps[1, 1] == pytest.approx(3 * steps[0, 1], abs=0.4)
    assert (steps > 0).all()  # y grows downwards in SVG


def test_chart_leaves_out_what_has_no_logarithm() -> None:
    (curve,) = curves(report.line_chart({"loss": ([0, 1, 2, 3], [1.0, 0.0, float("nan"), 2.0])}, "step"))
    assert len(curve) == 2
    assert report.line_chart({"loss": ([0], [0.0])}, "step").startswith("<p>")


@pytest.mark.parametrize(("low", "high"), [(0.011, 0.9), (1.0, 1.0), (2e-5, 7.0), (3.0, 3.1)])
def test_ticks_enclose_the_values(low: float, high: float) -> None:
    ticks = report._logarithmic_ticks(low, high)
    assert ticks[0] < low
    assert ticks[-1] > high
    assert len(ticks) < 12
