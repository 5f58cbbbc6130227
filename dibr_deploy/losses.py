"""Losses for learning shape and colour from images: scalars, differentiable in their first argument."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DibrError
from .mesh import face_normals


def mask_iou_loss(mask: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - soft intersection over union, averaged over the batch (Chen et al. 2019).

    Args:
        mask, target: [B, H, W] in 0..1. Two empty masks have loss 0.

    Raises:
        DibrError: the shapes differ.
    """
    _check_same_shape("mask_iou_loss", mask, target)
    intersection = (mask * target).flatten(1).sum(dim=1)
    union = (mask + target - mask * target).flatten(1).sum(dim=1)
    return (1 - (intersection + eps) / (union + eps)).mean()


def masked_l1_loss(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of images [B, H, W, C] over the pixels of ``mask`` [B, H, W], weighted by it.

    Raises:
        DibrError: the shapes differ.
    """
    _check_same_shape("masked_l1_loss", image, target)
    _check_same_shape("masked_l1_loss", image[..., 0], mask)
    weight = mask.unsqueeze(-1)
    return ((image - target).abs() * weight).sum() / (mask.sum() * image.shape[-1]).clamp(min=1)


def laplacian_loss(vertices: Tensor, edges: Tensor) -> Tensor:
    """Mean squared length of the uniform Laplacian, v_i - mean of its neighbours (Sorkine 2005).

    Args:
        vertices: [B, V, 3]; the loss has the unit of area.
        edges: each edge once, [E, 2], as ``dibr_deploy.mesh.unique_edges`` gives. A vertex without edges counts as 0.
    """
    return laplacian(vertices, edges).square().sum(dim=-1).mean()


def laplacian(vertices: Tensor, edges: Tensor) -> Tensor:
    """v_i minus the mean of its neighbours, [B, V, 3]; 0 at a vertex without edges."""
    start, end = torch.cat([edges, edges.flip(1)]).unbind(dim=1)
    total = torch.zeros_like(vertices).index_add(1, start, vertices.index_select(1, end))
    degree = torch.bincount(start, minlength=vertices.shape[1]).to(vertices.dtype).unsqueeze(-1)
    return torch.where(degree > 0, vertices - total / degree.clamp(min=1), torch.zeros_like(vertices))


def flattening_loss(vertices: Tensor, faces: Tensor, edge_faces: Tensor) -> Tensor:
    """Mean over edges of (1 - cos a)^2, a the angle between the two faces' normals: 0 where flat (Kato et al. 2018).

    Args:
        vertices: [B, V, 3]; faces: [F, 3], consistently oriented.
        edge_faces: [E, 2] as ``dibr_deploy.mesh.edge_faces`` gives.
    """
    normals = F.normalize(face_normals(vertices, faces), dim=-1, eps=1e-12)
    first, second = (normals.index_select(1, edge_faces[:, side]) for side in range(2))
    return (1 - (first * second).sum(dim=-1)).square().mean()


def edge_length_loss(vertices: Tensor, edges: Tensor, target: float = 0.0) -> Tensor:
    """Mean squared difference of edge lengths from ``target``: vertices [B, V, 3], edges [E, 2]."""
    start, end = (vertices.index_select(1, edges[:, side]) for side in range(2))
    if target == 0:
        return (start - end).square().sum(dim=-1).mean()
    return (torch.linalg.vector_norm(start - end, dim=-1) - target).square().mean()


def _check_same_shape(function: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise DibrError(f"{function}: shapes must be the same, but are {list(first.shape)} and {list(second.shape)}")
