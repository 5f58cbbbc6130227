"""The door built with CUDA kernels for the CPU, and the real TensorRT libraries to load it into."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda_backend.host_build import build, sanitizing

from tensorrt_door import environment

SCRIPT = Path(__file__).with_name("real_tensorrt.py")

Ask = Callable[..., Any]


TENSORRT = {"DIBR_TENSORRT": "ON", "DIBR_TESTS": "ON"}


def driver_in(folder: Path) -> list[str]:
    """The native test driver and the library that it drives."""
    return [str(folder / "tests/tensorrt_door/drive_plugins"), str(folder / "plugins/tensorrt/libdibr_tensorrt.so")]


@pytest.fixture(scope="session")
def driver() -> list[str]:
    return driver_in(build(target="drive_plugins", **TENSORRT))


@pytest.fixture(scope="session")
def sanitized_driver() -> list[str]:
    """In the folder where tests/cuda_backend/test_sanitizers.py builds libdibr with the same options."""
    return driver_in(build("cuda_on_host-address", "drive_plugins", **sanitizing("address;undefined"), **TENSORRT))


@pytest.fixture(scope="session")
def libraries() -> dict[str, str]:
    """Paths of the two libraries by the way TensorRT learns of them."""
    build(target="dibr_tensorrt", **TENSORRT)
    folder = build(target="dibr_tensorrt_static", **TENSORRT) / "plugins" / "tensorrt"
    return {
        "getCreators": str(folder / "libdibr_tensorrt.so"),
        "static": str(folder / "libdibr_tensorrt_static.so"),
    }


@pytest.fixture(scope="session")
def ask() -> Ask:
    """ask(flavour, command, **arguments): an answer of the real TensorRT libraries, from a process of its own."""
    python = environment.python()

    def ask_one(flavour: str, command: str, **arguments: Any) -> Any:
        call = [str(python), str(SCRIPT), flavour, command]
        result = subprocess.run(call, input=json.dumps(arguments), capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{' '.join(call)} gave {result.returncode}\n{result.stdout}\n{result.stderr}"
        return json.loads(result.stdout.splitlines()[-1])

    return ask_one
