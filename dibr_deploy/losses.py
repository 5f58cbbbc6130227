"""Losses for learning shape and colour from images: scalars, differentiable in their first argument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import DibrError
from .mesh import face_normals, unit
from .metrics import check_same_shape, ssim


def mask_iou_loss(mask: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - soft intersection over union, averaged over the batch (Chen et al. 2019).

    Args:
        mask, target: [B, H, W] in 0..1. Two empty masks have loss 0.

    Raises:
        DibrError: the shapes differ.
    """
    check_same_shape("mask_iou_loss", mask, target)
    intersection = (mask * target).flatten(1).sum(dim=1)
    union = (mask + target - mask * target).flatten(1).sum(dim=1)
    return (1 - (intersection + eps) / (union + eps)).mean()


def masked_l1_loss(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of images [B, H, W, C] over the pixels of ``mask`` [B, H, W], weighted by it.

    Raises:
        DibrError: the shapes differ.
    """
    check_same_shape("masked_l1_loss", image, target)
    check_same_shape("masked_l1_loss", image[..., 0], mask)
    weight = mask.unsqueeze(-1)
    return ((image - target).abs() * weight).sum() / (mask.sum() * image.shape[-1]).clamp(min=1)


def shading_loss(image: Tensor, target: Tensor, mask: Tensor, eps: float = 1e-6) -> Tensor:
    """1 - correlation of brightness over the pixels of a mask, averaged over the batch: 0 to 2.

    It asks where an image is bright and where it is dark, not how much, so it tells from which side light comes before
    anybody knows how strong it is; the mean difference of colours first puts out a light that is not sure of its side.

    Args:
        image, target: [B, H, W, C]; brightness is the mean over C. One of a single brightness has the loss 1.
        mask: [B, H, W] weights >= 0.
        eps: added to the product of the variances, so that the gradient stays finite.

    Raises:
        DibrError: the shapes differ.
    """
    check_same_shape("shading_loss", image, target)
    check_same_shape("shading_loss", image[..., 0], mask)
    weights = mask / mask.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum(dim=(1, 2), keepdim=True)

    own, wanted = (part - mean(part) for part in (image.mean(dim=-1), target.mean(dim=-1)))
    correlation = mean(own * wanted) / (mean(own.square()) * mean(wanted.square()) + eps).sqrt()
    return 1 - correlation.mean()


def l1_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of images or textures of one shape.

    Raises:
        DibrError: the shapes differ.
    """
    check_same_shape("l1_loss", image, target)
    return (image - target).abs().mean()


def ssim_loss(
    image: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0
) -> Tensor:
    """1 - structural similarity, averaged over the batch: 0 for equal images. See ``dibr_deploy.metrics.ssim``."""
    return 1 - ssim(image, target, window=window, sigma=sigma, data_range=data_range).mean()


def perceptual_loss(features: Callable[[Tensor], Tensor | Sequence[Tensor]], image: Tensor, target: Tensor) -> Tensor:
    """Distance of images in the features of a network that the caller brings (Johnson et al. 2016).

    Args:
        features: takes images [B, C, H, W] and returns one or more feature tensors; it does what normalisation its
            network wants. Its parameters get gradients too unless the caller freezes them.
        image, target: [B, H, W, C]. No gradient flows to the target.

    Returns:
        The mean over the feature tensors of their mean squared difference.

    Raises:
        DibrError: the shapes differ.
    """
    check_same_shape("perceptual_loss", image, target)
    actual = _feature_list(features(image.permute(0, 3, 1, 2)))
    with torch.no_grad():
        wanted = _feature_list(features(target.permute(0, 3, 1, 2)))
    return torch.stack([(a - b).square().mean() for a, b in zip(actual, wanted, strict=True)]).mean()


def multi_view_loss(
    render: Callable[[Tensor], Any],
    world_to_clip: Tensor,
    images: Tensor,
    masks: Tensor,
    *,
    mask_weight: float = 1.0,
    color_weight: float = 1.0,
) -> Tensor:
    """One prediction seen from several sides (Chen et al. 2019, section 4): the input's view and second views.

    A shape that only looks right from its own camera is wrong from a second one; the mean over the views of
    ``mask_weight * mask_iou_loss + color_weight * l1_loss`` says so.

    Args:
        render: a camera [B, 4, 4] to something with ``.image`` [B, H, W, C] and ``.mask`` [B, H, W] of B predictions,
            for example ``lambda camera: renderer(vertices, faces, camera, ...)``.
        world_to_clip: [N, B, 4, 4], N views of each.
        images, masks: what they show, [N, B, H, W, C] and [N, B, H, W].

    Raises:
        DibrError: no view, or not as many cameras as images and masks.
    """
    views = len(world_to_clip)
    if views == 0 or len(images) != views or len(masks) != views:
        raise DibrError(
            "multi_view_loss: world_to_clip, images and masks must have the same number of views, at least 1, "
            f"but have {views}, {len(images)} and {len(masks)}"
        )
    total = []
    for camera, image, mask in zip(world_to_clip, images, masks, strict=True):
        seen = render(camera)
        total.append(mask_weight * mask_iou_loss(seen.mask, mask) + color_weight * l1_loss(seen.image, image))
    return torch.stack(total).mean()


def laplacian_loss(vertices: Tensor, edges: Tensor) -> Tensor:
    """Mean squared length of the uniform Laplacian, v_i - mean of its neighbours (Sorkine 2005).

    Args:
        vertices: [B, V, 3]; the loss has the unit of area.
        edges: each edge once, [E, 2], as ``dibr_deploy.mesh.unique_edges`` gives. A vertex without edges counts as 0.
    """
    return laplacian(vertices, edges).square().sum(dim=-1).mean()


def laplacian(vertices: Tensor, edges: Tensor) -> Tensor:
    """v_i minus the mean of its neighbours, [B, V, 3]; 0 at a vertex without edges."""
    _check_vertices("laplacian", vertices, "edges", edges)
    start, end = torch.cat([edges, edges.flip(1)]).unbind(dim=1)
    total = torch.zeros_like(vertices).index_add(1, start, vertices.index_select(1, end))
    degree = vertices.new_zeros(vertices.shape[1]).index_add(0, start, vertices.new_ones(len(start))).unsqueeze(-1)
    return torch.where(degree > 0, vertices - total / degree.clamp(min=1), torch.zeros_like(vertices))


def flattening_loss(vertices: Tensor, faces: Tensor, edge_faces: Tensor) -> Tensor:
    """Mean over edges of (1 - cos a)^2, a the angle between the two faces' normals: 0 where flat (Kato et al. 2018).

    Args:
        vertices: [B, V, 3]; faces: [F, 3], consistently oriented. One without area has the normal 0 and no gradient.
        edge_faces: [E, 2] as ``dibr_deploy.mesh.edge_faces`` gives.
    """
    _check_vertices("flattening_loss", vertices, "edge_faces", edge_faces)
    normals = unit(face_normals(vertices, faces))
    first, second = (normals.index_select(1, edge_faces[:, side]) for side in range(2))
    return (1 - (first * second).sum(dim=-1)).square().mean()


def edge_length_loss(vertices: Tensor, edges: Tensor, target: float = 0.0) -> Tensor:
    """Mean squared difference of edge lengths from ``target``: vertices [B, V, 3], edges [E, 2]."""
    _check_vertices("edge_length_loss", vertices, "edges", edges)
    start, end = (vertices.index_select(1, edges[:, side]) for side in range(2))
    if target == 0:
        return (start - end).square().sum(dim=-1).mean()
    return (torch.linalg.vector_norm(start - end, dim=-1) - target).square().mean()


def _feature_list(features: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [features] if isinstance(features, Tensor) else list(features)


def _check_vertices(function: str, vertices: Tensor, name: str, pairs: Tensor) -> None:
    if vertices.dim() != 3 or vertices.shape[-1] != 3:
        raise DibrError(f"{function}: vertices must be [B, V, 3], but is {list(vertices.shape)}")
    if pairs.dim() != 2 or pairs.shape[-1] != 2:
        raise DibrError(f"{function}: {name} must be [E, 2], but is {list(pairs.shape)}")
