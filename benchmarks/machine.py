"""What a run's figures are of: the processor, the sources, and what else ran meanwhile. Linux."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from pathlib import Path

BUSY = 0.25
"""Load average per core at the start, or part of all cores' time that others take meanwhile, beyond which a run is
disturbed."""
UNKNOWN = "unknown"


def cores() -> int:
    return len(os.sched_getaffinity(0))


class Machine:
    """The machine from the start of a run on."""

    def __init__(self, sources: Path) -> None:
        self.load = os.getloadavg()[0]
        self.commit = commit(sources)
        self.start = _cpu_seconds_of_others(), time.monotonic()

    def is_busy(self) -> bool:
        """Whether a run that starts now is disturbed."""
        return self.load > BUSY * cores()

    def others(self) -> float:
        """Part of all cores' time since the start that went to processes other than this one and those of its
        children that have been waited for; those still running count as others."""
        busy, start = self.start
        return max(0.0, _cpu_seconds_of_others() - busy) / (time.monotonic() - start) / (os.cpu_count() or 1)

    def description(self) -> dict[str, object]:
        """What the report says, at the end of the run."""
        others = self.others()
        disturbances = []
        if self.is_busy():
            disturbances.append(f"the load average at the start is above {BUSY * cores():g}")
        if others > BUSY:
            disturbances.append(f"others took more than {BUSY:.0%} of the cores' time")
        return {
            "processor": _processor(),
            "cores": cores(),
            "memory GiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "commit": self.commit,
            "date": datetime.date.today().isoformat(),
            "load average at the start": round(self.load, 2),
            "load average at the end, this run's own in it": round(os.getloadavg()[0], 2),
            "cores' time that other processes took": f"{others:.0%}",
            "disturbed by other work": "; ".join(disturbances) or "no",
        }


def commit(folder: Path) -> str:
    """The commit that is checked out in a folder, and whether tracked files differ from it."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return head + (" with uncommitted changes" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), UNKNOWN)


def _cpu_seconds_of_others() -> float:
    """CPU time of the whole machine since it started, less that of this process and its waited-for children."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields)
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])
