"""kaolin's published conventions: small images computed by hand, and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import dibr_deploy.kaolin as kal
from dibr_deploy.errors import DibrError

DOUBLE = torch.float64
TRIANGLE = torch.tensor([[[[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]]], dtype=DOUBLE)
"""The lower left half of the image: of 4 x 4 pixels, 4, 3, 2 and 1 from the bottom up, four of them on the edge."""


def depths(*values: float) -> Tensor:
    """[1, F, 3], one depth for each face."""
    return torch.tensor(values, dtype=DOUBLE).reshape(1, -1, 1).expand(-1, -1, 3)


def flat(*values: float) -> Tensor:
    """[1, F, 3, 1], one feature for each face."""
    return depths(*values).unsqueeze(-1)


def test_a_triangle_by_hand() -> None:
    """Row 0 is the top; an edge through a pixel's centre covers it; background is 0 and -1; indices are int64."""
    features, index = kal.render.mesh.rasterize(4, 4, depths(-2.0), TRIANGLE, flat(5.0))
    expected = torch.tensor([[0, -1, -1, -1], [0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
    assert index.dtype == torch.int64
    assert torch.equal(index[0], expected)
    torch.testing.assert_close(features[0, :, :, 0], torch.where(expected == 0, 5.0, 0.0).double(), rtol=0, atol=1e-6)


def test_features_are_linear_in_the_image_whatever_the_depth() -> None:
    """u = 0, 1, 0 and v = 0, 0, 1 at the corners are (x + 1) / 2 and (y + 1) / 2; no division by depth."""
    corners = torch.tensor([[[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]], dtype=DOUBLE)
    slanted = torch.tensor([[[-1.0, -9.0, -3.0]]], dtype=DOUBLE)
    features, index = kal.render.mesh.rasterize(4, 4, slanted, TRIANGLE, corners)
    centres = (2 * torch.arange(4, dtype=DOUBLE) + 1) / 8
    v, u = torch.meshgrid(centres.flip(0), centres, indexing="ij")
    expected = torch.stack([u, v], dim=-1) * (index[0] >= 0).unsqueeze(-1)
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-6)


def test_the_largest_camera_z_is_in_front_and_the_first_face_wins_a_tie() -> None:
    both = TRIANGLE.repeat(1, 2, 1, 1)
    for z, seen in (((-3.0, -2.0), 1), ((-2.0, -3.0), 0), ((-2.0, -2.0), 0), ((5.0, -2.0), 0)):
        _, index = kal.render.mesh.rasterize(4, 4, depths(*z), both, flat(1.0, 2.0))
        assert index.max() == seen, z


def test_faces_that_are_not_valid_are_not_drawn() -> None:
    both = TRIANGLE.repeat(1, 2, 1, 1)
    _, index = kal.render.mesh.rasterize(
        4, 4, depths(-1.0, -2.0), both, flat(1.0, 2.0), valid_faces=torch.tensor([[False, True]])
    )
    assert index.unique().tolist() == [-1, 1]


def test_a_list_of_features_comes_back_as_a_tuple() -> None:
    features, _ = kal.render.mesh.rasterize(4, 4, depths(-1.0), TRIANGLE, [flat(1.0), flat(2.0).repeat(1, 1, 1, 2)])
    assert isinstance(features, tuple)
    assert [tuple(part.shape) for part in features] == [(1, 4, 4, 1), (1, 4, 4, 2)]
    assert float(features[1].max()) == pytest.approx(2.0)


def test_back_faces_are_dropped_from_the_image_but_not_from_the_soft_mask() -> None:
    """A face with normal z < 0 leaves its pixels uncovered; as a neighbour it still counts there, inside too."""
    features, mask, index = kal.render.mesh.dibr_rasterization(
        4, 4, depths(-1.0), TRIANGLE, flat(1.0), torch.tensor([[-1.0]], dtype=DOUBLE)
    )
    assert index.max() == -1
    assert features.abs().max() == 0
    # Pixel (row 2, column 1) at (-0.25, -0.25): its nearest edge is the diagonal x + y = 0, sqrt(2) / 4 away.
    d2 = 0.25**2 * 2
    assert float(mask[0, 2, 1]) == pytest.approx(math.exp(-7000 * d2), abs=1e-12)
    _, drawn, _ = kal.render.mesh.dibr_rasterization(
        4, 4, depths(-1.0), TRIANGLE, flat(1.0), torch.tensor([[0.0]], dtype=DOUBLE)
    )
    assert drawn[0, 2, 1] == 1


def test_the_soft_mask_by_hand() -> None:
    """A vertical edge at x = -0.3 and pixels of 10 columns: d is the way from the centre; beyond boxlen it is 0."""
    face = torch.tensor([[[[-5.0, -5.0], [-0.3, -5.0], [-0.3, 5.0]]]], dtype=DOUBLE)
    nothing = torch.full((1, 10, 10), -1)
    mask = kal.render.mesh.dibr_soft_mask(face, nothing, sigmainv=50, boxlen=0.45, knum=30)
    centres = (2 * torch.arange(10, dtype=DOUBLE) + 1) / 10 - 1
    distance = (centres + 0.3).abs()
    expected = torch.where(centres < -0.3 + 0.45, torch.exp(-50 * distance**2), 0.0)
    torch.testing.assert_close(mask[0, 5, 3:], expected[3:], rtol=0, atol=1e-12)
    two = kal.render.mesh.dibr_soft_mask(face.repeat(1, 2, 1, 1), nothing, sigmainv=50, boxlen=0.45, knum=30)
    torch.testing.assert_close(two[0, 5, 3:], 1 - (1 - expected[3:]) ** 2, rtol=0, atol=1e-12)
    one = kal.render.mesh.dibr_soft_mask(face.repeat(1, 2, 1, 1), nothing, sigmainv=50, boxlen=0.45, knum=1)
    assert torch.equal(one, mask)


def test_a_covered_pixel_has_mask_1() -> None:
    covered = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert bool((kal.render.mesh.dibr_soft_mask(TRIANGLE, covered) == 1).all())


def test_the_defaults_are_kaolins() -> None:
    import inspect

    def defaults(function: object) -> dict:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}

    mesh = kal.render.mesh
    assert defaults(mesh.rasterize) == {"valid_faces": None, "multiplier": None, "eps": None, "backend": "cuda"}
    assert defaults(mesh.dibr_soft_mask) == {"sigmainv": 7000, "boxlen": 0.02, "knum": 30, "multiplier": 1000.0}
    assert defaults(mesh.dibr_rasterization) == {
        **{"sigmainv": 7000, "boxlen": 0.02, "knum": 30},
        **{"multiplier": None, "eps": None, "rast_backend": "cuda"},
    }
    assert defaults(mesh.texture_mapping) == {"mode": "nearest"}


@pytest.mark.parametrize(("multiplier", "eps"), [(1.0, 0.5), (10.0, 0.5), (10.0, 200.0), (None, None)])
def test_eps_shrinks_the_weights_of_a_face_by_its_area(multiplier: float | None, eps: float | None) -> None:
    """The doubled area of the triangle is 4, times the multiplier squared; a clockwise one has -4 and -eps."""
    area = 4 * (multiplier or 1000.0) ** 2
    shrunk = area / (area + (1e-8 if eps is None else eps))
    for corners in (TRIANGLE, TRIANGLE[:, :, [0, 2, 1]]):
        features, _ = kal.render.mesh.rasterize(4, 4, depths(-1.0), corners, flat(3.0), None, multiplier, eps)
        assert float(features.max()) == pytest.approx(3 * shrunk, rel=1e-12)
        assert float(features[0, 3, 1, 0]) == pytest.approx(3 * shrunk, rel=1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_the_gradient_to_corners_is_that_of_weights_with_eps_in_the_denominator(eps: float) -> None:
    """Written out for every covered pixel: w_k = e_k / (A + eps) for the last two corners, the first gets the rest."""
    corners = (TRIANGLE + 0.1 * torch.randn(TRIANGLE.shape, dtype=DOUBLE)).requires_grad_()
    features = torch.randn(1, 1, 3, 2, dtype=DOUBLE)
    image, index = kal.render.mesh.rasterize(6, 6, depths(-1.0), corners, features, eps=eps)
    weight = torch.randn(image.shape, dtype=DOUBLE)
    [actual] = torch.autograd.grad((image * weight).sum(), corners)

    a, b, c = corners[0, 0].unbind(dim=0)
    total = torch.zeros((), dtype=DOUBLE)
    for row, column in (index[0] == 0).nonzero().tolist():
        p = torch.tensor([(2 * column - 5) / 6, (5 - 2 * row) / 6], dtype=DOUBLE)
        cross = lambda u, v: u[0] * v[1] - u[1] * v[0]  # noqa: E731
        area = cross(b - a, c - a)
        w_1, w_2 = cross(p - a, c - a) / (area + eps), cross(b - a, p - a) / (area + eps)
        value = (1 - w_1 - w_2) * features[0, 0, 0] + w_1 * features[0, 0, 1] + w_2 * features[0, 0, 2]
        total = total + (value * weight[0, row, column]).sum()
    [expected] = torch.autograd.grad(total, corners)
    assert (index == 0).sum() > 10
    torch.testing.assert_close(actual, expected)


def test_gradients_match_finite_differences() -> None:
    """Without eps, forward and backward are of one function."""
    corners = (TRIANGLE * 1.3).repeat(1, 2, 1, 1).requires_grad_()
    features = torch.rand(1, 2, 3, 2, dtype=DOUBLE, requires_grad=True)
    z = depths(-2.0, -1.0).clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c, f: kal.render.mesh.rasterize(5, 4, z, c, f, eps=0.0)[0], (corners, features)
    )
    nothing = torch.full((1, 4, 4), -1)
    uneven = (corners.detach() * 0.5 + 0.1 * torch.rand(corners.shape, dtype=DOUBLE)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c: kal.render.mesh.dibr_soft_mask(c, nothing, sigmainv=10, boxlen=2.0), (uneven,), atol=1e-5
    )
    image, _ = kal.render.mesh.rasterize(5, 4, z, corners, features)
    assert torch.autograd.grad(image.sum(), z, allow_unused=True) == (None,)


def test_no_faces_give_background() -> None:
    empty = torch.empty(2, 0, 3, 2)
    features, mask, index = kal.render.mesh.dibr_rasterization(
        3, 5, empty[..., 0], empty, torch.empty(2, 0, 3, 4), torch.empty(2, 0)
    )
    assert features.shape == (2, 3, 5, 4)
    assert (float(mask.max()), int(index.max())) == (0.0, -1)


def test_prepare_vertices_by_hand() -> None:
    """From (0, 0, 4) with focal length 2: (x, y, z) is at 2 (x, y) / (4 - z)."""
    vertices = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 2.0], [-1.0, 0.0, 0.0]]], dtype=DOUBLE)
    faces = torch.tensor([[0, 1, 2], [2, 1, 0]])
    proj = kal.render.camera.generate_perspective_projection(2 * math.atan(0.5), dtype=DOUBLE)
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=DOUBLE)
    eye = torch.tensor([[0.0, 0.0, 4.0]], dtype=DOUBLE)
    rotation, shift = kal.render.camera.generate_rotate_translate_matrices(eye, torch.zeros_like(eye), up)
    transform = kal.render.camera.generate_transformation_matrix(eye, torch.zeros_like(eye), up)
    in_camera = torch.tensor([[1.0, 0, -4], [0, 1, -2], [-1, 0, -4]], dtype=DOUBLE)
    in_image = torch.tensor([[0.5, 0], [0, 1], [-0.5, 0]], dtype=DOUBLE)
    normal = torch.tensor([0.0, -2, 1], dtype=DOUBLE) / math.sqrt(5)
    for camera in ({"camera_rot": rotation, "camera_trans": shift}, {"camera_transform": transform}):
        by_face, image, normals = kal.render.mesh.prepare_vertices(vertices, faces, proj, **camera)
        torch.testing.assert_close(by_face[0], torch.stack([in_camera, in_camera.flip(0)]))
        torch.testing.assert_close(image[0], torch.stack([in_image, in_image.flip(0)]))
        torch.testing.assert_close(normals[0], torch.stack([normal, -normal]))


def test_texture_mapping_by_hand() -> None:
    """v = 0 is the bottom row, coordinates are clamped, texel centres lie at (i + 0.5) / n."""
    texture = torch.tensor([[[[11.0, 12, 13, 14], [21, 22, 23, 24]]]])
    uv = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, -1.0], [0.5, 0.5], [0.375, 0.25]]])
    nearest = kal.render.mesh.texture_mapping(uv, texture)
    assert nearest.shape == (1, 6, 1)
    assert nearest[0, [0, 1, 2, 3, 5], 0].tolist() == [21, 14, 11, 24, 22]
    bilinear = kal.render.mesh.texture_mapping(uv, texture, mode="bilinear")
    assert bilinear[0, :, 0].tolist() == [21, 14, 11, 24, 17.5, 22]
    dense = kal.render.mesh.texture_mapping(uv.reshape(1, 2, 3, 2), texture, mode="bilinear")
    assert torch.equal(dense.reshape(1, 6, 1), bilinear)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_texture_mapping_is_grid_sample_with_v_turned(mode: str) -> None:
    texture, uv = torch.rand(2, 3, 5, 7), torch.rand(2, 6, 4, 2) * 1.4 - 0.2
    grid = (uv.clamp(0, 1) * 2 - 1) * torch.tensor([1.0, -1.0])
    expected = torch.nn.functional.grid_sample(texture, grid, mode, "border", align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(kal.render.mesh.texture_mapping(uv, texture, mode=mode), expected, rtol=0, atol=1e-5)


def test_spherical_harmonics_of_the_axes() -> None:
    """One coefficient at a time in kaolin's order: 1, x, z, y, xy, yz, zz, xz, xx - yy."""
    half = math.sqrt(0.5)
    normals = torch.tensor([[[[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [half, half, 0], [half, 0, half]]]], dtype=DOUBLE)
    light = kal.render.mesh.spherical_harmonic_lighting(normals.expand(9, -1, -1, -1), torch.eye(9, dtype=DOUBLE))
    c1, c2 = math.sqrt(3 / math.pi) / 2, math.sqrt(15 / math.pi) / 2
    zz = math.sqrt(5 / math.pi) / 4
    expected = [
        [math.sqrt(1 / math.pi) / 2] * 5,
        [c1, 0, 0, c1 * half, c1 * half],
        [0, 0, c1, 0, c1 * half],
        [0, c1, 0, c1 * half, 0],
        [0, 0, 0, c2 / 2, 0],
        [0] * 5,
        [-zz, -zz, 2 * zz, -zz, zz / 2],
        [0, 0, 0, 0, c2 * half / 2],
        [c2 / 2 * half, -c2 / 2 * half, 0, 0, c2 / 4 * half],
    ]
    torch.testing.assert_close(light[:, 0], torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_mask_iou_is_a_loss() -> None:
    first, second = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    first[:, 2:6, 0:4], second[:, 2:6, 2:6] = 1, 1
    assert float(kal.metrics.render.mask_iou(first, second)) == pytest.approx(1 - 8 / 24)
    assert float(kal.metrics.render.mask_iou(first, first)) == pytest.approx(0)
    assert float(kal.metrics.render.mask_iou(first * 0, first * 0)) == 1


def test_the_laplacian_of_a_path_and_a_lonely_vertex() -> None:
    """kaolin's published example, and a vertex without faces."""
    matrix = kal.ops.mesh.uniform_laplacian(4, torch.tensor([[0, 1, 2]]))
    expected = torch.tensor([[-1, 0.5, 0.5, 0], [0.5, -1, 0.5, 0], [0.5, 0.5, -1, 0], [0, 0, 0, -1]])
    assert torch.equal(matrix, expected)


def test_centred_points() -> None:
    points = torch.tensor([[[0.0, 0, 0], [4, 2, 0], [1, 1, 0]]])
    assert kal.ops.pointcloud.center_points(points).tolist() == [[[-2, -1, 0], [2, 1, 0], [-1, 0, 0]]]
    assert float(kal.ops.pointcloud.center_points(points, normalize=True).abs().max()) == 0.5


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kal.rasterize(4, 4, depths(-1.0), TRIANGLE, flat(1.0), backend="opengl"), "backend must be one of"),
        (lambda: kal.rasterize(4, 4, depths(-1.0, 2.0), TRIANGLE, flat(1.0)), r"face_vertices_z must be \[1, 1, 3\]"),
        (lambda: kal.rasterize(4, 4, depths(-1.0), TRIANGLE, flat(1.0, 2.0)), r"face_features must be \[1, 1, 3, D\]"),
        (lambda: kal.dibr_soft_mask(TRIANGLE[0], torch.zeros(1, 4, 4)), r"face_vertices_image must be \[B, F, 3, 2\]"),
        (lambda: kal.mask_iou(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)), r"\[1, 2, 2\] and \[1, 2, 3\]"),
        (lambda: kal.texture_mapping(torch.zeros(4, 2), torch.zeros(1, 1, 2, 2)), "texture_coordinates must be"),
        (
            lambda: kal.texture_mapping(torch.zeros(1, 4, 2), torch.zeros(1, 1, 2, 2), "bicubic"),
            "filter must be one of",
        ),
        (lambda: kal.prepare_vertices(flat(1.0)[0], torch.zeros(1, 3), flat(1.0)), "either camera_transform or both"),
        (lambda: kal.ops.mesh.index_vertices_by_faces(flat(1.0), torch.zeros(1, 3)), "expects vertices_features"),
    ],
)
def test_what_is_refused(call, says: str) -> None:
    with pytest.raises(DibrError, match=says):
        call()
