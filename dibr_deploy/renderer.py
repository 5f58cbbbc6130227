"""The whole chain as one module: project, rasterize, interpolate, texture, shade, and the soft mask beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import ops, shading
from .cameras import project
from .errors import DibrError
from .lighting import DirectionalLight, Phong, lambert, phong, spherical_harmonics
from .mesh import vertex_normals
from .packing import faces_of_images

OUTPUTS = ("image", "mask", "face_index", "depth", "barycentrics", "normal", "uv", "position")
"""What a MeshRenderer can return. Row 0 is the top of the image; all but face_index are differentiable.

    image [B, H, W, C], mask [B, H, W], face_index [B, H, W] and depth [B, H, W] as in :class:`Rendering`
    barycentrics [B, H, W, 3]   weights of the visible face's vertices, 0 on background
    normal [B, H, W, 3]         unit, world space, as it is shaded with; 0 on background
    uv [B, H, W, 2]             texture coordinates, v = 0 at the top of the texture; 0 on background
    position [B, H, W, 3]       of the visible point in world space; 0 on background
"""


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


class MeshRenderer(nn.Module):
    """Renders meshes (Chen et al., Learning to Predict 3D Objects with an Interpolation-based Differentiable Renderer,
    NeurIPS 2019).

    Args:
        height, width: of the image in pixels, >= 1; a call may override them.
        background: colour of uncovered pixels, as many numbers as the image has channels.
        cull: "none" draws both sides of a face, "back" its front alone (counter-clockwise).
        perspective_correct: False interpolates linearly in the image, as the paper does.
        filter, wrap: how a texture is sampled; see ``dibr_deploy.ops.texture``. "trilinear" takes the mip level from
            how far uv moves between pixels, ``dibr_deploy.shading.uv_footprint``.
        smooth: where a call brings no normals, True makes them at vertices, from the faces around each, and
            interpolates; False gives every face one normal.
        antialias: blend the image's colours where an outline passes between pixels; see ``dibr_deploy.ops.antialias``.
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
        smooth: bool = True,
        antialias: bool = False,
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
        self.filter, self.wrap, self.smooth, self.antialias = filter, wrap, smooth, antialias
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
        light: Tensor | DirectionalLight | None = None,
        harmonics: Tensor | None = None,
        material: Phong | None = None,
        normals: Tensor | None = None,
        normal_faces: Tensor | None = None,
        normal_map: Tensor | None = None,
        vertex_faces: Tensor | None = None,
        face_ranges: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        outputs: Sequence[str] | None = None,
    ) -> Rendering | dict[str, Tensor]:
        """Renders B images: ``light_diffuse * albedo + light_specular`` where a face is seen.

        Args:
            vertices: world space, [B or 1, V, 3], float32 or float64; one mesh may be seen by B cameras.
            faces: [F, 3] int32 or int64, counter-clockwise seen from outside.
            world_to_clip: [B, 4, 4]; see ``dibr_deploy.cameras``.
            vertex_colors: albedo [B or 1, V, C]; this or a texture.
            texture, uvs, uv_faces: [B or 1, C, Ht, Wt], [Vt, 2] or [B or 1, Vt, 2], [F, 3]; uv_faces defaults to faces.
            light: [B or 1, 4] or a DirectionalLight as in ``dibr_deploy.lighting``, for Lambert's law or Phong's model.
            harmonics: [B or 1, 9] or [B or 1, 9, C] as in ``dibr_deploy.lighting.spherical_harmonics``. With ``light``
                too, both are added; with neither, the surface's own colour is shown.
            material: with it, ``light`` is shaded by Phong's model and makes highlights.
            normals: at vertices, world space, any length, [B or 1, V, 3], in place of those of the mesh.
            normal_faces: [F, 3], corners into ``normals`` where they have an index of their own; defaults to faces.
            normal_map: tangent-space normals [B or 1, 3, Ht, Wt] in 0..1 over the same uvs; see
                ``dibr_deploy.shading.bumped_normals``.
            vertex_faces: ``dibr_deploy.mesh.vertex_face_table(faces, V)``; with it, smooth normals are gathered and not
                scattered, which exports to plain Gather nodes: TensorRT takes no others.
            face_ranges: [B, 2] (start, count) into ``faces`` for images of different meshes; see
                ``dibr_deploy.packing``.
            height, width: of the image, default those of the module; symbolic sizes are fine under torch.export.
            outputs: names out of OUTPUTS; only they are computed. Without ``"image"`` no colours are needed.

        Returns:
            A Rendering, or with ``outputs`` a dict of tensors by these names. Image and mask are differentiable in
            vertices, camera, colours, texture, uvs, light, harmonics, material, normals and normal_map.

        Raises:
            DibrError: shapes that do not fit, not exactly one of vertex_colors and texture, or an argument that
                misses its partner.
        """
        names = Rendering._fields if outputs is None else tuple(outputs)
        positions = project(vertices, world_to_clip)
        _check_outputs(names, uvs, normal_map)
        if "image" in names:
            self._check_surface(vertex_colors, texture, uvs)
            _check_lights(light, harmonics, positions.shape[0])
            if material is not None:
                _check_material(material, light, positions.shape[0], len(self.background))
        uvs = uvs.unsqueeze(0) if uvs is not None and uvs.dim() == 2 else uvs
        size = self.height if height is None else height, self.width if width is None else width
        scene = _Scene(vertices, faces, positions, world_to_clip, face_ranges)
        surface = _Surface(vertex_colors, texture, uvs, faces if uv_faces is None else uv_faces, normal_map)
        shape = _Normals(normals, faces if normal_faces is None else normal_faces, vertex_faces)
        frame = _Frame(self, scene, surface, shape, _Lights(light, harmonics, material), size)
        layers = {name: frame.layer(name) for name in names}
        return Rendering(**layers) if outputs is None else layers

    def _check_surface(self, vertex_colors: Tensor | None, texture: Tensor | None, uvs: Tensor | None) -> None:
        if (vertex_colors is None) == (texture is None):
            given = "neither" if texture is None else "both"
            raise DibrError(f"MeshRenderer expects either vertex_colors or texture with uvs, but got {given}")
        channels = len(self.background)
        if vertex_colors is not None and vertex_colors.shape[-1] != channels:
            raise DibrError(
                f"MeshRenderer: vertex_colors must have as many channels as background, {channels}, "
                f"but is {list(vertex_colors.shape)}"
            )
        if texture is None:
            return
        if uvs is None:
            raise DibrError("MeshRenderer expects uvs together with texture, but uvs is None")
        if texture.dim() != 4 or texture.shape[1] != channels:
            hint = "; permute(0, 3, 1, 2) brings channels forward" if texture.shape[-1] == channels else ""
            raise DibrError(
                f"MeshRenderer: texture must be [B or 1, {channels}, Ht, Wt], with as many channels as background, "
                f"but is {list(texture.shape)}{hint}"
            )


class _Scene(NamedTuple):
    vertices: Tensor
    faces: Tensor
    positions: Tensor
    world_to_clip: Tensor
    face_ranges: Tensor | None


class _Surface(NamedTuple):
    vertex_colors: Tensor | None
    texture: Tensor | None
    uvs: Tensor | None
    uv_faces: Tensor
    normal_map: Tensor | None


class _Normals(NamedTuple):
    normals: Tensor | None
    faces: Tensor
    vertex_faces: Tensor | None


class _Lights(NamedTuple):
    light: Tensor | DirectionalLight | None
    harmonics: Tensor | None
    material: Phong | None


class _Frame:
    """One call's layers, each computed when it is first asked for, by the method of its name with an underscore."""

    def __init__(
        self,
        renderer: MeshRenderer,
        scene: _Scene,
        surface: _Surface,
        normals: _Normals,
        lights: _Lights,
        size: tuple[int, int],
    ) -> None:
        self.renderer, self.scene, self.surface = renderer, scene, surface
        self.normals, self.lights = normals, lights
        self.raster = ops.rasterize(
            scene.positions,
            scene.faces,
            *size,
            face_ranges=scene.face_ranges,
            perspective_correct=renderer.perspective_correct,
            cull=renderer.cull,
        )
        self.layers: dict[str, Tensor] = self.raster._asdict()

    def layer(self, name: str) -> Tensor:
        # No functools.cached_property: before Python 3.12 it takes a lock, which torch.compile cannot trace.
        if name not in self.layers:
            self.layers[name] = getattr(self, f"_{name}")()
        return self.layers[name]

    def _mask(self) -> Tensor:
        return ops.soft_mask(
            self.scene.positions,
            self.scene.faces,
            self.raster.face_index,
            face_ranges=self.scene.face_ranges,
            sigmainv=self.renderer.sigmainv,
            boxlen=self.renderer.boxlen,
            knum=self.renderer.knum,
        )

    def _position(self) -> Tensor:
        return ops.interpolate(self.scene.vertices, self.scene.faces, self.raster.face_index, self.raster.barycentrics)

    def _uv(self) -> Tensor:
        assert self.surface.uvs is not None
        return shading.pixel_uvs(self.surface.uvs, self.surface.uv_faces, self.raster)

    def _uv_footprint(self) -> Tensor:
        assert self.surface.uvs is not None
        return shading.uv_footprint(
            self.scene.positions,
            self.scene.faces,
            self.surface.uvs,
            self.surface.uv_faces,
            self.layer("uv"),
            self.raster,
            perspective_correct=self.renderer.perspective_correct,
        )

    def _normal(self) -> Tensor:
        vertex_normals, corners = self._normals_of_the_surface()
        normal = shading.pixel_normals(vertex_normals, corners, self.raster)
        uvs, normal_map = self.surface.uvs, self.surface.normal_map
        if uvs is None or normal_map is None:
            return normal
        frames = shading.tangent_frames(self.scene.vertices, self.scene.faces, uvs, self.surface.uv_faces)
        return shading.bumped_normals(normal, frames, self._sampled(normal_map), self.raster)

    def _image(self) -> Tensor:
        color = self._own_color()
        if self.lights.light is not None or self.lights.harmonics is not None:
            color = self._lit(color)
        scene, raster = self.scene, self.raster
        image = shading.composite(color, raster, self.renderer.background.to(color.dtype))
        if not self.renderer.antialias:
            return image
        return ops.antialias(
            image, scene.positions, scene.faces, raster.face_index, raster.barycentrics, face_ranges=scene.face_ranges
        )

    def _sampled(self, texture: Tensor) -> Tensor:
        level = None
        if self.renderer.filter == "trilinear":
            level = shading.mip_level(self.layer("uv_footprint"), texture.shape[2], texture.shape[3])
        return ops.texture(
            texture, self.layer("uv"), filter=self.renderer.filter, wrap=self.renderer.wrap, mip_level=level
        )

    def _own_color(self) -> Tensor:
        if self.surface.vertex_colors is not None:
            return shading.vertex_color(self.surface.vertex_colors, self.scene.faces, self.raster)
        assert self.surface.texture is not None
        return self._sampled(self.surface.texture)

    def _normals_of_the_surface(self) -> tuple[Tensor, Tensor]:
        """Normals, and the corners that index them."""
        given, corners, vertex_faces = self.normals
        if given is not None:
            return given, corners
        vertices, faces, ranges = self.scene.vertices, self.scene.faces, self.scene.face_ranges
        if ranges is not None:
            vertices = vertices.expand(self.scene.positions.shape[0], -1, -1)
        if not self.renderer.smooth:
            return shading.flat_normals(vertices, faces)
        valid = None if ranges is None else faces_of_images(ranges, faces.shape[0])
        return vertex_normals(vertices, faces, vertex_faces, valid), faces

    def _lit(self, albedo: Tensor) -> Tensor:
        """``light_diffuse * albedo + light_specular`` of all lights together."""
        light, harmonics, material = self.lights
        specular = None
        if light is not None and material is not None:
            to_viewer = shading.to_viewer(self.layer("position"), self.scene.world_to_clip)
            diffuse, specular = phong(self.layer("normal"), to_viewer, light, material)
        elif light is not None:
            diffuse = lambert(self.layer("normal"), light)
        if harmonics is not None:
            surrounding = spherical_harmonics(self.layer("normal"), harmonics)
            diffuse = surrounding if light is None else diffuse + surrounding
        return shading.shade(albedo, diffuse, specular)


def _check_outputs(names: tuple[str, ...], uvs: Tensor | None, normal_map: Tensor | None) -> None:
    for name in names:
        if name not in OUTPUTS:
            raise DibrError(f"MeshRenderer: outputs must be out of {', '.join(OUTPUTS)}, but has {name!r}")
    if (normal_map is not None or "uv" in names) and uvs is None:
        raise DibrError("MeshRenderer expects uvs together with normal_map and for the output uv, but uvs is None")


def _check_lights(light: Tensor | DirectionalLight | None, harmonics: Tensor | None, images: int) -> None:
    if isinstance(light, DirectionalLight):
        for name, part in light._asdict().items():
            columns = part.shape[1:] if part.dim() == 2 else None
            if columns is None or (name == "direction" and columns[0] != 3) or not _is_per_image(part, images):
                wanted = "3" if name == "direction" else "1 or C"
                raise DibrError(
                    f"MeshRenderer: light.{name} must be [{images} or 1, {wanted}], but is {list(part.shape)}"
                )
    elif light is not None and (light.dim() != 2 or light.shape[1] != 4 or not _is_per_image(light, images)):
        raise DibrError(f"MeshRenderer: light must be [{images} or 1, 4], but is {list(light.shape)}")
    if harmonics is not None and not _is_per_image(harmonics, images):
        raise DibrError(f"MeshRenderer: harmonics must be [{images} or 1, 9, ...], but is {list(harmonics.shape)}")


def _check_material(material: Phong, light: Tensor | DirectionalLight | None, images: int, channels: int) -> None:
    if light is None:
        raise DibrError("MeshRenderer expects light together with material, but light is None")
    for name, value in material._asdict().items():
        part = torch.as_tensor(value)
        columns = (1,) if name == "shininess" else (1, channels)
        if part.dim() == 0 or (_is_per_image(part, images) and part.dim() == 1):
            continue
        if part.dim() != 2 or not _is_per_image(part, images) or part.shape[1] not in columns:
            raise DibrError(
                f"MeshRenderer: material.{name} must be a number, [], [{images} or 1] or "
                f"[{images} or 1, {' or '.join(map(str, columns))}], but is {list(part.shape)}"
            )


def _is_per_image(tensor: Tensor, images: int) -> bool:
    return tensor.dim() > 0 and (tensor.shape[0] == images or tensor.shape[0] == 1)
