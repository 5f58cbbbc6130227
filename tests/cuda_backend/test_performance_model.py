"""The counters behind docs/performance.md: they count what can be known by hand, and change no result."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_backend.abi import CUDA
from cuda_backend.ops import Device
from cuda_backend.performance_model import (
    GPUS,
    Count,
    CountingLibrary,
    counted_ops,
    counting_library,
    kernel_table,
    sphere,
)

SIZE = 64
PIXELS = SIZE * SIZE
SECTORS = 64  # bytes that may be counted besides an array's own: it need not begin or end with a sector


@pytest.fixture(scope="module")
def counting() -> CountingLibrary:
    return counting_library()


@pytest.fixture(scope="module")
def counts(counting: CountingLibrary) -> dict[str, dict[str, Count]]:
    return dict(counted_ops(counting, sphere(2, SIZE)))


def test_results_are_bit_for_bit_those_of_the_kernels_that_do_not_count(
    counting: CountingLibrary, cuda: Device
) -> None:
    scene = sphere(2, SIZE)
    counted = Device(counting, CUDA)
    raster = cuda.rasterize(scene)
    for a, b in zip(counted.rasterize(scene), raster, strict=True):
        assert np.array_equal(a, b)
    assert 0.2 < (raster[0] >= 0).mean() < 0.8
    assert np.array_equal(counted.soft_mask(scene, raster[0]), cuda.soft_mask(scene, raster[0]))
    rng = np.random.default_rng(0)
    texels, uv = rng.random((1, 3, 8, 8), np.float32), 3 * rng.random((1, SIZE, SIZE, 2), np.float32) - 1
    for wrap in (0, 1, 2):
        images = [device.texture(texels, uv, 1, wrap) for device in (counted, cuda)]
        assert np.array_equal(*images) and np.ptp(images[0]) > 0.5
    backward = [device.rasterize_backward(scene, raster[0], raster[1], raster[2]) for device in (counted, cuda)]
    assert np.array_equal(*backward)


def test_interpolation_is_counted_exactly(counts: dict[str, dict[str, Count]], cuda: Device) -> None:
    """Two channels: three products and two sums for each of a covered pixel, one store for each of all."""
    covered = np.count_nonzero(cuda.rasterize(sphere(2, SIZE))[0] >= 0)
    [count] = counts["interpolate"].values()
    assert count.launches == 1
    assert (count.operations, count.special, count.atomics) == (5 * 2 * covered, 0, 0)
    assert count.stored == PIXELS * 2 * 4
    assert 0 <= count.distinct_stored - count.stored <= SECTORS
    # face_index of all; vertex indices, barycentrics and attributes of the covered.
    assert PIXELS * 2 * 4 + covered * 2 * 9 * 4 <= count.loaded <= PIXELS * 2 * 4 + covered * 2 * 12 * 4


def test_clearing_is_counted_exactly(counts: dict[str, dict[str, Count]]) -> None:
    texels = 3 * 1024 * 1024 * 4
    clear = next(count for kernel, count in counts["texture_backward"].items() if kernel.startswith("fill_kernel"))
    assert clear.stored == texels
    assert 0 <= clear.distinct_stored - texels <= SECTORS
    assert (clear.loaded, clear.operations, clear.atomics) == (0, 0, 0)


def test_texel_gradients_are_counted_exactly(counts: dict[str, dict[str, Count]]) -> None:
    """At most four atomics a pixel and channel, and each of them a load and a store of a float."""
    scatter = next(count for kernel, count in counts["texture_backward"].items() if kernel.startswith("texel"))
    assert 3 * PIXELS < scatter.atomics <= 4 * 3 * PIXELS
    assert scatter.stored == 4 * scatter.atomics


def test_outputs_of_rasterize_are_stored_once(counts: dict[str, dict[str, Count]]) -> None:
    raster = next(count for kernel, count in counts["rasterize"].items() if kernel.startswith("raster_kernel"))
    assert raster.stored == PIXELS * (4 + 12 + 4)
    assert raster.distinct_stored - raster.stored <= 3 * SECTORS
    assert raster.distinct_loaded < raster.loaded


def test_the_bound_is_the_larger_of_memory_and_arithmetic(counts: dict[str, dict[str, Count]]) -> None:
    gpu = GPUS[0]
    assert gpu.bound(Count(1, 0, 0, 0, 0, 0, 3_350_000, 0)) == (pytest.approx(1e-6), 0)
    assert gpu.bound(Count(1, 33_500_000, 0, 0, 0, 0, 0, 0)) == (0, pytest.approx(1e-6))
    assert len(counts) == 10
    assert kernel_table(counts).count("\n") == 1 + sum(map(len, counts.values()))
