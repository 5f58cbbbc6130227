"""Every instruction set that the CPU backend is compiled for gives the same results, bit for bit. The baseline's soft
mask alone is rounded otherwise, since the baseline has no fused multiply-add. Where edges of a face coincide, rounding
also decides which of them the gradient reaches: compared is what does not depend on that.

The instruction set is chosen once for a process, so each runs in one of its own, on all the scenes that the other tests
compare with the oracle. On a processor that is not x86-64 there is one level, and nothing to compare.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FLAGS = {"avx2": {"avx2", "fma"}, "avx512": {"avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"}}
SCRIPT = Path(__file__).with_name("level_digests.py")


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _run(level: str, path: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DIBR_CPU_LEVEL": level, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(SCRIPT), str(path)], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, np.ndarray]]:
    """Of a level: the soft mask and where it pulls the mesh as numbers, of all else a digest."""
    folder = tmp_path_factory.mktemp("levels")

    def of(level: str) -> dict[str, np.ndarray]:
        path = folder / f"{level}.npz"
        if not path.exists():
            finished = _run(level, path)
            assert finished.returncode == 0, finished.stderr
        with np.load(path) as file:
            return dict(file)

    return of


@pytest.mark.parametrize(("level", "other"), [("avx2", "baseline"), ("avx512", "avx2")])
def test_results_are_those_of_the_level_below(results, level: str, other: str) -> None:
    if platform.machine() not in ("x86_64", "AMD64") or not _flags() >= FLAGS[level]:
        pytest.skip(f"this processor has no {level}")
    expected, actual = results(other), results(level)
    assert expected.keys() == actual.keys()
    differing = {key for key in expected if not np.array_equal(expected[key], actual[key])}
    if other == "baseline":
        rounded = {key for key, value in expected.items() if value.dtype.kind == "f"}
        assert {key.rpartition(" ")[2] for key in rounded} == {"soft_mask", "keeping", "pull", "mask"}
        differing -= rounded | {key for key in expected if key.endswith(" soft_mask gradient")}
        for key in rounded:
            expect_rounded(key, expected[key], actual[key])
    assert not differing, f"{len(differing)} of {len(expected)} differ, such as {sorted(differing)[:5]}"


def expect_rounded(key: str, values: np.ndarray, others: np.ndarray) -> None:
    """The same masks, or pulls, but for rounding of numbers up to 1, or up to their sizes."""
    size = 1.0
    if key.endswith(" pull"):
        (values, sizes), (others, _) = values, others
        size = max(sizes.max(initial=0.0), size)
    rounding = 64 * np.finfo(values.dtype).eps * size
    np.testing.assert_allclose(others, values, rtol=0, atol=rounding, err_msg=key)


def test_a_level_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    finished = _run("sse9", tmp_path / "results.npz")
    assert finished.returncode != 0
    assert "DIBR_CPU_LEVEL must be baseline, avx2 or avx512" in finished.stderr
