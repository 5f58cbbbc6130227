"""Lighting formulas against closed forms on planes and spheres, and against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from dibr_deploy.cameras import look_at, orbit, orthographic, perspective
from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import (
    DirectionalLight,
    Phong,
    harmonic_basis,
    irradiance_coefficients,
    lambert,
    make_light,
    phong,
    spherical_harmonics,
)
from dibr_deploy.mesh import icosphere
from dibr_deploy.renderer import MeshRenderer

DOUBLE = torch.float64
SPHERE = icosphere(5)
SIZE = 65
FACING = (orthographic(1.0) @ look_at((0.0, 0.0, 3.0)))[None]
"""Sees the square -1..1 of the xy plane: at pixel (x, y) the unit sphere's normal is (x, y, sqrt(1 - x^2 - y^2))."""


def sphere_normals() -> tuple[Tensor, Tensor]:
    """What FACING sees of the unit sphere, float64 [SIZE, SIZE, 3], and where it is well inside of the outline."""
    centres = (2 * torch.arange(SIZE, dtype=DOUBLE) + 1 - SIZE) / SIZE
    x, y = torch.meshgrid(centres, -centres, indexing="xy")
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    return torch.stack([x, y, z], dim=-1), x**2 + y**2 < 0.95**2


def render_sphere(world_to_clip: Tensor = FACING, **shading: object) -> Tensor:
    colors = torch.tensor([0.9, 0.5, 0.2]).expand(1, len(SPHERE.vertices), 3)
    renderer = MeshRenderer(SIZE, SIZE)
    return (
        renderer(SPHERE.vertices[None], SPHERE.faces, world_to_clip, vertex_colors=colors, **shading).image[0].double()
    )


ALBEDO = torch.tensor([0.9, 0.5, 0.2], dtype=DOUBLE)
LIGHT = DirectionalLight(
    direction=torch.tensor([[1.0, 2.0, 1.5]]),
    color=torch.tensor([[0.7, 0.5, 0.3]]),
    ambient=torch.tensor([[0.1, 0.2, 0.15]]),
)
TOWARDS = torch.tensor([1.0, 2.0, 1.5], dtype=DOUBLE) / math.sqrt(7.25)


def test_a_white_directional_light_is_the_same_as_a_packed_one() -> None:
    normals = torch.nn.functional.normalize(torch.randn(2, 5, 7, 3), dim=-1)
    packed = make_light(0.3, (1.0, 2.0, 1.5), 0.6)
    light = DirectionalLight(LIGHT.direction, torch.tensor([[0.6]]), torch.tensor([[0.3]]))
    torch.testing.assert_close(lambert(normals, light), lambert(normals, packed))
    viewer = torch.nn.functional.normalize(torch.randn(2, 5, 7, 3), dim=-1)
    for a, b in zip(*(phong(normals, viewer, each, Phong(0.4, 9.0)) for each in (light, packed)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_coloured_light_on_a_sphere() -> None:
    normals, inner = sphere_normals()
    cosine = (normals @ TOWARDS).clamp(min=0).unsqueeze(-1)
    expected = (LIGHT.ambient[0].double() + LIGHT.color[0].double() * cosine) * ALBEDO
    assert (render_sphere(light=LIGHT) - expected)[inner].abs().max() < 2e-3


def test_phong_by_hand() -> None:
    """The viewer in the mirror direction, straight above, and where the light comes from."""
    light = DirectionalLight(torch.tensor([[0.0, 6.0, 8.0]]), torch.tensor([[0.5, 1.0]]), torch.tensor([[0.1, 0.2]]))
    normals = torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 3)
    viewer = torch.tensor([[[0.0, -0.6, 0.8], [0.0, 0.0, 1.0], [0.0, 0.96, 0.28]]])
    diffuse, specular = phong(normals, viewer, light, Phong(specular=0.4, shininess=3.0, diffuse=0.9))
    torch.testing.assert_close(diffuse, torch.tensor([0.1 + 0.9 * 0.5 * 0.8, 0.2 + 0.9 * 0.8]).expand(1, 3, 2))
    highlight = torch.tensor([1.0, 0.8**3, 0.0])  # -0.576 + 0.224 < 0
    torch.testing.assert_close(specular, 0.4 * highlight[None, :, None] * torch.tensor([0.5, 1.0]))


def test_there_is_no_highlight_where_no_light_falls() -> None:
    """The mirrored direction looks at the viewer from behind, too: only n . l > 0 forbids it."""
    light = DirectionalLight(torch.tensor([[0.0, 0.6, -0.8]]), torch.ones(1, 1), torch.zeros(1, 1))
    viewer = torch.tensor([[[0.0, -0.6, -0.8]]])
    diffuse, specular = phong(torch.tensor([[[0.0, 0.0, 1.0]]]), viewer, light, Phong(1.0, 1.0))
    assert (float(diffuse), float(specular)) == (0.0, 0.0)


def test_highlights_on_a_sphere_seen_in_parallel() -> None:
    """v = (0, 0, 1) everywhere, so r . v = 2 (n . l) n_z - l_z."""
    normals, inner = sphere_normals()
    cosine = normals @ TOWARDS
    mirrored = 2 * cosine * normals[..., 2] - TOWARDS[2]
    shape = torch.where((cosine > 0) & (mirrored > 0), mirrored.clamp(min=0) ** 12, 0.0).unsqueeze(-1)
    color, ambient = LIGHT.color[0].double(), LIGHT.ambient[0].double()
    expected = (ambient + 0.8 * color * cosine.clamp(min=0).unsqueeze(-1)) * ALBEDO + 0.6 * color * shape
    image = render_sphere(light=LIGHT, material=Phong(specular=0.6, shininess=12.0, diffuse=0.8))
    assert (image - expected)[inner].abs().max() < 1e-2
    assert (0.6 * color * shape)[inner].max() > 0.4


def test_highlights_on_a_sphere_seen_in_perspective() -> None:
    """Rays from the eye meet the unit sphere where a quadratic equation says."""
    eye, angle = torch.tensor([0.0, 0.0, 4.0], dtype=DOUBLE), 0.4
    centres = (2 * torch.arange(SIZE, dtype=DOUBLE) + 1 - SIZE) / SIZE * math.tan(angle / 2)
    x, y = torch.meshgrid(centres, -centres, indexing="xy")
    ray = torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], dim=-1), dim=-1)
    along = ray @ eye
    discriminant = along**2 - 15
    point = eye + (-along - discriminant.clamp(min=0).sqrt()).unsqueeze(-1) * ray
    cosine = point @ TOWARDS
    mirrored = ((2 * cosine.unsqueeze(-1) * point - TOWARDS) * -ray).sum(dim=-1)
    shape = torch.where((cosine > 0) & (mirrored > 0), mirrored.clamp(min=0) ** 20, 0.0).unsqueeze(-1)
    color, ambient = LIGHT.color[0].double(), LIGHT.ambient[0].double()
    expected = (ambient + color * cosine.clamp(min=0).unsqueeze(-1)) * ALBEDO + 0.5 * color * shape
    camera = (perspective(angle) @ look_at((0.0, 0.0, 4.0)))[None]
    image = render_sphere(camera, light=LIGHT, material=Phong(0.5, 20.0))
    inner = discriminant > 0.15
    assert inner.sum() > 2000
    assert (image - expected)[inner].abs().max() < 1e-2


def test_the_highlight_on_a_plane_is_where_mirrors_have_it() -> None:
    """Seen from (0, 0, 2) under light from (-1, 0, 2): brightest at x = -1, which mirrors it to the viewer."""
    corners = torch.tensor([[[-3.0, -3, 0], [3, -3, 0], [3, 3, 0], [-3, 3, 0]]])
    image = MeshRenderer(49, 49, background=(0.0,))(
        corners,
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
        (perspective(2 * math.atan(1.0)) @ look_at((0.0, 0.0, 2.0)))[None],
        vertex_colors=torch.zeros(1, 4, 1),
        light=make_light(0.0, (-1.0, 0.0, 2.0), 1.0),
        material=Phong(1.0, 50.0),
    ).image[0, :, :, 0]
    row, column = divmod(int(image.argmax()), 49)
    assert (row, column) == (24, 12)  # NDC -0.5 is x = -1 at the distance 2
    assert float(image.max()) == pytest.approx(1.0, abs=5e-3)


def scipy_basis(directions: np.ndarray) -> np.ndarray:
    """The real harmonics from scipy's complex ones, without their Condon-Shortley sign."""
    x, y, z = directions.T
    polar, azimuth = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    columns = []
    for degree in range(3):
        for order in range(-degree, degree + 1):
            value = scipy.special.sph_harm_y(degree, abs(order), polar, azimuth) * (-1) ** abs(order)
            part = value.imag if order < 0 else value.real
            columns.append(part * (math.sqrt(2) if order else 1))
    return np.stack(columns, axis=-1)


def test_the_basis_is_the_real_spherical_harmonics() -> None:
    directions = torch.nn.functional.normalize(torch.randn(50, 3, dtype=DOUBLE), dim=-1)
    torch.testing.assert_close(harmonic_basis(directions), torch.from_numpy(scipy_basis(directions.numpy())))


def test_the_basis_has_the_published_constants() -> None:
    """Ramamoorthi and Hanrahan 2001, equation 3."""
    half = math.sqrt(0.5)
    at = harmonic_basis(
        torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [half, half, 0], [0, half, half], [half, 0, half]])
    )
    expected = {0: 0.282095, 1: 0.488603, 2: 0.488603, 3: 0.488603, 4: 1.092548, 5: 1.092548, 7: 1.092548, 8: 0.546274}
    rows = {0: 0, 1: 1, 2: 2, 3: 0, 4: 3, 5: 4, 7: 5, 8: 0}
    scale = {4: 2, 5: 2, 7: 2}
    for index, constant in expected.items():
        assert float(at[rows[index], index]) * scale.get(index, 1) == pytest.approx(constant, abs=1e-6)
    assert float(at[2, 6]) == pytest.approx(0.315392 * 2, abs=2e-6)


def half_sphere(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Directions around a normal and weights that integrate polynomials over the half sphere exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    cosine, share = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    azimuth = 2 * math.pi * torch.arange(24, dtype=DOUBLE) / 24
    sine = (1 - cosine**2).sqrt()
    local = torch.stack(
        [sine[:, None] * azimuth.cos(), sine[:, None] * azimuth.sin(), cosine[:, None].expand(-1, 24)], dim=-1
    )
    frame = torch.linalg.qr(torch.stack([normal, torch.randn(3, dtype=DOUBLE), torch.randn(3, dtype=DOUBLE)], dim=1)).Q
    frame = torch.stack([frame[:, 1], frame[:, 2], normal])
    return (local @ frame).reshape(-1, 3), (share[:, None] * 2 * math.pi / 24).expand(-1, 24).reshape(-1)


def test_the_basis_is_orthonormal() -> None:
    normal = torch.tensor([0.6, 0.0, 0.8], dtype=DOUBLE)
    total = torch.zeros(9, 9, dtype=DOUBLE)
    for side in (normal, -normal):
        directions, weights = half_sphere(side)
        basis = harmonic_basis(directions)
        total += basis.T @ (weights[:, None] * basis)
    torch.testing.assert_close(total, torch.eye(9, dtype=DOUBLE))


def test_irradiance_is_the_integral_over_the_half_sphere() -> None:
    """Radiance of degree 2 all around, gathered with the cosine and divided by pi: no approximation is left."""
    radiance = torch.randn(1, 9, 3, dtype=DOUBLE)
    coefficients = irradiance_coefficients(radiance)
    for normal in torch.nn.functional.normalize(torch.randn(4, 3, dtype=DOUBLE), dim=-1):
        directions, weights = half_sphere(normal)
        incoming = spherical_harmonics(directions[None], radiance)[0]
        gathered = (incoming * (weights * (directions @ normal))[:, None]).sum(dim=0) / math.pi
        torch.testing.assert_close(spherical_harmonics(normal[None, None], coefficients)[0, 0], gathered)


def test_light_from_everywhere_shows_the_albedo() -> None:
    coefficients = torch.zeros(1, 9)
    coefficients[0, 0] = math.sqrt(4 * math.pi)  # radiance 1
    image = render_sphere(harmonics=irradiance_coefficients(coefficients))
    _, inner = sphere_normals()
    torch.testing.assert_close(image[inner], ALBEDO.expand_as(image[inner]), rtol=0, atol=1e-6)


def test_harmonics_on_a_sphere() -> None:
    normals, inner = sphere_normals()
    coefficients = torch.randn(1, 9, 3)
    basis = torch.from_numpy(scipy_basis(normals.reshape(-1, 3).numpy())).reshape(SIZE, SIZE, 9)
    expected = (basis @ coefficients[0].double()) * ALBEDO
    assert (render_sphere(harmonics=coefficients) - expected)[inner].abs().max() < 1e-2
    together = render_sphere(harmonics=coefficients, light=LIGHT)
    both = render_sphere(harmonics=coefficients) + render_sphere(light=LIGHT)
    torch.testing.assert_close(together[inner], both[inner], rtol=0, atol=1e-5)


def test_lighting_at_vertices_is_gouraud_shading() -> None:
    """The functions take normals at vertices as well: on a fine sphere both ways agree."""
    from dibr_deploy import ops, shading
    from dibr_deploy.cameras import project

    normals = torch.nn.functional.normalize(SPHERE.vertices, dim=-1)[None]
    colors = shading.shade(torch.tensor([0.9, 0.5, 0.2]).expand_as(normals), lambert(normals, LIGHT))
    raster = ops.rasterize(project(SPHERE.vertices[None], FACING), SPHERE.faces, SIZE, SIZE)
    at_vertices = shading.vertex_color(colors, SPHERE.faces, raster)
    _, inner = sphere_normals()
    assert (at_vertices[0] - render_sphere(light=LIGHT))[inner].abs().max() < 5e-3


def test_flat_normals_make_facets() -> None:
    """An icosahedron shows one colour per face, the Lambert factor of that face's normal."""
    coarse = icosphere(0)
    camera = (perspective(0.6) @ orbit(0.3, 0.2, 4.0))[None]
    light = make_light(0.2, (1.0, 1.0, 2.0), 0.7)
    shown = MeshRenderer(33, 33, background=(0.0,), smooth=False)(
        coarse.vertices[None], coarse.faces, camera, vertex_colors=torch.ones(1, 12, 1), light=light
    )
    corners = coarse.vertices[coarse.faces]
    centres = torch.nn.functional.normalize(corners.mean(dim=1), dim=-1)  # of an icosahedron: the faces' normals
    expected = 0.2 + 0.7 * (centres @ (torch.tensor([1.0, 1.0, 2.0]) / math.sqrt(6))).clamp(min=0)
    covered = shown.face_index[0] >= 0
    torch.testing.assert_close(shown.image[0, covered, 0], expected[shown.face_index[0][covered].long()])


PARTS_OF_A_MATERIAL = (0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]]))


@pytest.mark.parametrize("specular", [*PARTS_OF_A_MATERIAL, torch.full((1, 3), 0.5)])
@pytest.mark.parametrize("shininess", PARTS_OF_A_MATERIAL)
def test_a_material_may_be_given_for_all_or_for_each(specular: float | Tensor, shininess: float | Tensor) -> None:
    expected = render_sphere(light=LIGHT, material=Phong(0.5, 0.5))
    assert torch.equal(render_sphere(light=LIGHT, material=Phong(specular, shininess)), expected)


@pytest.mark.parametrize(
    ("shading", "says"),
    [
        (
            {"light": LIGHT._replace(direction=torch.ones(1, 4))},
            r"light.direction must be \[1 or 1, 3\], but is \[1, 4\]",
        ),
        ({"light": LIGHT._replace(color=torch.ones(3))}, r"light.color must be \[1 or 1, 1 or C\], but is \[3\]"),
        ({"light": LIGHT._replace(ambient=torch.ones(2, 3))}, r"light.ambient must be"),
        ({"material": Phong(1.0, 1.0)}, "expects light together with material"),
        (
            {"light": LIGHT, "material": Phong(torch.tensor([0.5, 0.4, 0.3]), 8.0)},
            r"material.specular must be a number, \[\], \[1 or 1\] or \[1 or 1, 1 or 3\], but is \[3\]",
        ),
        (
            {"light": LIGHT, "material": Phong(0.5, torch.full((1, 3), 8.0))},
            r"material.shininess must be a number, \[\], \[1 or 1\] or \[1 or 1, 1\], but is \[1, 3\]",
        ),
        ({"light": LIGHT, "material": Phong(0.5, torch.full((2,), 8.0))}, r"shininess must be .*, but is \[2\]"),
        ({"light": LIGHT, "material": Phong(0.5, 8.0, torch.ones(1, 2))}, r"diffuse must be .*, but is \[1, 2\]"),
        ({"light": LIGHT, "material": Phong(torch.ones(1, 1, 3), 8.0)}, r"specular must be .*, but is \[1, 1, 3\]"),
        ({"harmonics": torch.ones(2, 9)}, r"harmonics must be \[1 or 1, 9"),
        ({"harmonics": torch.ones(1, 4)}, r"coefficients must be \[B or 1, 9\]"),
    ],
)
def test_lights_that_do_not_fit_are_named(shading: dict, says: str) -> None:
    with pytest.raises(DibrError, match=says):
        render_sphere(**shading)
