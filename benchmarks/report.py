"""The page that a run writes, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dibr_deploy.files import write_atomically

from . import scenes, suite, targets
from .results import REFERENCE, Results, Spread, Timing
from .targets import Verdict

TASKS = {
    "rasterize": "Rasterize: face index and barycentrics",
    suite.OF_ALL_FACES: "Rasterize without culling",
    "backward": "Rasterize + Interpolate of three channels: the backward pass alone",
    "soft_mask": "SoftMask alone",
    "soft_mask_backward": "SoftMask, forward and backward",
    "interpolate": "Interpolate of three channels alone",
    "texture": "Texture alone, bilinear",
    "texture_backward": "Texture, forward and backward",
    "render": "Rasterize, Interpolate and SoftMask",
    "render_backward": "Rasterize, Interpolate and SoftMask, forward and backward",
    "model": "The whole network, ResNet-18 to picture",
    "predictor": "The network without the renderer",
    "chain": "Rasterize, Interpolate, Texture and SoftMask as four nodes",
    "fused_chain": "The same as one node",
}

INTRODUCTION = """# Benchmarks

`make bench` writes this page, its plots and `benchmarks.json`. All peers are measured in one run, in turns, each in a
process of its own, after their pictures were compared with ours; a peer that draws something else is not timed. CPU
time is that of all threads together, those that spin while they wait included, and decides; wall time stands beside it.
Read ratios: milliseconds are of one machine. Where other work disturbed the run (the rows below say so) wall times and
several threads mean little. Each cell is the median, with the quartiles in brackets. Every process keeps the memory
that it frees, and every turn begins with 50 ms of calls that do not count, as in the middle of a long run: after a
pause the system lets all threads of a process begin on one core. OpenMP's threads wait passively (`OMP_WAIT_POLICY`),
as `dibr` has them wait; "ours, spinning" has them spin before they sleep, as they do in torch where nothing else is
asked for. Back faces are culled. SoftMask alone takes all faces: it stands beside Rasterize as it is elsewhere here,
and beside Rasterize of all faces, which `ops.rasterize` draws by default.

What each peer is asked for: ours through `dibr_deploy.ops`, outputs allocated by torch. llvmpipe uploads the vertices,
draws, and reads back barycentrics and face index; its one thread is the caller's. DEODR draws three colours into
buffers that are kept, in float64, linear in the image. Embree builds its tree and traces a ray for each pixel, both on
one thread. torch is `benchmarks/torch_reference.py`, vectorised torch without native code, whose texture is torch's
`grid_sample`; it leaves its output channel by channel, ours pixel by pixel. PyTorch3D takes vertices in NDC; what takes
it more than 5 s is called once on a scene. Under the aims, ours with several threads stands against the single thread
of a peer that has no more.
"""


def write(results: Results, plots: Iterable[Path], path: Path) -> None:
    """The whole page; ``plots`` lie in a folder beside it."""
    images = [f"![{plot.stem}]({plot.parent.name}/{plot.name})" for plot in plots]
    parts = [
        INTRODUCTION,
        _machine(results),
        "## Aims\n\nA value meets its aim if it is at most the bound.\n\n" + verdicts(targets.judge(results)),
        _beside_published(results),
        "## Where ours takes longer\n\n" + _losses(results),
        "## Same pictures\n\n" + _agreements(results),
        "## Times\n\n" + "\n\n".join(images) if images else "## Times",
        *(_timings(results, task, title) for task, title in TASKS.items() if results.find(task=task)),
        "## Growth\n\n" + _growth(results),
        "## Memory\n\n" + _peaks(results),
    ]
    write_atomically(path, ("\n\n".join(part.strip() for part in parts if part) + "\n").encode())


def _beside_published(results: Results) -> str:
    """Our times beside figures that were published for a peer which was not run here; empty where it was."""
    if results.find(peer="PyTorch3D"):
        return ""
    rows = []
    for task, faces, milliseconds in targets.PUBLISHED_PYTORCH3D:
        scene = scenes.sphere(faces, suite.MIDDLE_SIZE).name
        ours = results.one(scene=scene, task=task, peer="ours", threads=2)
        if ours is not None:
            wall = ours.wall.median * 1e3
            rows.append([TASKS[task], scene, f"{wall:.3g}", f"{milliseconds:,}", f"{wall / milliseconds:.2g}"])
    if not rows:
        return ""
    return (
        "## Beside published figures\n\nPyTorch3D was **not** part of this run, for the reason above. "
        "Beside our wall time with two threads stand figures of its own with two threads that were measured "
        "earlier on another machine of this kind; the ratios compare machines too, and decide no aim.\n\n"
        + _table(["task", "scene", "ours, ms", "PyTorch3D, quoted, ms", "ratio"], "llrrr", rows)
    )


def _losses(results: Results) -> str:
    """Every task and scene for which a peer takes less CPU time than ours with as many threads."""
    text = (
        "CPU time of ours over that of the peer, with as many threads, where it is above 1; the reasons are in "
        "[performance.md](performance.md)."
    )
    rows = []
    for row in results.timings:
        ratio = _ratio(results, row)
        if ratio is not None and ratio > 1:
            rows.append([TASKS[row.task], row.scene, _configuration(row.peer, row.threads), f"{ratio:.2f}"])
    return text + "\n\n" + (_table(["task", "scene", "who", "ours / theirs"], "lllr", rows) if rows else "Nowhere.")


def verdicts(judged: list[Verdict]) -> str:
    rows = [[entry.aim, entry.case, _number(entry.value), f"{entry.bound:.3g}", entry.outcome] for entry in judged]
    return _table(["aim", "case", "value", "bound", "outcome"], "llrrl", rows)


def _machine(results: Results) -> str:
    lines = ["## Machine and peers", _table(["", ""], "ll", [[key, str(v)] for key, v in results.machine.items()])]
    lines.append(_table(["peer", "version"], "ll", [[peer, text] for peer, text in results.versions.items()]))
    if results.absent:
        lines += ["Not timed:", _table(["what", "why"], "ll", [[what, why] for what, why in results.absent.items()])]
    return "\n\n".join(lines)


def _agreements(results: Results) -> str:
    """Scenes down, peers across; a peer that was refused has a cell as well, and its reason above."""
    found = [entry for entry in results.agreements if (entry.peer, entry.threads) != REFERENCE]
    peers = list(dict.fromkeys(_configuration(entry.peer, entry.threads) for entry in found))
    rows = []
    for scene in dict.fromkeys(entry.scene for entry in found):
        own = {_configuration(entry.peer, entry.threads): entry for entry in found if entry.scene == scene}
        coverage = next(iter(own.values())).coverage
        rows.append(
            [scene, f"{coverage:.1%}", *(f"{own[peer].differing:.4%}" if peer in own else "" for peer in peers)]
        )
    text = (
        "Pixels that show another face than ours on one thread. Every one of a peer that was timed lies within 1/64 "
        "pixel of an edge, or both faces are equally deep there to within 1e-4."
    )
    distances = [entry.output_distance for entry in found if entry.output_distance is not None]
    if distances:
        text += f" Outputs and gradients of the torch reference differ from ours by at most {max(distances):.0e}."
    return text + "\n\n" + _table(["scene", "covered", *peers], "lr" + "r" * len(peers), rows)


def _timings(results: Results, task: str, title: str) -> str:
    rows = []
    for scene in dict.fromkeys(row.scene for row in results.find(task=task)):
        own = results.find(scene=scene, task=task)
        for row in own:
            cells = [scene, _configuration(row.peer, row.threads), _spread(row.cpu), _spread(row.wall)]
            rows.append([*cells, _ours_over(results, row)])
    header = ["scene", "who", "CPU time, ms", "wall time, ms", "ours / theirs, CPU"]
    return f"### {title}\n\n" + _table(header, "llrrr", rows)


def _ours_over(results: Results, row: Timing) -> str:
    ratio = _ratio(results, row)
    return "" if ratio is None else f"{ratio:.2g}" if ratio < 0.01 else f"{ratio:.2f}"


def _ratio(results: Results, row: Timing) -> float | None:
    """Our CPU time over this row's, with as many threads; None for our own rows, and where ours has none."""
    ours = results.one(scene=row.scene, task=row.task, peer="ours", threads=row.threads)
    return None if ours is None or row.peer in suite.OURS else ours.cpu.median / row.cpu.median


def _growth(results: Results) -> str:
    text = (
        f"The exponent e of our CPU time ~ n^e on one thread, by least squares: over faces at {suite.MIDDLE_SIZE}x"
        f"{suite.MIDDLE_SIZE}, over pixels at {suite.MIDDLE_FACES:,} faces; then over the part from "
        f"{targets.FACES_FROM:,} faces or {targets.SIZE_FROM}x{targets.SIZE_FROM} on. 1 is linear."
    )
    rows = [
        [entry.task.replace("_", " "), entry.variable, f"{entry.exponent:.2f}", _number(entry.exponent_beyond)]
        for entry in targets.growth(results)
    ]
    return text + "\n\n" + _table(["task", "over", "e, all", "e, upper part"], "llrr", rows)


def _peaks(results: Results) -> str:
    text = (
        "Rise of the peak resident size of a fresh process over loading the scene and one call on one thread, so "
        "inputs and outputs are in it; beside it, that over the bytes of our inputs and outputs (vertices, faces, face "
        "index, barycentrics, depth)."
    )
    rows = [
        [
            peak.scene,
            TASKS[peak.task],
            peak.peer,
            f"{peak.bytes / 2**20:.1f}",
            f"{peak.bytes / peak.needed:.2f}" if peak.task == "rasterize" else "",
        ]
        for peak in results.peaks
    ]
    return text + "\n\n" + _table(["scene", "task", "who", "MiB", "/ inputs and outputs"], "lllrr", rows)


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _configuration(peer: str, threads: int) -> str:
    return peer if threads == 1 else f"{peer}, {threads} threads"


def _spread(spread: Spread) -> str:
    median, lower, upper = map(_milliseconds, (spread.median, spread.lower, spread.upper))
    return f"{median} ({lower} to {upper})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(header: list[str], alignment: str, rows: list[list[str]]) -> str:
    marks = {"l": "---", "r": "---:"}
    lines = [header, [marks[side] for side in alignment], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
