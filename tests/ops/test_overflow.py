"""Tiles whose list of faces does not fit the CPU backend's workspace walk all faces: slower, never wrong.

plugins/cpu/bins.h gives an image of F faces 4 F + 256 tiles entries for its tiles of 32x32 pixels, tile after tile."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import kernel, oracle
from oracle.kernel import tensor
from oracle.scenes import Scene, homogeneous

FACES, SIZE, TILE = 3000, 256, 32
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


def first_tile_without_a_list(faces_everywhere: int) -> tuple[int, int]:
    """Of faces that touch every tile: the first tile that gets no list, and the number of tiles."""
    tiles = (SIZE // TILE) ** 2
    capacity = 4 * faces_everywhere + 256 * tiles
    return capacity // faces_everywhere, tiles


def reaches_every_tile(scene: Scene) -> bool:
    """Whether every face's bounding box holds the whole image: it is then in the list of each tile."""
    corners = scene.positions[0, scene.faces, :2] / scene.positions[0, scene.faces, 3:]
    return bool((corners.min(axis=1) <= -1).all() and (corners.max(axis=1) >= 1).all())


@functools.cache
def stack() -> Scene:
    """Triangles around the image, each at a depth of its own in random order: every tenth covers the whole image, the
    others only the part below a slanted line, so that many are seen."""
    rng = np.random.default_rng(0)
    points = np.empty((FACES, 3, 3))
    points[:, :, :2] = [[-1.0, -1.0], [4.0, -1.0], [-1.0, 4.0]]
    cut = np.arange(FACES) % 10 != 0
    tops = rng.uniform(-0.95, 0.95, (FACES, 2))
    points[cut, 0, :2], points[cut, 1, :2] = [-1.5, -1.5], [1.5, -1.5]
    points[cut, 2, :2] = np.stack([tops[cut, 0], np.full(cut.sum(), 1.5)], axis=1)
    depths = rng.permutation(np.linspace(-0.9, 0.9, FACES))
    points[:, :, 2] = depths[:, None]
    return Scene("stack", homogeneous(points.reshape(1, -1, 3)), np.arange(3 * FACES, dtype=np.int32).reshape(-1, 3), SIZE, SIZE)
