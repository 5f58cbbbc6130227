"""`dibr doctor`: which doors can open on this machine, why the others cannot, and what to do about it.

Nothing is loaded in this process: every door is tried in one of its own, so that what crashes or hangs there is
reported like everything else.
"""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from dibr_deploy import _native
from dibr_deploy.errors import DibrError

from . import schema
from .kinds import is_bundle
from .probes import ABSENT, BROKEN, OPENS, TIMEOUT
from .tables import aligned

LIBRARIES = (
    "libdibr.so",
    "libdibr_torch.so",
    "libdibr_onnxruntime.so",
    "libdibr_tensorrt.so",
    "libdibr_tensorrt_static.so",
)
_PACKAGES = (
    "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "tensorrt-lean", "cuda-bindings", "pycuda",
)  # fmt: skip
_WORKERS = 2


@dataclass(frozen=True)
class Answer:
    """What a door said. state: OPENS; ABSENT, something is not there; BROKEN, something there does not work."""

    state: str
    reason: str
    remedy: str = ""
    """What to do; empty where there is nothing to do or ``reason`` says it."""


@dataclass(frozen=True)
class Library:
    """A native library of ours that is installed."""

    name: str
    path: str
    schema_version: int | None
    """None where the library does not show it."""
    cuda_kernels: bool | None
    problem: str = ""
    """Why it cannot be loaded."""


@dataclass(frozen=True)
class Door:
    """A way to run the renderer."""

    name: str
    answer: Answer
    of_model: Answer | None = None
    """Whether it can open the model that the doctor was given."""


@dataclass(frozen=True)
class Report:
    """All of it. ``str(report)`` is a table."""

    facts: dict[str, Any]
    libraries: tuple[Library, ...]
    doors: tuple[Door, ...]
    model: str | None = None
    model_answer: Answer | None = field(default=None)
    """Whether the model is what its manifest says."""

    @property
    def healthy(self) -> bool:
        """Whether a door opens; of a model, whether one opens it."""
        answers = [door.of_model if self.model is not None else door.answer for door in self.doors]
        return any(answer is not None and answer.state == OPENS for answer in answers)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "healthy": self.healthy}, indent=2)

    def __str__(self) -> str:
        lines = [f"{name}: {_shown(value)}" for name, value in self.facts.items()]
        rows = [(library.name, _stamp(library), library.path) for library in self.libraries]
        lines += ["", "libraries", *(f"  {line}" for line in aligned(rows, left=3) or ["none"])]
        lines += ["", "doors", *_answers([(door.name, door.answer) for door in self.doors])]
        if self.model is not None:
            lines += ["", f"model {self.model}"]
            if self.model_answer is not None:
                lines += _answers([("manifest", self.model_answer)])
            lines += _answers([(door.name, door.of_model) for door in self.doors if door.of_model is not None])
        return "\n".join(lines)


def examine(model: str | Path | None = None, *, timeout: float = TIMEOUT) -> Report:
    """Try every door.

    Args:
        model: a bundle, of which every hash is checked, or an ONNX file.
        timeout: seconds after which a door counts as hanging.

    Raises:
        FileNotFoundError: there is no model.
        DibrError: timeout is not positive.
    """
    if not timeout > 0:
        raise DibrError(f"timeout must be positive, got {timeout:g}")
    if model is not None and not Path(model).exists():
        raise FileNotFoundError(f"model {model} does not exist")
    doctor = _Doctor(timeout)
    with ThreadPoolExecutor(_WORKERS) as pool:
        answers = list(pool.map(lambda door: doctor.ask(*door[1]), DOORS))
    doors = [Door(name, answer) for (name, _, _), answer in zip(DOORS, answers, strict=True)]
    facts, libraries = doctor.facts(), tuple(doctor.libraries())
    if model is None:
        return Report(facts, libraries, tuple(doors))
    checked = _check_manifest(Path(model))
    if checked is None or checked.state == OPENS:
        probes = [probe for _, _, probe in DOORS]
        doors = [doctor.door_of_model(door, probe, str(model)) for door, probe in zip(doors, probes, strict=True)]
    return Report(facts, libraries, tuple(doors), str(model), checked)


def examine_door(name: str, *, timeout: float = TIMEOUT) -> Answer:
    """Try one door.

    name: as in ``DOORS``.
    """
    [probe] = [probe for door, probe, _ in DOORS if door == name]
    return _Doctor(timeout).ask(*probe)


DOORS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("torch, CPU", ("torch", "cpu"), ()),
    ("torch, CUDA", ("torch", "cuda"), ()),
    ("ONNX Runtime, CPU", ("onnxruntime", "cpu"), ("model", "cpu")),
    ("ONNX Runtime, CUDA", ("onnxruntime", "cuda"), ("model", "cuda")),
    (
        "ONNX Runtime, TensorRT provider",
        ("onnxruntime", "onnxruntime-tensorrt"),
        ("model", "onnxruntime-tensorrt"),
    ),
    ("TensorRT", ("tensorrt", "tensorrt"), ("engine", "tensorrt")),
    ("TensorRT-RTX", ("tensorrt", "tensorrt_rtx"), ("engine", "tensorrt_rtx")),
)
"""Name, the probe that tries the door, and the one that opens a model there; torch opens no exported models."""


class _Doctor:
    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def ask(self, probe: str, *arguments: str) -> Answer:
        found = self._probe(probe, *arguments)
        return Answer(found["state"], found["reason"], found["remedy"])

    def door_of_model(self, door: Door, probe: Sequence[str], model: str) -> Door:
        if not probe:
            return Door(door.name, door.answer, Answer(ABSENT, "torch runs modules, not exported models"))
        if door.answer.state != OPENS:
            return Door(door.name, door.answer, Answer(door.answer.state, "this door does not open, see above"))
        name, provider = probe
        if name == "engine" and not is_bundle(Path(model)):
            return Door(door.name, door.answer, Answer(ABSENT, "an ONNX file has no engine, a bundle may have one"))
        return Door(door.name, door.answer, self.ask(name, model, provider))

    def facts(self) -> dict[str, Any]:
        """What a reader of a bug report wants to know."""
        driver, runtime = self._probe("driver"), self._probe("cuda_runtime")
        return {
            "dibr_deploy": _version("dibr_deploy") or "not installed",
            "Python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
            "ONNX Runtime needed": f"1.{schema.ONNXRUNTIME_API} or newer",
            "NVIDIA driver": driver.get("kernel") or ("unknown version" if "cuda" in driver else driver["reason"]),
            "CUDA of the driver": driver.get("cuda"),
            "CUDA runtime": runtime.get("version") or runtime["reason"],
            "GPUs": driver.get("devices", []),
        }

    def libraries(self) -> list[Library]:
        found = []
        for name in LIBRARIES:
            try:
                path = str(_native.library_path(name))
            except FileNotFoundError:
                continue
            answer = self._probe("library", path)
            problem = "" if answer["state"] == OPENS else answer["reason"]
            found.append(Library(name, path, answer.get("schema_version"), answer.get("cuda_kernels"), problem))
        return found

    def _probe(self, probe: str, *arguments: str) -> dict[str, Any]:
        """The answer of a process of its own, which imports from where this one does."""
        code = f"import sys; sys.path[:] = {sys.path!r}; from dibr_deploy.runtime.probes import main; main()"
        command = [sys.executable, "-c", code, probe, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=self._timeout)
        except subprocess.TimeoutExpired:
            return _broken(f"no answer within {self._timeout:g} s", "see whether the machine is busy, or try --timeout")
        try:
            return dict(json.loads(done.stdout.splitlines()[-1]))
        except (IndexError, ValueError):
            return _broken(f"the process that tried it {_end(done)}", "reinstall what it names last")


def _broken(reason: str, remedy: str) -> dict[str, Any]:
    return {"state": BROKEN, "reason": reason, "remedy": remedy}


def _end(done: subprocess.CompletedProcess[str]) -> str:
    """For example "was ended by SIGABRT: terminate called without an active exception"."""
    if done.returncode < 0:
        ended = f"was ended by {signal.Signals(-done.returncode).name}"
    else:
        ended = f"ended with code {done.returncode}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return f"{ended}: {said[-1]}" if said else ended


def _check_manifest(path: Path) -> Answer | None:
    """Every hash of a bundle; None for an ONNX file."""
    if not is_bundle(path):
        return None
    from .bundle import Bundle

    try:
        bundle = Bundle(path)
        for name in bundle.manifest.files:
            bundle.read(name)
    except DibrError as error:
        return Answer(BROKEN, str(error))
    return Answer(OPENS, f"{len(bundle.manifest.files)} files are what it says")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(f"{gpu['name']}, compute capability {gpu['compute_capability']}" for gpu in value) or "none"
    return "none" if value is None else str(value)


def _stamp(library: Library) -> str:
    if library.problem:
        return f"BROKEN: {library.problem}"
    kernels = {True: "with CUDA kernels", False: "without CUDA kernels", None: ""}[library.cuda_kernels]
    version = f"op schema {library.schema_version}" if library.schema_version is not None else ""
    return ", ".join(filter(None, (version, kernels))) or "loads"


def _answers(named: Sequence[tuple[str, Answer]]) -> list[str]:
    width = max(len(name) for name, _ in named)
    lines = []
    for name, answer in named:
        lines.append(f"  {name.ljust(width)}  {answer.state.ljust(len(ABSENT))}  {answer.reason}".rstrip())
        if answer.remedy:
            lines.append(f"  {' ' * width}  {' ' * len(ABSENT)}  -> {answer.remedy}")
    return lines
