"""How good a prediction is. Masks and voxels are compared after a threshold; the rest is differentiable."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import DibrError
from .points import nearest_distances


def mask_iou(mask: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """Intersection over union of masks [B, H, W] after thresholding, [B]; two empty masks give 1."""
    check_same_shape("mask_iou", mask, target)
    return _iou(mask > threshold, target > threshold)


def voxel_iou(voxels: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of solids as bool voxels [B, R, R, R], [B]; two empty solids give 1.

    ``dibr_deploy.voxels.voxelize`` makes them; both must come from one box and one resolution.

    Raises:
        DibrError: the shapes differ, or they are not bool.
    """
    check_same_shape("voxel_iou", voxels, target)
    if voxels.dtype != torch.bool or target.dtype != torch.bool or voxels.dim() != 4:
        raise DibrError(
            f"voxel_iou: voxels and target must be bool [B, R, R, R], but are {voxels.dtype} {list(voxels.shape)} "
            f"and {target.dtype}"
        )
    return _iou(voxels, target)


def ssim(image: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Tensor:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004), 1 for equal images.

    With local means m, variances v and covariance c under a Gaussian window, C1 = (0.01 L)^2 and C2 = (0.03 L)^2:

        (2 m_x m_y + C1) (2 c + C2) / ((m_x^2 + m_y^2 + C1) (v_x + v_y + C2))

    averaged over channels and over the pixels whose window lies inside the image. The paper takes it of the luminance.

    Args:
        image, target: [B, H, W, C], float.
        window: side of the window in pixels, odd; 11 in the paper.
        sigma: of the Gaussian in pixels; 1.5 in the paper.
        data_range: L, the difference of the largest and the smallest value that images can have.

    Returns:
        [B].

    Raises:
        DibrError: the shapes differ, the window is even, or larger than the image.
    """
    check_same_shape("ssim", image, target)
    if image.dim() != 4:
        raise DibrError(f"ssim: image must be [B, H, W, C], but is {list(image.shape)}")
    if window < 1 or window % 2 == 0 or window > min(image.shape[1:3]):
        raise DibrError(
            f"ssim: window must be odd and no larger than the image of {image.shape[1]} x {image.shape[2]} pixels, "
            f"but is {window}"
        )
    offsets = torch.arange(window, dtype=image.dtype, device=image.device) - window // 2
    weights = torch.softmax(-offsets.square() / (2 * sigma**2), dim=0)
    x, y = (picture.permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(1) for picture in (image, target))
    local = _blurred(torch.cat([x, y, x * x, y * y, x * y], dim=1), weights)
    mean_x, mean_y, square_x, square_y, product = local.unbind(dim=1)
    variances = square_x + square_y - mean_x.square() - mean_y.square()
    covariance = product - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = numerator / ((mean_x.square() + mean_y.square() + c1) * (variances + c2))
    return similarity.unflatten(0, (image.shape[0], image.shape[3])).mean(dim=(1, 2, 3))


def chamfer_distance(points: Tensor, target: Tensor, *, squared: bool) -> Tensor:
    """Mean distance of each point to the nearest of the other set, plus the same the other way round.

    Args:
        points, target: [B, N, 3] and [B, M, 3]; ``dibr_deploy.points.sample_surface`` makes them from a mesh.
        squared: True averages squared distances, as PyTorch3D and Fan et al. (2017) do; False distances. Papers mean
            either: a number says nothing without it.

    Returns:
        [B], in world units, squared or not. Differentiable in both.
    """
    to_target, to_points = nearest_distances(points, target), nearest_distances(target, points)
    if squared:
        to_target, to_points = to_target.square(), to_points.square()
    return to_target.mean(dim=1) + to_points.mean(dim=1)


def f_score(points: Tensor, target: Tensor, *, threshold: float) -> Tensor:
    """Harmonic mean of precision and recall of a surface (Knapitsch et al. 2017; Tatarchenko et al. 2019).

    Precision is the share of ``points`` that lie nearer than ``threshold`` to a point of ``target``, recall the share
    of ``target`` that lies nearer than that to one of ``points``.

    Args:
        points, target: [B, N, 3] and [B, M, 3].
        threshold: distance in world units, > 0.

    Returns:
        [B] in 0..1; 0 where both shares are 0.

    Raises:
        DibrError: a threshold that is not positive.
    """
    if not threshold > 0:
        raise DibrError(f"f_score: threshold must be above 0, but is {threshold}")
    near, reached = nearest_distances(points, target) < threshold, nearest_distances(target, points) < threshold
    precision, recall = near.to(points.dtype).mean(dim=1), reached.to(points.dtype).mean(dim=1)
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / torch.where(total > 0, total, 1.0), 0.0)


def texture_l1(texture: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of textures [B, C, Ht, Wt], [B]."""
    check_same_shape("texture_l1", texture, target)
    return (texture - target).abs().flatten(1).mean(dim=1)


def light_angle(direction: Tensor, target: Tensor) -> Tensor:
    """Angle in degrees, 0 to 180, between directions [B, 3] of any length but zero, [B].

    For a light [B, 4] of ``dibr_deploy.lighting`` pass ``light[:, 1:]``.

    Raises:
        DibrError: another shape, or a direction of length zero.
    """
    check_same_shape("light_angle", direction, target)
    if direction.dim() != 2 or direction.shape[1] != 3:
        raise DibrError(f"light_angle: directions must be [B, 3], but is {list(direction.shape)}")
    if bool((direction == 0).all(dim=1).any() | (target == 0).all(dim=1).any()):
        raise DibrError("light_angle: directions must not be the zero vector")
    across = torch.linalg.vector_norm(torch.linalg.cross(direction, target), dim=1)
    return torch.rad2deg(torch.atan2(across, (direction * target).sum(dim=1)))


def _iou(inside: Tensor, wanted: Tensor) -> Tensor:
    """Of bool tensors [B, ...]."""
    inside, wanted = inside.flatten(1), wanted.flatten(1)
    union = (inside | wanted).sum(dim=1)
    return ((inside & wanted).sum(dim=1) + (union == 0)) / union.clamp(min=1)


def _blurred(maps: Tensor, weights: Tensor) -> Tensor:
    """Maps [N, K, H, W] under the window ``weights x weights``, where it lies inside: [N, K, H - n + 1, W - n + 1]."""
    channels = maps.shape[1]
    column = weights.reshape(1, 1, -1, 1).expand(channels, -1, -1, -1)
    return F.conv2d(F.conv2d(maps, column, groups=channels), column.mT, groups=channels)


def check_same_shape(function: str, first: Tensor, second: Tensor) -> None:
    """Raises DibrError, naming the function, where two tensors differ in shape."""
    if first.shape != second.shape:
        raise DibrError(f"{function}: shapes must be the same, but are {list(first.shape)} and {list(second.shape)}")
