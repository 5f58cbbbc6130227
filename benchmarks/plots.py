"""Plots of a run: time over faces, over pixels, over threads, on logarithmic axes with fitted exponents."""

from __future__ import annotations

import sys
from pathlib import Path

from . import suite, targets
from .results import Results, Timing

PEERS = ("ours", "llvmpipe", "DEODR", "Embree", "torch", "PyTorch3D")
TASKS = {
    "rasterize": "rasterize",
    "backward": "rasterize + interpolate, backward alone",
    "soft_mask_backward": "soft mask, forward + backward",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write bench_faces.png, bench_pixels.png and bench_threads.png, as far as there is anything to see.

    Returns the written files: none where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed", file=sys.stderr)
        return []
    matplotlib.use("Agg")
    spheres = [row for row in results.timings if row.scene.startswith("sphere") and row.batch == 1]
    middle = [row for row in spheres if row.size == suite.MIDDLE_SIZE]
    over_faces = [row for row in middle if row.threads == 1]
    over_pixels = [row for row in spheres if row.faces == suite.MIDDLE_FACES and row.threads == 1]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        _growth(over_faces, "faces", f"{suite.MIDDLE_SIZE}x{suite.MIDDLE_SIZE} pixels", folder / "bench_faces.png"),
        _growth(over_pixels, "pixels", f"{suite.MIDDLE_FACES:,} faces", folder / "bench_pixels.png"),
        _threads([row for row in middle if row.task == "rasterize"], folder / "bench_threads.png"),
    ]
    return [path for path in drawn if path]


def _growth(rows: list[Timing], variable: str, held: str, path: Path) -> Path | None:
    """CPU time of one thread over faces or pixels, one panel for each task."""
    if len({_count(row, variable) for row in rows}) < 2:
        return None
    figure, axes = _figure(len(TASKS))
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        for peer in PEERS:
            points = sorted(
                (_count(row, variable), row.cpu.median) for row in rows if (row.task, row.peer) == (task, peer)
            )
            if len(points) > 1:
                label = f"{peer}: e = {targets.exponent(points):.2f}"
                axis.loglog(*_columns(points), marker="o", label=label, linewidth=2 if peer == "ours" else 1)
        axis.set(title=title, xlabel=variable, ylabel="CPU time, ms")
        axis.legend()
    figure.suptitle(f"One thread, {held}; time ~ {variable}^e")
    return _saved(figure, path)


def _threads(rows: list[Timing], path: Path) -> Path | None:
    """Wall time of rasterize over the number of threads."""
    if len({row.threads for row in rows}) < 2:
        return None
    figure, axes = _figure(len(suite.COMPARED_FACES))
    for axis, faces in zip(axes, suite.COMPARED_FACES, strict=True):
        for peer in PEERS:
            points = sorted((row.threads, row.wall.median) for row in rows if (row.faces, row.peer) == (faces, peer))
            if points:
                label = f"{peer}: e = {targets.exponent(points):.2f}" if len(points) > 1 else peer
                axis.loglog(*_columns(points), marker="o", label=label, linewidth=2 if peer == "ours" else 1)
        axis.set(title=f"{faces:,} faces", xlabel="threads", ylabel="wall time, ms")
        axis.set_xticks(sorted({row.threads for row in rows}), labels=sorted({row.threads for row in rows}))
        axis.minorticks_off()
        axis.legend()
    figure.suptitle(f"rasterize, {suite.MIDDLE_SIZE}x{suite.MIDDLE_SIZE} pixels; time ~ threads^e")
    return _saved(figure, path)


def _count(row: Timing, variable: str) -> int:
    return row.faces if variable == "faces" else row.size**2


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [count for count, _ in points], [seconds * 1e3 for _, seconds in points]


def _figure(panels: int):
    from matplotlib import pyplot

    return pyplot.subplots(1, panels, figsize=(4.6 * panels, 4.2), layout="constrained")


def _saved(figure, path: Path) -> Path:
    figure.savefig(path, dpi=90, metadata={"Software": None})
    return path
