"""Slow, obviously right float64 versions of the ops, written from the conventions alone.

Rasterisation clips each triangle literally (Sutherland-Hodgman in clip space), projects the polygon and asks every
pixel centre about every face; the values at a pixel come from a 3x3 linear solve in torch, so that autograd
differentiates them. Nothing here is shared with the kernels.

Positions are the ones the kernel got, as float64: float32 input is upcast, never recomputed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch

from oracle.scenes import Scene

NEAR, FAR, GUARD = "near", "far", "guard"
_GUARD_BAND = 4.0
_DEPTH_PLANES = ((NEAR, (0.0, 0.0, 1.0, 1.0)), (FAR, (0.0, 0.0, -1.0, 1.0)))
_GUARD_PLANES = tuple(
    (GUARD, (sx, sy, 0.0, _GUARD_BAND)) for sx, sy in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
)
_DEPTH_TIE = 1e-13


class OracleRaster(NamedTuple):
    """What the oracle sees. face_index [B, H, W] int32; barycentrics [B, H, W, 3] and depth [B, H, W] float64."""

    face_index: np.ndarray
    barycentrics: np.ndarray
    depth: np.ndarray


class OracleSoftMask(NamedTuple):
    """mask [B, H, W] float64; ambiguous [B, H, W]: a box border that decides there is within the tolerance;
    creased [B, H, W]: two different points of one face's boundary are nearest, but for the tolerance."""

    mask: torch.Tensor
    ambiguous: np.ndarray
    creased: np.ndarray


@dataclass(frozen=True)
class Polygon:
    """The visible part of one face, projected: points [N, 2] NDC counter-clockwise, the plane that made each edge
    (None for an edge of the triangle itself), and the depth as an affine function around origin."""

    face: int
    points: np.ndarray
    sources: tuple[str | None, ...]
    origin: np.ndarray
    depth_slope: np.ndarray
    depth_at_origin: float

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        slope_x, slope_y = self.depth_slope
        return self.depth_at_origin + slope_x * (x - self.origin[0]) + slope_y * (y - self.origin[1])

    def covers(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether each centre of the grid x [W] by y [H] lies in the closed polygon: [H, W] bool."""
        inside = np.ones((len(y), len(x)), dtype=bool)
        for a, b in zip(self.points, np.roll(self.points, -1, axis=0), strict=True):
            inside &= ((b[0] - a[0]) * (y - a[1]))[:, None] >= ((b[1] - a[1]) * (x - a[0]))[None, :]
        return inside

    def margin(self, x: float, y: float) -> float:
        """Signed distance (NDC) of one centre to the deciding edge: positive inside, negative outside.

        At an edge that the near or far plane cut, the gap in depth to that plane counts where it is smaller."""
        smallest = math.inf
        for a, b, source in zip(self.points, np.roll(self.points, -1, axis=0), self.sources, strict=True):
            length = math.hypot(*(b - a))
            if length == 0.0:
                continue
            distance = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / length
            if source in (NEAR, FAR):
                depth = float(self.depth(x, y))
                gap = abs(depth + 1.0) if source == NEAR else abs(1.0 - depth)
                distance = math.copysign(min(abs(distance), gap), distance)
            smallest = min(smallest, distance)
        return smallest


def pixel_centres(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """NDC x [W] of the columns and y [H] of the rows, row 0 at the top."""
    x = (2.0 * np.arange(width) + 1.0 - width) / width
    y = (height - 2.0 * np.arange(height) - 1.0) / height
    return x, y


def _clip(polygon: list[tuple[np.ndarray, str | None]], plane: np.ndarray, source: str) -> list:
    """One Sutherland-Hodgman pass; each entry is (clip-space vertex, plane that made the edge after it)."""
    out: list[tuple[np.ndarray, str | None]] = []
    for (a, edge), (b, _) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        side_a, side_b = float(plane @ a), float(plane @ b)
        crossing = a + (b - a) * (side_a / (side_a - side_b)) if (side_a >= 0) != (side_b >= 0) else None
        if side_a >= 0:
            out.append((a, edge))
            if crossing is not None:
                out.append((crossing, source))
        elif crossing is not None:
            out.append((crossing, edge))
    return out


def _without_repeats(points: np.ndarray, sources: list[str | None]) -> tuple[np.ndarray, list[str | None]]:
    """Drops a point where the next one is the same but for rounding: such an edge has no direction."""
    gaps = np.abs(np.roll(points, -1, axis=0) - points).max(axis=1)
    keep = gaps > 1e-14 * np.maximum(1.0, np.abs(points).max(axis=1))
    return points[keep], [source for source, kept in zip(sources, keep, strict=True) if kept]


def _depth_plane(corners: np.ndarray, origin: np.ndarray) -> np.ndarray | None:
    """(slope x, slope y, value at origin) of z/w over the screen for the face with clip-space corners [3, 4]."""
    matrix = np.stack(
        [corners[:, 0] - origin[0] * corners[:, 3], corners[:, 1] - origin[1] * corners[:, 3], corners[:, 3]], axis=1
    )
    try:
        return np.linalg.solve(matrix, corners[:, 2])
    except np.linalg.LinAlgError:
        return None


def is_edge_on(corners: np.ndarray) -> bool:
    """Whether the determinant of (x, y, w) is exactly zero; in rational arithmetic where rounding could hide it."""
    matrix = corners[:, [0, 1, 3]]
    if abs(np.linalg.det(matrix)) > 1e-9 * np.prod(np.linalg.norm(matrix, axis=1)):
        return False
    (a, b, c), (d, e, f), (g, h, i) = ([Fraction(float(value)) for value in row] for row in matrix)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) == 0


def visible_polygon(corners: np.ndarray, face: int, cull: str, depth_clip: bool) -> Polygon | None:
    """The projected visible polygon of the face with clip-space corners [3, 4], or None where nothing is left.

    A face of which clipping leaves a single point or line is taken as invisible."""
    if not np.isfinite(corners).all() or is_edge_on(corners):
        return None
    polygon: list[tuple[np.ndarray, str | None]] = [(corner, None) for corner in corners]
    planes = _DEPTH_PLANES if depth_clip else ()
    if (np.abs(corners[:, :2]) > _GUARD_BAND * corners[:, 3:]).any():
        # A band around the image keeps points at infinity (w = 0) and rounding far outside out of the projection.
        planes = _GUARD_PLANES + planes
    for source, plane in planes:
        polygon = _clip(polygon, np.array(plane), source) if polygon else polygon
    polygon = [(vertex, source) for vertex, source in polygon if vertex[3] > 0]
    if len(polygon) < 3:
        return None
    points = np.array([vertex[:2] / vertex[3] for vertex, _ in polygon])
    sources = [source for _, source in polygon]
    if any(source is not None for source in sources):
        points, sources = _without_repeats(points, sources)
        if len(points) < 3:
            return None
    x, y = (points - points[0]).T
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    if area == 0.0 or not math.isfinite(area) or (cull == "back" and area < 0):
        return None
    if area < 0:
        points, sources = points[::-1], sources[-2::-1] + sources[-1:]
    origin = points.mean(axis=0)
    plane = _depth_plane(corners, origin)
    if plane is None or not np.isfinite(plane).all():
        return None
    return Polygon(face, points, tuple(sources), origin, plane[:2], float(plane[2]))


def visible_polygons(scene: Scene) -> list[list[Polygon]]:
    """The visible polygons of every image, in face order: [B][up to F]."""
    batches = []
    for b, positions in enumerate(scene.positions.astype(np.float64)):
        start, count = (0, len(scene.faces)) if scene.face_ranges is None else scene.face_ranges[b]
        present = [f for f in range(start, start + count) if scene.face_valid is None or scene.face_valid[b, f]]
        found = (visible_polygon(positions[scene.faces[f]], f, scene.cull, scene.depth_clip) for f in present)
        batches.append([polygon for polygon in found if polygon is not None])
    return batches


def nearest_faces(visible: list[Polygon], height: int, width: int) -> np.ndarray:
    """The nearest face at every pixel centre, the lowest index where depths tie: [H, W] int32, -1 background."""
    x, y = pixel_centres(height, width)
    grid_x, grid_y = np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))
    face_index = np.full((height, width), -1, dtype=np.int32)
    nearest = np.full((height, width), np.inf)
    for polygon in visible:
        rows, columns = np.nonzero(polygon.covers(x, y))
        depth = polygon.depth(grid_x[rows, columns], grid_y[rows, columns])
        best = nearest[rows, columns]
        tie = np.where(np.isfinite(best), _DEPTH_TIE * np.maximum(1.0, np.abs(best)), 0.0)
        wins = depth < best - tie
        face_index[rows[wins], columns[wins]] = polygon.face
        nearest[rows[wins], columns[wins]] = depth[wins]
    return face_index


def values_at_pixels(
    positions: torch.Tensor, faces: torch.Tensor, face_index: torch.Tensor, perspective_correct: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Barycentrics [B, H, W, 3] and depth [B, H, W] of the given faces, differentiable in positions [B, V, 4].

    With l = solve([x - px w; y - py w; w], (0, 0, 1)) over the three corners: l_i / sum(l) are the perspective-correct
    weights, l_i w_i the screen-space ones (the ratios of 2D areas), sum(l_i z_i) the depth."""
    batch, height, width = face_index.shape
    covered = face_index >= 0
    b, rows, columns = torch.nonzero(covered, as_tuple=True)
    corners = positions[b[:, None], faces.long()[face_index[covered].long()]]
    x, y = (torch.from_numpy(c)[i][:, None] for c, i in zip(pixel_centres(height, width), (columns, rows), strict=True))
    w = corners[..., 3]
    matrix = torch.stack([corners[..., 0] - x * w, corners[..., 1] - y * w, w], dim=1)
    target = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(len(b), 3)
    weights = torch.linalg.solve(matrix, target)
    values = weights / weights.sum(1, keepdim=True) if perspective_correct else weights * w
    barycentrics = positions.new_zeros(batch, height, width, 3).index_put((b, rows, columns), values)
    depth = positions.new_ones(batch, height, width).index_put((b, rows, columns), (weights * corners[..., 2]).sum(1))
    return barycentrics, depth


def rasterize(scene: Scene, *, perspective_correct: bool = True) -> OracleRaster:
    """Brute force over all pixels and faces."""
    shape = (len(scene.positions), scene.height, scene.width)
    face_index = np.empty(shape, dtype=np.int32)
    for b, visible in enumerate(visible_polygons(scene)):
        face_index[b] = nearest_faces(visible, scene.height, scene.width)
    with torch.no_grad():
        barycentrics, depth = values_at_pixels(
            torch.from_numpy(scene.positions.astype(np.float64)),
            torch.from_numpy(scene.faces),
            torch.from_numpy(face_index),
            perspective_correct,
        )
    return OracleRaster(face_index, barycentrics.numpy(), depth.numpy())


def needed_tolerance(visible: list[Polygon], x: float, y: float, answer: int) -> float:
    """The smallest relative tolerance with which `answer` is a right face_index at the centre (x, y).

    The answer must cover the centre (or miss it by that distance in NDC), and every face in front of it must miss the
    centre (or cover it by no more than that distance, or lie in front by no more than that gap in depth)."""
    chosen = next((polygon for polygon in visible if polygon.face == answer), None)
    if answer >= 0 and chosen is None:
        return math.inf
    needed = 0.0 if chosen is None else max(0.0, -chosen.margin(x, y))
    limit = math.inf if chosen is None else float(chosen.depth(x, y))
    for polygon in visible:
        if polygon is chosen:
            continue
        gap = (limit - float(polygon.depth(x, y))) / max(1.0, abs(limit)) if math.isfinite(limit) else math.inf
        if gap > needed:
            needed = max(needed, min(gap, polygon.margin(x, y)))
    return needed


def edge_clearance(visible: list[Polygon], height: int, width: int) -> float:
    """The smallest distance of any pixel centre to any visible polygon's deciding edge, or gap between two depths."""
    x, y = pixel_centres(height, width)
    smallest = math.inf
    for px in x:
        for py in y:
            smallest = min([smallest, *(abs(polygon.margin(px, py)) for polygon in visible)])
            depths = sorted(float(polygon.depth(px, py)) for polygon in visible if polygon.margin(px, py) >= 0)
            smallest = min([smallest, *np.diff(depths)])
    return smallest


def condition_numbers(positions: np.ndarray, faces: np.ndarray, face_index: np.ndarray) -> np.ndarray:
    """Condition number of the face at each pixel [B, H, W], 1 on background.

    The ratio of the singular values of the two projected edges (1.7 for an equilateral triangle); for a face with a
    w <= 0, which has no projected edges, that of its (x, y, w) columns scaled to length one."""
    result = np.ones(face_index.shape)
    for b, clip in enumerate(positions.astype(np.float64)):
        seen, where = np.unique(face_index[b], return_inverse=True)
        condition = np.array([1.0 if f < 0 else _condition_number(clip[faces[f]]) for f in seen])
        result[b] = condition[where].reshape(face_index.shape[1:])
    return result


def _condition_number(corners: np.ndarray) -> float:
    w = corners[:, 3]
    if (w > 0).all():
        projected = corners[:, :2] / w[:, None]
        return float(np.linalg.cond(projected[1:] - projected[0]))
    columns = corners[:, [0, 1, 3]]
    return float(np.linalg.cond(columns / np.linalg.norm(columns, axis=1, keepdims=True)))


def interpolate(
    attributes: np.ndarray, faces: np.ndarray, face_index: np.ndarray, barycentrics: np.ndarray
) -> np.ndarray:
    """Weighted sum of the corners' attributes [B or 1, V, D] at every pixel: [B, H, W, D], 0 on background."""
    batch = face_index.shape[0]
    output = np.zeros((*face_index.shape, attributes.shape[-1]))
    for b in range(batch):
        covered = face_index[b] >= 0
        corners = attributes[b if attributes.shape[0] == batch else 0].astype(np.float64)[faces[face_index[b][covered]]]
        output[b][covered] = (corners * barycentrics[b].astype(np.float64)[covered][:, :, None]).sum(axis=1)
    return output


def _nearest_on_edges(corners: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets [3, N, 2] from the points (x, y) [N] to the nearest point of each edge of the projected triangle
    corners [3, 2], and their squared lengths [3, N]."""
    offsets = []
    for i in range(3):
        a, b = corners[i], corners[(i + 1) % 3]
        length = ((b - a) ** 2).sum()
        along = (x - a[0]) * (b[0] - a[0]) + (y - a[1]) * (b[1] - a[1])
        t = (along / length).clamp(0.0, 1.0) if length > 0 else torch.zeros_like(along)
        offsets.append(torch.stack([a[0] + t * (b[0] - a[0]) - x, a[1] + t * (b[1] - a[1]) - y], dim=1))
    stacked = torch.stack(offsets)
    return stacked, (stacked**2).sum(2)


def _creased(offsets: torch.Tensor, squared: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Where another edge is as near as the nearest one but for the tolerance, by another point: [N] bool.

    Points closer to each other than the root of the tolerance lie about the end of an edge, where nothing creases."""
    nearest = squared.argmin(0)
    apart = (offsets - offsets[nearest, torch.arange(len(nearest))]).norm(dim=2) > tolerance**0.5
    return (apart & (squared.sqrt() - squared.amin(0).sqrt() <= tolerance)).any(0)


def _takes_part(corners: torch.Tensor) -> bool:
    """Whether a face [3, 4] counts for the soft mask: finite, in front of the camera, not cut by the near plane."""
    w, z = corners[:, 3], corners[:, 2]
    return bool(torch.isfinite(corners).all()) and bool((w > 0).all()) and bool((z >= -w).all())


def soft_mask(
    positions: torch.Tensor,
    faces: np.ndarray,
    face_index: np.ndarray,
    *,
    face_ranges: np.ndarray | None = None,
    sigmainv: float = 7000.0,
    boxlen: float = 0.02,
    knum: int = 30,
    tolerance: float = 0.0,
) -> OracleSoftMask:
    """The paper's soft mask, face by face over all pixels, differentiable in positions [B, V, 4] float64.

    A pixel is ambiguous where one of the faces up to its knum cut has a box border within `tolerance` of the centre."""
    batch, height, width = face_index.shape
    x, y = (torch.from_numpy(centres) for centres in pixel_centres(height, width))
    grid_x, grid_y = x.repeat(height), y.repeat_interleave(width)
    masks, flags, creases = [], [], []
    for b in range(batch):
        covered = torch.from_numpy(face_index[b].ravel() >= 0)
        survival = torch.ones(height * width, dtype=torch.float64)
        slots = torch.zeros(height * width, dtype=torch.int64)
        ambiguous, creased = torch.zeros(2, height * width, dtype=torch.bool)
        start, count = (0, len(faces)) if face_ranges is None else face_ranges[b]
        for f in range(start, start + count):
            corners = positions[b, torch.from_numpy(faces[f].astype(np.int64))]
            if not _takes_part(corners):
                continue
            projected = corners[:, :2] / corners[:, 3:]
            low, high = projected.detach().amin(0) - boxlen, projected.detach().amax(0) + boxlen
            open_slot = (slots < knum) & ~covered
            clearance_x, clearance_y = (torch.stack([c - low[k], high[k] - c]) for k, c in enumerate((x, y)))
            near_x, near_y = ((c.abs() <= tolerance).any(0) for c in (clearance_x, clearance_y))
            within_x, within_y = ((c >= -tolerance).all(0) for c in (clearance_x, clearance_y))
            border = (near_x[None] | near_y[:, None]) & within_x[None] & within_y[:, None]
            ambiguous |= open_slot & border.ravel()
            in_x, in_y = ((x >= low[0]) & (x < high[0])), ((y >= low[1]) & (y < high[1]))
            chosen = torch.nonzero((in_x[None] & in_y[:, None]).ravel() & open_slot)[:, 0]
            if not len(chosen):
                continue
            slots[chosen] += 1
            offsets, squared = _nearest_on_edges(projected, grid_x[chosen], grid_y[chosen])
            creased[chosen] |= _creased(offsets.detach(), squared.detach(), tolerance)
            probability = torch.exp(-sigmainv * squared.amin(0))
            survival = survival.index_put((chosen,), survival[chosen] * (1.0 - probability))
        masks.append(torch.where(covered, 1.0, 1.0 - survival).reshape(height, width))
        flags.append(ambiguous.reshape(height, width).numpy())
        creases.append(creased.reshape(height, width).numpy())
    if not masks:
        nothing = np.zeros((0, height, width), dtype=bool)
        return OracleSoftMask(positions.new_zeros(0, height, width), nothing, nothing)
    return OracleSoftMask(torch.stack(masks), np.stack(flags), np.stack(creases))


def wrap_index(index: np.ndarray, size: int, wrap: str) -> np.ndarray:
    """Texel index of any integer: clamp aaa|abc|ccc, repeat abc|abc|abc, mirror cba|abc|cba."""
    if wrap == "clamp":
        return np.clip(index, 0, size - 1)
    if wrap == "repeat":
        return np.mod(index, size)
    folded = np.mod(index, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def texture(texels: np.ndarray, uv: np.ndarray, *, filter: str = "bilinear", wrap: str = "clamp") -> np.ndarray:
    """Samples texels [B or 1, C, Ht, Wt] at uv [B, H, W, 2]; v = 0 is the top row: [B, H, W, C]. Non-finite uv: 0."""
    batch, height, width, _ = uv.shape
    texel_height, texel_width = texels.shape[2:]
    output = np.zeros((batch, height, width, texels.shape[1]))
    for b in range(batch):
        image = texels[b if texels.shape[0] == batch else 0].astype(np.float64)
        finite = np.isfinite(uv[b]).all(axis=-1)
        u, v = uv[b][finite].astype(np.float64).T
        column, row = u * texel_width, v * texel_height
        if filter == "nearest":
            columns, rows = (np.floor(c).astype(np.int64) for c in (column, row))
            taps = [(rows, columns, np.ones_like(u))]
        else:
            left, top = (np.floor(c - 0.5).astype(np.int64) for c in (column, row))
            right_part, bottom_part = column - 0.5 - left, row - 0.5 - top
            taps = [
                (top, left, (1 - bottom_part) * (1 - right_part)),
                (top, left + 1, (1 - bottom_part) * right_part),
                (top + 1, left, bottom_part * (1 - right_part)),
                (top + 1, left + 1, bottom_part * right_part),
            ]
        sampled = sum(
            weight[:, None] * image[:, wrap_index(rows, texel_height, wrap), wrap_index(columns, texel_width, wrap)].T
            for rows, columns, weight in taps
        )
        output[b][finite] = sampled
    return output


def mip_chain(texels: np.ndarray) -> list[np.ndarray]:
    """The levels of one texture [C, Ht, Wt] in float64. A texel of the next level is the mean of the area it covers,
    read off the integral of the piecewise constant texture."""
    levels = [texels.astype(np.float64)]
    while max(levels[-1].shape[1:]) > 1:
        smaller = levels[-1]
        for axis in (1, 2):
            size = smaller.shape[axis]
            borders = np.linspace(0, size, max(1, size // 2) + 1)
            integral = np.insert(smaller.cumsum(axis=axis), 0, 0, axis=axis)
            lines = np.moveaxis(integral, axis, -1)
            at_borders = np.stack(
                [np.interp(borders, np.arange(size + 1), line) for line in lines.reshape(-1, size + 1)]
            )
            means = np.diff(at_borders, axis=-1) / (borders[1] - borders[0])
            smaller = np.moveaxis(means.reshape(*lines.shape[:-1], -1), -1, axis)
        levels.append(smaller)
    return levels


def trilinear(texels: np.ndarray, uv: np.ndarray, mip_level: np.ndarray, *, wrap: str = "clamp") -> np.ndarray:
    """texels [B or 1, C, Ht, Wt] at uv [B, H, W, 2] and mip levels [B, H, W]: every level sampled everywhere and
    weighted with the hat around it: [B, H, W, C]. A uv that is not finite, or a level that is not a number: 0."""
    images = [texels[b if len(texels) == len(uv) else 0] for b in range(len(uv))]
    chains = [mip_chain(image) for image in images]
    last = len(chains[0]) - 1 if chains else 0
    clamped = np.clip(mip_level.astype(np.float64), 0, last)
    output = np.zeros((*uv.shape[:3], texels.shape[1]))
    for level in range(last + 1):
        hat = np.maximum(0, 1 - np.abs(np.nan_to_num(clamped, nan=-9.0) - level))
        sampled = texture(np.stack([chain[level] for chain in chains]), uv, wrap=wrap)
        output += hat[..., None] * sampled
    return output


def texel_clearance(uv: np.ndarray, texel_height: int, texel_width: int, filter: str) -> np.ndarray:
    """Distance, in texels, of each uv [..., 2] to the nearest border of its cell: [...]. Cells are the texels for
    nearest and the squares between four texel centres for bilinear."""
    shift = 0.0 if filter == "nearest" else 0.5
    scaled = uv.astype(np.float64) * np.array([texel_width, texel_height]) - shift
    return np.abs(scaled - np.round(scaled)).min(axis=-1)
