"""Do the doors give the same? Outputs of one model, by several ways to run it, against a reference."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dibr_deploy.errors import DibrError, DoorAbsent, EngineRefused, one_line

from .bundle import READ_ERRORS, Bundle, words_of
from .kinds import is_bundle
from .manifest import Tensor
from .onnx_file import has_half_weights, read_header
from .session import Session
from .tables import aligned

DOORS = {
    "cpu": "ONNX Runtime, CPU",
    "cuda": "ONNX Runtime, CUDA",
    "onnxruntime-tensorrt": "ONNX Runtime, TensorRT provider",
    "tensorrt": "TensorRT",
}
"""What ``Session`` calls a provider, and what it is."""
FACE_INDEX = "face_index"
SOFT_MASK = "mask"
TOLERANCE = 1e-4
"""Largest difference of an element, where both sides see the same face."""
HALF_TOLERANCE = 2e-2
"""The same, of a model that holds float16 weights."""
ALLOWED_SHARE = 1e-3
"""Share of the pixels at which face_index may differ: the two networks' vertices differ in their last bits. The soft
mask may differ by more than the tolerance on the same share, since it jumps at the border of a face's box. Of a model
with float16 weights, whose vertices differ by more, both are counted and not judged."""
INPUT_PREFIX, OUTPUT_PREFIX = "input.", "output."
MAX_SAMPLE_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one output differs from the reference."""

    output: str
    shape: tuple[int, ...]
    compared: int
    """Pixels or, for an output that is not an image, elements that took part."""
    differing: int
    """Of these, how many differ: at all for integers, by more than the tolerance for real numbers."""
    allowed: int | None
    """How many may; None where they are counted and not judged."""
    largest: float
    """Largest absolute difference of an element that took part; NaN where one side is NaN and the other is not."""
    mean: float
    """Mean absolute difference of these elements."""

    @property
    def passed(self) -> bool:
        return self.allowed is None or self.differing <= self.allowed


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Differences of every output of one door. ``str(agreement)`` is a table."""

    differences: tuple[Difference, ...]
    tolerance: float
    covered: float | None
    """Share of the pixels that show a face in the reference, which the comparison is worth something by; None without
    any face_index."""

    @property
    def passed(self) -> bool:
        return all(difference.passed for difference in self.differences)

    def __str__(self) -> str:
        rows = [_HEAD, *(_row(difference) for difference in self.differences)]
        return "\n".join([*aligned(rows), *_legend(self.tolerance, self.covered)])


@dataclasses.dataclass(frozen=True)
class Door:
    """What became of one way to run the model: exactly one of ``agreement``, ``absent`` and ``failure`` is there."""

    name: str
    agreement: Agreement | None = None
    absent: str | None = None
    """Why it is not on this machine or not for this model."""
    failure: str | None = None
    """What went wrong where it should have run."""

    @property
    def passed(self) -> bool:
        return self.agreement is not None and self.agreement.passed

    @property
    def shortcoming(self) -> str | None:
        """One sentence on what is wrong; None where the door passed or is absent."""
        if self.failure is not None:
            return f"{self.name} failed: {self.failure}"
        if self.agreement is None or self.agreement.passed:
            return None
        outputs = [difference.output for difference in self.agreement.differences if not difference.passed]
        return f"{self.name} differs in {', '.join(outputs)}"


@dataclasses.dataclass(frozen=True)
class Report:
    """Every door against one reference. ``str(report)`` is a table, door by door."""

    reference: str
    doors: tuple[Door, ...]
    tolerance: float
    required: frozenset[str] = frozenset()
    """Doors that must not be absent."""

    @property
    def passed(self) -> bool:
        return not self.shortcomings

    @property
    def shortcomings(self) -> list[str]:
        """Why the report has not passed, a sentence per door."""
        none_opened = all(door.absent is not None for door in self.doors)
        absent = [
            door for door in self.doors if door.absent is not None and (none_opened or door.name in self.required)
        ]
        found = [door.shortcoming for door in self.doors if door.shortcoming is not None]
        return found + [f"{door.name} is absent: {door.absent}" for door in absent]

    @property
    def differences(self) -> list[Difference]:
        """Of every output, door after door."""
        return [difference for door in self._compared() for difference in door.differences]

    @property
    def covered(self) -> float | None:
        """See ``Agreement``."""
        return next((agreement.covered for agreement in self._compared()), None)

    def _compared(self) -> Iterable[Agreement]:
        return (door.agreement for door in self.doors if door.agreement is not None)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("door", *_HEAD)]
        for door in self.doors:
            rows += [(door.name, *_row(difference)) for difference in (door.agreement or _NOTHING).differences]
        lines = [f"reference: {self.reference}", *(aligned(rows, left=3) if len(rows) > 1 else [])]
        lines += [f"{door.name} ({DOORS[door.name]}) is absent: {door.absent}" for door in self.doors if door.absent]
        lines += [f"{door.name} FAILED: {door.failure}" for door in self.doors if door.failure]
        return "\n".join([*lines, *_legend(self.tolerance, self.covered)])


_NOTHING = Agreement((), 0.0, None)


def compare_doors(
    path: str | Path | Bundle,
    inputs: Sequence[np.ndarray] | Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    *,
    reference: str,
    doors: Sequence[str] | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
) -> Report:
    """Run a model through every door that can open here, and compare its outputs with the reference's.

    Args:
        path: a bundle or an ONNX file, or a ``Bundle`` that is open already.
        inputs: in the model's order, or by name.
        expected: what the reference made of them, by name of the output.
        reference: what it is, for the report.
        doors: names from ``DOORS``, none of which may then be absent; None tries all.
        tolerance: largest difference of real numbers that counts as equal; None takes 1e-4, and 2e-2 for a model that
            holds float16 weights.
        threads: of one operator of ONNX Runtime; see ``Session``.

    Raises:
        FileNotFoundError: there is no model.
        DibrError: a door has no such name, the model cannot be read, or it has other outputs than ``expected``.
    """
    for name in doors or ():
        if name not in DOORS:
            raise DibrError(f"doors must be some of {', '.join(DOORS)}, got {name!r}")
    opened = path if isinstance(path, Bundle) else _opened(Path(path))
    half = _is_half(opened)
    limit = tolerance if tolerance is not None else HALF_TOLERANCE if half else TOLERANCE
    if not limit >= 0:
        raise DibrError(f"tolerance must be at least 0, got {limit:g}")

    def visit(name: str) -> Door:
        try:
            with Session(opened, name, threads=threads) as session:
                outputs = _run(session, inputs, expected)
            return Door(name, agreement=compare(expected, outputs, limit, half=half))
        except _OtherModel:
            raise
        except (DibrError, OSError) as error:
            is_missing = isinstance(error, (DoorAbsent, FileNotFoundError)) and not isinstance(error, EngineRefused)
            said = _one_line(error)
            return Door(name, absent=said) if is_missing else Door(name, failure=said)

    names = dict.fromkeys(doors or DOORS)
    return Report(reference, tuple(visit(name) for name in names), limit, frozenset(doors or ()))


def compare_sample(
    path: str | Path,
    *,
    doors: Sequence[str] | None = None,
    tolerance: float | None = None,
    threads: int | None = None,
) -> Report:
    """Compare every door with what torch made of the bundle's sample when it was exported. Needs no torch.

    Arguments and errors as for ``compare_doors``; DibrError too where the path is no bundle, or it holds no sample.
    """
    if Path(path).exists() and not is_bundle(path):
        raise DibrError(
            f"model {path} is no bundle, and only a bundle holds a sample to compare with: name a checkpoint"
        )
    bundle = _ReadOnce(path)
    inputs, outputs = read_sample(bundle)
    reference = "torch, from the bundle's sample"
    return compare_doors(
        bundle, inputs, outputs, reference=reference, doors=doors, tolerance=tolerance, threads=threads
    )


def read_sample(bundle: Bundle) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The sample's inputs and outputs, by name.

    Raises DibrError where there is none, or it is not what the manifest says: every input and output, each of its
    dtype and rank.
    """
    name = bundle.manifest.sample
    if name is None:
        raise DibrError(f"bundle {bundle.path} holds no sample to compare with: name a checkpoint, or export it again")
    content = bundle.read(name)
    try:
        arrays = _read_npz(content)
    except READ_ERRORS as error:
        raise DibrError(f"bundle {bundle.path}: {name} cannot be read: {words_of(error)}") from error
    return tuple(  # type: ignore[return-value]
        {tensor.name: _of_sample(bundle, arrays, prefix, tensor) for tensor in tensors}
        for prefix, tensors in ((INPUT_PREFIX, bundle.manifest.inputs), (OUTPUT_PREFIX, bundle.manifest.outputs))
    )


def _of_sample(bundle: Bundle, arrays: Mapping[str, np.ndarray], prefix: str, tensor: Tensor) -> np.ndarray:
    array = arrays.get(prefix + tensor.name)
    if array is None or array.dtype.name != tensor.dtype or array.ndim != len(tensor.shape):
        came = "none" if array is None else f"{array.dtype.name} of {array.ndim} axes"
        raise DibrError(
            f"bundle {bundle.path}: {bundle.manifest.sample} must hold {prefix}{tensor.name}, {tensor.dtype} of "
            f"{len(tensor.shape)} axes, but it holds {came}: export the bundle again"
        )
    return array


def _read_npz(content: bytes) -> dict[str, np.ndarray]:
    """Arrays by name. No array is made before its length is known to be what the archive holds."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > MAX_SAMPLE_BYTES:
            raise ValueError(f"{total} bytes, more than {MAX_SAMPLE_BYTES}")
        return {member.filename.removesuffix(".npy"): _read_npy(archive, member) for member in members}


def _read_npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    found = _NPY_HEADER.match(content)
    if found is None or len(found[0]) - 10 != int.from_bytes(content[8:10], "little"):
        raise ValueError(f"{member.filename} does not begin as the .npy file of a C-contiguous array of numbers")
    dtype = np.dtype(found["dtype"].decode())
    shape = tuple(int(size) for size in found["shape"].split(b",") if size.strip())
    body = content[len(found[0]) :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"{member.filename} says {dtype} {list(shape)}, but holds {len(body)} bytes")
    return np.frombuffer(body, dtype).reshape(shape)


# What numpy.save writes of such an array. Its own reader takes headers for Python and evaluates them.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<dtype>[<|][fiub][1248])', 'fortran_order': False, "
    rb"'shape': \((?P<shape>(?:\d{1,18}(?:, |,?(?=\)))){0,8})\), \} *\n",
    re.DOTALL,
)


class _ReadOnce(Bundle):
    """Keeps what it has read: all doors get the same bytes, which are hashed once."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._contents: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        if name not in self._contents:
            self._contents[name] = super().read(name)
        return self._contents[name]


def _opened(path: Path) -> Path | Bundle:
    return _ReadOnce(path) if is_bundle(path) else path


class _OtherModel(DibrError):
    """The model is not the one that the reference ran."""


def _run(
    session: Session, inputs: Sequence[np.ndarray] | Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    names = [info.name for info in session.outputs]
    if set(names) != set(expected):
        raise _OtherModel(
            f"model {session.path} has outputs {', '.join(names)}, but the reference has {', '.join(expected)}"
        )
    if isinstance(inputs, Mapping):
        return session.run(**inputs)
    return session.run(*inputs)


def _is_half(opened: Path | Bundle) -> bool:
    """Whether the model holds float16 weights. Raises where it is no ONNX file."""
    if isinstance(opened, Bundle):
        path = opened.path
        model: BinaryIO = io.BytesIO(opened.read(opened.manifest.model))
    else:
        path = opened
        read_header(path)
        model = path.open("rb")
    with model as file:
        try:
            return has_half_weights(file)
        except (EOFError, ValueError):
            raise DibrError(f"model {path} is cut off or not an ONNX file") from None


def compare(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    tolerance: float = TOLERANCE,
    *,
    half: bool = False,
) -> Agreement:
    """Compare outputs of one name and shape; images, [B, H, W, ...], where ``face_index`` [B, H, W] agrees.

    half: the model holds float16 weights: face_index and the soft mask are counted and not judged.

    Raises DibrError where an output is missing, or has another shape or dtype.
    """
    missing = [name for name in expected if name not in actual]
    if missing:
        raise DibrError(f"output {missing[0]} is missing")
    agree, covered = None, None
    if FACE_INDEX in expected and expected[FACE_INDEX].shape == actual[FACE_INDEX].shape:
        agree = expected[FACE_INDEX] == actual[FACE_INDEX]
        covered = float((expected[FACE_INDEX] >= 0).mean()) if agree.size else 0.0
    differences = (_difference(name, expected[name], actual[name], agree, tolerance, half) for name in expected)
    return Agreement(tuple(differences), tolerance, covered)


def _difference(
    name: str, expected: np.ndarray, actual: np.ndarray, agree: np.ndarray | None, tolerance: float, half: bool
) -> Difference:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        raise DibrError(
            f"output {name} is {actual.dtype} {list(actual.shape)}, but the reference's is {expected.dtype} "
            f"{list(expected.shape)}"
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
    allowed: int | None = 0
    if agree is not None and is_image and name in (FACE_INDEX, SOFT_MASK):
        allowed = None if half else int(ALLOWED_SHARE * agree.size)
    return Difference(
        output=name,
        shape=expected.shape,
        compared=differing.size,
        differing=int(differing.sum()),
        allowed=allowed,
        largest=float(distance.max()) if distance.size else 0.0,
        mean=float(distance.mean()) if distance.size else 0.0,
    )


def _distance(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Absolute difference per element, in float64; 0 where both are NaN or the same infinity."""
    with np.errstate(invalid="ignore"):
        distance = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    same = (expected == actual) | ((expected != expected) & (actual != actual))
    return np.where(same, 0.0, distance)


_HEAD = ("output", "shape", "compared", "differing", "allowed", "largest", "mean", "")


def _row(difference: Difference) -> tuple[str, ...]:
    return (
        difference.output,
        str(list(difference.shape)),
        str(difference.compared),
        str(difference.differing),
        "any" if difference.allowed is None else str(difference.allowed),
        f"{difference.largest:.2e}",
        f"{difference.mean:.2e}",
        "ok" if difference.passed else "FAILED",
    )


def _legend(tolerance: float, covered: float | None) -> list[str]:
    lines = [f"differing: unequal integers, reals more than {tolerance:g} apart"]
    if covered is not None:
        lines.append(f"{covered:.1%} of the pixels are covered; images are compared where both sides see the same face")
    return lines


def _one_line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
