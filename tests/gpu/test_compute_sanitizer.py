"""Every kernel under the tools of compute-sanitizer: clean, and a planted fault is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.gpu

TESTS = Path(__file__).resolve().parents[1]
FAULTS_FOUND = 86


def run(tool: str, cases: str) -> subprocess.CompletedProcess[str]:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer is not on PATH")
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FAULTS_FOUND), "--target-processes", "all"]
    command += [sys.executable, "-m", "gpu.sanitized_ops", cases]
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_every_kernel_is_clean(tool: str) -> None:
    done = run(tool, "all")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "a tile whose list overflows" in done.stdout


def test_a_planted_write_out_of_bounds_is_reported() -> None:
    done = run("memcheck", "out_of_bounds")
    assert done.returncode == FAULTS_FOUND, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Invalid __global__ write" in done.stdout
