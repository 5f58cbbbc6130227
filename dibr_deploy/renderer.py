"""The whole chain as one module: project, rasterize, interpolate, texture, shade, and the soft mask beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import ops, shading
from .cameras import project
from .errors import DibrError
from .lighting import lambert
from .mesh import vertex_normals


class Rendering(NamedTuple):
    """What a renderer returns. Row 0 is the top of the image."""

    image: Tensor
    """[B, H, W, C], colours; linear, not clamped."""
    mask: Tensor
    """[B, H, W], 1 where a face covers the pixel, falling off smoothly outside: differentiable in the vertices."""
    face_index: Tensor
    """[B, H, W] int32, the visible face, -1 on background."""
    depth: Tensor
    """[B, H, W], NDC depth z/w, 1 on background."""


def _check_light(light: Tensor, images: int) -> None:
    if light.dim() != 2 or light.shape[1] != 4 or (light.shape[0] != images and light.shape[0] != 1):
        raise DibrError(f"MeshRenderer: light must be [{images} or 1, 4], but is {list(light.shape)}")


class MeshRenderer(nn.Module):
    """Renders meshes that share one topology (Chen et al., Learning to Predict 3D Objects with an
    Interpolation-based Differentiable Renderer, NeurIPS 2019).

    Args:
        height, width: of the image in pixels, >= 1; a call may override them.
        background: colour of uncovered pixels, as many numbers as the image has channels.
        cull: "none" draws both sides of a face, "back" its front alone (counter-clockwise).
        perspective_correct: False interpolates linearly in the image, as the paper does.
        filter, wrap: how a texture is sampled; see ``dibr_deploy.ops.texture``.
        sigmainv, boxlen, knum: of the soft mask; see ``dibr_deploy.ops.soft_mask``.
    """

    background: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        *,
        background: tuple[float, ...] = (0.0, 0.0, 0.0),
        cull: str = "none",
        perspective_correct: bool = True,
        filter: str = "bilinear",
        wrap: str = "repeat",
        sigmainv: float = 7000.0,
        boxlen: float = 0.02,
        knum: int = 30,
    ) -> None:
        super().__init__()
        if height < 1 or width < 1:
            raise DibrError(f"height and width must be at least 1, but are {height} and {width}")
        for name, value, choices in (
            ("cull", cull, ops.CULL),
            ("filter", filter, ops.FILTER),
            ("wrap", wrap, ops.WRAP),
        ):
            if value not in choices:
                raise DibrError(f"{name} must be one of {', '.join(choices)}, but is {value!r}")
        self.height, self.width = height, width
        self.cull, self.perspective_correct = cull, perspective_correct
        self.filter, self.wrap = filter, wrap
        self.sigmainv, self.boxlen, self.knum = sigmainv, boxlen, knum
        self.register_buffer("background", torch.tensor(background), persistent=False)

    def forward(
        self,
        vertices: Tensor,
        faces: Tensor,
        world_to_clip: Tensor,
        *,
        vertex_colors: Tensor | None = None,
        texture: Tensor | None = None,
        uvs: Tensor | None = None,
        uv_faces: Tensor | None = None,
        light: Tensor | None = None,
        vertex_faces: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> Rendering:
        """Renders B images.

        Args:
            vertices: world space, [B or 1, V, 3], float32 or float64; one mesh may be seen by B cameras.
            faces: [F, 3] int32 or int64, counter-clockwise seen from outside.
            world_to_clip: [B, 4, 4]; see ``dibr_deploy.cameras``.
            vertex_colors: [B or 1, V, C]; this or a texture.
            texture, uvs, uv_faces: [B or 1, C, Ht, Wt], [Vt, 2] or [B or 1, Vt, 2], [F, 3]; uv_faces defaults to faces.
            light: [B or 1, 4] as in ``dibr_deploy.lighting``; None shows the surface's own colour.
            vertex_faces: ``dibr_deploy.mesh.vertex_face_table(faces, V)``; with it, normals are gathered and not
                scattered, which exports to plain Gather nodes.
            height, width: of the image, default those of the module; symbolic sizes are fine under torch.export.

        Returns:
            A Rendering; image and mask are differentiable in vertices, camera, colours, texture, uvs and light.

        Raises:
            DibrError: shapes that do not fit, or not exactly one of vertex_colors and texture.
        """
        if (vertex_colors is None) == (texture is None):
            given = "neither" if texture is None else "both"
            raise DibrError(f"MeshRenderer expects either vertex_colors or texture with uvs, but got {given}")
        positions = project(vertices, world_to_clip)
        if light is not None:
            _check_light(light, positions.shape[0])
        raster = ops.rasterize(
            positions,
            faces,
            self.height if height is None else height,
            self.width if width is None else width,
            perspective_correct=self.perspective_correct,
            cull=self.cull,
        )
        mask = ops.soft_mask(
            positions, faces, raster.face_index, sigmainv=self.sigmainv, boxlen=self.boxlen, knum=self.knum
        )
        color = self._own_color(raster, faces, vertex_colors, texture, uvs, uv_faces)
        if light is not None:
            normals = vertex_normals(vertices, faces, vertex_faces)
            color = color * lambert(shading.pixel_normals(normals, faces, raster), light)
        image = shading.composite(color, raster, self.background.to(color.dtype))
        return Rendering(image, mask, raster.face_index, raster.depth)

    def _own_color(
        self,
        raster: ops.Raster,
        faces: Tensor,
        vertex_colors: Tensor | None,
        texture: Tensor | None,
        uvs: Tensor | None,
        uv_faces: Tensor | None,
    ) -> Tensor:
        if vertex_colors is not None:
            return shading.vertex_color(vertex_colors, faces, raster)
        if texture is None or uvs is None:
            raise DibrError("MeshRenderer expects uvs together with texture, but uvs is None")
        corners = faces if uv_faces is None else uv_faces
        return shading.textured_color(texture, uvs, corners, raster, filter=self.filter, wrap=self.wrap)
