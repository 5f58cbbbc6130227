"""Cameras and a shape from keypoints: structure from motion under scaled orthography, with points unseen.

Tomasi and Kanade, *Shape and motion from image streams under orthography*, IJCV 1992, with the metric constraints of
scaled orthography (Poelman and Kanade, PAMI 1997) and unseen points filled in by the model, round after round.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import DibrError

_ROUNDS = 200
_LEAST_VIEWS, _LEAST_POINTS = 3, 4


class Structure(NamedTuple):
    """Points and the cameras that see them: ``image = scale * (rotation @ point)[:2] + translation``."""

    points: np.ndarray
    """[K, 3], their centre at the origin."""
    scale: np.ndarray
    """[N]."""
    rotation: np.ndarray
    """[N, 3, 3], proper; its rows are the image's right, up and backward directions."""
    translation: np.ndarray
    """[N, 2]."""


def factorize(image_points: np.ndarray, visible: np.ndarray) -> Structure:
    """One rigid shape and a camera for every view.

    The shape is known up to a rotation, a scale and a reflection in depth, which swaps near and far in all views: no
    parallel projection tells these apart.

    Args:
        image_points: [N, K, 2], x to the right, y upwards; unseen ones are not read.
        visible: [N, K] bool.

    Raises:
        DibrError: fewer than 3 views or 4 points, a view that sees fewer than 3 points, or a point that is never seen.
    """
    views, count = visible.shape
    if views < _LEAST_VIEWS or count < _LEAST_POINTS:
        raise DibrError(
            f"cameras from keypoints need at least {_LEAST_VIEWS} views and {_LEAST_POINTS} points, "
            f"got {views} and {count}"
        )
    if visible.sum(axis=1).min() < 3 or visible.sum(axis=0).min() < 1:
        raise DibrError("cameras from keypoints need views that see 3 points each, and every point seen in one of them")
    filled = _first_guess(image_points, visible)
    for _ in range(_ROUNDS):
        filled = np.where(visible[..., None], image_points, _rank_three(filled))
    points = _metric_points(filled)
    for _ in range(_ROUNDS):
        scale, rotation, translation = _cameras(points, image_points, visible)
        points = _points(scale, rotation, translation, image_points, visible)
    scale, rotation, translation = _cameras(points, image_points, visible)
    center = points.mean(axis=0)
    translation = translation + scale[:, None] * (rotation @ center)[:, :2]
    return Structure(points - center, scale, rotation, translation)


def _first_guess(image_points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Unseen points at the mean of those that the view sees."""
    weight = visible[..., None].astype(float)
    seen = np.where(visible[..., None], image_points, 0.0)
    mean = seen.sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
    return np.where(visible[..., None], image_points, mean)


def _rank_three(image_points: np.ndarray) -> np.ndarray:
    """The nearest points that are projections of one shape by affine cameras."""
    center = image_points.mean(axis=1, keepdims=True)
    motion, shape = _affine(image_points - center)
    return (motion @ shape).reshape(len(center), 2, -1).transpose(0, 2, 1) + center


def _affine(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Motion [2 N, 3] and shape [3, K] whose product is nearest to the points [N, K, 2]."""
    matrix = centered.transpose(0, 2, 1).reshape(2 * len(centered), -1)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:3])
    return left[:, :3] * root, root[:, None] * right[:3]


def _metric_points(image_points: np.ndarray) -> np.ndarray:
    """[K, 3] for which the affine cameras come nearest to a scaled rotation."""
    motion, shape = _affine(image_points - image_points.mean(axis=1, keepdims=True))
    right, up = motion[0::2], motion[1::2]
    # Rows of equal length, at right angles; and a mean length of 1 against the zero solution.
    rows = np.concatenate([_products(right, right) - _products(up, up), _products(right, up)])
    rows = np.concatenate([rows, (_products(right, right) + _products(up, up)).mean(axis=0, keepdims=True)])
    wanted = np.zeros(len(rows))
    wanted[-1] = 2.0
    a, b, c, d, e, f = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    values, vectors = np.linalg.eigh(np.array([[a, b, c], [b, d, e], [c, e, f]]))
    upgrade = vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))
    return np.linalg.solve(upgrade, shape).T


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The coefficients of the six numbers of a symmetric Q in x Q y, [N, 6]."""
    cross = [x[:, i] * y[:, j] + x[:, j] * y[:, i] for i, j in ((0, 1), (0, 2), (1, 2))]
    return np.stack([x[:, 0] * y[:, 0], cross[0], cross[1], x[:, 1] * y[:, 1], cross[2], x[:, 2] * y[:, 2]], axis=1)


def _cameras(
    points: np.ndarray, image_points: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each view's best affine camera, then the scaled rotation nearest to it."""
    weight = visible[..., None].astype(float)
    count = weight.sum(axis=1)
    point_mean = (weight * points).sum(axis=1) / count
    seen = np.where(visible[..., None], image_points, 0.0)
    image_mean = seen.sum(axis=1) / count
    moved = weight * (points - point_mean[:, None])
    centered = np.where(visible[..., None], image_points - image_mean[:, None], 0.0)
    affine = centered.transpose(0, 2, 1) @ moved @ np.linalg.pinv(moved.transpose(0, 2, 1) @ moved)
    left, values, right = np.linalg.svd(affine, full_matrices=False)
    scale = values.mean(axis=1)
    rows = left @ right
    rotation = np.concatenate([rows, np.cross(rows[:, :1], rows[:, 1:])], axis=1)
    return scale, rotation, image_mean - scale[:, None] * (rotation @ point_mean[..., None])[:, :2, 0]


def _points(
    scale: np.ndarray, rotation: np.ndarray, translation: np.ndarray, image_points: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """Each point's best position for given cameras."""
    rows = scale[:, None, None] * rotation[:, :2]
    normal = np.einsum("nk,nri,nrj->kij", visible.astype(float), rows, rows)
    offset = np.where(visible[..., None], image_points - translation[:, None], 0.0)
    return np.einsum("kij,kj->ki", np.linalg.pinv(normal), np.einsum("nri,nkr->ki", rows, offset))
