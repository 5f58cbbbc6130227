"""Antialias in float64, written from the conventions alone: barycentrics by inverse matrices, faces that share an edge
by a dictionary, every pair of pixels that the definition names, differentiable in image and positions by autograd.

Beside the image it tells which pixels rounding may decide otherwise: `epsilon` is the unit of the kernel's dtype."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from oracle.oracle import is_edge_on, pixel_centres

LONGEST_WALK = 32
_ROUNDING = 16.0  # units in the last place that an edge function may be off, relative to its terms
_DEPTH_TIE = 64.0
_EDGE_ON = 1e-12  # determinants are computed in float64 by everybody


class OracleAntialias(NamedTuple):
    """image [B, H, W, C] float64; ambiguous [B, H, W]: rounding may choose another edge, or none; kinked: rounding
    may give the blend to the other pixel of the pair; noise: by how much rounding may change the blends."""

    image: torch.Tensor
    ambiguous: np.ndarray
    kinked: np.ndarray
    noise: np.ndarray


@dataclass
class _Leaving:
    """Where a segment leaves a face: opposite which vertex, by how much rounding may move that, and whether rounding
    might have it leave elsewhere. corner is None where it does not leave, or misses the face."""

    corner: int | None
    shift: float
    sure: bool


class _Mesh:
    """The faces of one image [V, 4], [F, 3], and what the definition asks about them."""

    def __init__(self, positions: np.ndarray, faces: np.ndarray, start: int, count: int, epsilon: float):
        self.positions, self.faces, self.epsilon = positions, faces, epsilon
        self.by_edge: dict[frozenset[int], set[int]] = defaultdict(set)
        self.present = np.zeros(len(faces), dtype=bool)
        for f in range(start, start + count):
            corners = positions[faces[f]]
            self.present[f] = bool(np.isfinite(corners).all()) and not is_edge_on(corners)
            if self.present[f]:
                for k in range(3):
                    self.by_edge[frozenset(self.ends(f, k))].add(f)
        self.weights = functools.cache(self._weights)
        self.side = functools.cache(self._side)
        self.across = functools.cache(self._across)

    def ends(self, face: int, corner: int) -> tuple[int, int]:
        return int(self.faces[face][(corner + 1) % 3]), int(self.faces[face][(corner + 2) % 3])

    def _weights(self, face: int) -> tuple[np.ndarray, np.ndarray]:
        """A matrix [3, 3] that takes a centre (x, y, 1) to the weights of the face's vertices, at least 0 where it
        covers the centre, and two [2, 3, 3] that take (|x|, |y|, 1) to sums whose products bound their rounding."""
        corners = self.positions[self.faces[face]]
        inverse = np.linalg.inv(corners[:, [0, 1, 3]].T)
        scale = (_ROUNDING * self.epsilon * abs(np.linalg.det(inverse))) ** 0.5
        sizes = np.zeros((2, 3, 3))
        for axis in range(2):
            sizes[axis, :, axis] = np.abs(corners[:, 3])
            sizes[axis, :, 2] = np.abs(corners[:, axis])
        return inverse, scale * sizes

    def weights_at(self, face: int, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weights [3] of the face's vertices at a centre (x, y, 1), and by how much rounding may change them."""
        inverse, sizes = self.weights(face)
        x, y = sizes @ np.abs(centre)
        i, j = [1, 2, 0], [2, 0, 1]
        return inverse @ centre, x[i] * y[j] + x[j] * y[i]

    def leaving(self, face: int, near: np.ndarray, far: np.ndarray, starts: bool) -> _Leaving:
        (p, noise_p), (q, noise_q) = self.weights_at(face, near), self.weights_at(face, far)
        relevant = starts | (q < noise_q)
        sure = not ((np.abs(q) <= noise_q) | ((np.abs(p) <= noise_p) & relevant)).any()
        misses = (p < 0).any() if starts else ((p <= 0) & (q < 0)).any()
        if misses or not (q < 0).any():
            return _Leaving(None, 0.0, sure)
        edges = np.flatnonzero(q < 0)
        leaves, shift = p[edges] / (p - q)[edges], (noise_p + noise_q)[edges] / (p - q)[edges]
        first = int(leaves.argmin())
        rivals = leaves - leaves[first] <= shift + shift[first]
        return _Leaving(int(edges[first]), float(shift[first]), sure and int(rivals.sum()) <= 1)

    def _side(self, face: int, edge: tuple[int, int]) -> tuple[int, bool]:
        """On which side of the edge the face's third vertex lies (+1, -1), and whether that is certain."""
        third = next(int(v) for v in self.faces[face] if v not in edge)
        columns = self.positions[[*edge, third]][:, [0, 1, 3]]
        determinant = float(np.linalg.det(columns))
        certain = abs(determinant) > _EDGE_ON * float(np.prod(np.linalg.norm(columns, axis=1)))
        return (1 if determinant > 0 else -1), certain

    def _across(self, face: int, corner: int, preferred: int) -> tuple[int | None, bool]:
        """The face that continues the surface across the edge, and whether that is certain."""
        edge = self.ends(face, corner)
        own, sure = self.side(face, edge)
        sides = {other: self.side(other, edge) for other in self.by_edge[frozenset(edge)] if other != face}
        found = [other for other, (side, _) in sides.items() if side != own]
        sure = sure and all(certain for _, certain in sides.values())
        return (None if not found else preferred if preferred in found else min(found)), sure

    def silhouette(self, face: int, other: int, near: np.ndarray, far: np.ndarray) -> tuple[int, _Leaving]:
        """The face by whose edge the segment leaves the surface, or a corner of None where it does not. near, far:
        (x, y, 1); far shows `other`."""
        sure = True
        for step in range(LONGEST_WALK):
            leaving = self.leaving(face, near, far, step == 0)
            sure = sure and leaving.sure
            if leaving.corner is None:
                return face, _Leaving(None, 0.0, sure)
            across, certain = self.across(face, leaving.corner, other)
            sure = sure and certain
            if across is None:
                return face, _Leaving(leaving.corner, leaving.shift, sure)
            face = across
        return face, _Leaving(None, 0.0, sure)

    def steepness(self, face: int, corner: int, height: int, width: int) -> float:
        """Rise minus run of the projected edge in pixels, up to a factor; 0 where rounding may decide its sign."""
        a, b = self.positions[list(self.ends(face, corner))]
        rise, run = a[1] * b[3] - b[1] * a[3], a[0] * b[3] - b[0] * a[3]
        size = (np.abs(a[:2] * b[3]) + np.abs(b[:2] * a[3])).sum() * max(height, width)
        steepness = abs(rise) * height - abs(run) * width
        return 0.0 if abs(steepness) <= _ROUNDING * self.epsilon * size else float(steepness)


def _depths(meshes: list[_Mesh], positions: np.ndarray, face_index: np.ndarray, barycentrics: np.ndarray) -> np.ndarray:
    """z / w of the face at each pixel [B, H, W], infinite where there is no face with an outline."""
    depth = np.full(face_index.shape, np.inf)
    for b, mesh in enumerate(meshes):
        shown = (face_index[b] >= 0) & np.isin(face_index[b], np.flatnonzero(mesh.present))
        corners = positions[b][mesh.faces[face_index[b][shown]]]
        weights = barycentrics[b][shown].astype(np.float64)
        with np.errstate(all="ignore"):
            depth[b][shown] = (weights * corners[..., 2]).sum(1) / (weights * corners[..., 3]).sum(1)
    return np.where(np.isfinite(depth), depth, np.inf)


def _nearer(first: float, second: float, faces: tuple[int, int], epsilon: float) -> tuple[int | None, bool]:
    """Which of two pixels is nearer by depth, None where nothing is, and whether that is certain."""
    if not np.isfinite(min(first, second)):
        return None, True
    tie = first == second
    sure = tie or not np.isfinite(max(first, second))
    sure = sure or abs(first - second) > _DEPTH_TIE * epsilon * max(1.0, abs(first))
    return int(faces[1] < faces[0]) if tie else int(second < first), sure


def antialias(
    image: torch.Tensor,
    positions: torch.Tensor,
    faces: np.ndarray,
    face_index: np.ndarray,
    barycentrics: np.ndarray,
    *,
    face_ranges: np.ndarray | None = None,
    epsilon: float = 0.0,
) -> OracleAntialias:
    """image [B, H, W, C] and positions [B, V, 4] float64."""
    batch, height, width = face_index.shape
    clip = positions.detach().numpy()
    ranges = [(0, len(faces))] * batch if face_ranges is None else face_ranges
    meshes = [_Mesh(clip[b], faces, *(int(n) for n in ranges[b]), epsilon) for b in range(batch)]
    depth = _depths(meshes, clip, face_index, barycentrics)
    x, y = pixel_centres(height, width)
    ambiguous, kinked = np.zeros((2, *face_index.shape), dtype=bool)
    found = []
    for horizontal, step in ((True, (0, 0, 1)), (False, (0, 1, 0))):
        before = face_index[:, : height - step[1], : width - step[2]]
        for first in map(tuple, np.argwhere(before != face_index[:, step[1] :, step[2] :])):
            pair = [first, tuple(int(n) for n in np.add(first, step))]
            shown = tuple(int(face_index[pixel]) for pixel in pair)
            mesh = meshes[first[0]]
            nearer, sure = _nearer(depth[pair[0]], depth[pair[1]], shown, epsilon)
            if nearer is not None:
                near, far = pair[nearer], pair[1 - nearer]
                ends = [np.array([x[pixel[2]], y[pixel[1]], 1.0]) for pixel in (near, far)]
                face, leaving = mesh.silhouette(shown[nearer], shown[1 - nearer], *ends)
                sure = sure and leaving.sure
                if leaving.corner is not None:
                    steepness = mesh.steepness(face, leaving.corner, height, width)
                    sure = sure and steepness != 0
                    if (steepness >= 0) == horizontal:
                        found.append((near, far, face, leaving.corner, leaving.shift))
            if not sure:
                ambiguous[pair[0]] = ambiguous[pair[1]] = True
    output, noise = _blended(image, positions, faces, found, kinked)
    return OracleAntialias(output, ambiguous, kinked, noise)


def _blended(
    image: torch.Tensor, positions: torch.Tensor, faces: np.ndarray, found: list[tuple], kinked: np.ndarray
) -> tuple[torch.Tensor, np.ndarray]:
    """The image with the crossings `found` (near pixel, far pixel, face, corner, shift) blended in, and their noise."""
    noise = np.zeros(kinked.shape)
    if not found:
        return image, noise
    near, far, face, corner, shift = (np.array(values) for values in zip(*found, strict=True))
    x, y = pixel_centres(*kinked.shape[1:])
    corners = positions[torch.from_numpy(near[:, :1]), torch.from_numpy(faces[face].astype(np.int64))]
    matrix = corners[..., [0, 1, 3]].transpose(1, 2)
    at_near, at_far = (
        torch.linalg.solve(matrix, torch.from_numpy(np.stack([x[p[:, 2]], y[p[:, 1]], np.ones(len(p))], axis=1)))[
            torch.arange(len(p)), torch.from_numpy(corner)
        ]
        for p in (near, far)
    )
    blend = at_near / (at_near - at_far) - 0.5
    values = blend.detach().numpy()
    for pixels in (tuple(near.T), tuple(far.T)):
        np.logical_or.at(kinked, pixels, np.abs(values) <= shift)
        np.add.at(noise, pixels, shift)
    receiver = np.where(values[:, None] > 0, far, near)
    source, target = (image[tuple(torch.from_numpy(c) for c in pixels.T)] for pixels in (near, far))
    indices = tuple(torch.from_numpy(c) for c in receiver.T)
    return image.index_put(indices, blend[:, None] * (source - target), accumulate=True), noise
