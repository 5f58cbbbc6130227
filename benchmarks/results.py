"""What a run has found, as plain records that JSON can hold."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from dibr_deploy.files import write_atomically

REFERENCE = ("ours", 1)
"""Peer and threads that the others' pictures are compared with."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """Seconds of many calls."""

    median: float
    lower: float
    """Lower quartile."""
    upper: float

    @staticmethod
    def of(seconds: list[float]) -> Spread:
        if len(seconds) == 1:
            return Spread(*3 * seconds)
        lower, median, upper = (round(value, 9) for value in statistics.quantiles(seconds, n=4, method="inclusive"))
        return Spread(median, lower, upper)


@dataclasses.dataclass(frozen=True)
class Timing:
    """One task of one peer on one scene."""

    scene: str
    faces: int
    size: int
    batch: int
    task: str
    peer: str
    threads: int
    cpu: Spread
    """CPU time, summed over all threads."""
    wall: Spread
    calls: int


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One peer's picture of a scene beside ours."""

    scene: str
    peer: str
    threads: int
    coverage: float
    """Part of our picture that is covered."""
    differing: float
    """Fraction of pixels that show another face."""
    unexplained: int
    """Differing pixels that are neither on an edge nor tied in depth; any of them and the peer is not timed."""
    output_distance: float | None = None
    """Largest relative distance (2-norm) between outputs or gradients of the ops; None: not compared."""


@dataclasses.dataclass(frozen=True)
class Peak:
    """Memory that a scene and one call took in a fresh process."""

    scene: str
    task: str
    peer: str
    bytes: int
    needed: int
    """Bytes of inputs and outputs (face index, barycentrics, depth)."""


@dataclasses.dataclass
class Results:
    """Everything that a report needs."""

    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    """Peers, or peers on scenes, that were not timed, and why."""
    agreements: list[Agreement] = dataclasses.field(default_factory=list)
    timings: list[Timing] = dataclasses.field(default_factory=list)
    peaks: list[Peak] = dataclasses.field(default_factory=list)
    facts: dict[str, float] = dataclasses.field(default_factory=dict)

    def find(self, **wanted: Any) -> list[Timing]:
        """Timings whose fields have the given values."""
        return [row for row in self.timings if all(getattr(row, name) == value for name, value in wanted.items())]

    def one(self, **wanted: Any) -> Timing | None:
        found = self.find(**wanted)
        return found[0] if found else None

    def write(self, path: Path) -> None:
        """As JSON, one record on a line."""
        lines = []
        for name, value in dataclasses.asdict(self).items():
            content = json.dumps(value)
            if isinstance(value, list):
                content = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
            lines.append(f' "{name}": {content}')
        write_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
