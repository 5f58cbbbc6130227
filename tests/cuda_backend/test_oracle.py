"""The CUDA kernels, executed on the CPU, against the float64 oracle, beyond what test_kernels.py compares with it.

Gradients of rasterize and soft_mask are the oracle's by autograd; those of interpolate and texture, which are linear in
attributes, barycentrics and texels and piecewise bilinear in uv, by central differences of the oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracle import oracle, scenes
from oracle.scenes import Scene

from cuda_backend.ops import Device
from cuda_backend.test_kernels import DTYPES, normal, soup

FILTERS = ["nearest", "bilinear"]
WRAPS = ["clamp", "repeat", "mirror"]
# Relative to the largest value. The oracle computes in float64 from the rounded input, so these are the kernels' own.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-11}
# Central differences of the oracle: their own rounding is the floor.
DIFFERENCES = {np.float32: 2e-5, np.float64: 1e-7}


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Within the tolerance of the largest expected value, which is not 0."""
    largest = np.abs(expected).max()
    assert largest > 0
    error = np.abs(actual - expected).max() / largest
    assert error <= tolerance, f"error {error:.2e} of the largest value"


def central_differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Gradient of a scalar function at a float64 array."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        sides = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            sides.append(function(moved))
        gradient[place] = (sides[0] - sides[1]) / (2 * step)
    return gradient


@pytest.fixture(params=["atomic", "deterministic"])
def device(request: pytest.FixtureRequest, cuda: Device, deterministic: Device) -> Device:
    return cuda if request.param == "atomic" else deterministic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("faces", [1, 31, 32, 33])
def test_interpolate(cuda: Device, faces: int, shared: bool, dtype: type) -> None:
    scene = soup(faces, (17, 24), 3, dtype)
    face_index, barycentrics, _ = cuda.rasterize(scene)
    attributes = normal(1, (1 if shared else 3, scene.positions.shape[1], 5), barycentrics.dtype)
    actual = cuda.interpolate(attributes, scene.faces, face_index, barycentrics)
    assert_near(actual, oracle.interpolate(attributes, scene.faces, face_index, barycentrics), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
def test_interpolate_gradients(device: Device, shared: bool, dtype: type) -> None:
    scene = soup(5, (6, 9), 2, dtype)
    face_index, barycentrics, _ = device.rasterize(scene)
    attributes = normal(2, (1 if shared else 2, 15, 3), barycentrics.dtype)
    grad_output = normal(3, (*face_index.shape, 3), barycentrics.dtype)
    actual = device.interpolate_backward(attributes, scene.faces, face_index, barycentrics, grad_output)

    def loss(attributes: np.ndarray, barycentrics: np.ndarray) -> float:
        return float((oracle.interpolate(attributes, scene.faces, face_index, barycentrics) * grad_output).sum())

    wide = attributes.astype(np.float64), barycentrics.astype(np.float64)
    expected = [
        central_differences(lambda moved: loss(moved, wide[1]), wide[0]),
        central_differences(lambda moved: loss(wide[0], moved), wide[1]),
    ]
    for gradient, wanted in zip(actual, expected, strict=True):
        assert_near(gradient, wanted, DIFFERENCES[dtype])


def uv_inside_cells(shape: tuple[int, ...], texel_height: int, texel_width: int, dtype: type) -> np.ndarray:
    """Random uv [..., 2], three periods wide, at least 1e-3 texels from the borders of the cells of either filter."""
    rng = np.random.default_rng(4)
    half_cells = rng.integers(
        -2 * np.array([texel_width, texel_height]), 4 * np.array([texel_width, texel_height]), (*shape, 2)
    )
    return (
        (half_cells + rng.uniform(0.01, 0.99, half_cells.shape)) / (2 * np.array([texel_width, texel_height]))
    ).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("filter", FILTERS)
def test_texture(cuda: Device, filter: str, wrap: str, shared: bool, dtype: type) -> None:
    """float32 uv up to 2 on 7x5 texels resolve a texel to a millionth: so near is the value."""
    uv = uv_inside_cells((3, 17, 24), 7, 5, dtype)
    texels = normal(5, (1 if shared else 3, 2, 7, 5), uv.dtype)
    actual = cuda.texture(texels, uv, FILTERS.index(filter), WRAPS.index(wrap))
    assert_near(actual, oracle.texture(texels, uv, filter=filter, wrap=wrap), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("filter", FILTERS)
def test_texture_gradients(device: Device, filter: str, wrap: str, dtype: type) -> None:
    uv = uv_inside_cells((2, 5, 8), 7, 5, dtype)
    texels, grad_output = normal(6, (1, 2, 7, 5), uv.dtype), normal(7, (2, 5, 8, 2), uv.dtype)
    actual = device.texture_backward(texels, uv, grad_output, FILTERS.index(filter), WRAPS.index(wrap))

    def loss(texels: np.ndarray, uv: np.ndarray) -> float:
        return float((oracle.texture(texels, uv, filter=filter, wrap=wrap) * grad_output).sum())

    wide = texels.astype(np.float64), uv.astype(np.float64)
    assert_near(actual[0], central_differences(lambda moved: loss(moved, wide[1]), wide[0]), DIFFERENCES[dtype])
    if filter == "nearest":
        assert not actual[1].any()
    else:
        assert_near(actual[1], central_differences(lambda moved: loss(wide[0], moved), wide[1]), DIFFERENCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_trilinear_texture_and_gradients(device: Device, wrap: str, dtype: type) -> None:
    """4x8 texels halve evenly, so that half a texel of level 0 away from every level's borders there is no crease."""
    rng = np.random.default_rng(8)
    uv = ((rng.integers(-32, 64, (2, 5, 8, 2)) + rng.uniform(0.1, 0.9, (2, 5, 8, 2))) / [32, 16]).astype(dtype)
    levels = (rng.integers(-1, 4, uv.shape[:3]) + rng.uniform(0.05, 0.95, uv.shape[:3])).astype(dtype)
    texels, grad_output = normal(6, (1, 2, 4, 8), uv.dtype), normal(7, (2, 5, 8, 2), uv.dtype)
    wide = [array.astype(np.float64) for array in (texels, uv, levels)]

    def loss(**moved: np.ndarray) -> float:
        texels, uv, levels = (moved.get(name, given) for name, given in zip(("t", "u", "m"), wide, strict=True))
        return float((oracle.trilinear(texels, uv, levels, wrap=wrap) * grad_output).sum())

    actual = device.texture(texels, uv, 2, WRAPS.index(wrap), levels)
    assert_near(actual, oracle.trilinear(*wide, wrap=wrap), TOLERANCE[dtype])
    gradients = device.texture_backward(texels, uv, grad_output, 2, WRAPS.index(wrap), levels)
    for name, gradient, at in zip(("t", "u", "m"), gradients, wide, strict=True):
        expected = central_differences(lambda moved, name=name: loss(**{name: moved}), at)
        assert expected.any()
        assert_near(gradient, expected, DIFFERENCES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("perspective_correct", [True, False])
@pytest.mark.parametrize("faces", [1, 31, 32, 33])
def test_rasterize_gradient(device: Device, faces: int, perspective_correct: bool, dtype: type) -> None:
    """On well-shaped faces: the gradient grows with the square of a face's condition number, and its error with it."""
    scene = rings(faces, dtype)
    face_index, barycentrics, depth = device.rasterize(scene, perspective_correct)
    gradients = normal(8, barycentrics.shape, depth.dtype), normal(9, depth.shape, depth.dtype)
    actual = device.rasterize_backward(scene, face_index, *gradients, perspective_correct)
    positions = torch.from_numpy(scene.positions.astype(np.float64)).requires_grad_()
    outputs = oracle.values_at_pixels(
        positions, torch.from_numpy(scene.faces), torch.from_numpy(face_index), perspective_correct
    )
    weights = [torch.from_numpy(gradient.astype(np.float64)) for gradient in gradients]
    (expected,) = torch.autograd.grad(outputs, positions, weights)
    assert_near(actual, expected.numpy(), TOLERANCE[dtype])


def rings(faces: int, dtype: type) -> Scene:
    """Equilateral triangles of random size, place, turn and depth with w from 0.5 to 2: two images of 17x24 pixels."""
    rng = np.random.default_rng(faces)
    angles = rng.uniform(0, 2 * np.pi, (2, faces, 1)) + np.arange(3) * 2 * np.pi / 3
    radius, centre = rng.uniform(0.3, 0.7, (2, faces, 1)), rng.uniform(-0.6, 0.6, (2, faces, 1, 2))
    points = np.empty((2, faces, 3, 3))
    points[..., :2] = centre + np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radius[..., None]
    points[..., 2] = rng.uniform(-0.8, 0.8, (2, faces, 3))
    positions = scenes.homogeneous(points.reshape(2, -1, 3)) * rng.uniform(0.5, 2.0, (2, 3 * faces, 1))
    triangles = np.arange(3 * faces, dtype=np.int32).reshape(-1, 3)
    return Scene(f"rings_{faces}", positions.astype(dtype), triangles, 17, 24)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("knum", [1, 3, 30])
@pytest.mark.parametrize("faces", [1, 31, 33])
def test_soft_mask_and_its_gradient(device: Device, faces: int, knum: int, dtype: type) -> None:
    """Two pixels in three count as background; those at a box border or crease have no gradient from above."""
    scene = rings(faces, dtype)
    face_index = device.rasterize(scene)[0]
    face_index[np.random.default_rng(10).random(face_index.shape) < 0.67] = -1
    options = {"sigmainv": 30.0, "boxlen": 0.08, "knum": knum}
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    positions = torch.from_numpy(scene.positions.astype(np.float64)).requires_grad_()
    expected = oracle.soft_mask(positions, scene.faces, face_index, tolerance=tolerance, **options)
    left_out = expected.ambiguous | expected.creased
    assert left_out.mean() <= 5e-3
    error = np.abs(device.soft_mask(scene, face_index, **options) - expected.mask.detach().numpy())
    assert error[~expected.ambiguous].max() <= TOLERANCE[dtype]
    grad_mask = normal(11, face_index.shape, scene.positions.dtype) * ~left_out
    (wanted,) = torch.autograd.grad(expected.mask, positions, torch.from_numpy(grad_mask.astype(np.float64)))
    actual = device.soft_mask_backward(scene, face_index, grad_mask.astype(dtype), **options)
    assert_near(actual, wanted.numpy(), TOLERANCE[dtype])


SIGMAINV = 7000.0
AWAY = 2.0**-7


def faces_at_distances(distances: tuple[float, ...], dtype: type) -> Scene:
    """Faces whose nearest edges are horizontal, so far from the centre (0, 0) of the middle pixel of 3x3: above it,
    below it and so on in turn. w = 1; the distances are exact in either dtype."""
    points = np.zeros((len(distances), 3, 3))
    for k, distance in enumerate(distances):
        points[k, :, :2] = np.array([[-0.5, distance], [0.5, distance], [0.0, 0.75]]) * [1, 1 if k % 2 == 0 else -1]
    faces = np.arange(3 * len(distances), dtype=np.int32).reshape(-1, 3)
    return Scene("near", scenes.homogeneous(points.reshape(1, -1, 3)).astype(dtype), faces, 3, 3)


def gradient_by_hand(distances: tuple[float, ...]) -> np.ndarray:
    """d mask / d positions [1, 3 F, 4] at the middle pixel: either end of an edge at y carries half of
    d mask / dy = -2 sigmainv y p_k prod_{j != k} (1 - p_j), and w carries -y times that."""
    missed = -np.expm1(-SIGMAINV * np.square(distances))
    gradient = np.zeros((len(distances), 3, 4))
    for k, distance in enumerate(distances):
        y = distance if k % 2 == 0 else -distance
        by_y = -SIGMAINV * y * (1 - missed[k]) * np.prod(np.delete(missed, k))
        gradient[k, :2, 1], gradient[k, :2, 3] = by_y, -by_y * y
    return gradient.reshape(1, -1, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("others", [(), (1.0,), (AWAY,), (1.0,) * 7], ids=["one", "two", "and one away", "eight"])
@pytest.mark.parametrize("distance", [2.0**-13, 2.0**-16, 2.0**-30, 0.0])
def test_soft_mask_gradient_where_a_face_is_almost_certain(
    cpu: Device, device: Device, distance: float, others: tuple[float, ...], dtype: type
) -> None:
    """p near 1, or 1 after rounding: the kernel divides the product of all factors 1 - p that are not 0 by one of them.

    Each 1 - p carries the rounding of p, half a unit in the last place of 1, and no factor exceeds 1: that bounds the
    product's error, the division's by little more. The CPU backend, which multiplies instead, agrees to a few units."""
    distances = (distance, *(AWAY if other == AWAY else distance for other in others))
    scene = faces_at_distances(distances, dtype)
    background = np.full((1, 3, 3), -1, np.int32)
    grad_mask = np.zeros((1, 3, 3), dtype)
    grad_mask[0, 1, 1] = 1
    options = {"sigmainv": SIGMAINV, "boxlen": 0.02, "knum": 30}
    actual = device.soft_mask_backward(scene, background, grad_mask, **options)
    assert np.isfinite(actual).all()
    unit, smallest = np.finfo(dtype).eps, SIGMAINV * np.finfo(dtype).tiny
    multiplied = cpu.soft_mask_backward(scene, background, grad_mask, **options)
    assert (np.abs(actual - multiplied) <= 8 * unit * np.abs(multiplied) + smallest).all()
    expected = gradient_by_hand(distances)
    reach = SIGMAINV * np.repeat(distances, 3)[None, :, None] * np.array([0, 1, 0, max(distances)])
    assert (np.abs(actual - expected) <= len(distances) * unit * reach + 8 * unit * np.abs(expected)).all()
    if distance > 0 and len(distances) == 1:
        assert (actual[0, :2, 1] < 0).all()
    if distance > 0 and others == (AWAY,):
        assert (actual[0, :2, 1] < -0.1 * SIGMAINV * distance).all()
