"""Light, colours and textures in rendered images, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dibr_deploy.cameras import look_at, orbit, orthographic, perspective
from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import lambert, make_light
from dibr_deploy.mesh import Mesh, icosphere, uv_sphere
from dibr_deploy.renderer import MeshRenderer, Rendering

FACING = (orthographic(1.0) @ look_at((0.0, 0.0, 3.0))).unsqueeze(0)
"""Sees the square -1..1 of the xy plane, and nothing else."""


def square(dtype: torch.dtype = torch.float32) -> Mesh:
    """The square -1..1 of the xy plane; uv (0, 0) at its upper left."""
    corners = torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]], dtype=dtype)
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]], dtype=dtype)
    return Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), uvs)


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """x and y of the pixel centres in NDC, [size, size] each."""
    centres = (2 * torch.arange(size, dtype=torch.float64) + 1 - size) / size
    x, y = torch.meshgrid(centres, -centres, indexing="xy")
    return x, y


def test_light_is_packed_as_described() -> None:
    light = make_light(0.3, (0.0, 3.0, 4.0), 0.5)
    torch.testing.assert_close(light, torch.tensor([[0.3, 0.0, 0.3, 0.4]]))
    assert make_light(torch.tensor([0.1, 0.2]), (0.0, 1.0, 0.0), 0.5).shape == (2, 4)
    with pytest.raises(DibrError, match="zero vector"):
        make_light(0.3, (0.0, 0.0, 0.0), 0.5)


def test_lambert_by_hand() -> None:
    normals = torch.tensor([[[0.0, 0, 1], [0, 0, -1], [0, 0.6, 0.8]]])
    factor = lambert(normals, torch.tensor([[0.2, 0.0, 0.0, 0.5]]))
    torch.testing.assert_close(factor, torch.tensor([[[0.7], [0.2], [0.6]]]))


def test_a_lit_sphere_follows_the_cosine_law() -> None:
    """Parallel projection: at (x, y) the unit sphere's normal is (x, y, sqrt(1 - x^2 - y^2))."""
    size, sphere = 65, icosphere(5)
    light = make_light(0.25, (1.0, 2.0, 1.5), 0.6)
    albedo = torch.tensor([0.9, 0.5, 0.2])
    colors = albedo.expand(1, len(sphere.vertices), 3)
    rendering = MeshRenderer(size, size)(
        sphere.vertices.unsqueeze(0), sphere.faces, FACING, vertex_colors=colors, light=light
    )
    x, y = pixel_grid(size)
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    direction = torch.tensor([1.0, 2.0, 1.5], dtype=torch.float64)
    cosine = torch.stack([x, y, z], dim=-1) @ (direction / direction.norm())
    expected = (0.25 + 0.6 * cosine.clamp(min=0)).unsqueeze(-1) * albedo
    inner = x**2 + y**2 < 0.97**2
    assert inner.sum() > 2900
    assert (rendering.image[0][inner] - expected[inner]).abs().max() < 2e-3


def test_vertex_colors_are_linear_on_a_flat_face() -> None:
    flat = square()
    colors = torch.stack([flat.vertices[:, 0], flat.vertices[:, 1], torch.ones(4)], dim=-1)
    image = MeshRenderer(6, 6)(flat.vertices[None], flat.faces, FACING, vertex_colors=colors[None]).image[0]
    x, y = pixel_grid(6)
    torch.testing.assert_close(image.double(), torch.stack([x, y, torch.ones(6, 6)], dim=-1), rtol=0, atol=1e-6)


def test_a_texture_of_the_image_size_is_shown_texel_by_texel() -> None:
    """Row 0 of the texture is the top of the image."""
    flat, texture = square(), torch.rand(1, 3, 7, 7)
    rendering = MeshRenderer(7, 7)(flat.vertices[None], flat.faces, FACING, texture=texture, uvs=flat.uvs)
    torch.testing.assert_close(rendering.image, texture.permute(0, 2, 3, 1), rtol=0, atol=1e-5)
    assert rendering.mask.min() == 1


def test_uncovered_pixels_show_the_background() -> None:
    """A square of half the size covers the inner quarter of the image."""
    flat = square()
    rendering = MeshRenderer(8, 8, background=(0.1, 0.2, 0.3))(
        flat.vertices[None] / 2, flat.faces, FACING, vertex_colors=torch.ones(1, 4, 3)
    )
    covered = torch.zeros(8, 8, dtype=torch.bool)
    covered[2:6, 2:6] = True
    assert torch.equal(rendering.face_index[0] >= 0, covered)
    assert torch.equal(rendering.image[0][covered], torch.ones(16, 3))
    assert torch.equal(rendering.image[0][~covered], torch.tensor([0.1, 0.2, 0.3]).expand(48, 3))
    assert torch.equal(rendering.depth[0][~covered], torch.ones(48))


def direction_texture(rows: int, columns: int) -> Tensor:
    """A texture whose colour at every texel is the direction (x, y, z) that the templates' UVs put there."""
    inset = 1 / 64
    u = (np.arange(columns) + 0.5) / columns
    v = (np.arange(rows) + 0.5) / rows
    polar = np.clip((v - inset) / (1 - 2 * inset), 0, 1) * np.pi
    longitude = 2 * np.pi * u
    x, z = (np.sin(polar)[:, None] * f(longitude)[None] for f in (np.sin, np.cos))
    y = np.broadcast_to(np.cos(polar)[:, None], x.shape)
    return torch.from_numpy(np.stack([x, y, z])).float().unsqueeze(0)


def render_directions(sphere: Mesh, azimuth: float, elevation: float) -> tuple[Rendering, Tensor]:
    """The sphere with direction_texture on it, and the directions that its pixels should show."""
    world_to_clip = (perspective(0.6) @ orbit(azimuth, elevation, 4.0)).unsqueeze(0)
    arguments = (sphere.vertices.unsqueeze(0), sphere.faces, world_to_clip)
    renderer = MeshRenderer(96, 96)
    shown = renderer(*arguments, texture=direction_texture(256, 512), uvs=sphere.uvs, uv_faces=sphere.uv_faces)
    expected = renderer(*arguments, vertex_colors=sphere.vertices.unsqueeze(0)).image
    return shown, torch.nn.functional.normalize(expected, dim=-1)


@pytest.mark.parametrize("sphere", [icosphere(4), uv_sphere(32, 64)], ids=["icosphere", "uv sphere"])
@pytest.mark.parametrize(
    ("azimuth", "elevation"),
    [(0.0, 0.0), (math.pi, 0.3), (0.5, math.pi / 2), (0.5, -math.pi / 2)],
    ids=["seam", "opposite", "north pole", "south pole"],
)
def test_a_texture_is_continuous_across_the_seam_and_the_poles(sphere: Mesh, azimuth: float, elevation: float) -> None:
    shown, expected = render_directions(sphere, azimuth, elevation)
    covered = shown.face_index >= 0
    assert covered.float().mean() > 0.4
    assert (shown.image - expected)[covered].abs().max() < 0.05


def test_without_the_seam_faces_the_texture_is_torn() -> None:
    """The test above can fail: with one uv per vertex, a strip at the seam shows the whole texture backwards."""
    sphere = icosphere(4)
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    shared = torch.zeros(len(sphere.vertices), 2)
    shared[sphere.faces.reshape(-1)] = sphere.uvs[sphere.uv_faces.reshape(-1)] % 1.0
    shown, expected = render_directions(Mesh(sphere.vertices, sphere.faces, shared, sphere.faces), 0.0, 0.0)
    assert (shown.image - expected)[shown.face_index >= 0].abs().max() > 0.5
