"""Closed meshes as solids on a grid, for the intersection over union in space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import DibrError
from .mesh import Mesh

_PAIRS_AT_ONCE = 1 << 22


def voxelize(
    mesh: Mesh, resolution: int, *, center: tuple[float, float, float] = (0.0, 0.0, 0.0), side: float
) -> Tensor:
    """Which cells of a cubic grid have their centre inside of a closed mesh.

    A ray from each column of cells crosses the surface; a cell is inside where the crossings beyond it, counted with
    the side from which they are crossed, do not cancel (the nonzero winding rule). So parts that overlap count once,
    and it does not matter which way round the faces are. Rays that meet an edge or a vertex exactly are decided as if
    the grid were moved by an infinitesimal amount, the same for all faces (Edelsbrunner and Mücke 1990), so no cell is
    ever taken for outside by mistake.

    Args:
        mesh: closed and consistently oriented; it may consist of several parts, and intersect itself.
        resolution: R, cells along each axis.
        center: of the grid, world units.
        side: of the grid, world units.

    Returns:
        [R, R, R] bool, indexed by x, y, z, each growing.

    Raises:
        DibrError: a resolution below 1, a side that is not positive, vertices that are not finite, or a mesh that is
            not closed.
    """
    if resolution < 1 or not side > 0:
        raise DibrError(f"voxelize: resolution and side must be positive, but are {resolution} and {side}")
    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    if not np.isfinite(vertices).all():
        raise DibrError("voxelize: vertices must be finite")
    _check_closed(faces)
    # In units of cells, so that the centre of cell i lies at i.
    corners = ((vertices - center) / side * resolution + (resolution - 1) / 2)[faces]
    winding = np.zeros((resolution, resolution, resolution + 1), dtype=np.int32)
    for start in range(0, len(corners), max(1, _PAIRS_AT_ONCE // resolution**2)):
        _add_crossings(winding, corners[start : start + max(1, _PAIRS_AT_ONCE // resolution**2)])
    # A crossing below cell k acts on all cells from k on.
    return torch.from_numpy(winding.cumsum(axis=2)[:, :, :-1] != 0)


def _check_closed(faces: np.ndarray) -> None:
    """Every directed edge must be there as often as its opposite."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, inverse = np.unique(np.sort(directed, axis=1), axis=0, return_inverse=True)
    balance = np.zeros(len(edges), dtype=np.int64)
    np.add.at(balance, inverse.reshape(-1), np.sign(directed[:, 1] - directed[:, 0]))
    if balance.any():
        raise DibrError(
            f"voxelize: the mesh must be closed and consistently oriented, but {np.count_nonzero(balance)} of "
            f"{len(edges)} edges have a face on one side alone"
        )


def _add_crossings(winding: np.ndarray, corners: np.ndarray) -> None:
    """Adds +1 or -1 to ``winding[x, y, k]`` where a face [F, 3, 3] crosses the column (x, y) below cell k."""
    size = len(winding)
    grid = np.arange(size, dtype=np.float64)
    x, y = grid[:, None], grid[None, :]
    edges = [_side(corners[:, i], corners[:, (i + 1) % 3], x, y) for i in range(3)]
    inside = (edges[0][1] == edges[1][1]) & (edges[1][1] == edges[2][1])
    face, column, row = np.nonzero(inside)
    weights = np.stack([value[face, column, row] for value, _ in edges], axis=-1)
    total = weights.sum(axis=-1)
    # Exactly 0 is a face seen edge-on whose infinitesimally moved projection is entered: any of its heights will do.
    safe = np.where(total == 0, 1.0, total)
    opposite = corners[face][:, [2, 0, 1], 2]
    height = np.where(total == 0, opposite[:, 0], (weights * opposite).sum(axis=-1) / safe)
    below = np.clip(np.floor(height) + 1, 0, size).astype(np.int64)
    np.add.at(winding, (column, row, below), np.where(edges[0][1][face, column, row], 1, -1))


def _side(start: np.ndarray, end: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Twice the signed area of edge [F] and column, [F, R, R], and whether the column lies on its left.

    Evaluated from the lower end on, so that the two faces of an edge get exactly opposite numbers. A column on the
    edge's line is moved by (e, e^2), e infinitesimal.
    """
    swap = (start[:, 0] > end[:, 0]) | ((start[:, 0] == end[:, 0]) & (start[:, 1] > end[:, 1]))
    low, high = np.where(swap[:, None], end, start), np.where(swap[:, None], start, end)
    dx, dy = (high - low)[:, 0, None, None], (high - low)[:, 1, None, None]
    area = dx * (y - low[:, 1, None, None]) - dy * (x - low[:, 0, None, None])
    moved = np.where(dy != 0, -dy, dx)
    left = np.where(area != 0, area > 0, moved > 0)
    sign = np.where(swap, -1.0, 1.0)[:, None, None]
    return area * sign, left != swap[:, None, None]
