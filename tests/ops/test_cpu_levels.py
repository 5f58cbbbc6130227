"""Every instruction set that the CPU backend is compiled for gives the same results, bit for bit.

The instruction set is chosen once for a process, so each runs in one of its own, on all the scenes that the other tests
compare with the oracle. On a processor that is not x86-64 there is one level, and nothing to compare.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

FLAGS = {"avx2": {"avx2"}, "avx512": {"avx512f", "avx512vl", "avx512dq", "avx512bw"}}
SCRIPT = Path(__file__).with_name("level_digests.py")


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _run(level: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DIBR_CPU_LEVEL": level, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True)


@functools.cache
def digests(level: str) -> dict[str, str]:
    finished = _run(level)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("level", FLAGS)
def test_results_are_those_of_the_baseline(level: str) -> None:
    if platform.machine() not in ("x86_64", "AMD64") or not _flags() >= FLAGS[level]:
        pytest.skip(f"this processor has no {level}")
    expected, actual = digests("baseline"), digests(level)
    assert expected.keys() == actual.keys()
    differing = [key for key in expected if expected[key] != actual[key]]
    assert not differing, f"{len(differing)} of {len(expected)} differ, such as {differing[:5]}"


def test_a_level_that_does_not_exist_is_refused_by_name() -> None:
    finished = _run("sse9")
    assert finished.returncode != 0
    assert "DIBR_CPU_LEVEL must be baseline, avx2 or avx512" in finished.stderr
