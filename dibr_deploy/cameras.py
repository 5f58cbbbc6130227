"""Camera matrices.

Frames: world and view space are right-handed; in view space the camera sits at the origin, x to the right, y up, and
looks along -z. Clip space is OpenGL's: visible where -w <= x, y, z <= w. Matrices are [..., 4, 4] and act on column
vectors, so that ``world_to_clip = perspective(...) @ look_at(...)``. Angles are in radians; lengths in world units.
Every function broadcasts over leading dimensions and is differentiable in every tensor argument.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .errors import DibrError

Scalar = float | Tensor
Vector = tuple[float, float, float] | Tensor


def perspective(fov_y: Scalar, aspect: Scalar = 1.0, near: float = 0.1, far: float = 100.0) -> Tensor:
    """View to clip for a pinhole camera.

    Args:
        fov_y: full vertical opening angle in radians, in (0, pi), [...].
        aspect: width / height of the image, > 0, [...].
        near, far: distances of the clipping planes along -z, 0 < near < far.

    Returns:
        [..., 4, 4]; the dtype of ``fov_y`` where it is a tensor, else the default dtype.

    Raises:
        DibrError: near and far are not 0 < near < far, or a float angle or aspect is outside its range.
    """
    _check_planes(near, far, positive=True)
    _check_interval("fov_y", fov_y, math.pi)
    _check_interval("aspect", aspect, math.inf)
    fov_y, aspect = _broadcast(fov_y, aspect)
    y_scale = 1.0 / torch.tan(fov_y / 2)
    zero, one = torch.zeros_like(y_scale), torch.ones_like(y_scale)
    depth = near - far
    return _matrix(
        [y_scale / aspect, zero, zero, zero],
        [zero, y_scale, zero, zero],
        [zero, zero, one * ((far + near) / depth), one * (2 * far * near / depth)],
        [zero, zero, -one, zero],
    )


def orthographic(half_height: Scalar = 1.0, aspect: Scalar = 1.0, near: float = 0.1, far: float = 100.0) -> Tensor:
    """View to clip for parallel projection: view-space y in [-half_height, half_height] fills the image.

    Args:
        half_height: half the height of what the image shows, in world units, > 0, [...].
        aspect: width / height of the image, > 0, [...].
        near, far: distances of the clipping planes along -z, near < far.

    Returns:
        [..., 4, 4] with w = 1 for every point.

    Raises:
        DibrError: near >= far, or a float half_height or aspect is not positive.
    """
    _check_planes(near, far, positive=False)
    _check_interval("half_height", half_height, math.inf)
    _check_interval("aspect", aspect, math.inf)
    half_height, aspect = _broadcast(half_height, aspect)
    y_scale = 1.0 / half_height
    zero, one = torch.zeros_like(y_scale), torch.ones_like(y_scale)
    depth = near - far
    return _matrix(
        [y_scale / aspect, zero, zero, zero],
        [zero, y_scale, zero, zero],
        [zero, zero, one * (2 / depth), one * ((far + near) / depth)],
        [zero, zero, zero, one],
    )


def look_at(eye: Vector, target: Vector = (0.0, 0.0, 0.0), up: Vector = (0.0, 1.0, 0.0)) -> Tensor:
    """World to view for a camera at ``eye`` that looks towards ``target``.

    Args:
        eye, target: points in world space, [..., 3].
        up: direction in world space that appears upwards in the image, not parallel to the viewing direction, [..., 3].

    Returns:
        [..., 4, 4], a rigid motion. Where ``eye`` is ``target``, or ``up`` is parallel to the viewing direction, the
        matrix is not finite: :func:`orbit` has no such case.
    """
    eye, target, up = _broadcast(eye, target, up)
    backward = _unit(eye - target)
    right = _unit(torch.linalg.cross(up, backward))
    rotation = torch.stack([right, torch.linalg.cross(backward, right), backward], dim=-2)
    return _rigid(rotation, -(rotation @ eye.unsqueeze(-1)))


def orbit(azimuth: Scalar, elevation: Scalar, distance: Scalar, target: Vector = (0.0, 0.0, 0.0)) -> Tensor:
    """World to view for a camera on a sphere around ``target``, world y upwards; regular at the poles too.

    Args:
        azimuth: angle around +y in radians; 0 puts the camera on +z, pi/2 on +x, [...].
        elevation: angle above the xz plane in radians, in [-pi/2, pi/2], [...].
        distance: from the target, world units, > 0, [...].
        target: point in world space, [..., 3].

    Returns:
        [..., 4, 4], a rigid motion.
    """
    azimuth, elevation, distance = _broadcast(azimuth, elevation, distance)
    center = torch.as_tensor(target, dtype=azimuth.dtype, device=azimuth.device)
    sin_a, cos_a, sin_e, cos_e = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    right = torch.stack([cos_a, torch.zeros_like(cos_a), -sin_a], dim=-1)
    up = torch.stack([-sin_e * sin_a, cos_e, -sin_e * cos_a], dim=-1)
    backward = torch.stack([cos_e * sin_a, sin_e, cos_e * cos_a], dim=-1)
    rotation = torch.stack([right, up, backward], dim=-2)
    eye = center + distance.unsqueeze(-1) * backward
    return _rigid(rotation, -(rotation @ eye.unsqueeze(-1)))


def invert_rigid(matrix: Tensor) -> Tensor:
    """The inverse of a rotation followed by a translation, [..., 4, 4]: turns world-to-view into camera-to-world."""
    rotation = matrix[..., :3, :3].mT
    return _rigid(rotation, -(rotation @ matrix[..., :3, 3:]))


def project(vertices: Tensor, world_to_clip: Tensor) -> Tensor:
    """Vertices [B or 1, V, 3] in world space through ``world_to_clip`` [B, 4, 4] to clip space [B, V, 4].

    Differentiable in both. Raises DibrError for any other shape.
    """
    if vertices.dim() != 3 or vertices.shape[-1] != 3:
        raise DibrError(f"project: vertices must have shape [B, V, 3], but has {list(vertices.shape)}")
    if world_to_clip.dim() != 3 or tuple(world_to_clip.shape[-2:]) != (4, 4):
        raise DibrError(f"project: world_to_clip must have shape [B, 4, 4], but has {list(world_to_clip.shape)}")
    if world_to_clip.dtype != vertices.dtype:
        raise DibrError(
            f"project: world_to_clip must have the dtype of vertices, {vertices.dtype}, but has {world_to_clip.dtype}"
        )
    meshes, images = vertices.shape[0], world_to_clip.shape[0]
    if meshes != images and meshes != 1 and images != 1:
        raise DibrError(f"project: vertices and world_to_clip must have the same B, but have {meshes} and {images}")
    return vertices @ world_to_clip[:, :, :3].mT + world_to_clip[:, :, 3].unsqueeze(1)


def _check_planes(near: float, far: float, *, positive: bool) -> None:
    if not near < far or (positive and near <= 0):
        raise DibrError(f"near and far must satisfy {'0 < ' if positive else ''}near < far, but are {near} and {far}")


def _check_interval(name: str, value: Scalar, upper: float) -> None:
    if not isinstance(value, Tensor) and not 0 < value < upper:
        raise DibrError(f"{name} must lie between 0 and {upper:.5g}, but is {value}")


def _broadcast(*values: Scalar | Vector) -> tuple[Tensor, ...]:
    """All as tensors of one shape, with dtype and device of the first that is a tensor already."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    reference = tensors[0] if tensors else torch.zeros(())
    converted = [torch.as_tensor(value, dtype=reference.dtype, device=reference.device) for value in values]
    return torch.broadcast_tensors(*converted)


def _unit(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """[..., 3, 3] and [..., 3, 1] to [..., 4, 4]."""
    upper = torch.cat([rotation, translation], dim=-1)
    bottom = torch.zeros_like(upper[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([upper, bottom], dim=-2)


def _matrix(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
