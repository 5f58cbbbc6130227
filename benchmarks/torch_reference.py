"""The ops in plain vectorised torch: the yardstick of the benchmark.

It does what a careful user would write without native code. Every face asks the pixels in its bounding box only; all
(face, pixel) pairs are made at once, in chunks, and reduced with scatter operations; autograd differentiates what is
left of them. It is no brute force over all pixels and faces. It does less than the ops do: no clipping and no w <= 0,
no face_ranges or face_valid, ties broken by the rounding of its own depth, and it is meant for one image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

PAIRS_PER_CHUNK = 1 << 21


def _pairs(low: Tensor, high: Tensor, height: int, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks (face, row, column) of all pairs of a face and a pixel centre in its box low..high [F, 2] NDC, by face."""
    extent = torch.tensor([width, height])
    first_x, last_x = ((bound[:, 0] * width + width - 1) / 2 for bound in (low, high))
    first_y, last_y = ((height - 1 - bound[:, 1] * height) / 2 for bound in (high, low))
    first = torch.stack([first_x, first_y], 1).ceil().long().clamp(min=0)
    last = torch.minimum(torch.stack([last_x, last_y], 1).floor().long(), extent - 1)
    span = (last - first + 1).clamp(min=0)
    counts = span[:, 0] * span[:, 1]
    ends = counts.cumsum(0)
    start = 0
    while start < len(counts):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + PAIRS_PER_CHUNK, right=True)))
        face = torch.repeat_interleave(torch.arange(start, stop), counts[start:stop])
        local = torch.arange(len(face)) - (ends - counts)[face] + done
        yield face, first[face, 1] + local // span[face, 0], first[face, 0] + local % span[face, 0]
        start = stop


def _centres(row: Tensor, column: Tensor, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return (2 * column + 1 - width).to(dtype) / width, (height - 2 * row - 1).to(dtype) / height


def _cross(a: Tensor, b: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Twice the signed area of the triangles (x, y), a [N, 2], b [N, 2]."""
    return (a[:, 0] - x) * (b[:, 1] - y) - (a[:, 1] - y) * (b[:, 0] - x)


def _areas(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Twice the signed areas [N, 3] opposite to each corner of the projected triangles [N, 3, 2]."""
    a, b, c = corners.unbind(1)
    return torch.stack([_cross(b, c, x, y), _cross(c, a, x, y), _cross(a, b, x, y)], dim=1)


def rasterize(positions: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """face_index [H, W], perspective-correct barycentrics [H, W, 3] and depth [H, W] of positions [V, 4].

    Faces that are clockwise on the screen are dropped."""
    with torch.no_grad():
        face_index = _nearest_faces(positions, faces, height, width)
    pixel = torch.nonzero(face_index >= 0)[:, 0]
    corners = positions[faces[face_index[pixel]]]
    projected = corners[..., :2] / corners[..., 3:]
    x, y = _centres(pixel // width, pixel % width, height, width, positions.dtype)
    areas = _areas(projected, x, y)
    screen = areas / areas.sum(1, keepdim=True)
    depth_values = (screen * corners[..., 2] / corners[..., 3]).sum(1)
    weights = screen / corners[..., 3]
    weights = weights / weights.sum(1, keepdim=True)
    barycentrics = positions.new_zeros(height * width, 3).index_put((pixel,), weights)
    depth = positions.new_ones(height * width).index_put((pixel,), depth_values)
    return face_index.reshape(height, width), barycentrics.reshape(height, width, 3), depth.reshape(height, width)


def _nearest_faces(positions: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """face_index [H * W] int64 through a depth buffer filled by scatter_reduce."""
    corners = positions[faces]
    projected, depths = corners[..., :2] / corners[..., 3:], corners[..., 2] / corners[..., 3]
    turn = _cross(*projected.unbind(1)[1:], *projected[:, 0].unbind(1))
    drawn = torch.nonzero(turn > 0)[:, 0]
    low, high = projected[drawn].amin(1), projected[drawn].amax(1)
    hits = []
    for index, row, column in _pairs(low, high, height, width):
        face = drawn[index]
        x, y = _centres(row, column, height, width, positions.dtype)
        areas = _areas(projected[face], x, y)
        inside = (areas >= 0).all(1) & (areas > 0).any(1)
        face, pixel, areas = face[inside], (row * width + column)[inside], areas[inside]
        depth = (areas * depths[face]).sum(1) / areas.sum(1)
        visible = depth.abs() <= 1
        hits.append((face[visible], pixel[visible], depth[visible]))
    face, pixel, depth = (torch.cat(part) for part in zip(*hits, strict=True))
    nearest = depth.new_full((height * width,), torch.inf).scatter_reduce(0, pixel, depth, "amin")
    winner = depth == nearest[pixel]
    none = len(faces)
    lowest = torch.full((height * width,), none).scatter_reduce(0, pixel[winner], face[winner], "amin")
    return torch.where(lowest == none, -1, lowest)


def interpolate(attributes: Tensor, faces: Tensor, face_index: Tensor, barycentrics: Tensor) -> Tensor:
    """[H, W, D] of attributes [V, D]."""
    corners = attributes[faces[face_index.clamp(min=0)]]
    return (corners * barycentrics[..., None]).sum(2) * (face_index >= 0)[..., None]


def soft_mask(
    positions: Tensor, faces: Tensor, face_index: Tensor, sigmainv: float, boxlen: float, knum: int
) -> Tensor:
    """[H, W]; the product over faces is a sum of logarithms, kept off zero by the smallest step of 1."""
    height, width = face_index.shape
    corners = positions[faces]
    projected = corners[..., :2] / corners[..., 3:]
    background = face_index.ravel() < 0
    with torch.no_grad():
        chosen = []
        for face, row, column in _pairs(projected.amin(1) - boxlen, projected.amax(1) + boxlen, height, width):
            pixel = row * width + column
            keep = background[pixel]
            chosen.append((face[keep], pixel[keep]))
        face, pixel = (torch.cat(part) for part in zip(*chosen, strict=True))
        pixel, order = torch.sort(pixel, stable=True)
        face = face[order]
        _, counts = torch.unique_consecutive(pixel, return_counts=True)
        rank = torch.arange(len(pixel)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        face, pixel = face[rank < knum], pixel[rank < knum]
    x, y = _centres(pixel // width, pixel % width, height, width, positions.dtype)
    squared = _squared_distances(projected[face], x, y)
    missing = (-torch.expm1(-sigmainv * squared)).clamp(min=torch.finfo(positions.dtype).eps)
    log_survival = positions.new_zeros(height * width).index_add(0, pixel, missing.log())
    return torch.where(background, -torch.expm1(log_survival), 1.0).reshape(height, width)


def _squared_distances(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[N] from the points (x, y) to the boundaries of the triangles [N, 3, 2]."""
    candidates = []
    for i in range(3):
        a, b = corners[:, i], corners[:, (i + 1) % 3]
        edge, offset = b - a, torch.stack([x, y], 1) - a
        length = (edge * edge).sum(1).clamp(min=1e-30)
        t = ((offset * edge).sum(1) / length).clamp(0, 1)
        candidates.append(((offset - t[:, None] * edge) ** 2).sum(1))
    return torch.stack(candidates).amin(0)


def texture(texels: Tensor, uv: Tensor) -> Tensor:
    """[B, H, W, C], bilinear, clamped: torch's own native grid_sample."""
    sampled = torch.nn.functional.grid_sample(texels, 2 * uv - 1, padding_mode="border", align_corners=False)
    return sampled.permute(0, 2, 3, 1)
