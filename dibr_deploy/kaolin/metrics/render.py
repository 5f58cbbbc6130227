"""As ``kaolin.metrics.render``."""

from __future__ import annotations

from torch import Tensor

from ...errors import DibrError


def mask_iou(lhs_mask: Tensor, rhs_mask: Tensor) -> Tensor:
    """The *loss* 1 - intersection over union of masks [B, H, W], averaged over the batch. Two empty masks give 1.

    ``dibr_deploy.losses.mask_iou_loss`` gives 0 for these.

    Raises:
        DibrError: the shapes differ.
    """
    if lhs_mask.dim() != 3 or lhs_mask.shape != rhs_mask.shape:
        raise DibrError(
            f"mask_iou: lhs_mask and rhs_mask must have one shape [B, H, W], "
            f"but are {list(lhs_mask.shape)} and {list(rhs_mask.shape)}"
        )
    shared = lhs_mask * rhs_mask
    union = lhs_mask + rhs_mask - shared
    return 1 - (shared.flatten(1).sum(dim=1) / (union.flatten(1).sum(dim=1) + 1e-10)).mean()
