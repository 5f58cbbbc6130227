"""Whether two renderers drew the same picture. Pixels may differ where rounding decides, and nowhere else."""

from __future__ import annotations

import numpy as np

from .scenes import Scene

EDGE_PIXELS = 1 / 64
"""How near to an edge a pixel centre must lie for its coverage to be rounding's; llvmpipe snaps vertices to 1/256."""
DEPTH_GAP = 1e-4
"""NDC gap between two faces below which either may be in front; a 24-bit buffer and tilted faces need this much."""


def differing(scene: Scene, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, int]:
    """Compare two face_index [B, H, W].

    Returns:
        The fraction of pixels that differ, and how many of them rounding does not explain.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"face_index must have shape {list(ours.shape)}, got {list(theirs.shape)}")
    pixels = np.argwhere(ours != theirs)
    first, second = ours[ours != theirs], theirs[ours != theirs]
    margin_first, depth_first = _inside(scene, pixels, first)
    margin_second, depth_second = _inside(scene, pixels, second)
    touched = (margin_first >= -EDGE_PIXELS) & (margin_second >= -EDGE_PIXELS)
    on_edge = np.minimum(np.abs(margin_first), np.abs(margin_second)) <= EDGE_PIXELS
    tied = np.abs(depth_first - depth_second) <= DEPTH_GAP
    return len(pixels) / ours.size, int((~(touched & (on_edge | tied))).sum())


def _inside(scene: Scene, pixels: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How deep the centres of ``pixels`` [N, 3] (image, row, column) lie inside ``faces`` [N], and the depth there.

    Distances are in pixels to the nearest edge, negative outside. Background (-1) contains everything, deeply, and its
    depth is infinite: to differ from it a face must end there.
    """
    image, row, column = pixels.T
    corners = scene.positions[image[:, None], scene.faces[np.maximum(faces, 0)]].astype(np.float64)
    ndc = corners[..., :3] / corners[..., 3:]
    points = (ndc[..., :2] * [1, -1] + 1) * scene.size / 2 - np.stack([column, row], -1)[:, None] - 0.5
    following = np.roll(points, -1, axis=1)
    crosses = points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0]
    area = crosses.sum(1)
    lengths = np.linalg.norm(following - points, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = (crosses * np.sign(area)[:, None] / lengths).min(1)
        depth = (np.roll(crosses, -1, axis=1) * ndc[..., 2]).sum(1) / area
    background = faces < 0
    return np.where(background, np.inf, margin), np.where(background, np.inf, depth)
