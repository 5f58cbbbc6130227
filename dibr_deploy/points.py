"""Points on surfaces, and how far sets of points are from each other."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import DibrError
from .mesh import face_normals

_PAIRS_AT_ONCE = 1 << 24


def sample_surface(vertices: Tensor, faces: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Points drawn evenly from surfaces: a face by its area, then a point in it (Osada et al. 2002).

    Args:
        vertices: [B, V, 3]; faces: [F, 3], shared by the batch.
        count: N, points per mesh.
        generator: the source of randomness; default torch's global one.

    Returns:
        [B, N, 3], differentiable in vertices for the points drawn.

    Raises:
        DibrError: another shape, no faces, or a surface without area.
    """
    if vertices.dim() != 3 or vertices.shape[-1] != 3:
        raise DibrError(f"sample_surface: vertices must be [B, V, 3], but is {list(vertices.shape)}")
    areas = torch.linalg.vector_norm(face_normals(vertices.detach(), faces), dim=-1)
    if len(faces) == 0 or not bool((areas.sum(dim=1) > 0).all()):
        raise DibrError("sample_surface: every mesh must have faces with area")
    chosen = torch.multinomial(areas, count, replacement=True, generator=generator)
    # sqrt makes the density even: without it points crowd at the first corner.
    spread = torch.rand(len(vertices), count, 2, generator=generator, dtype=vertices.dtype, device=vertices.device)
    away, along = spread[..., :1].sqrt(), spread[..., 1:]
    corners = faces.long()[chosen]
    a, b, c = (vertices.gather(1, corners[..., corner : corner + 1].expand(-1, -1, 3)) for corner in range(3))
    return (1 - away) * a + away * ((1 - along) * b + along * c)


def nearest_distances(points: Tensor, target: Tensor) -> Tensor:
    """Distance of each point [B, N, 3] to the nearest of target [B, M, 3]: [B, N], differentiable in both.

    Raises:
        DibrError: other shapes, or an empty target.
    """
    for name, given in (("points", points), ("target", target)):
        if given.dim() != 3 or given.shape[-1] != 3 or given.shape[1] == 0:
            raise DibrError(
                f"nearest_distances: {name} must be [B, N, 3] with N at least 1, but is {list(given.shape)}"
            )
    if len(points) != len(target):
        raise DibrError(
            f"nearest_distances: points and target must have the same B, but have {len(points)} and {len(target)}"
        )
    with torch.no_grad():
        rows = max(1, _PAIRS_AT_ONCE // (max(1, len(points)) * target.shape[1]))
        # The faster way of cdist, by a matrix product, loses the digits of small distances.
        mode = "donot_use_mm_for_euclid_dist"
        nearest = torch.cat(
            [torch.cdist(part, target, compute_mode=mode).argmin(dim=-1) for part in points.split(rows, dim=1)], dim=1
        )
    return torch.linalg.vector_norm(points - target.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 3)), dim=-1)
