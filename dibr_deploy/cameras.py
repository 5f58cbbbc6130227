"""Camera matrices, and the same cameras in the conventions of OpenCV, PyTorch3D and OpenGL.

Frames: world and view space are right-handed; in view space the camera sits at the origin, x to the right, y up, and
looks along -z. Clip space is OpenGL's: visible where -w <= x, y, z <= w. Matrices are [..., 4, 4] and act on column
vectors, so that ``world_to_clip = perspective(...) @ look_at(...)``. Angles are in radians; lengths in world units.
Every function broadcasts over leading dimensions and is differentiable in every tensor argument.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DibrError
from .mesh import unit

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
        DibrError: near and far are not 0 < near < far, or an angle or aspect is outside its range. In a trace, and on
            another device than the CPU, tensors' values are not asked for.
    """
    _check_planes(near, far, positive=True)
    _check_interval("fov_y", fov_y, math.pi)
    _check_interval("aspect", aspect, math.inf)
    fov_y, aspect = _broadcast(fov_y=fov_y, aspect=aspect)
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
        DibrError: near >= far, or half_height or aspect is not positive; tensors as in :func:`perspective`.
    """
    _check_planes(near, far, positive=False)
    _check_interval("half_height", half_height, math.inf)
    _check_interval("aspect", aspect, math.inf)
    half_height, aspect = _broadcast(half_height=half_height, aspect=aspect)
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
        [..., 4, 4], a rigid motion.

    Raises:
        DibrError: ``eye`` is ``target``, or ``up`` is parallel to the viewing direction; :func:`orbit` has no such
            case. In a trace, where values cannot be asked for, the matrix is not finite instead. The first of them
            that is a tensor is one of integers.
    """
    eye, target, up = _broadcast(eye=eye, target=target, up=up)
    backward = _unit(eye - target)
    _check_finite("look_at: eye and target must be two points", backward)
    right = _unit(torch.linalg.cross(up, backward))
    _check_finite("look_at: up must not be zero or parallel to the viewing direction; orbit() has no such case", right)
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

    Raises:
        DibrError: distance is not positive; tensors as in :func:`perspective`.
    """
    _check_interval("distance", distance, math.inf)
    azimuth, elevation, distance = _broadcast(azimuth=azimuth, elevation=elevation, distance=distance)
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


def viewer(world_to_clip: Tensor) -> Tensor:
    """Where the viewer is, from the matrix alone, in homogeneous coordinates of world space.

    Args:
        world_to_clip: [..., 4, 4], invertible.

    Returns:
        [..., 4] (x, y, z, w) of any scale: a perspective camera is at (x, y, z) / w with w > 0; w = 0 is a parallel
        projection, seen from the direction (x, y, z). It is the null vector of the matrix's rows x, y and w, signed so
        that it lies before the near plane. ``(x, y, z) - w p`` points from p towards the viewer in both cases.
    """
    a, b, depth, c = (world_to_clip[..., row, :3] for row in range(4))
    a_last, b_last, depth_last, c_last = (world_to_clip[..., row, 3:] for row in range(4))
    crosses = [torch.linalg.cross(first, second, dim=-1) for first, second in ((b, c), (c, a), (a, b))]
    point = -(a_last * crosses[0] + b_last * crosses[1] + c_last * crosses[2])
    weight = (a * crosses[0]).sum(dim=-1, keepdim=True)
    ahead = (depth * point).sum(dim=-1, keepdim=True) + depth_last * weight
    return torch.where(ahead > 0, -1.0, 1.0) * torch.cat([point, weight], dim=-1)


def view_axes(world_to_clip: Tensor) -> Tensor:
    """The axes of a camera, from the matrix alone: it turns directions of world space into those of view space.

    The axis of view is the normal of the near plane (the sum of the rows z and w), and what the rows y and x have
    beside it points up and to the right (Gram-Schmidt): a lens that is not centred or not square changes nothing. The
    third axis is the product of the others, so the result is a rotation also where a matrix mirrors depth: that of the
    identity is the identity.

    Args:
        world_to_clip: [..., 4, 4], a projection times a rigid motion, perspective or parallel.

    Returns:
        [..., 3, 3], rows to the right, up and towards the viewer, each a unit vector in world space. Its transpose
        turns directions of view space into those of world space. Rows are zero where the matrix has no such axis.
    """
    x, y, z, w = world_to_clip[..., :3].unbind(dim=-2)
    axis = unit(z + w)
    up = unit(_beside(y, axis))
    right = unit(_beside(_beside(x, axis), up))
    return torch.stack([right, up, torch.linalg.cross(right, up, dim=-1)], dim=-2)


def split_projection(world_to_clip: Tensor) -> tuple[Tensor, Tensor]:
    """``world_to_view`` and ``view_to_clip`` of a perspective camera, [..., 4, 4] each, whose product is the matrix.

    The first is a rigid motion, with the axes of :func:`view_axes` at the place of :func:`viewer`; the second has what
    the lens does: where the matrix comes from :func:`from_opencv`, its K in units of the image. Differentiable.

    Args:
        world_to_clip: [..., 4, 4], a perspective projection times a rigid motion; not mirrored.

    Raises:
        DibrError: a parallel projection, which is seen from no place. In a trace values are not asked for.
    """
    if _has_values(world_to_clip) and bool((world_to_clip[..., 3, :3] == 0).all(dim=-1).any()):
        raise DibrError("split_projection: world_to_clip must be a perspective projection, but is a parallel one")
    place = viewer(world_to_clip)
    eye = place[..., :3] / place[..., 3:]
    rotation = view_axes(world_to_clip)
    world_to_view = _rigid(rotation, -(rotation @ eye.unsqueeze(-1)))
    return world_to_view, world_to_clip @ invert_rigid(world_to_view)


def from_opencv(
    intrinsics: Tensor,
    rotation: Tensor,
    translation: Tensor,
    height: int,
    width: int,
    near: float = 0.1,
    far: float = 100.0,
    *,
    first_center: float = 0.0,
) -> Tensor:
    """World to clip from a calibrated camera as OpenCV describes it: ``pixel ~ K (R x + t)``.

    OpenCV's camera looks along +z with x to the right and y down; pixels are counted from the top left. A lens
    distortion must have been taken out of the image before.

    Args:
        intrinsics: K, [..., 3, 3] = [[fx, skew, cx], [0, fy, cy], [0, 0, 1]], in pixels of this image size.
        rotation: R, world to camera, [..., 3, 3]; ``cv2.Rodrigues`` makes it from a rotation vector.
        translation: t, world to camera, [..., 3] or [..., 3, 1], world units.
        height, width: of the image in pixels.
        near, far: distances of the clipping planes along the viewing direction, 0 < near < far.
        first_center: coordinate of the first pixel's centre: 0 in OpenCV; 0.5 where pixels are counted from the
            image's corner, as COLMAP and PyTorch3D do.

    Returns:
        [..., 4, 4].

    Raises:
        DibrError: another shape, no common leading dimensions, integers, different dtypes, sizes below 1, or planes
            that are not 0 < near < far.
    """
    _check_planes(near, far, positive=True)
    _check_image_size("from_opencv", height, width)
    for name, matrix in (("intrinsics", intrinsics), ("rotation", rotation)):
        if tuple(matrix.shape[-2:]) != (3, 3):
            raise DibrError(f"from_opencv: {name} must be [..., 3, 3], but is {list(matrix.shape)}")
    translation = translation if translation.shape[-1] == 1 and translation.dim() > 1 else translation.unsqueeze(-1)
    if translation.shape[-2] != 3:
        raise DibrError(f"from_opencv: translation must be [..., 3], but is {list(translation.squeeze(-1).shape)}")
    _check_same_kind("from_opencv", intrinsics=intrinsics, rotation=rotation, translation=translation)
    # Row i of K gives the pixel coordinate times the depth; NDC is linear in it.
    shift = 1 - 2 * first_center
    across, down, depth = intrinsics.unbind(dim=-2)
    zero = torch.zeros_like(depth)
    camera_to_clip = torch.stack(
        [
            (2 * across + (shift - width) * depth) / width,
            ((height - shift) * depth - 2 * down) / height,
            (far + near) / (far - near) * depth,
            depth,
        ],
        dim=-2,
    )
    offset = torch.stack(
        [zero[..., 0], zero[..., 0], zero[..., 0] - 2 * far * near / (far - near), zero[..., 0]], dim=-1
    )
    linear, moved = camera_to_clip @ rotation, camera_to_clip @ translation
    return _beside_each_other(linear, moved + offset.unsqueeze(-1))


class PyTorch3DCamera(NamedTuple):
    """A camera as PyTorch3D's ``PerspectiveCameras`` takes it with ``in_ndc=True``.

    PyTorch3D's view space has x to the *left*, y up and z *away* from the viewer; row vectors: ``x_view = x R + T``.
    Its NDC have x to the left and y up, and -1 to 1 spans the *shorter* side of the image.
    """

    R: Tensor
    """[..., 3, 3]."""
    T: Tensor
    """[..., 3], world units."""
    focal_length: Tensor
    """[..., 2], along x and y, in NDC units."""
    principal_point: Tensor
    """[..., 2], in NDC units."""


def to_pytorch3d(world_to_view: Tensor, view_to_clip: Tensor, height: int, width: int) -> PyTorch3DCamera:
    """A perspective camera for PyTorch3D.

    Args:
        world_to_view: rigid, [..., 4, 4], for example of :func:`look_at`.
        view_to_clip: [..., 4, 4] with w = -z and no skew, for example of :func:`perspective`. PyTorch3D has no near and
            far plane here: they are dropped. :func:`split_projection` makes both of a whole ``world_to_clip``.
        height, width: of the image in pixels.

    Raises:
        DibrError: sizes below 1, a projection with another w (a parallel one has w = 1), with skew, or with a shift
            that does not grow with the distance. In a trace, values are not asked for.
    """
    _check_image_size("to_pytorch3d", height, width)
    _check_pinhole(world_to_view, view_to_clip)
    across, up = width / min(height, width), height / min(height, width)
    flip = world_to_view.new_tensor([-1.0, 1.0, -1.0])
    return PyTorch3DCamera(
        R=(flip.unsqueeze(-1) * world_to_view[..., :3, :3]).mT,
        T=flip * world_to_view[..., :3, 3],
        focal_length=torch.stack([across * view_to_clip[..., 0, 0], up * view_to_clip[..., 1, 1]], dim=-1),
        principal_point=torch.stack([across * view_to_clip[..., 0, 2], -up * view_to_clip[..., 1, 2]], dim=-1),
    )


def from_pytorch3d(
    camera: PyTorch3DCamera, height: int, width: int, near: float = 0.1, far: float = 100.0
) -> tuple[Tensor, Tensor]:
    """``world_to_view`` and ``view_to_clip``, [..., 4, 4] each, of a camera of PyTorch3D.

    Args:
        camera: R, T, focal_length and principal_point, in NDC. For ``FoVPerspectiveCameras`` the focal length of both
            axes is 1 / tan(fov / 2) and the principal point 0, where its aspect_ratio is 1.
        height, width: of the image in pixels.
        near, far: distances of the clipping planes, 0 < near < far.
    """
    _check_planes(near, far, positive=True)
    _check_image_size("from_pytorch3d", height, width)
    across, up = width / min(height, width), height / min(height, width)
    flip = camera.R.new_tensor([-1.0, 1.0, -1.0])
    world_to_view = _rigid(flip.unsqueeze(-1) * camera.R.mT, (flip * camera.T).unsqueeze(-1))
    scale, shift = torch.broadcast_tensors(camera.focal_length, camera.principal_point)
    (x_scale, y_scale), (x_shift, y_shift) = scale.unbind(dim=-1), shift.unbind(dim=-1)
    zero, one, depth = torch.zeros_like(x_scale), torch.ones_like(x_scale), near - far
    view_to_clip = _matrix(
        [x_scale / across, zero, x_shift / across, zero],
        [zero, y_scale / up, -y_shift / up, zero],
        [zero, zero, one * ((far + near) / depth), one * (2 * far * near / depth)],
        [zero, zero, -one, zero],
    )
    return world_to_view, view_to_clip


def to_opengl(matrix: Tensor) -> Tensor:
    """A matrix [..., 4, 4] as the 16 numbers that OpenGL reads, column by column: [..., 16].

    View space and clip space are OpenGL's already. What differs is the memory order, and that OpenGL's images have
    row 0 at the bottom: flip the rows of what ``glReadPixels`` returns.
    """
    return matrix.mT.flatten(-2)


def from_opengl(numbers: Tensor) -> Tensor:
    """The matrix [..., 4, 4] of 16 numbers in OpenGL's order, column by column: [..., 16].

    Raises:
        DibrError: the last dimension is not 16.
    """
    if numbers.shape[-1:] != (16,):
        raise DibrError(f"from_opengl: numbers must be [..., 16], but is {list(numbers.shape)}")
    return numbers.unflatten(-1, (4, 4)).mT


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
    if isinstance(value, Tensor):
        inside = (value > 0) & (value < upper)
        if _holds(inside):
            return
        value = float(value[~inside][0])
    if not 0 < value < upper:
        raise DibrError(f"{name} must lie between 0 and {upper:.5g}, but is {value}")


def _check_image_size(function: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise DibrError(f"{function}: height and width must be at least 1, but are {height} and {width}")


def _check_same_kind(function: str, **matrices: Tensor) -> None:
    """Raises where matrices [..., R, C] differ in dtype, are not floating or have leading dimensions that differ."""
    first, *_ = matrices
    for name, matrix in matrices.items():
        if not matrix.is_floating_point():
            raise DibrError(f"{function}: {name} must be floating point, but is {matrix.dtype}")
        if matrix.dtype != matrices[first].dtype:
            wanted = matrices[first].dtype
            raise DibrError(f"{function}: {name} must have the dtype of {first}, {wanted}, but has {matrix.dtype}")
    leading = {name: matrix.shape[:-2] for name, matrix in matrices.items()}
    try:
        torch.broadcast_shapes(*leading.values())
    except RuntimeError as error:
        shapes = ", ".join(f"{list(shape)} of {name}" for name, shape in leading.items())
        raise DibrError(f"{function}: leading dimensions must broadcast, but are {shapes}") from error


_ROUNDING = 1e-5


def _check_pinhole(world_to_view: Tensor, view_to_clip: Tensor) -> None:
    """Raises where a projection, [..., 4, 4], is more than focal lengths and a principal point, but for rounding.

    Entries of its last column are compared with those of the others times the camera's distance.
    """
    if not _has_values(view_to_clip):
        return
    distance = torch.linalg.vector_norm(world_to_view[..., :3, 3], dim=-1).clamp(min=1)
    view_to_clip, distance = torch.broadcast_tensors(view_to_clip, distance[..., None, None])
    lens = torch.cat([view_to_clip[..., :3], view_to_clip[..., 3:] / distance[..., 3:]], dim=-1)
    x, y, w = (lens[..., row, :] for row in (0, 1, 3))
    off = (w - w.new_tensor([0.0, 0.0, -1.0, 0.0])).abs().amax(dim=-1)
    if bool((off > _ROUNDING).any()):
        last = view_to_clip[..., 3, :].reshape(-1, 4)[off.argmax()].tolist()
        raise DibrError(
            "to_pytorch3d: view_to_clip must be a perspective projection with w = -z, its last row [0, 0, -1, 0], "
            f"but its last row is {last}"
        )
    for name, part, focal in (
        ("skew", x[..., 1], x[..., 0]),
        ("skew", y[..., 0], y[..., 1]),
        ("shift in x", x[..., 3], x[..., 0]),
        ("shift in y", y[..., 3], y[..., 1]),
    ):
        if bool((part.abs() > _ROUNDING * focal.abs()).any()):
            raise DibrError(f"to_pytorch3d: view_to_clip must have no {name}, but has one of {float(part.abs().max())}")


def _has_values(tensor: Tensor) -> bool:
    return tensor.device.type != "meta" and not torch.compiler.is_compiling()


def _check_finite(sentence: str, vector: Tensor) -> None:
    if not _holds(torch.isfinite(vector)):
        raise DibrError(sentence)


def _holds(condition: Tensor) -> bool:
    """Whether all is true; also where values cannot be asked for: on another device than the CPU, and in a trace."""
    if condition.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    try:
        return bool(condition.all())
    except RuntimeError:  # torch.vmap
        return True


def _broadcast(**values: Scalar | Vector) -> tuple[Tensor, ...]:
    """All as tensors of one shape, with dtype and device of the first that is a tensor already."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    name, reference = next(iter(tensors.items()), ("", torch.zeros(())))
    if not reference.is_floating_point():
        raise DibrError(f"{name} must be floating point, but is {reference.dtype}")
    converted = [torch.as_tensor(value, dtype=reference.dtype, device=reference.device) for value in values.values()]
    return torch.broadcast_tensors(*converted)


def _beside(vector: Tensor, axis: Tensor) -> Tensor:
    """What of a vector is perpendicular to a unit vector, [..., 3]."""
    return vector - (vector * axis).sum(dim=-1, keepdim=True) * axis


def _unit(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def _rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """[..., 3, 3] and [..., 3, 1] to [..., 4, 4]."""
    upper = _beside_each_other(rotation, translation)
    bottom = torch.zeros_like(upper[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([upper, bottom], dim=-2)


def _beside_each_other(matrix: Tensor, column: Tensor) -> Tensor:
    """[..., R, 3] and [..., R, 1], whose leading dimensions broadcast, to [..., R, 4]."""
    if matrix.shape[:-2] != column.shape[:-2]:
        leading = torch.broadcast_shapes(matrix.shape[:-2], column.shape[:-2])
        matrix, column = (part.expand(*leading, -1, -1) for part in (matrix, column))
    return torch.cat([matrix, column], dim=-1)


def _matrix(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
