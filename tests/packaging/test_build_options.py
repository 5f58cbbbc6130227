"""CMake options: each says in one sentence what is wrong with it or missing for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        shutil.which("cmake", path=beside_python) or "cmake",
        "-S",
        str(REPOSITORY),
        "-B",
        str(folder),
        "-DDIBR_TORCH=OFF",
        "-DDIBR_ORT=OFF",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-DDIBR_TORCH=MAYBE"], "DIBR_TORCH must be ON, OFF or AUTO, got 'MAYBE'"),
        (["-DDIBR_SANITIZE=memory"], 'DIBR_SANITIZE must be empty, "address;undefined" or "thread", got "memory"'),
        (
            ["-DDIBR_TORCH=ON", "-DTORCH_INCLUDE_DIR=/nowhere"],
            "DIBR_TORCH=ON: TORCH_INCLUDE_DIR is /nowhere, which has no torch/csrc/stable/library.h",
        ),
        (
            ["-DDIBR_ORT=ON", "-DORT_INCLUDE_DIR=/nowhere"],
            "DIBR_ORT=ON: ORT_INCLUDE_DIR is /nowhere, which has no onnxruntime_cxx_api.h",
        ),
        (
            ["-DDIBR_TENSORRT=ON", "-DTENSORRT_INCLUDE_DIR=/nowhere"],
            "DIBR_TENSORRT=ON: TENSORRT_INCLUDE_DIR is /nowhere, which has no NvInferRuntime.h",
        ),
        (
            ["-DDIBR_CUDA=ON", "-DCMAKE_CUDA_COMPILER=/nowhere/nvcc"],
            "DIBR_CUDA=ON needs nvcc (CUDA 12.8 or newer): CMAKE_CUDA_COMPILER is /nowhere/nvcc, which does not exist",
        ),
    ],
)
def test_bad_options_stop_the_configuration(tmp_path: Path, options: list[str], message: str) -> None:
    done = configure(tmp_path, *options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())


def test_an_automatic_door_without_headers_is_left_out_with_a_warning(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DDIBR_ORT=AUTO", "-DORT_INCLUDE_DIR=/nowhere")
    assert done.returncode == 0, done.stderr
    assert "DIBR_ORT=AUTO, built without this door: ORT_INCLUDE_DIR is /nowhere" in " ".join(done.stderr.split())
    assert "ONNX Runtime door OFF" in done.stdout
