"""Tiles whose list of faces does not fit the CPU backend's workspace walk all faces: slower, never wrong.

plugins/cpu/bins.h gives an image of F faces 4 F + 256 tiles entries for its tiles of 32x32 pixels, tile after tile."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from oracle import compare, kernel, oracle
from oracle.kernel import tensor
from oracle.scenes import Scene, homogeneous

FACES, SIZE, TILE = 3000, 256, 32
TILES = (SIZE // TILE) ** 2
SEEN = 80
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-10}


@functools.cache
def stack(dtype: type) -> Scene:
    """Triangles over one another, w = 1, in random order, each at a constant depth of its own. The nearest SEEN have
    their slanted edges in the image, the others cover all of it."""
    rng = np.random.default_rng(0)
    depths = rng.permutation(FACES)
    points = np.empty((FACES, 3, 3))
    points[:, :, :2] = [[-1.5, -1.5], [6.0, -1.5], [-1.5, 6.0]]
    near = depths < SEEN
    points[near, 1, 0] = 1.5
    points[near, 2, 0], points[near, 2, 1] = rng.uniform(-0.9, 0.9, SEEN), 1.5
    points[:, :, 2] = (0.9 * (2 * depths / FACES - 1))[:, None]
    faces = np.arange(3 * FACES, dtype=np.int32).reshape(-1, 3)
    return Scene("stack", homogeneous(points.reshape(1, -1, 3)).astype(dtype), faces, SIZE, SIZE)


def assert_most_tiles_overflow(scene: Scene) -> None:
    """Every bounding box holds the image, and all faces but SEEN cover it, so they are in every tile's list; only the
    first few lists fit."""
    corners = scene.positions[0, scene.faces, :2]
    assert (corners.min(axis=1) < -1).all()
    assert (corners.max(axis=1) > 1).all()
    capacity = 4 * FACES + 256 * TILES
    assert 0 < capacity // (FACES - SEEN) < TILES // 4


def covers(corners: np.ndarray) -> np.ndarray:
    """Whether the counter-clockwise triangle [3, 2] covers each pixel's centre: [H, W]."""
    x, y = oracle.pixel_centres(SIZE, SIZE)
    inside = np.ones((SIZE, SIZE), bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        inside &= ((b[0] - a[0]) * (y - a[1]))[:, None] >= ((b[1] - a[1]) * (x - a[0]))[None]
    return inside


@functools.cache
def nearest_faces(dtype: type) -> np.ndarray:
    """face_index [1, H, W], painted from back to front; what lies behind a face over the whole image is left out."""
    scene = stack(dtype)
    corners = scene.positions[0, scene.faces].astype(np.float64)
    order = np.argsort(corners[:, 0, 2])
    painted = np.full((1, SIZE, SIZE), -1, np.int32)
    for face in order[: SEEN + 1][::-1]:
        painted[0][covers(corners[face, :, :2])] = face
    return painted


@pytest.mark.parametrize("dtype", DTYPES)
def test_rasterize(dtype) -> None:
    scene, expected = stack(dtype), nearest_faces(dtype)
    assert_most_tiles_overflow(scene)
    assert len(np.unique(expected)) > 10
    face_index, barycentrics, depth = (output.numpy() for output in kernel.rasterize(scene))
    compare.assert_face_index(scene, expected, face_index)
    assert np.abs(depth - scene.positions[0, scene.faces[face_index, 0], 2]).max() <= TOLERANCE[dtype]
    positions = tensor(scene.positions.astype(np.float64))
    wanted = oracle.values_at_pixels(positions, tensor(scene.faces), tensor(face_index))[0].numpy()
    assert np.abs(barycentrics - wanted).max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_soft_mask_and_its_gradient(dtype) -> None:
    """All faces take part in each of the pixels that count as background: a row through the middle of every tile.

    The oracle needs only the SEEN faces with edges in the image: the others' are 0.5 away, where p = exp(-5000) = 0."""
    scene = stack(dtype)
    assert_most_tiles_overflow(scene)
    face_index = nearest_faces(dtype).copy()
    face_index[:, TILE // 2 :: TILE] = -1
    options = {"sigmainv": 2e4, "boxlen": 0.02}
    seen = scene.faces[scene.positions[0, scene.faces[:, 1], 0] < 2]
    assert len(seen) == SEEN
    wide = tensor(scene.positions.astype(np.float64)).requires_grad_()
    expected = oracle.soft_mask(wide, seen, face_index, **options, knum=SEEN, tolerance=1e-6)
    in_rows = expected.mask.detach()[:, TILE // 2 :: TILE]
    assert ((in_rows > 0.05) & (in_rows < 0.95)).double().mean() > 0.2
    positions = tensor(scene.positions).requires_grad_()
    mask = kernel.soft_mask(scene, tensor(face_index), positions=positions, **options, knum=FACES)
    assert (mask - expected.mask).abs().max() <= TOLERANCE[dtype]
    weights = np.random.default_rng(1).uniform(0.5, 1.5, face_index.shape) * ~expected.creased
    (wanted,) = torch.autograd.grad(expected.mask, wide, tensor(weights))
    (actual,) = torch.autograd.grad(mask, positions, tensor(weights.astype(dtype)))
    assert (actual - wanted).abs().max() <= TOLERANCE[dtype] * wanted.abs().max()
