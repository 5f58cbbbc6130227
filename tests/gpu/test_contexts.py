"""libdibr keeps nothing of a context: it runs in several of one device, in turn, and after one of them has gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_backend.abi import CPU, CUDA, Library
from cuda_backend.ops import Device
from oracle import scenes

from gpu.driver import Context, DriverLibrary

pytestmark = pytest.mark.gpu


def test_two_contexts(library_path: Path) -> None:
    scene = scenes.soup_perspective().rounded_to(np.float32)
    expected = Device(Library(library_path), CPU).rasterize(scene)
    grad = np.ones_like(expected[1])
    contexts = [Context(primary=False), Context(primary=False), Context(primary=True)]
    devices = [Device(DriverLibrary(library_path, context), CUDA, deterministic=True) for context in contexts]
    gradients = []
    for device in devices * 2:
        for actual, wanted in zip(device.rasterize(scene), expected, strict=True):
            assert np.array_equal(actual, wanted)
        gradients.append(device.rasterize_backward(scene, expected[0], grad, None))
    assert all(np.array_equal(gradient, gradients[0]) for gradient in gradients)
    contexts[0].destroy()
    for device in devices[1:]:
        assert np.array_equal(device.rasterize(scene)[0], expected[0])
    for context in contexts[1:]:
        context.destroy()
