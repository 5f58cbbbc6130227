"""float64 gradients through the whole chain, from the shaded image back to everything that made it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dibr_deploy.cameras import from_opencv, orbit, orthographic, perspective, project
from dibr_deploy.lighting import DirectionalLight, Phong
from dibr_deploy.mesh import icosphere, vertex_normals
from dibr_deploy.ops import rasterize
from dibr_deploy.renderer import MeshRenderer
from dibr_deploy.shading import mip_level, pixel_uvs, uv_footprint

DOUBLE = torch.float64
SPHERE = icosphere(1).to(DOUBLE)
CAMERAS = perspective(torch.tensor(0.2, dtype=DOUBLE)) @ orbit(torch.tensor([0.2, 1.1], dtype=DOUBLE), 0.4, 3.0)
"""So near that no pixel sees an outline, where the image jumps."""


def leaf(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=DOUBLE, requires_grad=True)


def check(render: Callable[..., Tensor], *inputs: Tensor) -> None:
    assert render(*inputs).abs().max() > 0.05
    assert torch.autograd.gradcheck(render, inputs, fast_mode=True)


def render(smooth: bool = True, filter: str = "bilinear", **arguments: object) -> Tensor:
    """A close-up of the bumpy sphere, 2 x 4 x 4 x 3."""
    given = {"vertices": SPHERE.vertices[None], "faces": SPHERE.faces, "world_to_clip": CAMERAS, **arguments}
    if "texture" not in given:
        given.setdefault("vertex_colors", (SPHERE.vertices[None] + 2) / 4)
    shown = MeshRenderer(4, 4, smooth=smooth, filter=filter)(**given)
    assert bool((shown.face_index >= 0).all())
    return shown.image


def directional(direction: Tensor, color: Tensor, ambient: Tensor) -> DirectionalLight:
    return DirectionalLight(direction, color, ambient)


LIGHT = directional(*(torch.tensor([values], dtype=DOUBLE) for values in ([1.0, 0.5, 2.0], [0.9, 0.7, 0.5], [0.1] * 3)))
SHINY = Phong(specular=0.5, shininess=4.0)


def positions(count: int = 2) -> Tensor:
    moved = SPHERE.vertices * (1 + 0.1 * torch.rand(count, len(SPHERE.vertices), 1, dtype=DOUBLE))
    return moved.requires_grad_()


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "flat"])
@pytest.mark.parametrize("material", [None, SHINY], ids=["lambert", "phong"])
def test_positions(material: Phong | None, smooth: bool) -> None:
    check(lambda v: render(smooth, vertices=v, light=LIGHT, material=material), positions())


def test_colors() -> None:
    check(lambda c: render(vertex_colors=c, light=LIGHT), leaf(1, len(SPHERE.vertices), 3))


@pytest.mark.parametrize("material", [None, SHINY], ids=["lambert", "phong"])
def test_normals(material: Phong | None) -> None:
    normals = vertex_normals(SPHERE.vertices[None], SPHERE.faces) + 0.1 * torch.rand(2, len(SPHERE.vertices), 3)
    check(lambda n: render(normals=n, light=LIGHT, material=material), normals.requires_grad_())


def test_light_direction_colour_and_ambient() -> None:
    light = tuple(part.clone().repeat(2, 1).requires_grad_() for part in LIGHT)
    check(lambda *parts: render(light=directional(*parts), material=SHINY), *light)


def test_material() -> None:
    specular, shininess, diffuse = leaf(2, 3), (1 + 5 * torch.rand(2, dtype=DOUBLE)).requires_grad_(), leaf(2, 1)
    check(lambda *parts: render(light=LIGHT, material=Phong(*parts)), specular, shininess, diffuse)


def test_a_material_of_bare_numbers_and_scalars() -> None:
    shininess = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    check(lambda alpha: render(light=LIGHT, material=Phong(0.8, alpha)), shininess)


@pytest.mark.parametrize("shape", [(2, 9), (1, 9, 3)])
def test_harmonic_coefficients(shape: tuple[int, ...]) -> None:
    check(lambda c, v: render(harmonics=c, vertices=v), leaf(*shape), positions())


def test_texture_and_uvs() -> None:
    assert SPHERE.uvs is not None
    uvs = (SPHERE.uvs + 0.01 * torch.rand_like(SPHERE.uvs)).requires_grad_()
    check(
        lambda texture, uv: render(texture=texture, uvs=uv, uv_faces=SPHERE.uv_faces, light=LIGHT),
        leaf(1, 3, 6, 5),
        uvs,
    )


def test_texture_uvs_positions_and_camera_through_mip_levels() -> None:
    """Texels so small that every pixel lies between two levels, whose fraction depends on positions and camera."""
    assert SPHERE.uvs is not None
    texture = leaf(1, 3, 480, 960)
    uvs = (SPHERE.uvs + 0.01 * torch.rand_like(SPHERE.uvs)).requires_grad_()
    cameras = CAMERAS.clone().requires_grad_()

    def seen(texture: Tensor, uvs: Tensor, vertices: Tensor, cameras: Tensor) -> Tensor:
        surface = {"texture": texture, "uvs": uvs, "uv_faces": SPHERE.uv_faces}
        return render(filter="trilinear", vertices=vertices, world_to_clip=cameras, **surface)

    check(seen, texture, uvs, positions(), cameras)
    levels = mip_levels(positions(), uvs)
    assert bool(((levels > 1.01) & (levels < 6)).all())


def mip_levels(vertices: Tensor, uvs: Tensor) -> Tensor:
    """Of a texture of 480 x 960 texels."""
    corners = SPHERE.uv_faces
    assert corners is not None
    clip = project(vertices, CAMERAS)
    raster = rasterize(clip, SPHERE.faces, 4, 4)
    uv = pixel_uvs(uvs, corners, raster)
    return mip_level(uv_footprint(clip, SPHERE.faces, uvs, corners, uv, raster), 480, 960)


def test_normal_maps() -> None:
    bumps = (torch.tensor([0.5, 0.5, 1.0], dtype=DOUBLE)[:, None, None] + 0.2 * torch.rand(1, 3, 5, 4)).requires_grad_()
    check(
        lambda bump, v: render(
            normal_map=bump, vertices=v, uvs=SPHERE.uvs, uv_faces=SPHERE.uv_faces, light=LIGHT, material=SHINY
        ),
        bumps,
        positions(),
    )


def test_cameras() -> None:
    def seen(azimuth: Tensor, elevation: Tensor, distance: Tensor, angle: Tensor) -> Tensor:
        return render(
            world_to_clip=perspective(angle) @ orbit(azimuth, elevation, distance), light=LIGHT, material=SHINY
        )

    values = ([0.2, 1.1], [0.4, -0.3], [3.0, 3.1], [0.2, 0.25])
    check(seen, *(torch.tensor(value, dtype=DOUBLE, requires_grad=True) for value in values))


def test_a_parallel_projection() -> None:
    def seen(azimuth: Tensor, half_height: Tensor) -> Tensor:
        camera = orthographic(half_height) @ orbit(azimuth, 0.3, 3.0)
        return render(world_to_clip=camera, light=LIGHT, material=SHINY)

    check(seen, *(torch.tensor(value, dtype=DOUBLE, requires_grad=True) for value in ([0.2, 1.1], [0.3, 0.4])))


def test_a_calibrated_camera() -> None:
    """Focal length, principal point, rotation and translation of OpenCV."""
    turn = orbit(torch.tensor([0.2, 1.1], dtype=DOUBLE), 0.3, 3.0)
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=DOUBLE)
    rotation = (flip[:, None] * turn[:, :3, :3]).requires_grad_()
    translation = (flip * turn[:, :3, 3]).requires_grad_()
    intrinsics = torch.tensor([[20.0, 0.1, 1.4], [0, 19, 1.6], [0, 0, 1]], dtype=DOUBLE, requires_grad=True)
    check(
        lambda k, r, t: render(world_to_clip=from_opencv(k, r, t, 4, 4), light=LIGHT, material=SHINY),
        intrinsics,
        rotation,
        translation,
    )


@pytest.mark.parametrize("output", ["mask", "depth", "barycentrics", "normal", "uv", "position"])
def test_every_other_output(output: str) -> None:
    """The mask of a small sphere, so that there are pixels beside it."""

    def seen(vertices: Tensor) -> Tensor:
        return MeshRenderer(4, 4, sigmainv=5.0, boxlen=2.0, knum=100)(
            vertices, SPHERE.faces, CAMERAS, uvs=SPHERE.uvs, uv_faces=SPHERE.uv_faces, outputs=[output]
        )[output]

    vertices = positions()
    if output == "mask":
        vertices = (vertices.detach() * 0.07).requires_grad_()
    check(seen, vertices)


def test_the_background_has_no_gradient_and_no_nan() -> None:
    """Phong, normal map and all, on an image that is mostly background."""
    vertices, bumps = positions(1), leaf(1, 3, 4, 4)
    shown = MeshRenderer(16, 16)(
        vertices,
        SPHERE.faces,
        perspective(torch.tensor([1.5], dtype=DOUBLE)) @ orbit(torch.tensor(0.1, dtype=DOUBLE), 0.2, 6.0),
        vertex_colors=SPHERE.vertices[None],
        uvs=SPHERE.uvs,
        uv_faces=SPHERE.uv_faces,
        normal_map=bumps,
        light=LIGHT,
        material=Phong(0.5, 0.3),
    )
    assert (shown.face_index < 0).float().mean() > 0.8
    for gradient in torch.autograd.grad(shown.image.sum(), (vertices, bumps)):
        assert bool(torch.isfinite(gradient).all())
        assert gradient.abs().max() > 0
