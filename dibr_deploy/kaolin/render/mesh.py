"""As ``kaolin.render.mesh``: DIB-R over faces that bring their own vertices.

Its conventions: vertices are gathered by face, ``face_vertices_image`` [B, F, 3, 2] in -1..1 with y up, and their depth
``face_vertices_z`` [B, F, 3] is the camera's z, which is negative in front of the camera: the *largest* wins.
Interpolation is linear in the image, as in the paper. Background is 0 in features and mask, -1 in indices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import ops
from ...errors import DibrError
from ..ops.mesh import face_normals, index_vertices_by_faces
from .camera import perspective_camera, rotate_translate_points

BACKENDS = ("cuda", "nvdiffrast", "nvdiffrast_fwd")

Features = Tensor | list[Tensor] | tuple[Tensor, ...]


def rasterize(
    height: int,
    width: int,
    face_vertices_z: Tensor,
    face_vertices_image: Tensor,
    face_features: Features,
    valid_faces: Tensor | None = None,
    multiplier: float | None = None,
    eps: float | None = None,
    backend: str = "cuda",
) -> tuple[Tensor | tuple[Tensor, ...], Tensor]:
    """Draws faces with features at their vertices.

    Args:
        height, width: of the image in pixels.
        face_vertices_z: [B, F, 3], the camera's z; no gradient flows to it.
        face_vertices_image: [B, F, 3, 2]. Differentiable.
        face_features: [B, F, 3, D], or a list of such tensors. Differentiable.
        valid_faces: [B, F] bool; False takes a face out. None draws all.
        multiplier: default 1000, and
        eps: default 1e-8. A face's barycentric weights are divided by its doubled signed area A plus eps of the same
            sign: forward with A taken in coordinates times ``multiplier``, backward in -1..1. So faces that are small
            beside eps fade, and their gradient stays bounded.
        backend: one of BACKENDS, which all mean this package's kernels, on whichever device the tensors are.

    Returns:
        The features [B, height, width, D], as a tuple where a list came, and the face index [B, height, width] int64.

    Raises:
        DibrError: shapes that do not fit, or another backend.
    """
    if backend not in BACKENDS:
        raise DibrError(f"rasterize: backend must be one of {', '.join(BACKENDS)}, but is {backend!r}")
    multiplier = 1000.0 if multiplier is None else multiplier
    eps = 1e-8 if eps is None else eps
    parts = [face_features] if isinstance(face_features, Tensor) else list(face_features)
    _check_faces("rasterize", face_vertices_image, face_vertices_z, parts)

    positions = _positions(face_vertices_image, face_vertices_z)
    faces = _faces(face_vertices_image)
    raster = ops.rasterize(positions, faces, height, width, face_valid=valid_faces, depth_clip=False)
    weights = _weights(raster, face_vertices_image, multiplier, eps)
    features = ops.interpolate(torch.cat(parts, dim=-1).flatten(1, 2), faces, raster.face_index, weights)
    face_index = raster.face_index.long()
    if isinstance(face_features, Tensor):
        return features, face_index
    return features.split([part.shape[-1] for part in parts], dim=-1), face_index


def dibr_soft_mask(
    face_vertices_image: Tensor,
    selected_face_idx: Tensor,
    sigmainv: float = 7000,
    boxlen: float = 0.02,
    knum: int = 30,
    multiplier: float = 1000.0,
) -> Tensor:
    """The soft silhouette, as ``dibr_deploy.ops.soft_mask``; faces that look away take part.

    Args:
        face_vertices_image: [B, F, 3, 2]. Differentiable.
        selected_face_idx: [B, H, W], of :func:`rasterize`.
        sigmainv, boxlen, knum: sharpness, margin of the bounding boxes, most faces that count for one pixel.
        multiplier: scales coordinates before the distances are taken and cancels; it changes nothing here.

    Returns:
        [B, H, W] in 0..1.
    """
    _check_faces("dibr_soft_mask", face_vertices_image)
    positions = _positions(face_vertices_image, torch.zeros_like(face_vertices_image[..., 0]))
    return ops.soft_mask(
        positions, _faces(face_vertices_image), selected_face_idx, sigmainv=sigmainv, boxlen=boxlen, knum=knum
    )


def dibr_rasterization(
    height: int,
    width: int,
    face_vertices_z: Tensor,
    face_vertices_image: Tensor,
    face_features: Features,
    face_normals_z: Tensor,
    sigmainv: float = 7000,
    boxlen: float = 0.02,
    knum: int = 30,
    multiplier: float | None = None,
    eps: float | None = None,
    rast_backend: str = "cuda",
) -> tuple[Tensor | tuple[Tensor, ...], Tensor, Tensor]:
    """:func:`rasterize` of the faces with ``face_normals_z >= 0`` [B, F], and :func:`dibr_soft_mask` of all.

    Returns:
        The features, the soft mask [B, height, width], and the face index [B, height, width] int64, -1 on background.
    """
    features, face_index = rasterize(
        height,
        width,
        face_vertices_z,
        face_vertices_image,
        face_features,
        face_normals_z >= 0,
        multiplier,
        eps,
        rast_backend,
    )
    mask = dibr_soft_mask(
        face_vertices_image, face_index, sigmainv, boxlen, knum, 1000.0 if multiplier is None else multiplier
    )
    return features, mask, face_index


def prepare_vertices(
    vertices: Tensor,
    faces: Tensor,
    camera_proj: Tensor,
    camera_rot: Tensor | None = None,
    camera_trans: Tensor | None = None,
    camera_transform: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices through a camera, gathered by face.

    Args:
        vertices: [B, V, 3]; faces: [F, 3] int64.
        camera_proj: [3, 1], of ``camera.generate_perspective_projection``.
        camera_rot, camera_trans: [B, 3, 3] and [B, 3]; these two or
        camera_transform: [B, 4, 3], of ``camera.generate_transformation_matrix``.

    Returns:
        In the camera's frame [B, F, 3, 3], on the image plane [B, F, 3, 2], and unit normals of the faces in the
        camera's frame [B, F, 3].

    Raises:
        DibrError: neither or both ways to say where the camera is.
    """
    if camera_transform is None and camera_rot is not None and camera_trans is not None:
        in_camera = rotate_translate_points(vertices, camera_rot, camera_trans)
    elif camera_transform is not None and camera_rot is None and camera_trans is None:
        in_camera = F.pad(vertices, (0, 1), value=1.0) @ camera_transform
    else:
        raise DibrError("prepare_vertices expects either camera_transform or both camera_rot and camera_trans")
    by_face = index_vertices_by_faces(in_camera, faces)
    in_image = index_vertices_by_faces(perspective_camera(in_camera, camera_proj), faces)
    return by_face, in_image, face_normals(by_face, unit=True)


def texture_mapping(texture_coordinates: Tensor, texture_maps: Tensor, mode: str = "nearest") -> Tensor:
    """Textures at uv in 0..1, v = 0 at the *bottom* row; what lies outside is clamped.

    Args:
        texture_coordinates: [B, H, W, 2] or, for single points, [B, N, 2].
        texture_maps: [B, C, Ht, Wt].
        mode: "nearest" or "bilinear".

    Returns:
        [B, H, W, C] or [B, N, C].

    Raises:
        DibrError: another mode or other shapes.
    """
    if texture_coordinates.dim() not in (3, 4) or texture_coordinates.shape[-1] != 2:
        raise DibrError(
            f"texture_mapping: texture_coordinates must be [B, H, W, 2] or [B, N, 2], "
            f"but is {list(texture_coordinates.shape)}"
        )
    u, v = texture_coordinates.clamp(0, 1).unbind(dim=-1)
    uv = torch.stack([u, 1 - v], dim=-1)
    if texture_coordinates.dim() == 4:
        return ops.texture(texture_maps, uv, filter=mode, wrap="clamp")
    return ops.texture(texture_maps, uv.unsqueeze(1), filter=mode, wrap="clamp").squeeze(1)


def spherical_harmonic_lighting(imnormal: Tensor, lights: Tensor) -> Tensor:
    """Light of nine coefficients [B, 9] at normals [B, H, W, 3]: [B, H, W].

    Order and factors are kaolin's own: 1, x, z, y, xy, yz, 3 z^2 - 1, xz, x^2 - y^2, the last two 1 / sqrt(2) smaller
    than orthonormal. ``dibr_deploy.lighting.spherical_harmonics`` has the orthonormal basis in the usual order.
    """
    x, y, z = imnormal.unbind(dim=-1)
    basis = [
        torch.full_like(x, 0.28209479177),
        0.4886025119 * x,
        0.4886025119 * z,
        0.4886025119 * y,
        1.09254843059 * x * y,
        1.09254843059 * y * z,
        0.94617469575 * z * z - 0.31539156525,
        0.77254840404 * x * z,
        0.38627420202 * (x * x - y * y),
    ]
    return (torch.stack(basis, dim=-1) * lights.reshape(-1, 1, 1, 9)).sum(dim=-1)


def _weights(raster: ops.Raster, corners: Tensor, multiplier: float, eps: float) -> Tensor:
    """Barycentrics [B, H, W, 3] with eps in their denominators, of one value and another gradient.

    With b_k = e_k / A they are b_k A / (A + eps / multiplier^2). Their gradient is that of
    (1 - w_1 - w_2, w_1, w_2) with w_k = b_k A / (A + eps).
    """
    edge_1, edge_2 = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    area = edge_1[..., 0] * edge_2[..., 1] - edge_1[..., 1] * edge_2[..., 0]
    value = raster.barycentrics.detach() * _at_pixels(_shrunk(area.detach(), eps / multiplier**2), raster)
    last_two = raster.barycentrics[..., 1:] * _at_pixels(_shrunk(area, eps), raster)
    slope = torch.cat([-last_two.sum(dim=-1, keepdim=True), last_two], dim=-1)
    return value + (slope - slope.detach())


def _shrunk(area: Tensor, eps: float) -> Tensor:
    """area / (area + eps of its sign); 0 where both are 0."""
    denominator = area + torch.copysign(torch.full_like(area, eps), area)
    return area / torch.where(denominator == 0, 1.0, denominator)


def _at_pixels(by_face: Tensor, raster: ops.Raster) -> Tensor:
    """A number for each face, [B, F], at the pixels that show it, [B, H, W, 1]; of face 0 on background."""
    index = raster.face_index.flatten(1).clamp(min=0).long()
    if by_face.shape[1] == 0:
        return by_face.new_zeros((*raster.face_index.shape, 1))
    return by_face.gather(1, index).reshape(raster.face_index.shape).unsqueeze(-1)


def _positions(corners: Tensor, camera_z: Tensor) -> Tensor:
    """Clip-space positions [B, 3 F, 4] with w = 1, where the largest camera z is the nearest."""
    positions = torch.cat([corners, -camera_z.detach().unsqueeze(-1), torch.ones_like(corners[..., :1])], dim=-1)
    return positions.flatten(1, 2)


def _faces(corners: Tensor) -> Tensor:
    return torch.arange(3 * corners.shape[1], dtype=torch.int32, device=corners.device).reshape(-1, 3)


def _check_faces(
    function: str, corners: Tensor, camera_z: Tensor | None = None, features: list[Tensor] | None = None
) -> None:
    if corners.dim() != 4 or tuple(corners.shape[2:]) != (3, 2):
        raise DibrError(f"{function}: face_vertices_image must be [B, F, 3, 2], but is {list(corners.shape)}")
    if camera_z is not None and camera_z.shape != corners.shape[:3]:
        raise DibrError(f"{function}: face_vertices_z must be {list(corners.shape[:3])}, but is {list(camera_z.shape)}")
    for part in features or []:
        if part.dim() != 4 or part.shape[:3] != corners.shape[:3]:
            raise DibrError(
                f"{function}: face_features must be [{', '.join(map(str, corners.shape[:3]))}, D], "
                f"but is {list(part.shape)}"
            )
