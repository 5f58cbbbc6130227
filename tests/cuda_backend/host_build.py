"""Builds libdibr with its CUDA kernels compiled for the CPU (tests/cuda_on_host), once for all test processes."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """A program of this Python environment, else of the machine."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    assert found, f"{name} is needed to build the CUDA kernels for the CPU"
    return found


def sanitizing(sanitizers: str) -> dict[str, str]:
    """Options of every build with sanitizers, as in the Makefile: what two builds share is then compiled alike."""
    return {"CMAKE_BUILD_TYPE": "Debug", "DIBR_SANITIZE": sanitizers}


def build(name: str = "cuda_on_host", target: str = "dibr", **options: str) -> Path:
    """The build folder of a host build with these CMake options; rebuilds what has changed. "all" is installed
    into its subfolder "installed" too."""
    folder = ROOT / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"DIBR_CUDA_ON_HOST": "ON", "DIBR_TORCH": "OFF", "DIBR_ORT": "OFF", "DIBR_RUNTIME": "OFF", **options}
    settings["DIBR_WERROR"] = "ON" if os.environ.get("CI") else "OFF"  # as in the Makefile
    configure = [tool("cmake"), "-S", str(ROOT), "-B", str(folder), "-G", "Ninja"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", *(f"-D{key}={value}" for key, value in settings.items())]
    # One build of all at a time: each takes all cores, and finds in a compiler's cache what the one before it compiled.
    with open(ROOT / "build" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands = [configure, [tool("cmake"), "--build", str(folder), "--target", target]]
        if target == "all":
            prefix = str(folder / "installed")
            commands.append([tool("cmake"), "--install", str(folder), "--component", "runtime", "--prefix", prefix])
        for command in commands:
            result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CLICOLOR": "0"})
            assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return folder
