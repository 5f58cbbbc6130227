"""From a raster to colours: what the surface's own colour is at each pixel, where it faces, and what light makes of it.

A lit image is ``light_diffuse * albedo + light_specular`` (Chen et al. 2019, section 3.3), :func:`shade`. The albedo
is interpolated from vertices or sampled from a texture; the two factors come from ``dibr_deploy.lighting``, computed at
the pixels from :func:`pixel_normals`, or at the vertices and then interpolated with :func:`vertex_color` (Gouraud).
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .cameras import viewer
from .errors import DibrError
from .mesh import face_normals, unit
from .ops import Raster


def pixel_normals(normals: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Unit normals [B, H, W, 3] from those at vertices [B or 1, V, 3] over the faces [F, 3]; 0 on background."""
    return unit(ops.interpolate(normals, faces, raster.face_index, raster.barycentrics))


def flat_normals(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """One normal for each face, in the form that :func:`pixel_normals` takes.

    Args:
        vertices: world space, [B or 1, V, 3]; faces: [F, 3].

    Returns:
        Unit normals [B or 1, F, 3], 0 for a face without area, and the index [F, 3] that gives each face its own.
    """
    return unit(face_normals(vertices, faces)), _own_index(faces.shape[0], faces.device)


def vertex_color(colors: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Vertex colours [B or 1, V, C], interpolated over the faces [F, 3]: [B, H, W, C], 0 on background."""
    return ops.interpolate(colors, faces, raster.face_index, raster.barycentrics)


def pixel_uvs(uvs: Tensor, uv_faces: Tensor, raster: Raster) -> Tensor:
    """Texture coordinates [Vt, 2] or [B or 1, Vt, 2] over the faces [F, 3]: [B, H, W, 2], 0 on background."""
    uvs = uvs.unsqueeze(0) if uvs.dim() == 2 else uvs
    return ops.interpolate(uvs, uv_faces, raster.face_index, raster.barycentrics)


def uv_footprint(
    positions: Tensor,
    faces: Tensor,
    uvs: Tensor,
    uv_faces: Tensor,
    uv: Tensor,
    raster: Raster,
    *,
    perspective_correct: bool = True,
) -> Tensor:
    """How far uv moves from one pixel to the next: its derivatives, analytic, face by face and so without seams.

    With P_i = (x, y, w) of a face's corners in clip space and M = (P_1 - P_0) x (P_2 - P_0), every point P of the face
    has M . P = M . P_0 = d, and corner i has the weight m_i . P / d with m_1 = P_2 x P_0 and so on (Olano and Greer,
    Triangle scan conversion using 2D homogeneous coordinates, 1997). So with U = sum_i uv_i m_i, at P = w (x, y, 1),

        uv = U . (x, y, 1) / M . (x, y, 1)        d uv / dx = (U_x - uv M_x) w / d

    and the same for y. Screen-space weights are those of corners (x / w, y / w, 1).

    Args:
        positions: clip space, [B, V, 4]; faces: [F, 3], those that were rasterised.
        uvs: [Vt, 2] or [B or 1, Vt, 2]; uv_faces: [F, 3].
        uv: of the pixels, [B, H, W, 2], as :func:`pixel_uvs` gives.
        raster: of the same F faces.
        perspective_correct: as the raster was made.

    Returns:
        [B, H, W, 2, 2], d(u, v) per column to the right in [..., 0, :] and per row downwards in [..., 1, :]; 0 on
        background. Differentiable in positions and uvs.
    """
    finite = (positions * 0 == 0).all(dim=-1, keepdim=True)
    positions = torch.where(finite, positions, 0.0)
    w = positions[..., 3:]
    if not perspective_correct:
        positions = positions / torch.where(w == 0, 1.0, w)
    points = torch.cat([positions[..., :2], positions[..., 3:]], dim=-1)
    p_0, p_1, p_2 = (points.index_select(1, faces[:, corner]) for corner in range(3))
    uvs = uvs.unsqueeze(0) if uvs.dim() == 2 else uvs
    uv_0, uv_1, uv_2 = (uvs.index_select(1, uv_faces[:, corner]) for corner in range(3))
    # Edges instead of products of the corners themselves: small faces keep their digits.
    edge_1, edge_2 = p_1 - p_0, p_2 - p_0
    plane = torch.linalg.cross(edge_1, edge_2, dim=-1)
    m_1, m_2 = torch.linalg.cross(edge_2, p_0, dim=-1), torch.linalg.cross(p_0, edge_1, dim=-1)
    distance = (plane * p_0).sum(dim=-1, keepdim=True)
    slopes = [
        uv_0 * plane[..., axis : axis + 1]
        + (uv_1 - uv_0) * m_1[..., axis : axis + 1]
        + (uv_2 - uv_0) * m_2[..., axis : axis + 1]
        for axis in range(2)
    ]
    of_faces = torch.cat([*slopes, plane[..., :2]], dim=-1) / torch.where(distance == 0, 1.0, distance)
    own = _own_index(faces.shape[0], faces.device)
    slope_x, slope_y, plane_x, plane_y = ops.interpolate(of_faces, own, raster.face_index, raster.barycentrics).split(
        [2, 2, 1, 1], dim=-1
    )
    across, up = slope_x - uv * plane_x, slope_y - uv * plane_y
    if perspective_correct:
        depth = ops.interpolate(w, faces, raster.face_index, raster.barycentrics)
        across, up = across * depth, up * depth
    height, width = raster.face_index.shape[1:]
    return torch.stack([across * 2 / width, up * -2 / height], dim=-2)


def mip_level(footprint: Tensor, texture_height: int, texture_width: int) -> Tensor:
    """Which level of a mip chain has texels as large as the pixels: log2 of the longer of a pixel's sides in texels.

    That is OpenGL's scale factor (OpenGL 4.6 specification, section 8.14.1), 0 where a pixel is no larger than a texel.

    Args:
        footprint: [B, H, W, 2, 2] of :func:`uv_footprint`.
        texture_height, texture_width: Ht and Wt of the texture.

    Returns:
        [B, H, W] for ``dibr_deploy.ops.texture(..., filter="trilinear")``, at least 0.
    """
    columns, rows = footprint[..., 0] * texture_width, footprint[..., 1] * texture_height
    squared = columns * columns + rows * rows
    return 0.5 * torch.log2(torch.maximum(squared[..., 0], squared[..., 1]).clamp(min=1.0))


def tangent_frames(vertices: Tensor, faces: Tensor, uvs: Tensor, uv_faces: Tensor) -> Tensor:
    """The directions in which u grows and v falls on each face: its derivatives with respect to uv.

    On a face both are constant, since position is linear in uv: with edges e_1, e_2 and their uv (u_1, v_1),
    (u_2, v_2), ``dp/du = (v_2 e_1 - v_1 e_2) / d`` and ``dp/dv = (u_1 e_2 - u_2 e_1) / d``, d = u_1 v_2 - u_2 v_1.

    Args:
        vertices: world space, [B or 1, V, 3]; faces: [F, 3].
        uvs: [Vt, 2] or [B or 1, Vt, 2], v = 0 at the top; uv_faces: [F, 3].

    Returns:
        [B or 1, F, 6], unit vectors along dp/du and -dp/dv; 0 where the face has no area in uv.
    """
    uvs = uvs.unsqueeze(0) if uvs.dim() == 2 else uvs
    a, b, c = (vertices.index_select(1, faces[:, corner]) for corner in range(3))
    uv_a, uv_b, uv_c = (uvs.index_select(1, uv_faces[:, corner]) for corner in range(3))
    u_1, v_1 = (uv_b - uv_a).split(1, dim=-1)
    u_2, v_2 = (uv_c - uv_a).split(1, dim=-1)
    # The length is divided out at once, so only the sign of d matters.
    handed = torch.sign(u_1 * v_2 - u_2 * v_1)
    along_u = unit(handed * (v_2 * (b - a) - v_1 * (c - a)))
    along_v = unit(handed * (u_1 * (c - a) - u_2 * (b - a)))
    return torch.cat([along_u, -along_v], dim=-1)


def bumped_normals(normals: Tensor, frames: Tensor, map_color: Tensor, raster: Raster) -> Tensor:
    """Normals turned by a tangent-space normal map.

    The frame at a pixel is orthonormal: the normal n, the face's dp/du made perpendicular to n, and ``n x t`` turned
    towards -dp/dv, so that mirrored uvs are right. It is the frame of the face, not MikkTSpace's average of faces
    (Schueler, Normal mapping without precomputed tangents, ShaderX 5, 2006).

    Args:
        normals: unit, world space, [B, H, W, 3].
        frames: of :func:`tangent_frames`, [B or 1, F, 6].
        map_color: the map's colour at each pixel, [B, H, W, 3] in 0..1: ``2 color - 1`` has +x along u, +y *up* in the
            texture's image (v falls), +z along the normal, as glTF and OpenGL have it. (0.5, 0.5, 1) changes nothing.
        raster: of the same F faces.

    Returns:
        [B, H, W, 3], unit; 0 on background. Differentiable in all of them.
    """
    own = _own_index(frames.shape[1], frames.device)
    along_u, against_v = ops.interpolate(frames, own, raster.face_index, raster.barycentrics).split(3, dim=-1)
    tangent = unit(along_u - (along_u * normals).sum(dim=-1, keepdim=True) * normals)
    side = torch.linalg.cross(normals, tangent, dim=-1)
    side = side * torch.sign((side * against_v).sum(dim=-1, keepdim=True))
    x, y, z = (2 * map_color - 1).split(1, dim=-1)
    return unit(x * tangent + y * side + z * normals)


def to_viewer(points: Tensor, world_to_clip: Tensor) -> Tensor:
    """Unit vectors from points [B, ..., 3] in world space towards the viewer of world_to_clip [B, 4, 4]."""
    eye = viewer(world_to_clip).reshape([world_to_clip.shape[0]] + [1] * (points.dim() - 2) + [4])
    return unit(eye[..., :3] - eye[..., 3:] * points)


def shade(albedo: Tensor, diffuse: Tensor, specular: Tensor | None = None) -> Tensor:
    """``light_diffuse * albedo + light_specular``: [B, ..., C] each, or [B, ..., 1] for white light."""
    return albedo * diffuse if specular is None else albedo * diffuse + specular


def composite(color: Tensor, raster: Raster, background: Tensor) -> Tensor:
    """Colours [B, H, W, C] where a face covers the pixel, ``background`` [C] elsewhere.

    Raises:
        DibrError: the background has another number of channels.
    """
    if background.dim() > 1 or (background.dim() == 1 and background.shape[0] != color.shape[-1]):
        raise DibrError(
            f"composite: background must have as many numbers as the image has channels, {color.shape[-1]}, "
            f"but is {list(background.shape)}"
        )
    covered = (raster.face_index >= 0).unsqueeze(-1)
    return torch.where(covered, color, background)


def _own_index(count: int, device: torch.device) -> Tensor:
    """[count, 3] with row f = (f, f, f): faces for an attribute that each face has one of."""
    return torch.arange(count, dtype=torch.int32, device=device).unsqueeze(-1).expand(-1, 3)
