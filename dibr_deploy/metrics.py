"""How good a prediction is; not differentiable."""

from __future__ import annotations

from torch import Tensor

from .errors import DibrError


def mask_iou(mask: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """Intersection over union of masks [B, H, W] after thresholding, [B]; two empty masks give 1."""
    if mask.shape != target.shape:
        raise DibrError(f"mask_iou: shapes must be the same, but are {list(mask.shape)} and {list(target.shape)}")
    inside, wanted = (mask > threshold).flatten(1), (target > threshold).flatten(1)
    union = (inside | wanted).sum(dim=1)
    return ((inside & wanted).sum(dim=1) + (union == 0)) / union.clamp(min=1)
