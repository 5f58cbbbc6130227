"""Does the exported file give what the torch module gives? Both run on the same inputs and are compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session

from .exporter import evaluation_mode, named_outputs

FACE_INDEX = "face_index"
SOFT_MASK = "mask"
TOLERANCE = 1e-4
"""Largest difference of an element, where both sides see the same face."""
ALLOWED_SHARE = 1e-3
"""Share of the pixels at which face_index may differ: the two networks' vertices differ in their last bits. The soft
mask may differ by more than the tolerance on the same share, since it jumps at the border of a face's box."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one output differs between torch and ONNX Runtime."""

    output: str
    shape: tuple[int, ...]
    compared: int
    """Pixels or, for an output that is not an image, elements that took part."""
    differing: int
    """Of these, how many differ: at all for integers, by more than the tolerance for real numbers."""
    allowed: int
    """How many may."""
    largest: float
    """Largest absolute difference of an element that took part; NaN where one side is NaN and the other is not."""
    mean: float
    """Mean absolute difference of these elements."""

    @property
    def passed(self) -> bool:
        return self.differing <= self.allowed


@dataclasses.dataclass(frozen=True)
class Report:
    """Differences of every output. ``str(report)`` is a table."""

    differences: list[Difference]
    tolerance: float
    covered: float | None
    """Share of the pixels that show a face in torch, which the comparison is worth something by; None without any
    face_index."""

    @property
    def passed(self) -> bool:
        return all(difference.passed for difference in self.differences)

    def __str__(self) -> str:
        head = ("output", "shape", "compared", "differing", "allowed", "largest", "mean", "")
        rows = [head, *(_row(difference) for difference in self.differences)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in pairs
            ).rstrip()
            for pairs in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
        ]
        lines.append(f"differing: unequal integers, reals more than {self.tolerance:g} apart")
        if self.covered is not None:
            lines.append(
                f"{self.covered:.1%} of the pixels are covered; images are compared where both sides see the same face"
            )
        return "\n".join(lines)


def verify(
    module: nn.Module,
    onnx_path: str | Path,
    inputs: Sequence[Tensor] | Tensor,
    *,
    tolerance: float = TOLERANCE,
    threads: int | None = None,
) -> Report:
    """Run a module in torch and its exported file in ONNX Runtime on the same inputs, and compare every output.

    Args:
        module: what was exported; it runs in evaluation mode.
        onnx_path: the file that ``to_onnx`` wrote.
        inputs: tensors, one per input of the module's forward, of any batch size.
        tolerance: largest difference of real numbers that counts as equal.
        threads: of ONNX Runtime; see ``dibr_deploy.runtime.Session``.

    Raises:
        DibrError: the file does not belong to the module (other outputs or shapes), or Session refuses it.
    """
    tensors = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    session = Session(onnx_path, "cpu", threads=threads)
    with evaluation_mode(module):
        outputs = named_outputs(module(*tensors))
    expected = {name: tensor.detach().cpu().numpy() for name, tensor in outputs.items()}
    actual = session.run(*(tensor.detach().cpu().numpy() for tensor in tensors))
    if list(actual) != list(expected):
        raise DibrError(f"model {onnx_path} has outputs {', '.join(actual)}, but the module has {', '.join(expected)}")
    return compare(expected, actual, tolerance)


def compare(expected: dict[str, np.ndarray], actual: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> Report:
    """Compare outputs of one name and shape; images, [B, H, W, ...], where ``face_index`` [B, H, W] agrees."""
    agree, covered = None, None
    if FACE_INDEX in expected and expected[FACE_INDEX].shape == actual[FACE_INDEX].shape:
        agree = expected[FACE_INDEX] == actual[FACE_INDEX]
        covered = float((expected[FACE_INDEX] >= 0).mean()) if agree.size else 0.0
    differences = [_difference(name, expected[name], actual[name], agree, tolerance) for name in expected]
    return Report(differences, tolerance, covered)


def _difference(
    name: str, expected: np.ndarray, actual: np.ndarray, agree: np.ndarray | None, tolerance: float
) -> Difference:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise DibrError(
            f"output {name} is {actual.dtype} {list(actual.shape)} in ONNX Runtime, "
            f"but {expected.dtype} {list(expected.shape)} in torch"
        )
    is_image = agree is not None and agree.ndim == 3 and expected.shape[:3] == agree.shape
    distance = _distance(expected, actual)
    if is_image and name != FACE_INDEX:
        distance = distance[agree]
        distance = distance.reshape(len(distance), math.prod(distance.shape[1:]))
    else:
        distance = distance.reshape(-1, 1)
    limit = tolerance if np.issubdtype(expected.dtype, np.floating) else 0
    differing = (~(distance <= limit)).any(axis=1)
    may_differ = is_image and name in (FACE_INDEX, SOFT_MASK)
    return Difference(
        output=name,
        shape=expected.shape,
        compared=differing.size,
        differing=int(differing.sum()),
        allowed=int(ALLOWED_SHARE * agree.size) if may_differ and agree is not None else 0,
        largest=float(distance.max()) if distance.size else 0.0,
        mean=float(distance.mean()) if distance.size else 0.0,
    )


def _distance(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Absolute difference per element, in float64; 0 where both are NaN or the same infinity."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    same = (expected == actual) | ((expected != expected) & (actual != actual))
    return np.where(same, 0.0, distance)


def _row(difference: Difference) -> tuple[str, ...]:
    return (
        difference.output,
        str(list(difference.shape)),
        str(difference.compared),
        str(difference.differing),
        str(difference.allowed),
        f"{difference.largest:.2e}",
        f"{difference.mean:.2e}",
        "ok" if difference.passed else "FAILED",
    )
