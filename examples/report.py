"""A page of HTML that needs no other file: pictures, animations and charts are inside of it."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dibr_deploy.files import write_atomically

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
       background: #fff; }
h1 { margin-bottom: 0; } h2 { margin: 2.2rem 0 .4rem; font-size: 1.2rem; } p { margin: .4rem 0; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .2rem .7rem; text-align: left; }
th { border-bottom: 1px solid #999; font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.pictures td { padding: .2rem; font-size: .8rem; color: #555; text-align: center; }
img { image-rendering: pixelated; vertical-align: top; border: 1px solid #ddd; }
pre { background: #f4f4f4; padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; }
svg text { font: 12px system-ui, sans-serif; fill: #555; }
.good { color: #14691b; font-weight: 600; } .bad { color: #a40000; font-weight: 600; }
"""

SERIES_COLORS = ("#1f5fa8", "#c0501b", "#2b7a3d", "#7b3fa0", "#8a6d00", "#a02050")


PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole document. sections: heading and HTML of each; a heading may be empty."""
    parts = [(f"<h2>{html.escape(heading)}</h2>\n" if heading else "") + content for heading, content in sections]
    return PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(parts))


def write_page(path: Path, title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Writes ``page``; the file is there whole or not at all."""
    write_atomically(path, page(title, sections))


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def verdict(good: bool, text: str) -> str:
    """One line, green or red."""
    return f'<p class="{"good" if good else "bad"}">{html.escape(text)}</p>'


def listing(lines: Sequence[str]) -> str:
    """Lines as they were typed."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells are escaped; numbers and what reads like one stand at the right."""
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>\n" for row in rows)
    return f"<table><tr>{header}</tr>\n{body}</table>"


def picture_grid(head: Sequence[str], rows: Sequence[Sequence[np.ndarray]], width: int) -> str:
    """Pictures [H, W, 3] uint8 in rows, ``width`` CSS pixels wide each, under a line of captions."""
    captions = "".join(f"<td>{html.escape(caption)}</td>" for caption in head)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{picture(cell, caption, width)}</td>" for cell, caption in zip(row, head, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f'<table class="pictures"><tr>{captions}</tr>\n{body}</table>'


def picture(pixels: np.ndarray, description: str, width: int) -> str:
    """An image [H, W, 3] uint8 as PNG inside the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return _image_tag(buffer.getvalue(), "image/png", description, width)


def image_file(path: Path, description: str, width: int) -> str:
    """A PNG or GIF file inside the page."""
    return _image_tag(path.read_bytes(), f"image/{path.suffix[1:].lower()}", description, width)


def download(path: Path, text: str) -> str:
    """A link that saves the file, whose bytes are inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<p><a download="{html.escape(path.name)}" href="data:application/octet-stream;base64,{data}">'
        f"{html.escape(text)}</a> ({path.stat().st_size / 1000:.0f} kB)</p>"
    )


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Where a point goes in a drawing of ``width`` x ``height``: x linear, y logarithmic."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int
    height: int
    left: int = 60
    top: int = 10
    margin_right: int = 130
    margin_bottom: int = 40

    @property
    def right(self) -> int:
        return self.width - self.margin_right

    @property
    def bottom(self) -> int:
        return self.height - self.margin_bottom

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = math.log(y / self.y_low) / math.log(self.y_high / self.y_low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, *, width: int = 760, height: int = 300
) -> str:
    """Curves as SVG over a logarithmic vertical axis.

    series: name -> (x, y); values of y that are not positive or not finite are left out.
    """
    curves = {name: _positive(x, y) for name, (x, y) in series.items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return paragraph("no values above 0 to draw")
    x_values, y_values = zip(*(point for curve in curves.values() for point in curve), strict=True)
    ticks = _logarithmic_ticks(min(y_values), max(y_values))
    axes = _Axes(min(x_values), max(max(x_values), min(x_values) + 1), ticks[0], ticks[-1], width, height)
    parts = [_y_axis(axes, ticks), _x_axis(axes, x_label)]
    for index, (name, curve) in enumerate(curves.items()):
        parts.append(_curve(axes, index, name, curve))
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def _positive(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b) and b > 0]


def _curve(axes: _Axes, index: int, name: str, curve: Sequence[tuple[float, float]]) -> str:
    """The line, and its name in a key at the right."""
    color = SERIES_COLORS[index % len(SERIES_COLORS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (axes.place(*point) for point in curve))
    x, y = axes.right + 15, axes.top + 14 + 18 * index
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{color}"/>'
        f'<text x="{x + 15}" y="{y}">{html.escape(name)}</text>'
    )


def _logarithmic_ticks(low: float, high: float) -> list[float]:
    """..., 1, 2, 5, 10, ... (powers of ten, where many are needed) around ``low`` and ``high``."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    first = max(index for index, tick in enumerate(ticks) if tick < low)
    last = min(index for index, tick in enumerate(ticks) if tick > high)
    return ticks[first : last + 1]


def _y_axis(axes: _Axes, ticks: Sequence[float]) -> str:
    parts = []
    for tick in ticks:
        _, y = axes.place(axes.x_low, tick)
        parts.append(f'<line x1="{axes.left}" x2="{axes.right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{axes.left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return "".join(parts)


def _x_axis(axes: _Axes, label: str) -> str:
    step = _round_step((axes.x_high - axes.x_low) / 8)
    parts = []
    for index in range(math.ceil(axes.x_low / step), math.floor(axes.x_high / step) + 1):
        x, y = axes.place(index * step, axes.y_low)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{y + 4:.1f}" stroke="#999"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{index * step:g}</text>')
    middle = (axes.left + axes.right) / 2
    parts.append(f'<text x="{middle}" y="{axes.bottom + 34}" text-anchor="middle">{html.escape(label)}</text>')
    return "".join(parts)


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... that is not below ``step``."""
    magnitude = 10 ** math.floor(math.log10(step))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= step * (1 - 1e-9))


def _cell(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    number = text[:1].isdigit() or text[:1] == "-"
    return f'<td class="number">{html.escape(text)}</td>' if number else f"<td>{html.escape(text)}</td>"


def _image_tag(content: bytes, media_type: str, description: str, width: int) -> str:
    data = base64.b64encode(content).decode()
    return f'<img width="{width}" alt="{html.escape(description)}" src="data:{media_type};base64,{data}">'
