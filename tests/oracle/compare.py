"""Judges a kernel's rasterisation against the oracle's by the conventions' own measure, and counts what it excused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oracle import oracle
from oracle.scenes import Scene

RELATIVE_TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
VALUE_TOLERANCE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}
MOST_MISMATCHES = 1e-3
ORDINARY_CONDITION = 10.0


@dataclass(frozen=True)
class FaceIndexReport:
    """pixels compared, mismatches among them, the largest tolerance one of them needs to be permitted."""

    pixels: int
    mismatches: int
    worst: float

    def __str__(self) -> str:
        return f"face_index differs on {self.mismatches} of {self.pixels} pixels, worst needs {self.worst:.2e}"


def compare_face_index(scene: Scene, expected: np.ndarray, actual: np.ndarray) -> FaceIndexReport:
    """Counts the pixels where face_index [B, H, W] differs and measures the tolerance that each needs."""
    assert actual.shape == expected.shape
    assert actual.dtype == np.int32
    different = np.argwhere(actual != expected)
    if not len(different):
        return FaceIndexReport(actual.size, 0, 0.0)
    visible = oracle.visible_polygons(scene)
    x, y = oracle.pixel_centres(scene.height, scene.width)
    needed = [oracle.needed_tolerance(visible[b], x[i], y[j], int(actual[b, j, i])) for b, j, i in different]
    return FaceIndexReport(actual.size, len(different), max(needed))


def assert_face_index(scene: Scene, expected: np.ndarray, actual: np.ndarray) -> FaceIndexReport:
    """Fails where face_index differs by more than the conventions permit for the dtype of scene.positions."""
    report = compare_face_index(scene, expected, actual)
    assert report.worst <= RELATIVE_TOLERANCE[scene.positions.dtype], f"{scene.name}: {report}"
    assert report.mismatches <= MOST_MISMATCHES * report.pixels, f"{scene.name}: {report}"
    return report


def value_tolerance(scene: Scene, face_index: np.ndarray) -> np.ndarray:
    """Tolerance of barycentrics and depth at each pixel [B, H, W]: the dtype's, times the condition number of the face
    relative to that of an ordinary triangle."""
    condition = oracle.condition_numbers(scene.positions, scene.faces, face_index)
    return VALUE_TOLERANCE[scene.positions.dtype] * np.maximum(1.0, condition / ORDINARY_CONDITION)


def largest_scaled_error(actual: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, where: np.ndarray) -> float:
    """The largest |actual - expected| in units of the tolerance [B, H, W], over the pixels `where` [B, H, W]."""
    error = np.abs(actual.astype(np.float64) - expected)
    error = error.max(axis=-1) if error.ndim > tolerance.ndim else error
    assert np.isfinite(error).all()
    return float(np.max(error / tolerance, where=where, initial=0.0))
