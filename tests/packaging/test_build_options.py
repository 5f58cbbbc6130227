"""CMake options: each says in one sentence what is wrong with it or missing for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
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
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


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
    ],
)
def test_bad_options_stop_the_configuration(tmp_path: Path, options: list[str], message: str) -> None:
    done = configure(tmp_path, *options)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())


def test_cuda_without_nvcc(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DDIBR_CUDA=ON", CUDACXX="/nowhere/nvcc")
    assert done.returncode != 0
    message = "DIBR_CUDA=ON needs nvcc (CUDA 12.8 or newer): put it on PATH, set CMAKE_CUDA_COMPILER, or configure with"
    assert message in " ".join(done.stderr.split())


def test_cuda_with_an_old_nvcc(tmp_path: Path) -> None:
    """An nvcc that CMake finds to be of CUDA 12.4: it refuses the newest GPUs, but the version is what is named."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on PATH")
    old_nvcc = tmp_path / "nvcc"
    old_nvcc.write_text(
        f"""#!/bin/sh
case "$*" in *compute_1[02]0*) echo "Unsupported gpu architecture" >&2; exit 1;; esac
for name in "$@"; do
  case "$name" in
    *CompilerId.cu) sed -i 's/DEC(__CUDACC_VER_MAJOR__)/DEC(12)/; s/DEC(__CUDACC_VER_MINOR__)/DEC(4)/' "$name";;
  esac
done
exec "{nvcc}" "$@"
"""
    )
    old_nvcc.chmod(0o755)
    done = configure(tmp_path / "build", "-DDIBR_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={old_nvcc}")
    assert done.returncode != 0
    message = f"DIBR_CUDA=ON needs nvcc (CUDA 12.8 or newer), got {old_nvcc}, NVIDIA 12.4"
    assert message in " ".join(done.stderr.split())


def test_an_automatic_door_without_headers_is_left_out_with_a_warning(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DDIBR_ORT=AUTO", "-DORT_INCLUDE_DIR=/nowhere")
    assert done.returncode == 0, done.stderr
    assert "DIBR_ORT=AUTO, built without it: ORT_INCLUDE_DIR is /nowhere" in " ".join(done.stderr.split())
    assert "ONNX Runtime door OFF" in done.stdout
