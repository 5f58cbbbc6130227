"""As ``kaolin.ops.pointcloud``."""

from __future__ import annotations

from torch import Tensor


def center_points(points: Tensor, normalize: bool = False, eps: float = 1e-6) -> Tensor:
    """Points [B, N, 3] with their bounding box centred at 0 and, with ``normalize``, its longest side scaled to 1.

    A longest side that is not above eps counts as eps.
    """
    lowest, highest = points.amin(dim=-2, keepdim=True), points.amax(dim=-2, keepdim=True)
    centred = points - (lowest + highest) / 2
    if not normalize:
        return centred
    return centred / (highest - lowest).amax(dim=-1, keepdim=True).clamp(min=eps)
