"""The engine builder, run where TensorRT-RTX is installed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda_backend.host_build import build
from tensorrt_door import environment

PROGRAM = Path(__file__).with_name("engine_builder.py")


@pytest.fixture(scope="session")
def plugin_library() -> Path:
    folder = build(target="dibr_tensorrt", DIBR_TENSORRT="ON", DIBR_TESTS="ON") / "plugins" / "tensorrt"
    return folder / "libdibr_tensorrt.so"


@pytest.fixture(scope="session")
def in_tensorrt(request: pytest.FixtureRequest) -> Callable[..., subprocess.CompletedProcess]:
    """in_tensorrt(*arguments, stdin=...): runs Python where TensorRT-RTX and the plugins are."""
    python = environment.python()
    library = request.getfixturevalue("plugin_library").parent

    def run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess:
        variables = {**os.environ, "DIBR_LIBRARY_DIR": str(library)}
        command = [str(python), *map(str, arguments)]
        return subprocess.run(command, input=stdin, env=variables, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def ask(in_tensorrt) -> Callable[..., Any]:
    """ask(command, **arguments): an answer of engine_builder.py."""

    def ask_one(command: str, **arguments: Any) -> Any:
        result = in_tensorrt(PROGRAM, command, stdin=json.dumps(arguments))
        assert result.returncode == 0, f"{command} {arguments} gave {result.returncode}\n{result.stderr}"
        return json.loads(result.stdout.splitlines()[-1])

    return ask_one
