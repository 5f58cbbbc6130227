"""The plugins through their whole life on test doubles of TensorRT, with the CUDA kernels executed on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

HOSTILE_ITERATIONS = os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000")


def drive(driver: list[str], *arguments: str, **environment: str) -> str:
    """What the driver prints where nothing failed."""
    variables = {**os.environ, **environment}
    result = subprocess.run([*driver, *arguments], capture_output=True, text=True, env=variables, timeout=3600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed, 0 failed" in result.stdout
    print(result.stdout)
    return result.stdout


@pytest.mark.parametrize("order", ["forward", "reverse", "random:1"])
def test_lifecycle(driver: list[str], order: str) -> None:
    """Build, serialise, deserialise, two contexts, changing shapes, poisoned memory: equal to the CPU backend."""
    drive(driver, "lifecycle", CUDA_ON_HOST_ORDER=order)


@pytest.mark.parametrize("group", ["shapes", "formats", "fields"])
def test_answers(driver: list[str], group: str) -> None:
    drive(driver, group)


@pytest.mark.parametrize("group", ["lifecycle", "shapes", "formats", "fields"])
def test_sanitized(sanitized_driver: list[str], group: str) -> None:
    drive(sanitized_driver, group)


@pytest.mark.long
def test_hostile_fields_and_descriptions(
    sanitized_driver: list[str], record_property: Callable[[str, object], None]
) -> None:
    """Under address and undefined-behaviour sanitizers."""
    said = drive(sanitized_driver, "hostile", HOSTILE_ITERATIONS)
    for kind in ("fields", "descriptions"):
        counts = re.search(rf"{kind} taken (\d+), refused (\d+)", said)
        assert counts, said
        record_property(f"{kind} taken", int(counts[1]))
        record_property(f"{kind} refused", int(counts[2]))


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
