"""Every op, forward and backward, across the borders of tiles, bins, chunks and warps: the CUDA kernels, executed on
the CPU in an order shuffled anew for every case, against the CPU backend.

The product is complete: 5 ops x 5 face counts x 4 sizes x 2 batches x 2 dtypes, each forward, backward with atomics and
backward deterministic. Reduced are only the soft mask's settings, because the host executes its warp sums slowly: boxes
enlarged by no more than BOXLEN, KNUM faces a pixel, and at 129x257 a gradient from two rows in 16, one warp of every
tile, or with 1,023 faces two rows in 64. A texture has no faces: its width in texels takes their place."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from oracle import scenes
from oracle.scenes import Scene

from cuda_backend.ops import Device
from cuda_backend.test_kernels import (
    DTYPES,
    FACE_COUNTS,
    RASTER_GRADIENT,
    ROUNDING,
    SIZES,
    assert_close,
    assert_same_raster,
    normal,
    soup,
)

LARGE = SIZES[-1]
BOXLEN, KNUM = 0.02, 3


@dataclass(frozen=True)
class Devices:
    """The CPU backend, and the CUDA kernels with atomics and deterministic."""

    cpu: Device
    cuda: Device
    deterministic: Device


def scene_over_the_centre(faces: int, size: tuple[int, int], batch: int, dtype: type) -> Scene:
    """A soup whose first face, behind the others, covers the middle of every image: something is drawn at any size."""
    scene = soup(faces, size, batch, dtype)
    scene.positions[:, :3] = scenes.homogeneous(np.array([[-1.3, -0.9, 0.9], [1.1, -1.2, 0.8], [0.1, 1.4, 0.9]]))
    return scene


def sweep_rasterize(devices: Devices, scene: Scene, seed: int) -> None:
    raster = devices.cpu.rasterize(scene)
    assert_same_raster(devices.cuda.rasterize(scene), raster)
    face_index, barycentrics, depth = raster
    assert (face_index >= 0).any()
    arguments = face_index, normal(seed, barycentrics.shape, depth.dtype), normal(seed + 1, depth.shape, depth.dtype)
    expected = devices.cpu.rasterize_backward(scene, *arguments)
    assert expected.any()
    for device in (devices.cuda, devices.deterministic):
        assert_close(device.rasterize_backward(scene, *arguments), expected, RASTER_GRADIENT)


def sweep_interpolate(devices: Devices, scene: Scene, seed: int) -> None:
    face_index, barycentrics, _ = devices.cpu.rasterize(scene)
    batch, vertices, _ = scene.positions.shape
    attributes = normal(seed, (batch if seed % 2 else 1, vertices, 3), barycentrics.dtype)
    arguments = attributes, scene.faces, face_index, barycentrics
    output = devices.cpu.interpolate(*arguments)
    assert output.any()
    assert np.array_equal(devices.cuda.interpolate(*arguments), output)
    grad_output = normal(seed + 1, output.shape, output.dtype)
    expected = devices.cpu.interpolate_backward(*arguments, grad_output)
    for device in (devices.cuda, devices.deterministic):
        for actual, wanted in zip(device.interpolate_backward(*arguments, grad_output), expected, strict=True):
            assert wanted.any()
            assert_close(actual, wanted, ROUNDING)


def sweep_soft_mask(devices: Devices, scene: Scene, seed: int) -> None:
    """Half the covered pixels and the first row are declared background: else 1,023 faces would hardly leave one."""
    face_index = devices.cpu.rasterize(scene)[0]
    chosen = np.random.default_rng(seed).random(face_index.shape) < 0.5
    chosen[0, 0] = True
    face_index[chosen] = -1
    options = {"sigmainv": 20.0, "boxlen": BOXLEN, "knum": KNUM}
    mask = devices.cpu.soft_mask(scene, face_index, **options)
    assert np.any((mask > 0) & (mask < 1))
    # On x86-64 from AVX2 on: the baseline rounds the mask's products before it adds them up.
    assert np.array_equal(devices.cuda.soft_mask(scene, face_index, **options), mask)
    grad_mask = normal(seed + 1, mask.shape, mask.dtype)
    if mask.shape[1:] == LARGE:
        every = 64 if len(scene.faces) == FACE_COUNTS[-1] else 16
        grad_mask[:, np.arange(mask.shape[1]) % every >= 2] = 0
    expected = devices.cpu.soft_mask_backward(scene, face_index, grad_mask, **options)
    assert expected.any()
    for device in (devices.cuda, devices.deterministic):
        assert_close(device.soft_mask_backward(scene, face_index, grad_mask, **options), expected, ROUNDING)


def sweep_texture(devices: Devices, scene: Scene, seed: int) -> None:
    """uv passes the texture's border by little, so that no texel gathers more than some thousand terms."""
    batch, dtype = len(scene.positions), scene.positions.dtype
    rng = np.random.default_rng(seed)
    uv = rng.uniform(-0.02, 1.02, (batch, scene.height, scene.width, 2)).astype(dtype)
    texture = normal(seed, (batch if seed % 2 else 1, 3, 61, len(scene.faces)), dtype)
    wrap = seed % 3
    mip_level = rng.uniform(-1, 7, uv.shape[:3]).astype(dtype)
    for filter in (0, 1, 2):
        levels = mip_level if filter == 2 else None
        output = devices.cpu.texture(texture, uv, filter, wrap, levels)
        assert output.any()
        assert np.array_equal(devices.cuda.texture(texture, uv, filter, wrap, levels), output)
        grad_output = normal(seed + 1, output.shape, dtype)
        expected = devices.cpu.texture_backward(texture, uv, grad_output, filter, wrap, levels)
        assert expected[0].any()
        for device in (devices.cuda, devices.deterministic):
            actual = device.texture_backward(texture, uv, grad_output, filter, wrap, levels)
            for gradient, wanted in zip(actual, expected, strict=True):
                assert_close(gradient, wanted, ROUNDING)


def sweep_antialias(devices: Devices, scene: Scene, seed: int) -> None:
    face_index, barycentrics, _ = devices.cpu.rasterize(scene)
    image = normal(seed, (*face_index.shape, 1 + seed % 3), barycentrics.dtype)
    arguments = scene, image, face_index, barycentrics
    output = devices.cpu.antialias(*arguments)
    assert (output != image).any() or face_index[0].size == 1
    assert np.array_equal(devices.cuda.antialias(*arguments), output)
    grad_output = normal(seed + 1, output.shape, output.dtype)
    expected = devices.cpu.antialias_backward(*arguments, grad_output)
    for device in (devices.cuda, devices.deterministic):
        for actual, wanted in zip(device.antialias_backward(*arguments, grad_output), expected, strict=True):
            assert_close(actual, wanted, ROUNDING)


SWEEPS: dict[str, Callable[[Devices, Scene, int], None]] = {
    "rasterize": sweep_rasterize,
    "interpolate": sweep_interpolate,
    "soft_mask": sweep_soft_mask,
    "texture": sweep_texture,
    "antialias": sweep_antialias,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("faces", FACE_COUNTS)
@pytest.mark.parametrize("op", SWEEPS)
def test_kernels_are_the_cpu_backend(
    cpu: Device,
    cuda: Device,
    deterministic: Device,
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    faces: int,
    size: tuple[int, int],
    batch: int,
    dtype: type,
) -> None:
    """Forward outputs bit for bit; gradients within the rounding of sums in another order."""
    seed = zlib.crc32(f"{op} {faces} {size} {batch} {np.dtype(dtype)}".encode())
    monkeypatch.setenv("CUDA_ON_HOST_ORDER", f"random:{seed}")
    SWEEPS[op](Devices(cpu, cuda, deterministic), scene_over_the_centre(faces, size, batch, dtype), seed)
