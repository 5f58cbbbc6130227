"""As ``kaolin.render.camera``: the cameras that DIB-R uses. The camera looks along -z, y upwards."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate_translate_points(points: Tensor, camera_rot: Tensor, camera_trans: Tensor) -> Tensor:
    """``R (p - T)``: points [B, N, 3] in the frame of cameras with rotation [B, 3, 3] at [B, 3] or [B, 3, 1]."""
    return (points - camera_trans.reshape(-1, 1, 3)) @ camera_rot.mT


def generate_rotate_translate_matrices(
    camera_position: Tensor, look_at: Tensor, camera_up_direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotation [B, 3, 3] and position [B, 3] for :func:`rotate_translate_points`, from [B or 1, 3] each."""
    rotation = torch.stack(_axes(camera_position, look_at, camera_up_direction), dim=-2)
    return rotation, camera_position


def generate_transformation_matrix(camera_position: Tensor, look_at: Tensor, camera_up_direction: Tensor) -> Tensor:
    """The matrix [B, 4, 3] that takes rows (x, y, z, 1) of world space to the camera's, from [B or 1, 3] each."""
    rotation = torch.stack(_axes(camera_position, look_at, camera_up_direction), dim=-1)
    return torch.cat([rotation, -camera_position.unsqueeze(1) @ rotation], dim=1)


def perspective_camera(points: Tensor, camera_proj: Tensor) -> Tensor:
    """Points [B, N, 3] of the camera's frame on the image plane, [B, N, 2], -1 to 1 in the image.

    camera_proj: [3, 1] or [B, 3, 1], of :func:`generate_perspective_projection`.
    """
    scaled = points * camera_proj.reshape(-1, 1, 3)
    return scaled[..., :2] / scaled[..., 2:]


def generate_perspective_projection(fovyangle: float, ratio: float = 1.0, dtype: torch.dtype = torch.float) -> Tensor:
    """Projection [3, 1] for a full vertical angle in radians and an aspect ratio width / height."""
    focal = 1 / math.tan(fovyangle / 2)
    return torch.tensor([[focal / ratio], [focal], [-1.0]], dtype=dtype)


def _axes(position: Tensor, target: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors to the right, upwards and backwards, [B, 3] each."""
    backward = F.normalize(position - target, dim=-1)
    right = F.normalize(torch.linalg.cross(up, backward), dim=-1)
    up_in_image = torch.linalg.cross(backward, right)
    return right, up_in_image, backward.expand_as(right)
