"""From a raster to colours: what the surface's own colour is at each pixel, where it faces, and what light makes of it.

A lit image is ``light_diffuse * albedo + light_specular`` (Chen et al. 2019, section 3.3), :func:`shade`. The albedo
is interpolated from vertices or sampled from a texture; the two factors come from ``dibr_deploy.lighting``, computed at
the pixels from :func:`pixel_normals`, or at the vertices and then interpolated with :func:`vertex_color` (Gouraud).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .cameras import viewer
from .errors import DibrError
from .mesh import face_normals
from .ops import Raster


def pixel_normals(normals: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Unit normals [B, H, W, 3] from those at vertices [B or 1, V, 3] over the faces [F, 3]; 0 on background."""
    return _unit(ops.interpolate(normals, faces, raster.face_index, raster.barycentrics))


def flat_normals(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """One normal for each face, in the form that :func:`pixel_normals` takes.

    Args:
        vertices: world space, [B or 1, V, 3]; faces: [F, 3].

    Returns:
        Unit normals [B or 1, F, 3], 0 for a face without area, and the index [F, 3] that gives each face its own.
    """
    return _unit(face_normals(vertices, faces)), _own_index(faces.shape[0], faces.device)


def vertex_color(colors: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Vertex colours [B or 1, V, C], interpolated over the faces [F, 3]: [B, H, W, C], 0 on background."""
    return ops.interpolate(colors, faces, raster.face_index, raster.barycentrics)


def pixel_uvs(uvs: Tensor, uv_faces: Tensor, raster: Raster) -> Tensor:
    """Texture coordinates [Vt, 2] or [B or 1, Vt, 2] over the faces [F, 3]: [B, H, W, 2], 0 on background."""
    uvs = uvs.unsqueeze(0) if uvs.dim() == 2 else uvs
    return ops.interpolate(uvs, uv_faces, raster.face_index, raster.barycentrics)


def textured_color(
    texture: Tensor, uvs: Tensor, uv_faces: Tensor, raster: Raster, *, filter: str = "bilinear", wrap: str = "repeat"
) -> Tensor:
    """A texture map, sampled where the interpolated uv falls.

    Args:
        texture: [B or 1, C, Ht, Wt], row 0 at v = 0.
        uvs: texture coordinates, [Vt, 2] or [B or 1, Vt, 2]; their own index lets a vertex on a seam have two.
        uv_faces: [F, 3], corners into ``uvs``, in the order of the rasterised faces.
        raster: of the same F faces.
        filter, wrap: as in ``dibr_deploy.ops.texture``.

    Returns:
        [B, H, W, C]; on background the texel at uv = (0, 0), to be masked out by the caller.
    """
    return ops.texture(texture, pixel_uvs(uvs, uv_faces, raster), filter=filter, wrap=wrap)


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
    along_u = _unit(handed * (v_2 * (b - a) - v_1 * (c - a)))
    along_v = _unit(handed * (u_1 * (c - a) - u_2 * (b - a)))
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
    tangent = _unit(along_u - (along_u * normals).sum(dim=-1, keepdim=True) * normals)
    side = torch.linalg.cross(normals, tangent, dim=-1)
    side = side * torch.sign((side * against_v).sum(dim=-1, keepdim=True))
    x, y, z = (2 * map_color - 1).split(1, dim=-1)
    return _unit(x * tangent + y * side + z * normals)


def to_viewer(points: Tensor, world_to_clip: Tensor) -> Tensor:
    """Unit vectors from points [B, ..., 3] in world space towards the viewer of world_to_clip [B, 4, 4]."""
    eye = viewer(world_to_clip).reshape([world_to_clip.shape[0]] + [1] * (points.dim() - 2) + [4])
    return _unit(eye[..., :3] - eye[..., 3:] * points)


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


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1, eps=1e-12)
