"""check_demo.py FOLDER: what `make demo` wrote is there, whole, and shows something."""

from __future__ import annotations

import csv
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import trimesh
from PIL import Image

OPS = {"Render"}  # the fused form of Rasterize, Interpolate, Texture and SoftMask


class Report(HTMLParser):
    """Counts what is on the page and refuses tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.rows = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(dict(attributes)["src"] or "")
        self.rows += tag == "tr"

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


def check_report(path: Path) -> None:
    text = path.read_text()
    report = Report()
    report.feed(text)
    report.close()
    assert not report.open, f"{path} leaves {report.open} open"
    assert len(report.images) >= 8, f"{path} has {len(report.images)} pictures"
    assert all(source.startswith("data:image/") for source in report.images), f"{path} needs other files"
    assert report.rows > 10, f"{path} has tables of {report.rows} rows"
    assert "<svg" in text, f"{path} has no loss curve"
    assert "FAILED" not in text, f"{path} reports a failure"


def check_picture(path: Path, frames: int = 1) -> None:
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == frames, f"{path} has {image.n_frames} frames, not {frames}"
        image.seek(frames - 1)
        values = np.asarray(image.convert("RGB"))
    assert values.std() > 1, f"{path} is one even colour"


def check_model(path: Path) -> None:
    model = onnx.load(path)
    assert {opset.domain for opset in model.opset_import} >= {"", "ai.dibr"}
    ops = {node.op_type for node in model.graph.node if node.domain == "ai.dibr"}
    assert ops == OPS, f"{path} has the ops {sorted(ops)}"


def check_losses(path: Path) -> None:
    with path.open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) >= 100, f"{path} has {len(losses)} steps"
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10]), f"the loss did not fall: {losses[0]} to {losses[-1]}"


def main() -> None:
    folder = Path(sys.argv[1])
    check_report(folder / "report.html")
    for name in ("input", "prediction", "mask"):
        check_picture(folder / "rendered" / f"{name}.png")
    check_picture(folder / "rendered" / "turntable.gif", frames=12)
    mesh = trimesh.load(folder / "rendered" / "mesh.glb", force="mesh")
    assert len(mesh.faces) == 1280, f"mesh.glb has {len(mesh.faces)} faces"
    check_model(folder / "model.onnx")
    check_losses(folder / "run" / "losses.csv")
    print(f"{folder}: report, pictures, animation, mesh, model and losses are there")


if __name__ == "__main__":
    main()
