"""What MeshRenderer returns on demand, normal maps, and meshes of different topologies in one batch."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from small_meshes import box, egg
from torch import Tensor

from dibr_deploy.cameras import look_at, orbit, orthographic, perspective
from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import make_light
from dibr_deploy.mesh import Mesh, icosphere, vertex_face_table, vertex_normals
from dibr_deploy.packing import PackedMeshes, faces_of_images, pack
from dibr_deploy.renderer import OUTPUTS, MeshRenderer

FACING = (orthographic(1.0) @ look_at((0.0, 0.0, 3.0)))[None]
SQUARE = torch.tensor([[-1.0, 1, 0], [-1, -1, 0], [1, -1, 0], [1, 1, 0]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])
UVS = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
"""Of the square: uv (0, 0) at its upper left."""


def grid(size: int) -> tuple[Tensor, Tensor]:
    centres = (2 * torch.arange(size) + 1 - size) / size
    x, y = torch.meshgrid(centres, -centres, indexing="xy")
    return x, y


def test_outputs_of_a_tilted_square() -> None:
    """z = x / 2: its depth, normal, uv and position at every pixel are known."""
    tilted = SQUARE.clone()
    tilted[:, 2] = tilted[:, 0] / 2
    given = MeshRenderer(6, 6)(tilted[None], FACES, FACING, uvs=UVS, outputs=OUTPUTS[2:])
    assert list(given) == list(OUTPUTS[2:])
    x, y = grid(6)
    assert bool((given["face_index"] >= 0).all())
    near, far = 0.1, 100.0
    torch.testing.assert_close(given["depth"][0], (2 * (3 - x / 2) - near - far) / (far - near))
    torch.testing.assert_close(given["position"][0], torch.stack([x, y, x / 2], dim=-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(given["uv"][0], torch.stack([(x + 1) / 2, (1 - y) / 2], dim=-1), rtol=0, atol=1e-6)
    normal = torch.tensor([-0.5, 0.0, 1.0]) / math.sqrt(1.25)
    torch.testing.assert_close(given["normal"][0], normal.expand(6, 6, 3))
    torch.testing.assert_close(given["barycentrics"].sum(dim=-1), torch.ones(1, 6, 6))


def test_outputs_are_what_the_whole_rendering_has() -> None:
    sphere, light = icosphere(2), make_light(0.3, (1.0, 1.0, 1.0), 0.5)
    camera = perspective(0.7) @ orbit(torch.tensor([0.1, 2.0]), 0.2, 3.0)
    arguments = {"vertex_colors": torch.rand(1, len(sphere.vertices), 3), "light": light}
    renderer = MeshRenderer(16, 20)
    whole = renderer(sphere.vertices[None], sphere.faces, camera, **arguments)
    for name in ("image", "mask", "face_index", "depth"):
        part = renderer(sphere.vertices[None], sphere.faces, camera, **arguments, outputs=[name])
        assert list(part) == [name]
        assert torch.equal(part[name], getattr(whole, name))


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dibr_deploy import ops

    def never(*args: object, **options: object) -> None:
        raise AssertionError("computed though nobody asked")

    for name in ("soft_mask", "texture", "interpolate"):
        monkeypatch.setattr(ops, name, never)
    given = MeshRenderer(4, 4)(SQUARE[None], FACES, FACING, outputs=["face_index", "depth"])
    assert list(given) == ["face_index", "depth"]


def test_background_of_every_output() -> None:
    given = MeshRenderer(4, 4, background=(0.3,))(
        SQUARE[None] * 0.4, FACES, FACING, vertex_colors=torch.ones(1, 4, 1), uvs=UVS, outputs=OUTPUTS
    )
    outside = given["face_index"] < 0
    assert outside.sum() == 12
    values = {"image": 0.3, "depth": 1, "barycentrics": 0, "normal": 0, "uv": 0, "position": 0}
    for name, value in values.items():
        assert bool((given[name][outside] == value).all()), name


def test_given_normals_take_the_place_of_the_meshs_own() -> None:
    """At vertices, and with an index of their own: one normal for each face."""
    normals = torch.tensor([[[0.0, 3, 4], [0, 0, 5]]])
    own = torch.tensor([[0, 0, 0], [1, 1, 1]])
    given = MeshRenderer(4, 4)(
        SQUARE[None], FACES, FACING, normals=normals, normal_faces=own, outputs=["normal", "face_index"]
    )
    expected = torch.tensor([[0.0, 0.6, 0.8], [0, 0, 1]])[given["face_index"].long()]
    torch.testing.assert_close(given["normal"], expected)
    smooth = MeshRenderer(4, 4)(SQUARE[None], FACES, FACING, normals=torch.ones(1, 4, 3), outputs=["normal"])["normal"]
    torch.testing.assert_close(smooth, torch.full((1, 4, 4, 3), 1 / math.sqrt(3)))


RIGHT, UP, OUT = (1.0, 0.5, 0.5), (0.5, 1.0, 0.5), (0.5, 0.5, 1.0)
"""Colours of a normal map: along +u, against v, along the normal."""


@pytest.mark.parametrize(
    ("color", "uvs", "expected"),
    [
        (OUT, UVS, (0, 0, 1)),
        (RIGHT, UVS, (1, 0, 0)),
        (UP, UVS, (0, 1, 0)),
        (RIGHT, 1 - UVS, (-1, 0, 0)),
        (UP, 1 - UVS, (0, -1, 0)),
        (RIGHT, UVS * torch.tensor([-1.0, 1.0]), (-1, 0, 0)),
        (UP, UVS * torch.tensor([-1.0, 1.0]), (0, 1, 0)),
        (UP, UVS.flip(1), (-1, 0, 0)),
        (RIGHT, UVS.flip(1), (0, -1, 0)),
        ((0.8, 0.5, 0.9), UVS, (0.6, 0, 0.8)),
        (RIGHT, torch.zeros(4, 2), (0, 0, 0)),
        ((0.8, 0.5, 0.9), torch.zeros(4, 2), (0, 0, 1)),
    ],
)
def test_the_directions_of_a_normal_map(color: tuple, uvs: Tensor, expected: tuple) -> None:
    """Also for uvs that are turned, mirrored, and without area."""
    bumps = torch.tensor(color).reshape(1, 3, 1, 1)
    normal = MeshRenderer(4, 4)(SQUARE[None], FACES, FACING, uvs=uvs, normal_map=bumps, outputs=["normal"])["normal"]
    torch.testing.assert_close(
        normal, torch.tensor(expected, dtype=torch.float32).expand(1, 4, 4, 3), rtol=0, atol=1e-6
    )


def test_a_normal_map_of_waves_shades_the_plane_as_waves() -> None:
    """z = sin(3 x) / 6 has the normal (-cos(3 x) / 2, 0, 1); texel by texel on the flat square."""
    x, _ = grid(32)
    wave = torch.nn.functional.normalize(
        torch.stack([-(3 * x).cos() / 2, torch.zeros(32, 32), torch.ones(32, 32)]), dim=0
    )
    light = make_light(0.1, (1.0, 0.5, 2.0), 0.8)
    image = MeshRenderer(32, 32, background=(0.0,))(
        SQUARE[None],
        FACES,
        FACING,
        vertex_colors=torch.ones(1, 4, 1),
        uvs=UVS,
        normal_map=(wave[None] + 1) / 2,
        light=light,
    ).image
    direction = torch.tensor([1.0, 0.5, 2.0]) / math.sqrt(5.25)
    expected = 0.1 + 0.8 * (wave * direction[:, None, None]).sum(dim=0).clamp(min=0)
    torch.testing.assert_close(image[0, :, :, 0], expected, rtol=0, atol=1e-5)


def test_an_even_normal_map_changes_nothing_on_a_sphere() -> None:
    sphere = icosphere(2)
    camera = (perspective(0.7) @ orbit(0.4, 0.2, 3.0))[None]
    arguments = {"uvs": sphere.uvs, "uv_faces": sphere.uv_faces, "outputs": ["normal"]}
    even = torch.tensor(OUT).reshape(1, 3, 1, 1)
    plain = MeshRenderer(24, 24)(sphere.vertices[None], sphere.faces, camera, **arguments)["normal"]
    mapped = MeshRenderer(24, 24)(sphere.vertices[None], sphere.faces, camera, normal_map=even, **arguments)["normal"]
    torch.testing.assert_close(mapped, plain)


def textured(mesh: Mesh, size: int = 8) -> Mesh:
    sphere = icosphere(1)
    return dataclasses.replace(
        sphere, vertices=sphere.vertices * mesh.vertices.abs().max(), texture=torch.rand(3, size, size)
    )


@pytest.mark.parametrize("smooth", [True, False], ids=["smooth", "flat"])
def test_packed_meshes_look_as_each_does_alone(smooth: bool) -> None:
    meshes = [box(), egg(), box()]
    packed = pack(meshes)
    camera = perspective(0.8) @ orbit(torch.tensor([0.3, 1.5, 2.5]), 0.4, 4.0)
    light = make_light(0.2, (1.0, 2.0, 1.0), 0.7)
    renderer = MeshRenderer(20, 24, smooth=smooth)
    together = renderer(
        packed.vertices,
        packed.faces,
        camera,
        vertex_colors=packed.vertex_colors,
        light=light,
        face_ranges=packed.face_ranges,
    )
    assert packed.vertex_counts.tolist() == [8, 162, 8]
    for index, mesh in enumerate(meshes):
        alone = renderer(
            mesh.vertices[None],
            mesh.faces,
            camera[index : index + 1],
            vertex_colors=mesh.vertex_colors[None],
            light=light,
        )
        start = int(packed.face_ranges[index, 0])
        own = torch.where(together.face_index[index] >= 0, together.face_index[index] - start, -1)
        assert torch.equal(own, alone.face_index[0])
        assert (alone.face_index >= 0).float().mean() > 0.05
        for name in ("image", "mask", "depth"):
            torch.testing.assert_close(getattr(together, name)[index], getattr(alone, name)[0], rtol=0, atol=1e-5)


def test_the_outline_of_a_packed_mesh_is_its_own() -> None:
    """Half a square beside a whole one: its long side is an outline, though the other's faces go on beyond it."""
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0.1], [1, 1, 0], [-1, 1, 0.2]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    meshes = [Mesh(corners, faces[:count], vertex_colors=torch.rand(4, 3)) for count in (1, 2)]
    packed = pack(meshes)
    camera = perspective(0.8) @ orbit(torch.tensor([0.3, -0.2]), 0.1, 4.0)

    def image(mesh: Mesh | PackedMeshes, camera: Tensor, antialias: bool, **ranges: Tensor) -> Tensor:
        vertices, colors = (part if part.dim() == 3 else part[None] for part in (mesh.vertices, mesh.vertex_colors))
        renderer = MeshRenderer(20, 20, antialias=antialias)
        return renderer(vertices, mesh.faces, camera, vertex_colors=colors, **ranges).image

    together = image(packed, camera, True, face_ranges=packed.face_ranges)
    for index, mesh in enumerate(meshes):
        alone = image(mesh, camera[index : index + 1], True)[0]
        assert (alone - image(mesh, camera[index : index + 1], False)[0]).abs().max() > 0.1
        torch.testing.assert_close(together[index], alone, rtol=0, atol=1e-5)


def test_packed_normals_from_the_table_are_those_without_it() -> None:
    packed = pack([box(), egg()])
    camera = perspective(0.8) @ orbit(torch.tensor([0.3, 1.5]), 0.4, 4.0)
    arguments = {"face_ranges": packed.face_ranges, "outputs": ["normal"]}
    scattered, gathered = (
        MeshRenderer(20, 20)(packed.vertices, packed.faces, camera, vertex_faces=table, **arguments)["normal"]
        for table in (None, vertex_face_table(packed.faces, packed.vertices.shape[1]))
    )
    torch.testing.assert_close(gathered, scattered)


def test_packed_textures_and_uvs() -> None:
    meshes = [textured(icosphere(0)), dataclasses.replace(icosphere(2), texture=torch.rand(3, 8, 8))]
    packed = pack(meshes)
    camera = perspective(0.8) @ orbit(torch.tensor([0.3, 1.5]), 0.4, 4.0)
    together = MeshRenderer(20, 20)(
        packed.vertices,
        packed.faces,
        camera,
        texture=packed.texture,
        uvs=packed.uvs,
        uv_faces=packed.uv_faces,
        face_ranges=packed.face_ranges,
    ).image
    for index, mesh in enumerate(meshes):
        alone = MeshRenderer(20, 20)(
            mesh.vertices[None],
            mesh.faces,
            camera[index : index + 1],
            texture=mesh.texture[None],
            uvs=mesh.uvs,
            uv_faces=mesh.uv_faces,
        ).image
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-6)


def test_gradients_reach_each_packed_mesh_alone() -> None:
    packed = pack([box(), egg()])
    vertices = packed.vertices.clone().requires_grad_()
    shown = MeshRenderer(16, 16)(
        vertices,
        packed.faces,
        perspective(0.8) @ orbit(torch.tensor([0.3, 1.5]), 0.4, 4.0),
        vertex_colors=packed.vertex_colors,
        light=make_light(0.2, (1.0, 2.0, 1.0), 0.7),
        face_ranges=packed.face_ranges,
    )
    [gradient] = torch.autograd.grad(shown.image[0].sum() + shown.mask[0].sum(), vertices)
    assert gradient[0, :8].abs().max() > 0
    assert gradient[0, 8:].abs().max() == 0
    assert gradient[1].abs().max() == 0


def test_which_faces_an_image_has() -> None:
    ranges = torch.tensor([[0, 2], [2, 0], [1, 3]])
    expected = [[True, True, False, False], [False] * 4, [False, True, True, True]]
    assert faces_of_images(ranges, 4).tolist() == expected


def test_normals_leave_out_faces_that_are_not_valid() -> None:
    """Two faces at a right angle: each alone, both, and none."""
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]]).expand(4, -1, -1)
    faces = torch.tensor([[0, 1, 2], [0, 3, 1]])
    valid = torch.tensor([[True, False], [False, True], [True, True], [False, False]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[0, 0, 1], [0, 1, 0], [0, half, half], [0, 0, 0]])
    torch.testing.assert_close(vertex_normals(vertices, faces, face_valid=valid)[:, 0], expected)


@pytest.mark.parametrize(
    ("meshes", "says"),
    [
        ([], "meshes must hold at least one mesh"),
        ([box(), icosphere(0)], "all meshes or none must have uvs, but 1 of 2 have"),
        ([textured(box()), textured(box(), 4)], r"textures must be of one size, but are \[3, 8, 8\], \[3, 4, 4\]"),
    ],
)
def test_meshes_that_cannot_be_packed_are_named(meshes: list[Mesh], says: str) -> None:
    with pytest.raises(DibrError, match=f"^pack: {says}"):
        pack(meshes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"vertex_colors": torch.rand(1, 4, 4)},
            r"vertex_colors must have as many channels as background, 3, but is \[1, 4, 4\]",
        ),
        ({"texture": torch.rand(1, 8, 8, 3), "uvs": UVS}, r"texture must be .*\[1, 8, 8, 3\]; permute\(0, 3, 1, 2\)"),
        ({"texture": torch.rand(8, 8, 3), "uvs": UVS}, r"texture must be \[B or 1, 3, Ht, Wt\].* but is \[8, 8, 3\]"),
        (
            {"texture": torch.rand(1, 4, 8, 8), "uvs": UVS},
            r"with as many channels as background, but is \[1, 4, 8, 8\]$",
        ),
        ({"vertex_colors": torch.rand(1, 4, 3), "normal_map": torch.rand(1, 3, 2, 2)}, "uvs together with normal_map"),
        ({"outputs": ["uv"]}, "uvs together with normal_map and for the output uv"),
        ({"outputs": ["albedo"]}, "outputs must be out of image, mask, .*, but has 'albedo'"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict, says: str) -> None:
    with pytest.raises(DibrError, match=says):
        MeshRenderer(4, 4)(SQUARE[None], FACES, FACING, **arguments)
