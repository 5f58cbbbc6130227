"""check_cuda_library.py FOLDER: libraries built with nvcc serve the CPU, and say so where a CUDA launch cannot run.

FOLDER has libdibr.so.1 and the torch and ONNX Runtime doors. One triangle is rasterized on the CPU through each door.
Where there is no device, a CUDA launch through the C ABI must return DIBR_CUDA_ERROR with a message."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

CUDA_ERROR = 4
SIZE = 4
# Clip space: the lower left half of the image, its diagonal between two pixel centres of each row.
POSITIONS = np.array([[[-1.0, -1.0, 0.5, 1.0], [1.25, -1.0, 0.5, 1.0], [-1.0, 1.25, 0.5, 1.0]]], np.float32)
FACES = np.array([[0, 1, 2]], np.int32)
FACE_INDEX = np.array([[[0, -1, -1, -1], [0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]]], np.int32)


def check_library(folder: Path) -> None:
    """The libraries of the folder, not those of the installed package, are the ones that the doors load."""
    from dibr_deploy import _native

    for name in ("libdibr.so", "libdibr_torch.so", "libdibr_onnxruntime.so"):
        found = _native.library_path(name).resolve()
        assert found.parent == folder, f"{name} is taken from {found.parent}, not from {folder}"


def check_torch_door() -> None:
    import torch

    from dibr_deploy import ops

    raster = ops.rasterize(torch.from_numpy(POSITIONS), torch.from_numpy(FACES), SIZE, SIZE)
    assert np.array_equal(raster.face_index.numpy(), FACE_INDEX), raster.face_index
    print("torch door: rasterizes on the CPU")


def check_onnxruntime_door() -> None:
    from onnxruntime_door.graphs import run

    raster = run("Rasterize", {"positions": POSITIONS, "faces": FACES}, height=SIZE, width=SIZE)
    assert np.array_equal(raster["face_index"], FACE_INDEX), raster["face_index"]
    print("ONNX Runtime door: rasterizes on the CPU")


def check_cuda_launch(folder: Path) -> None:
    """Host memory serves, since nothing may be launched."""
    from cuda_backend.abi import CUDA, DibrFailure, Library
    from gpu.driver import has_device

    if has_device():
        print("CUDA launch without a driver: not checked, this machine has a device")
        return
    sizes = {"batch": 1, "vertices": 3, "faces": 1, "height": SIZE, "width": SIZE}
    outputs = {
        "face_index": np.zeros((1, SIZE, SIZE), np.int32),
        "barycentrics": np.zeros((1, SIZE, SIZE, 3), np.float32),
        "depth": np.zeros((1, SIZE, SIZE), np.float32),
    }
    library = Library(folder / "libdibr.so.1")
    with pytest.raises(DibrFailure) as raised:
        library.run("rasterize", CUDA, 0, positions=POSITIONS, face_indices=FACES, **sizes, **outputs)
    failure = raised.value
    assert failure.status == CUDA_ERROR, f"status {failure.status}, expected {CUDA_ERROR}: {failure}"
    assert str(failure), "the failed launch left no message"
    print(f"CUDA launch without a driver: status {failure.status}, {failure}")


def main(folder: Path) -> None:
    os.environ["DIBR_LIBRARY_DIR"] = str(folder)  # before dibr_deploy.ops loads the torch door
    check_library(folder)
    check_torch_door()
    check_onnxruntime_door()
    check_cuda_launch(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
