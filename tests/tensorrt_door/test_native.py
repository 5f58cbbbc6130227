"""The plugins through their whole life on test doubles of TensorRT, with the CUDA kernels executed on the CPU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def drive(driver: Path, libraries: dict[str, str], *arguments: str, **environment: str) -> None:
    result = subprocess.run(
        [str(driver), libraries["getCreators"], *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed, 0 failed" in result.stdout


@pytest.mark.parametrize("order", ["forward", "reverse", "random:1"])
def test_lifecycle(driver: Path, libraries: dict[str, str], order: str) -> None:
    """Build, serialise, deserialise, two contexts, changing shapes, poisoned memory: equal to the CPU backend."""
    drive(driver, libraries, "lifecycle", CUDA_ON_HOST_ORDER=order)


@pytest.mark.parametrize("group", ["shapes", "formats", "fields", "hostile"])
def test_answers(driver: Path, libraries: dict[str, str], group: str) -> None:
    drive(driver, libraries, group)


def test_exports(libraries: dict[str, str]) -> None:
    """One library exports what the plugin registry calls and is complete in itself; the other exports nothing."""

    def symbols(library: str) -> set[str]:
        listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
        return {line.split()[-1] for line in listed.stdout.splitlines()}

    def needed(library: str) -> set[str]:
        listed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
        return {line.split("[")[1].split("]")[0] for line in listed.stdout.splitlines() if "(NEEDED)" in line}

    assert symbols(libraries["getCreators"]) == {"getCreators", "setLoggerFinder"}
    assert symbols(libraries["static"]) == set()
    assert "libdibr.so.1" not in needed(libraries["getCreators"])
    assert "libdibr.so.1" in needed(libraries["static"])
    for library in libraries.values():
        assert not [name for name in needed(library) if "nvinfer" in name or "tensorrt" in name]
