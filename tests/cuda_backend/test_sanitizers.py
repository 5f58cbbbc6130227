"""Every kernel under address and undefined-behaviour sanitizer, and under thread sanitizer with blocks on four threads:
clean, and a planted fault is reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_backend.host_build import build, sanitizing

TESTS = Path(__file__).resolve().parents[1]
OPTIONS = {
    "address": sanitizing("address;undefined"),
    "thread": {**sanitizing("thread"), "DIBR_CUDA_ON_HOST_THREADS": "ON"},
}
ENVIRONMENT = {
    "address": {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1", "CUDA_ON_HOST_WORKERS": "4"},
}
RUNTIME = {"address": "libasan.so", "thread": "libtsan.so"}

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("g++") is None, reason="sanitizers are run with g++ on Linux"
)


@pytest.fixture(scope="module", params=list(OPTIONS))
def sanitized(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """(sanitizer, libdibr built with it)."""
    sanitizer = request.param
    return sanitizer, build(f"cuda_on_host-{sanitizer}", **OPTIONS[sanitizer]) / "plugins" / "libdibr.so"


def run(sanitized: tuple[str, Path], cases: str, order: str = "forward") -> subprocess.CompletedProcess[str]:
    sanitizer, library = sanitized
    found = subprocess.run(
        ["g++", f"-print-file-name={RUNTIME[sanitizer]}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        **ENVIRONMENT[sanitizer],
        "LD_PRELOAD": found,
        "CUDA_ON_HOST_ORDER": order,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(TESTS),
    }
    command = [sys.executable, "-m", "cuda_backend.sanitized_cases", str(library), cases]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_every_kernel_is_clean(sanitized: tuple[str, Path]) -> None:
    done = run(sanitized, "all", "random:1")
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    assert done.stdout.count("deterministic") == 4, done.stdout


def test_a_planted_fault_is_reported(sanitized: tuple[str, Path]) -> None:
    sanitizer, _ = sanitized
    fault, report = {
        "address": ("out_of_bounds", "heap-buffer-overflow"),
        "thread": ("race", "ThreadSanitizer: data race"),
    }[sanitizer]
    done = run(sanitized, fault)
    assert done.returncode != 0
    assert report in done.stderr
    assert "rasterize.cu:" in done.stderr
