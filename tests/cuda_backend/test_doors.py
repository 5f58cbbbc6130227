"""The torch and ONNX Runtime doors on the path that CUDA tensors take, with the kernels executed on the CPU.

In the host build of the kernels both doors send CPU tensors to the CUDA backend. A process of its own runs a small
renderer through each, and must give what the CPU backend gives in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cuda_backend import door_programs
from cuda_backend.host_build import build

# torch's CUDA library has this function; here there is none, and the door must ask for the stream all the same.
STREAM_STUB = """
#include <stdint.h>
#include <stdlib.h>
int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream) {
  *stream = NULL;
  setenv("DIBR_TEST_STREAM_ASKED", "1", 1);
  return 0;
}
"""


@pytest.fixture(scope="session")
def libraries() -> Path:
    folder = build("cuda_on_host_doors", target="all", DIBR_TORCH="ON", DIBR_ORT="ON")
    return folder / "installed" / "lib"


@pytest.fixture(scope="session")
def stream_stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub")
    source, library = folder / "stub.c", folder / "libstub.so"
    source.write_text(STREAM_STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def run_on_cuda_path(
    program: str, libraries: Path, tmp_path: Path, preload: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """What a door program computes, and how often each kernel was launched."""
    result, counters = tmp_path / "result.npz", tmp_path / "counters.json"
    environment = {**os.environ, "DIBR_LIBRARY_DIR": str(libraries), "CUDA_ON_HOST_COUNTERS": str(counters)}
    environment |= {"LD_PRELOAD": str(preload)} if preload else {}
    command = [sys.executable, door_programs.__file__, program, str(result)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(result) as arrays:
        launches = {kernel: counts["launches"] for kernel, counts in json.loads(counters.read_text()).items()}
        return dict(arrays), launches


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == np.int32 or name.endswith(door_programs.SIXTEEN_BIT):
            assert np.array_equal(actual[name], value), name
        else:
            # All background pixels add the same value to one texel: a thousand roundings to the same side.
            tolerance = 1e-4 if name.startswith("gradient") else 1e-5
            assert np.abs(actual[name] - value).max() <= tolerance * max(1.0, np.abs(value).max()), name


def test_torch_door(libraries: Path, stream_stub: Path, tmp_path: Path) -> None:
    actual, kernels = run_on_cuda_path("torch", libraries, tmp_path, stream_stub)
    assert actual.pop("stream_asked")
    assert_same(actual, door_programs.run_torch())
    for kernel in (
        "raster_kernel",
        "raster_backward_kernel",
        "interpolate_kernel",
        "attribute_gradient_kernel",
        "soft_mask_kernel",
        "soft_mask_backward_kernel",
        "texture_kernel",
        "texel_gradient_kernel",
        "antialias_kernel",
        "antialias_position_gradient_kernel",
    ):
        assert any(kernel in name for name in kernels), kernel


def test_deterministic_mode_reaches_every_backward_of_the_torch_door(
    libraries: Path, stream_stub: Path, tmp_path: Path
) -> None:
    _, by_default = run_on_cuda_path("torch", libraries, tmp_path, stream_stub)
    actual, launches = run_on_cuda_path("torch_deterministic", libraries, tmp_path, stream_stub)
    assert actual.pop("stream_asked")
    assert_same(actual, door_programs.run_torch())
    finished = "finish_fixed_kernel<T>"
    assert finished not in by_default
    # Of attributes, texture, and positions four times: rasterize by its barycentrics, in one op with interpolate, and
    # by its depth, soft_mask and antialias.
    assert launches[finished] == 6
    scattering = [kernel for kernel in by_default if "decltype(sink)" in kernel]
    assert len(scattering) == 5
    for kernel in scattering:  # once for the largest magnitude, once to add
        assert launches[kernel] == 2 * by_default[kernel], kernel


def test_torch_door_says_when_there_is_no_stream(libraries: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DIBR_LIBRARY_DIR": str(libraries)}
    command = [sys.executable, door_programs.__file__, "torch", str(tmp_path / "result.npz")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "aoti_torch_get_current_cuda_stream is missing" in done.stderr


def test_onnxruntime_door(libraries: Path, tmp_path: Path) -> None:
    actual, kernels = run_on_cuda_path("onnxruntime", libraries, tmp_path, None)
    assert_same(actual, door_programs.run_onnxruntime())
    for kernel in ("raster_kernel", "interpolate_kernel", "soft_mask_kernel", "texture_kernel", "antialias_kernel"):
        assert any(kernel in name for name in kernels), kernel
