"""The C++ SDK, built with the CUDA kernels, on ONNX Runtime's CUDA provider: the pictures of the CPU in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnxruntime_door import modules
from runtime_cpp import sdk

from dibr_deploy.export import to_onnx
from dibr_deploy.runtime import Session

CUDA = "CUDAExecutionProvider"
DIFFERING = 1e-3
"""Share of pixels at which another face may be seen: the camera's product is rounded in another order."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in onnxruntime.get_available_providers(),
        reason=f"onnxruntime {onnxruntime.__version__} has no {CUDA}",
    ),
]


def test_outputs(device: torch.device, tmp_path: Path) -> None:
    architecture = "".join(map(str, torch.cuda.get_device_capability(device)))
    prefix = sdk.installed("sdk-cuda", DIBR_CUDA="ON", DIBR_CUDA_ARCHITECTURES=architecture)
    check(sdk.programs(prefix), "cuda", tmp_path)


def check(programs: Path, provider: str, folder: Path) -> None:
    """All ops at 240x170, three images."""
    torch.manual_seed(0)
    model = to_onnx(modules.SphereRenderer(240, 170), modules.inputs(1), folder / "model.onnx")
    offsets, world_to_clip = modules.inputs(3)
    arrays = {"offsets": offsets.numpy(), "world_to_clip": world_to_clip.numpy()}
    expected = Session(model, "cpu", threads=1).run(**arrays)
    ours = sdk.run_bundle(programs, model, arrays, folder / "outputs", threads=1, provider=provider)
    assert (expected["face_index"] >= 0).mean() > 0.1
    same = ours["face_index"] == expected["face_index"]
    assert same.mean() >= 1 - DIFFERING
    for name in ("image", "mask", "depth"):
        near = np.isclose(ours[name], expected[name], rtol=0, atol=1e-4)
        seen = same if near.ndim == same.ndim else same[..., None]
        assert (near | ~seen).mean() >= 1 - (DIFFERING if name == "mask" else 0), name
