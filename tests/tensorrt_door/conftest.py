"""The door built with CUDA kernels for the CPU, and the real TensorRT libraries to load it into."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda_backend.host_build import ROOT, build

TENSORRT_PYTHON = ROOT / ".venv-trt" / "bin" / "python"
SCRIPT = Path(__file__).with_name("real_tensorrt.py")

Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def driver() -> Path:
    """The native test driver."""
    folder = build(target="drive_plugins", DIBR_TENSORRT="ON", DIBR_TESTS="ON")
    return folder / "tests" / "tensorrt_door" / "drive_plugins"


@pytest.fixture(scope="session")
def libraries() -> dict[str, str]:
    """Paths of the two libraries by the way TensorRT learns of them."""
    options = {"DIBR_TENSORRT": "ON", "DIBR_TESTS": "ON"}
    build(target="dibr_tensorrt", **options)
    folder = build(target="dibr_tensorrt_static", **options) / "plugins" / "tensorrt"
    return {
        "getCreators": str(folder / "libdibr_tensorrt.so"),
        "static": str(folder / "libdibr_tensorrt_static.so"),
    }


@pytest.fixture(scope="session")
def ask() -> Ask:
    """ask(flavour, command, **arguments): an answer of the real TensorRT libraries, from a process of its own."""
    if not TENSORRT_PYTHON.exists():
        pytest.skip("the TensorRT libraries are not installed: `make setup-trt`")

    def ask_one(flavour: str, command: str, **arguments: Any) -> Any:
        call = [str(TENSORRT_PYTHON), str(SCRIPT), flavour, command]
        result = subprocess.run(call, input=json.dumps(arguments), capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{' '.join(call)} gave {result.returncode}\n{result.stdout}\n{result.stderr}"
        return json.loads(result.stdout.splitlines()[-1])

    return ask_one
