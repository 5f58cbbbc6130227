"""Long faces, thin and wide, in all directions: what leaves out tiles, rows and pixels of a face must never leave out
one that it covers. Every pixel is expected as the formulas at the head of plugins/core/rasterize.h give it, bit by bit.
"""

from __future__ import annotations

import numpy as np
import pytest
from oracle import kernel
from oracle.scenes import Scene

HEIGHT, WIDTH, FACES = 150, 230, 160


def long_faces(dtype: type, seed: int, nearest_w: float) -> Scene:
    """Triangles 10 to 4,000 pixels long, 0.05 to 60 wide, every fourth along a row or a column; w from nearest_w on."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, FACES)
    angle[::4] = rng.integers(0, 4, len(angle[::4])) * (np.pi / 2)
    along = np.stack([np.cos(angle), np.sin(angle)], -1)
    across = np.stack([-along[:, 1], along[:, 0]], -1)
    middle = rng.uniform(-1.2, 1.2, (FACES, 2))
    length = 10 ** rng.uniform(1, 3.6, (FACES, 1)) / WIDTH
    width = 10 ** rng.uniform(-1.3, 1.8, (FACES, 1)) / WIDTH
    tip = middle + rng.uniform(-1, 1, (FACES, 1)) * length * along + width * across
    corners = np.stack([middle - length * along, middle + length * along, tip], 1)
    w = rng.uniform(nearest_w, 3, (FACES, 3, 1))
    z = rng.uniform(-1.1, 1.1, (FACES, 3, 1))
    positions = np.concatenate([corners * w, z * w, w], -1).reshape(1, -1, 4).astype(dtype)
    return Scene("long", positions, np.arange(3 * FACES, dtype=np.int32).reshape(-1, 3), HEIGHT, WIDTH)


def drawn(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """face_index, barycentrics and depth, face by face over all pixels."""
    dtype = scene.positions.dtype
    px = (2 * np.arange(WIDTH) + 1 - WIDTH).astype(dtype) / dtype.type(WIDTH)
    py = ((HEIGHT - 2 * np.arange(HEIGHT) - 1).astype(dtype) / dtype.type(HEIGHT))[:, None]
    face_index = np.full((HEIGHT, WIDTH), -1, np.int32)
    barycentrics = np.zeros((HEIGHT, WIDTH, 3), dtype)
    depth = np.full((HEIGHT, WIDTH), np.inf, dtype)
    for face, corners in enumerate(scene.faces):
        x, y, z, w = scene.positions[0, corners].T
        sign = dtype.type(np.sign(np.linalg.det(np.stack([x, y, w]).astype(np.float64))))
        xs, ys = x[:, None, None] - px * w[:, None, None], sign * (y[:, None, None] - py * w[:, None, None])
        e = np.stack([xs[i] * ys[j] - ys[i] * xs[j] for i, j in ((1, 2), (2, 0), (0, 1))])
        base, slope = dtype.type(0), z
        if (w > 0).all():
            base = z[0] / w[0]
            slope = np.array([0, (z[1] / w[1] - base) * w[1], (z[2] / w[2] - base) * w[2]], dtype)
        sum_w = e[0] * w[0] + e[1] * w[1] + e[2] * w[2]
        with np.errstate(all="ignore"):
            at = base + (e[0] * slope[0] + e[1] * slope[1] + e[2] * slope[2]) / sum_w
            visible = (e >= 0).all(0) & (sum_w > 0) & (at >= -1) & (at <= 1) & (at < depth)
            shares = np.stack([e[k] / (e[0] + e[1] + e[2]) for k in range(3)], -1)
        face_index[visible], depth[visible], barycentrics[visible] = face, at[visible], shares[visible]
    return face_index, barycentrics, np.where(face_index < 0, dtype.type(1), depth)


@pytest.mark.parametrize("nearest_w", [1.0, 0.05, -1.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rasterize(dtype, nearest_w) -> None:
    for seed in range(4):
        scene = long_faces(dtype, seed, nearest_w)
        expected = drawn(scene)
        assert (expected[0] >= 0).mean() > 0.2
        for output, wanted in zip(kernel.rasterize(scene), expected, strict=True):
            np.testing.assert_array_equal(output.numpy()[0], wanted)
