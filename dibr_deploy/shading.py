"""From a raster to colours: what the surface's own colour is at each pixel, where it faces, and how light meets it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops
from .ops import Raster


def pixel_normals(normals: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Unit normals [B, H, W, 3] from those at vertices [B or 1, V, 3] over the faces [F, 3]; 0 on background."""
    return F.normalize(ops.interpolate(normals, faces, raster.face_index, raster.barycentrics), dim=-1, eps=1e-12)


def vertex_color(colors: Tensor, faces: Tensor, raster: Raster) -> Tensor:
    """Vertex colours [B or 1, V, C], interpolated over the faces [F, 3]: [B, H, W, C], 0 on background."""
    return ops.interpolate(colors, faces, raster.face_index, raster.barycentrics)


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
    uvs = uvs.unsqueeze(0) if uvs.dim() == 2 else uvs
    uv = ops.interpolate(uvs, uv_faces, raster.face_index, raster.barycentrics)
    return ops.texture(texture, uv, filter=filter, wrap=wrap)


def composite(color: Tensor, raster: Raster, background: Tensor) -> Tensor:
    """Colours [B, H, W, C] where a face covers the pixel, ``background`` [C] elsewhere."""
    covered = (raster.face_index >= 0).unsqueeze(-1)
    return torch.where(covered, color, background)
