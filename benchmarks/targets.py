"""The project's aims for speed, each with what a run has measured for it, and how cost grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from . import scenes, suite
from .machine import cores
from .results import Results, Timing

LINEAR = 1.05
NOT_RUN = "not part of this run"
FACES_FROM, SIZE_FROM = 81920, 256
"""Where the fits for the aims start: below, what does not depend on faces or on pixels weighs as much."""

PUBLISHED_PYTORCH3D = (
    ("rasterize", 1280, 1044),
    ("rasterize", 20480, 16213),
    ("rasterize", 81920, 63511),
    ("soft_mask_backward", 1280, 1450 + 38600),
)
"""Task, faces and milliseconds of wall time at 512x512 with two threads, measured earlier, not in this run."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One aim: a measured value that shall be at most ``bound``."""

    aim: str
    case: str
    bound: float
    value: float | None
    """None: not measured, for the reason in ``missing``."""
    missing: str = ""

    @property
    def outcome(self) -> str:
        if self.value is None:
            return f"not measured: {self.missing}"
        return "met" if self.value <= self.bound else "not met"


@dataclasses.dataclass(frozen=True)
class Growth:
    """CPU time ~ count^exponent, by least squares through the medians of our single thread."""

    task: str
    variable: str
    """faces or pixels."""
    points: int
    exponent: float
    """Over all points."""
    points_beyond: int
    exponent_beyond: float | None
    """Over those from FACES_FROM or SIZE_FROM on; None with fewer than two."""


def judge(results: Results) -> list[Verdict]:
    """Every aim that the run was for, in the order of the report."""
    every = [
        *_rasterize_against(results, "llvmpipe", 0.5),
        *_rasterize_against(results, "DEODR", 0.5),
        *_pytorch3d(results),
        *_parallel(results),
        *_backward(results),
        *_soft_mask(results),
        *_growth_verdicts(results),
        *_memory(results),
        *_model(results),
    ]
    return [entry for entry in every if entry.value is not None or entry.missing != NOT_RUN]


def growth(results: Results) -> list[Growth]:
    """Exponents of every task of ours that was measured on spheres of several sizes."""
    found = []
    for task in suite.OPS:
        ours = [row for row in results.find(task=task, peer="ours", threads=1, batch=1) if _is_sphere(row)]
        for variable, rows, start in (
            ("faces", [row for row in ours if row.size == suite.MIDDLE_SIZE], FACES_FROM),
            ("pixels", [row for row in ours if row.faces == suite.MIDDLE_FACES], SIZE_FROM**2),
        ):
            points = sorted((row.faces if variable == "faces" else row.size**2, row.cpu.median) for row in rows)
            beyond = [point for point in points if point[0] >= start]
            if len(points) > 1:
                limit = exponent(beyond) if len(beyond) > 1 else None
                found.append(Growth(task, variable, len(points), exponent(points), len(beyond), limit))
    return found


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """e of value ~ count^e."""
    counts, values = np.log(np.array(points, float)).T
    return float(np.polyfit(counts, values, 1)[0])


def ratio(results: Results, ours: Timing, peer: str) -> float | None:
    """Our CPU time over a peer's for the same work, with as many threads where the peer has them."""
    theirs = results.find(scene=ours.scene, task=ours.task, peer=peer)
    alike = [row for row in theirs if row.threads == ours.threads] or theirs
    return ours.cpu.median / alike[0].cpu.median if alike else None


def _is_sphere(row: Timing) -> bool:
    return row.scene.startswith("sphere")


def _compared_scenes(batches: tuple[int, ...] = (1, 8)) -> Iterator[str]:
    for batch in batches:
        for faces in suite.COMPARED_FACES:
            yield scenes.sphere(faces, suite.MIDDLE_SIZE, batch).name


def _against(results: Results, scene: str, task: str, peer: str, threads: int, bound: float, aim: str) -> Verdict:
    ours = results.one(scene=scene, task=task, peer="ours", threads=threads)
    case = f"{scene}, {threads} thread{'s' if threads > 1 else ''}"
    value = ratio(results, ours, peer) if ours else None
    return Verdict(aim, case, bound, value, _reason(results, scene, peer))


def _reason(results: Results, scene: str, peer: str) -> str:
    """Why a peer was not timed on a scene."""
    reasons = [why for what, why in results.absent.items() if what == peer or (peer in what and scene in what)]
    return reasons[0] if reasons else NOT_RUN


def _rasterize_against(results: Results, peer: str, bound: float) -> list[Verdict]:
    aim = f"rasterize, CPU time / {peer}'s"
    return [
        _against(results, scene, "rasterize", peer, threads, bound, aim)
        for scene in _compared_scenes()
        for threads in sorted({1, cores()})
    ]


def _pytorch3d(results: Results) -> list[Verdict]:
    scene = scenes.sphere(1280, suite.MIDDLE_SIZE).name
    return [
        _against(results, scene, "rasterize", "PyTorch3D", 1, 0.005, "rasterize, CPU time / PyTorch3D's"),
        _against(
            results, scene, "soft_mask_backward", "PyTorch3D", 1, 0.001, "soft mask, CPU time / PyTorch3D's silhouette"
        ),
    ]


def _parallel(results: Results) -> list[Verdict]:
    found = []
    for peer, waits in ((suite.SPINNING, "spin, torch's default"), ("ours", "wait passively")):
        for scene in _compared_scenes():
            one = results.one(scene=scene, task="rasterize", peer="ours", threads=1)
            two = results.one(scene=scene, task="rasterize", peer=peer, threads=2)
            value = two.wall.median / one.wall.median if one and two else None
            missing = "this machine has one core" if cores() < 2 else _reason(results, scene, peer)
            aim = f"rasterize, wall time of two threads / of one; they {waits}"
            found.append(Verdict(aim, scene, 0.55, value, missing))
    return found


def _backward(results: Results) -> list[Verdict]:
    aim = "rasterize + interpolate backward, CPU time / DEODR's"
    return [
        _against(results, scene, "backward", "DEODR", threads, 0.5, aim)
        for scene in _compared_scenes((1,))
        for threads in sorted({1, cores()})
    ]


def _soft_mask(results: Results) -> list[Verdict]:
    found = []
    for plain, drawn in (("rasterize", "front faces"), (suite.OF_ALL_FACES, "all faces")):
        for scene in _compared_scenes((1,)):
            mask, rasterized = (
                results.one(scene=scene, task=task, peer="ours", threads=1) for task in ("soft_mask_backward", plain)
            )
            value = mask.cpu.median / rasterized.cpu.median if mask and rasterized else None
            aim = f"soft mask forward + backward, CPU time / rasterize's of {drawn}"
            found.append(Verdict(aim, scene, 1.5, value, NOT_RUN))
    return found


def _growth_verdicts(results: Results) -> list[Verdict]:
    found = []
    measured = {(entry.task, entry.variable): entry for entry in growth(results)}
    for variable, start in (("faces", f"{FACES_FROM:,} faces"), ("pixels", f"{SIZE_FROM}x{SIZE_FROM} pixels")):
        for task in suite.SWEPT:
            entry = measured.get((task, variable))
            value = entry.exponent_beyond if entry else None
            case = f"{task}, from {start}"
            found.append(Verdict(f"exponent of CPU time in {variable}", case, LINEAR, value, NOT_RUN))
    return found


def _memory(results: Results) -> list[Verdict]:
    scene = suite.LARGEST.name
    peaks = [peak for peak in results.peaks if (peak.scene, peak.task, peak.peer) == (scene, "rasterize", "ours")]
    value = peaks[0].bytes / peaks[0].needed if peaks else None
    return [Verdict("peak memory / inputs and outputs", scene, 3.0, value, NOT_RUN)]


def _model(results: Results) -> list[Verdict]:
    scene = suite.MODEL_SCENE.name
    times = {
        task: row.cpu.median
        for task in suite.MODEL
        if (row := results.one(scene=scene, task=task, peer="ONNX Runtime", threads=1))
    }
    nodes = results.facts.get("ONNX Runtime: node_share")
    behind = 1 - times["predictor"] / times["model"] if {"predictor", "model"} <= set(times) else None
    fused = times["fused_chain"] / times["chain"] if {"fused_chain", "chain"} <= set(times) else None
    missing = _reason(results, scene, "ONNX Runtime")
    model = "ResNet-18 at 224x224, 1,280 faces at 256x256"
    return [
        Verdict("renderer's nodes / whole model in ONNX Runtime", model, 0.15, nodes, missing),
        Verdict("all behind the predictor, shading included / whole model", model, 0.15, behind, missing),
        Verdict("fused node / unfused chain, CPU time in ONNX Runtime", model, 1 / 1.5, fused, missing),
    ]
