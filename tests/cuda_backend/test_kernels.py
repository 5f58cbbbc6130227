"""The CUDA kernels, executed on the CPU, against the float64 oracle and against the CPU backend.

face_index, barycentrics and depth must be the CPU's bit for bit: both backends evaluate the same functions, which no
compiler contracts. Every test runs forward, backwards and shuffled: a result that depends on the order is a race."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import antialias, oracle, scenes
from oracle.compare import assert_face_index
from oracle.scenes import Scene

from cuda_backend.ops import Device, bfloat16_bits, bfloat16_values

DTYPES = [np.float32, np.float64]
FACE_COUNTS = [1, 31, 32, 33, 1023]
SIZES = [(1, 1), (15, 17), (64, 64), (129, 257)]
# Sums of up to a few thousand terms in different orders, relative to the largest of them.
ROUNDING = {np.dtype(np.float32): 5e-6, np.dtype(np.float64): 1e-13}
# The CPU's gradient of a face follows from sums over its pixels, CUDA's is the sum of the pixels' gradients; on slivers
# each of the two is as far from the same in float64.
RASTER_GRADIENT = {np.dtype(np.float32): 5e-5, np.dtype(np.float64): 1e-12}
MASK = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-14}


def soup(faces: int, size: tuple[int, int], batch: int, dtype: type) -> Scene:
    """Random triangles with a spread of w, several layers deep; many small ones where there are many."""
    meshes = [scenes.soup(seed, faces, 2.0 / faces**0.4) for seed in range(batch)]
    positions = np.stack([scenes.homogeneous(vertices) for vertices, _ in meshes])
    w = np.random.default_rng(faces).uniform(0.5, 2.0, positions.shape[1])
    positions *= w[None, :, None]
    return Scene(f"soup_{faces}", positions.astype(dtype), meshes[0][1].astype(np.int32), *size)


def normal(seed: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: dict[np.dtype, float]) -> None:
    """Within rounding of the largest value; NaN never."""
    largest = np.abs(expected).max(initial=0.0)
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= tolerance[expected.dtype] * max(largest, 1e-30), f"error {error:.3e}, largest value {largest:.3e}"


def assert_same_raster(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> None:
    for name, a, b in zip(("face_index", "barycentrics", "depth"), first, second, strict=True):
        assert np.array_equal(a, b), f"{name} differs in {np.count_nonzero(a != b)} values"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scene", scenes.all_scenes(), ids=lambda scene: scene.name)
def test_rasterize_is_the_cpu_backend_bit_for_bit(cpu: Device, cuda: Device, scene: Scene, dtype: type) -> None:
    scene = scene.rounded_to(dtype)
    for perspective_correct in (True, False):
        assert_same_raster(cuda.rasterize(scene, perspective_correct), cpu.rasterize(scene, perspective_correct))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("faces", FACE_COUNTS)
def test_rasterize_across_tile_and_batch_borders(
    cpu: Device, cuda: Device, order: str, faces: int, size: tuple[int, int], batch: int
) -> None:
    scene = soup(faces, size, batch, np.float32)
    assert_same_raster(cuda.rasterize(scene), cpu.rasterize(scene))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rasterize_agrees_with_the_oracle(cuda: Device, order: str, dtype: type) -> None:
    scene = scenes.soup_perspective().rounded_to(dtype)
    expected = oracle.rasterize(scene)
    assert_face_index(scene, expected.face_index, cuda.rasterize(scene)[0])


def test_a_tile_whose_list_overflows_walks_all_faces(cpu: Device, cuda: Device, order: str) -> None:
    """5,000 faces over every tile: more entries than the workspace holds, and lists longer than a block can sort."""
    rng = np.random.default_rng(5)
    count = 5000
    corners = np.array([[-1.5, -1.2], [1.5, -1.1], [0.0, 1.9]])
    points = np.concatenate([np.tile(corners, (count, 1)), rng.uniform(-0.9, 0.9, (3 * count, 1))], axis=1)
    faces = np.arange(3 * count, dtype=np.int32).reshape(count, 3)
    scene = Scene("stack", scenes.homogeneous(points)[None].astype(np.float32), faces, 33, 40)
    tiles = 3 * 3
    assert count * tiles > 8 * count + 256 * tiles
    rasters = cuda.rasterize(scene), cpu.rasterize(scene)
    assert_same_raster(*rasters)
    assert (rasters[0][0] >= 0).mean() > 0.5
    masks = [device.soft_mask(scene, rasters[0][0], boxlen=0.2) for device in (cuda, cpu)]
    assert_close(*masks, MASK)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("faces", FACE_COUNTS)
def test_raster_gradient(cpu: Device, cuda: Device, deterministic: Device, order: str, faces: int, dtype: type) -> None:
    scene = soup(faces, (37, 65), 3, dtype)
    face_index, barycentrics, depth = cpu.rasterize(scene)
    gradients = normal(1, barycentrics.shape, depth.dtype), normal(2, depth.shape, depth.dtype)
    for perspective_correct in (True, False):
        expected = cpu.rasterize_backward(scene, face_index, *gradients, perspective_correct)
        for device in (cuda, deterministic):
            actual = device.rasterize_backward(scene, face_index, *gradients, perspective_correct)
            assert_close(actual, expected, RASTER_GRADIENT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sphere_orthographic", "soup_through_the_camera", "packed_topologies", "slivers"])
def test_soft_mask(cpu: Device, cuda: Device, order: str, name: str, dtype: type) -> None:
    scene = getattr(scenes, name)().rounded_to(dtype)
    face_index = cpu.rasterize(scene)[0]
    for knum in (1, 3, 30):
        options = {"sigmainv": 500.0, "boxlen": 0.08, "knum": knum}
        expected = cpu.soft_mask(scene, face_index, **options)
        assert np.any((expected > 0.05) & (expected < 0.95))
        assert_close(cuda.soft_mask(scene, face_index, **options), expected, MASK)


def test_soft_mask_agrees_with_the_oracle(cuda: Device, cpu: Device, order: str) -> None:
    scene = soup(33, (37, 50), 1, np.float64)
    face_index = cpu.rasterize(scene)[0]
    positions, options = torch.from_numpy(scene.positions), {"sigmainv": 500.0, "boxlen": 0.08, "knum": 5}
    expected = oracle.soft_mask(positions, scene.faces, face_index, tolerance=1e-12, **options)
    error = np.abs(cuda.soft_mask(scene, face_index, **options) - expected.mask.numpy())
    assert np.count_nonzero(expected.ambiguous) <= 1e-3 * face_index.size
    assert error[~expected.ambiguous].max() < 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("knum", [2, 30])
def test_soft_mask_gradient(
    cpu: Device, cuda: Device, deterministic: Device, order: str, knum: int, dtype: type
) -> None:
    scene = soup(33, (37, 50), 2, dtype)
    face_index = cpu.rasterize(scene)[0]
    options = {"sigmainv": 500.0, "boxlen": 0.08, "knum": knum}
    grad_mask = normal(3, face_index.shape, scene.positions.dtype)
    expected = cpu.soft_mask_backward(scene, face_index, grad_mask, **options)
    assert np.abs(expected).max() > 0
    for device in (cuda, deterministic):
        assert_close(device.soft_mask_backward(scene, face_index, grad_mask, **options), expected, ROUNDING)


def test_soft_mask_gradient_is_finite_where_a_centre_lies_on_two_edges(cpu: Device, cuda: Device) -> None:
    """p_k = 1 for both faces of an edge through the centre of a pixel that the caller says is not covered."""
    points = scenes.homogeneous(np.array([[0, -0.8, 0], [0, 0.8, 0], [-0.7, 0.1, 0], [0.7, 0.1, 0]], float))
    scene = Scene("edge", points[None], np.array([[0, 1, 2], [1, 0, 3]], np.int32), 5, 5)
    background = np.full((1, 5, 5), -1, np.int32)
    grad_mask = np.ones((1, 5, 5))
    gradients = [
        device.soft_mask_backward(scene, background, grad_mask, knum=30, boxlen=0.5, sigmainv=5.0)
        for device in (cpu, cuda)
    ]
    assert np.isfinite(gradients[0]).all()
    assert_close(gradients[1], gradients[0], ROUNDING)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_interpolate(
    cpu: Device, cuda: Device, deterministic: Device, order: str, channels: int, shared: bool, dtype: type
) -> None:
    scene = soup(33, (15, 33), 3, dtype)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    attributes = normal(4, (1 if shared else 3, scene.positions.shape[1], channels), barycentrics.dtype)
    expected = cpu.interpolate(attributes, scene.faces, face_index, barycentrics)
    assert np.array_equal(cuda.interpolate(attributes, scene.faces, face_index, barycentrics), expected)
    grad_output = normal(5, expected.shape, expected.dtype)
    arguments = attributes, scene.faces, face_index, barycentrics, grad_output
    grad_attributes, grad_barycentrics = cpu.interpolate_backward(*arguments)
    for device in (cuda, deterministic):
        actual = device.interpolate_backward(*arguments)
        assert_close(actual[0], grad_attributes, ROUNDING)
        assert_close(actual[1], grad_barycentrics, ROUNDING)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("perspective_correct", [False, True])
def test_interpolate_over_a_raster_has_the_gradient_of_the_cpu(
    cpu: Device, cuda: Device, deterministic: Device, perspective_correct: bool, shared: bool, dtype: type
) -> None:
    """One pass there, the gradients of the two ops here."""
    scene = soup(33, (15, 33), 3, dtype)
    options = {"perspective_correct": perspective_correct}
    face_index, barycentrics, _ = cpu.rasterize(scene, **options)
    attributes = normal(4, (1 if shared else 3, scene.positions.shape[1], 3), barycentrics.dtype)
    grad_output = normal(5, (*face_index.shape, 3), barycentrics.dtype)
    arguments = attributes, scene, face_index, barycentrics, grad_output
    grad_attributes, grad_positions = cpu.interpolate_raster_backward(*arguments, **options)
    assert grad_attributes.any() and grad_positions.any()
    for device in (cuda, deterministic):
        actual = device.interpolate_raster_backward(*arguments, **options)
        assert_close(actual[0], grad_attributes, ROUNDING)
        assert_close(actual[1], grad_positions, RASTER_GRADIENT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("wrap", [0, 1, 2], ids=["clamp", "repeat", "mirror"])
@pytest.mark.parametrize("filter", [0, 1], ids=["nearest", "bilinear"])
def test_texture(
    cpu: Device, cuda: Device, deterministic: Device, order: str, filter: int, wrap: int, shared: bool, dtype: type
) -> None:
    uv = np.random.default_rng(6).uniform(-1.5, 2.5, (3, 13, 21, 2)).astype(dtype)
    uv[0, 0, :4] = np.array([[np.nan, 0.5], [np.inf, 0.5], [0.5, -np.inf], [1e15, -1e15]])
    texture = normal(7, (1 if shared else 3, 2, 9, 5), uv.dtype)
    expected = cpu.texture(texture, uv, filter, wrap)
    assert np.isfinite(expected).all()
    assert np.array_equal(cuda.texture(texture, uv, filter, wrap), expected)
    grad_output = normal(8, expected.shape, expected.dtype)
    gradients = cpu.texture_backward(texture, uv, grad_output, filter, wrap)
    for device in (cuda, deterministic):
        for actual, wanted in zip(
            device.texture_backward(texture, uv, grad_output, filter, wrap), gradients, strict=True
        ):
            assert_close(actual, wanted, ROUNDING)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("wrap", "size"), [(0, (9, 5)), (1, (33, 70)), (2, (1, 6))], ids=str)
def test_trilinear_texture(
    cpu: Device, cuda: Device, deterministic: Device, order: str, wrap: int, size: tuple, shared: bool, dtype: type
) -> None:
    rng = np.random.default_rng(6)
    uv = rng.uniform(-1.5, 2.5, (3, 13, 21, 2)).astype(dtype)
    levels = rng.uniform(-1, 8, uv.shape[:3]).astype(dtype)
    uv[0, 0, :2] = np.array([[np.nan, 0.5], [1e15, -1e15]])
    levels[0, 1, :4] = [np.nan, np.inf, -np.inf, 1]
    texture = normal(7, (1 if shared else 3, 2, *size), uv.dtype)
    expected = cpu.texture(texture, uv, 2, wrap, levels)
    assert np.isfinite(expected).all()
    assert np.array_equal(cuda.texture(texture, uv, 2, wrap, levels), expected)
    grad_output = normal(8, expected.shape, expected.dtype)
    gradients = cpu.texture_backward(texture, uv, grad_output, 2, wrap, levels)
    for device in (cuda, deterministic):
        actual = device.texture_backward(texture, uv, grad_output, 2, wrap, levels)
        for gradient, wanted in zip(actual, gradients, strict=True):
            assert_close(gradient, wanted, ROUNDING)


def outlines(faces: int, size: tuple[int, int], batch: int, dtype: type) -> Scene:
    """A soup whose triangles share vertices, in different parts for each image; some edges have three faces."""
    scene = soup(faces, size, batch, dtype)
    joined = scene.faces.copy()
    joined[1::2, :2] = scene.faces[: len(joined[1::2]), 1:]
    joined[2::5, 2] = scene.faces[: len(joined[2::5]), 0]
    ranges = np.array([[b % faces, faces - b % faces] for b in range(batch)], np.int32)
    return Scene(scene.name, scene.positions, joined, *size, face_ranges=ranges)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("faces", FACE_COUNTS)
def test_antialias(
    cpu: Device, cuda: Device, deterministic: Device, order: str, faces: int, channels: int, dtype: type
) -> None:
    scene = outlines(faces, (37, 50), 3, dtype)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    image = normal(17, (*face_index.shape, channels), barycentrics.dtype)
    expected = cpu.antialias(scene, image, face_index, barycentrics)
    assert (expected != image).any()
    assert np.array_equal(cuda.antialias(scene, image, face_index, barycentrics), expected)
    grad_output = normal(18, expected.shape, expected.dtype)
    gradients = cpu.antialias_backward(scene, image, face_index, barycentrics, grad_output)
    for device in (cuda, deterministic):
        actual = device.antialias_backward(scene, image, face_index, barycentrics, grad_output)
        assert np.array_equal(actual[0], gradients[0])
        assert np.abs(gradients[1]).max() > 0
        assert_close(actual[1], gradients[1], ROUNDING)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scene", scenes.all_scenes(), ids=lambda scene: scene.name)
def test_antialias_is_the_cpu_backend_bit_for_bit(cpu: Device, cuda: Device, scene: Scene, dtype: type) -> None:
    scene = scene.rounded_to(dtype)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    image = normal(19, (*face_index.shape, 2), barycentrics.dtype)
    arguments = scene, image, face_index, barycentrics
    assert np.array_equal(cuda.antialias(*arguments), cpu.antialias(*arguments))


@pytest.mark.parametrize("size", SIZES[:-1], ids=str)
@pytest.mark.parametrize("device", ["cuda", "deterministic"])
def test_antialias_agrees_with_the_oracle(
    request: pytest.FixtureRequest, cpu: Device, order: str, device: str, size: tuple[int, int]
) -> None:
    kernels = request.getfixturevalue(device)
    scene = outlines(33, size, 2, np.float64)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    image = normal(20, (*face_index.shape, 2), barycentrics.dtype)
    leaves = [torch.from_numpy(array).requires_grad_() for array in (image, scene.positions)]
    arguments = scene.faces, face_index, barycentrics
    expected = antialias.antialias(*leaves, *arguments, face_ranges=scene.face_ranges, epsilon=2.3e-16)
    left_out = (expected.ambiguous | expected.kinked)[..., None]
    assert left_out.mean() < 1e-3
    error = np.abs(kernels.antialias(scene, image, face_index, barycentrics) - expected.image.detach().numpy())
    assert (error * ~left_out).max() < 1e-9
    grad_output = normal(21, image.shape, image.dtype) * ~left_out
    actual = kernels.antialias_backward(scene, image, face_index, barycentrics, grad_output)
    if not expected.image.requires_grad:
        return
    references = torch.autograd.grad(expected.image, leaves, torch.from_numpy(grad_output), allow_unused=True)
    for gradient, wanted in zip(actual, references, strict=True):
        if wanted is not None:
            assert_close(gradient, wanted.numpy(), {np.dtype(np.float64): 1e-9})


def sixteen_bit_cases() -> list:
    return [
        pytest.param(lambda a: a.astype(np.float16), lambda b: b.astype(np.float32), 2.0**-11, id="float16"),
        pytest.param(bfloat16_bits, bfloat16_values, 2.0**-8, id="bfloat16"),
    ]


@pytest.mark.parametrize(("narrow", "widen", "unit"), sixteen_bit_cases())
def test_sixteen_bit_attributes_and_textures(cpu: Device, cuda: Device, narrow, widen, unit: float) -> None:
    """Stored in 16 bits, computed in float32: the float32 result on the rounded input, rounded once."""
    scene = soup(33, (15, 33), 2, np.float32)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    attributes = narrow(normal(9, (2, scene.positions.shape[1], 3), np.dtype(np.float32)))
    uv = np.random.default_rng(10).uniform(-1, 2, (2, 7, 9, 2)).astype(np.float32)
    levels = np.random.default_rng(12).uniform(-0.5, 3, uv.shape[:3]).astype(np.float32)
    texels = narrow(normal(11, (2, 3, 6, 4), np.dtype(np.float32)))
    image = narrow(normal(22, (*face_index.shape, 3), np.dtype(np.float32)))
    exact = [
        cpu.interpolate(widen(attributes), scene.faces, face_index, barycentrics),
        cpu.texture(widen(texels), uv, 1, 1),
        cpu.texture(widen(texels), uv, 2, 1, levels),
        cpu.antialias(scene, widen(image), face_index, barycentrics),
    ]
    for device in (cpu, cuda):
        results = [
            device.interpolate(attributes, scene.faces, face_index, barycentrics),
            device.texture(texels, uv, 1, 1),
            device.texture(texels, uv, 2, 1, levels),
            device.antialias(scene, image, face_index, barycentrics),
        ]
        for result, expected in zip(results, exact, strict=True):
            assert np.array_equal(result, narrow(expected))
            assert np.abs(widen(result) - expected).max() <= unit * np.abs(expected).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_deterministic_gradients_do_not_depend_on_the_order(
    deterministic: Device, cpu: Device, monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    scene = soup(33, (37, 50), 2, dtype)
    face_index, barycentrics, depth = cpu.rasterize(scene)
    real = depth.dtype
    attributes = normal(12, (1, scene.positions.shape[1], 3), real)
    grad_output = normal(13, (*face_index.shape, 3), real)
    texture, uv = normal(14, (1, 3, 8, 8), real), normal(15, (*face_index.shape, 2), real)

    def gradients() -> list[np.ndarray]:
        return [
            deterministic.rasterize_backward(scene, face_index, barycentrics, depth),
            deterministic.soft_mask_backward(scene, face_index, depth, sigmainv=500.0, boxlen=0.08),
            *deterministic.interpolate_backward(attributes, scene.faces, face_index, barycentrics, grad_output),
            *deterministic.interpolate_raster_backward(attributes, scene, face_index, barycentrics, grad_output),
            *deterministic.texture_backward(texture, uv, grad_output, 1, 1),
            *deterministic.texture_backward(texture, uv, grad_output, 2, 1, 2 * depth),
            *deterministic.antialias_backward(scene, uv, face_index, barycentrics, uv),
        ]

    results = []
    for order in ("forward", "reverse", "random:1", "random:2"):
        monkeypatch.setenv("CUDA_ON_HOST_ORDER", order)
        results.append([g.tobytes() for g in gradients()])
    assert all(result == results[0] for result in results)


def test_atomic_gradients_do_depend_on_the_order(cuda: Device, cpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would prove nothing: shuffling reaches the sums."""
    scene = soup(33, (37, 50), 2, np.float32)
    face_index, barycentrics, depth = cpu.rasterize(scene)
    results = set()
    for order in ("forward", "random:1", "random:2"):
        monkeypatch.setenv("CUDA_ON_HOST_ORDER", order)
        results.add(cuda.rasterize_backward(scene, face_index, barycentrics, depth).tobytes())
    assert len(results) > 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_deterministic_gradients_keep_what_is_not_finite(deterministic: Device, cpu: Device, dtype: type) -> None:
    """An infinite gradient from above shows in the result, and leaves other vertices alone."""
    scene = scenes.tiny_images()[-1].rounded_to(dtype)
    face_index, barycentrics, _ = cpu.rasterize(scene)
    grad = np.zeros_like(barycentrics)
    row, column = np.argwhere(face_index[0] >= 0)[0]
    grad[0, row, column] = np.inf
    attributes = np.ones((1, scene.positions.shape[1], 1), dtype)
    grad_output = grad[..., :1].copy()
    result = deterministic.interpolate_backward(attributes, scene.faces, face_index, barycentrics, grad_output)[0]
    assert not np.isfinite(result).all()
    expected = cpu.interpolate_backward(attributes, scene.faces, face_index, barycentrics, grad_output)[0]
    assert np.array_equal(np.isfinite(result), np.isfinite(expected))


def test_indices_out_of_range_count_as_absent(cpu: Device, cuda: Device, order: str) -> None:
    """Asking would mean a synchronisation: a face with a bad vertex is not drawn, a bad face_index is background."""
    scene = soup(33, (15, 17), 1, np.float32)
    faces = scene.faces.copy()
    faces[3, 1], faces[7, 0] = 10_000_000, -5
    broken = Scene("broken", scene.positions, faces, 15, 17)
    absent = np.ones((1, 33), bool)
    absent[0, [3, 7]] = False
    expected = cpu.rasterize(Scene("valid", scene.positions, scene.faces, 15, 17, face_valid=absent))
    assert_same_raster(cuda.rasterize(broken), expected)
    face_index, barycentrics, _ = expected
    attributes = normal(16, (1, scene.positions.shape[1], 2), np.dtype(np.float32))
    wild = face_index.copy()
    wild[0, 0, :3] = [33, 2**31 - 1, -7]
    tamed = np.where((wild < 0) | (wild >= 33), -1, wild).astype(np.int32)
    assert np.array_equal(
        cuda.interpolate(attributes, faces, wild, barycentrics),
        cpu.interpolate(attributes, scene.faces, tamed, barycentrics),
    )
    # Where a face is absent, no pixel shows it and none continues across its edges.
    sound = faces.copy()
    sound[[3, 7]] = 0
    wild[0, 1, :2], tamed[0, 1, :2] = [3, 7], -1
    image = normal(23, (*wild.shape, 2), np.dtype(np.float32))
    arguments = wild, barycentrics
    actual = cuda.antialias(Scene("broken", scene.positions, faces, 15, 17), image, *arguments)
    expected = cpu.antialias(Scene("sound", scene.positions, sound, 15, 17), image, tamed, barycentrics)
    assert np.array_equal(actual, expected)
    cuda.antialias_backward(Scene("broken", scene.positions, faces, 15, 17), image, *arguments, image)
