"""Templates, topology and normals, against what geometry says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_meshes import cube

from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import (
    Mesh,
    edge_faces,
    face_normals,
    icosphere,
    normalize,
    spherical_uvs,
    unique_edges,
    unit,
    uv_sphere,
    vertex_face_table,
    vertex_normals,
)

SPHERES = {f"icosphere {n}": icosphere(n) for n in (0, 1, 3)} | {
    "uv sphere 2 x 3": uv_sphere(2, 3),
    "uv sphere 7 x 12": uv_sphere(7, 12),
}
spheres = pytest.mark.parametrize("sphere", SPHERES.values(), ids=SPHERES.keys())


def test_three_subdivisions_make_642_vertices() -> None:
    sphere = icosphere(3)
    assert (len(sphere.vertices), len(sphere.faces)) == (642, 1280)


@spheres
def test_spheres_are_closed_and_face_outwards(sphere: Mesh) -> None:
    assert torch.linalg.vector_norm(sphere.vertices, dim=-1).sub(1).abs().max() < 1e-6
    edges = unique_edges(sphere.faces)
    assert len(sphere.vertices) - len(edges) + len(sphere.faces) == 2
    assert len(edge_faces(sphere.faces)) == len(edges)
    centres = sphere.vertices[sphere.faces].mean(dim=1)
    assert ((face_normals(sphere.vertices[None], sphere.faces)[0] * centres).sum(dim=-1) > 0).all()


@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_radius_scales_spheres(radius: float) -> None:
    torch.testing.assert_close(icosphere(1, radius).vertices, icosphere(1).vertices * radius)
    torch.testing.assert_close(uv_sphere(4, 5, radius).vertices, uv_sphere(4, 5).vertices * radius)


def directions_of(uvs: torch.Tensor) -> torch.Tensor:
    longitude = 2 * math.pi * uvs[:, 0]
    polar = (uvs[:, 1] - 1 / 64) / (1 - 2 / 64) * math.pi
    return torch.stack([polar.sin() * longitude.sin(), polar.cos(), polar.sin() * longitude.cos()], dim=-1)


@spheres
def test_every_uv_is_the_direction_of_its_vertex(sphere: Mesh) -> None:
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    shown = directions_of(sphere.uvs)[sphere.uv_faces]
    torch.testing.assert_close(shown, sphere.vertices[sphere.faces], rtol=0, atol=1e-5)


@spheres
def test_no_face_spans_the_texture(sphere: Mesh) -> None:
    """At the seam u goes on beyond 1, so that no face reaches back over the whole texture."""
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    u = sphere.uvs[sphere.uv_faces][..., 0]
    assert (u.amax(dim=1) - u.amin(dim=1)).max() < 0.5
    assert u.min() >= 0
    assert 1 <= u.max() < 1.5


@spheres
def test_poles_lie_in_the_middle_of_their_faces(sphere: Mesh) -> None:
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    u = sphere.uvs[sphere.uv_faces][..., 0]
    at_pole = (sphere.vertices[:, 1].abs() > 1 - 1e-6)[sphere.faces]
    touching = at_pole.any(dim=1)
    assert touching.sum() >= 6
    others = torch.where(at_pole, 0.0, u).sum(dim=1) / 2
    torch.testing.assert_close(u[at_pole], others[touching])


@spheres
def test_the_uvs_of_a_vertex_are_one_turn_apart(sphere: Mesh) -> None:
    """A vertex off the poles has one uv, or at the seam two."""
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    pairs = torch.stack([sphere.faces.reshape(-1), sphere.uv_faces.reshape(-1)], dim=-1).unique(dim=0)
    for vertex in range(1, len(sphere.vertices)):
        if sphere.vertices[vertex, 1].abs() < 1 - 1e-6:
            uvs = sphere.uvs[pairs[pairs[:, 0] == vertex, 1]]
            assert len(uvs) <= 2
            torch.testing.assert_close(uvs.amax(dim=0) - uvs.amin(dim=0), torch.tensor([len(uvs) - 1.0, 0.0]))


def test_uvs_of_a_vertex_away_from_the_seam_are_shared() -> None:
    uvs, uv_faces = spherical_uvs(
        np.array([[1.0, 0, 0.2], [1, 0.5, 0], [1, 0, -0.2], [1, -0.5, 0]]), np.array([[0, 2, 1], [0, 3, 2]])
    )
    assert len(uvs) == 4
    assert uv_faces[0, 0] == uv_faces[1, 0]


def test_normalize_fits_the_unit_sphere() -> None:
    vertices = torch.rand(50, 3) * torch.tensor([5.0, 0.1, 2.0]) + 7
    unit = normalize(vertices)
    assert torch.linalg.vector_norm(unit, dim=-1).max() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(unit.amax(dim=0), -unit.amin(dim=0))
    for wrong in (torch.ones(3, 3), torch.empty(0, 3), torch.tensor([[0.0, float("nan"), 1.0]])):
        with pytest.raises(DibrError, match="normalize"):
            normalize(wrong)


def test_face_normals_have_twice_the_area_and_point_outwards() -> None:
    box = cube()
    normals = face_normals(box.vertices[None], box.faces)[0]
    torch.testing.assert_close(torch.linalg.vector_norm(normals, dim=-1), torch.full((12,), 4.0))
    assert ((normals * box.vertices[box.faces].mean(dim=1)).sum(dim=-1) > 0).all()


def test_vertex_normals_of_a_sphere_are_its_radii() -> None:
    sphere = icosphere(4)
    normals = vertex_normals(sphere.vertices[None], sphere.faces)[0]
    assert (normals - sphere.vertices).abs().max() < 1e-2


def test_gathered_and_scattered_normals_agree() -> None:
    sphere = icosphere(2)
    vertices = sphere.vertices + 0.1 * torch.randn(2, *sphere.vertices.shape)
    table = vertex_face_table(sphere.faces, len(sphere.vertices))
    torch.testing.assert_close(vertex_normals(vertices, sphere.faces, table), vertex_normals(vertices, sphere.faces))


def test_a_vertex_without_faces_has_no_normal() -> None:
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]]])
    faces = torch.tensor([[0, 1, 2]])
    for table in (None, vertex_face_table(faces, 4)):
        normals = vertex_normals(vertices, faces, table)[0]
        assert torch.equal(normals, torch.tensor([[0.0, 0, 1]] * 3 + [[0.0, 0, 0]]))


def test_vertex_face_table_lists_each_face_once() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    assert vertex_face_table(faces, 5).tolist() == [[0, 2], [0, 1], [0, 1], [1, 2], [2, 2]]


def test_edges_by_hand() -> None:
    """Two triangles that share the edge 1-2."""
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    assert unique_edges(faces).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert edge_faces(faces).tolist() == [[0, 1]]


def test_edges_of_more_than_two_faces_join_none() -> None:
    """Three pages of a book."""
    assert edge_faces(torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]])).tolist() == []


def test_to_moves_all_and_casts_only_floats() -> None:
    sphere = icosphere(0).to(torch.float64)
    assert sphere.uvs is not None
    assert (sphere.vertices.dtype, sphere.uvs.dtype, sphere.faces.dtype) == (torch.float64, torch.float64, torch.int64)
    assert sphere.to("meta").faces.device.type == "meta"


@pytest.mark.parametrize("make", [lambda: icosphere(-1), lambda: uv_sphere(1, 8), lambda: uv_sphere(4, 2)])
def test_templates_refuse_what_is_no_sphere(make) -> None:
    with pytest.raises(DibrError):
        make()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_vectors(dtype: torch.dtype) -> None:
    """Bit by bit torch's normalize and its gradient, but for vectors without a direction: their gradient is 0."""
    vectors = torch.randn(3, 40, 3, dtype=dtype)
    vectors[1, :3] = torch.tensor([[0.0, 0, 0], [1e-13, 0, 0], [1e-11, 0, 0]], dtype=dtype)
    vectors.requires_grad_()
    wanted, actual = torch.nn.functional.normalize(vectors, dim=-1, eps=1e-12), unit(vectors)
    assert torch.equal(actual, wanted)
    assert torch.equal(unit(vectors.detach()), wanted)
    weight = torch.randn(3, 40, 3, dtype=dtype)
    of_wanted, of_actual = (torch.autograd.grad(result, vectors, weight)[0] for result in (wanted, actual))
    assert of_wanted[1, :2].abs().amin() > 1e9
    of_wanted[1, :2] = 0
    assert torch.equal(of_actual, of_wanted)


def test_exported_unit_vectors_have_no_branch() -> None:
    """A graph for inference asks for no gradient."""

    class Unit(torch.nn.Module):
        def forward(self, vectors: torch.Tensor) -> torch.Tensor:
            return unit(vectors)

    program = torch.export.export(Unit(), (torch.randn(4, 3, requires_grad=True),))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.div.Tensor" in names
    assert "aten.where.self" not in names
