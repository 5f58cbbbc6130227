"""The oracle itself against closed forms, exact rational arithmetic and other people's formulas."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from oracle import compare, oracle, scenes
from oracle.scenes import Scene, homogeneous, icosphere, perspective, project

TRIANGLE = np.array([[0, 1, 2]], dtype=np.int32)


def rasterize(corners, height, width, faces=TRIANGLE, perspective_correct=True, **options):
    """The oracle's raster of one image from clip-space corners [V, 4]."""
    scene = Scene("closed form", np.asarray(corners)[None], faces, height, width, **options)
    return oracle.rasterize(scene, perspective_correct=perspective_correct)


def test_half_of_the_image_with_its_inclusive_diagonal():
    positions = homogeneous(np.array([[-1.0, -1, 0], [1, -1, 0.5], [-1, 1, -0.5]]))
    raster = rasterize(positions, 4, 4)
    expected = np.array([[0, -1, -1, -1], [0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
    assert (raster.face_index[0] == expected).all()
    x, y = np.meshgrid(*oracle.pixel_centres(4, 4))
    weights = np.stack([-(x + y) / 2, (x + 1) / 2, (y + 1) / 2], axis=-1)
    covered = expected >= 0
    np.testing.assert_allclose(raster.barycentrics[0][covered], weights[covered], atol=1e-15)
    depth = np.where(covered, 0.25 * (x + 1) - 0.25 * (y + 1), 1.0)
    np.testing.assert_allclose(raster.depth[0], depth, atol=1e-15)


@pytest.mark.parametrize("perspective_correct", [True, False])
def test_ground_plane_equals_ray_plane_intersection(perspective_correct):
    """The pixel ray meets the plane y = -1 at view distance 1 / -slope; near, far and the horizon cut it there."""
    near, far, height, width = 0.5, 12.0, 63, 65
    corners = np.array([[-60.0, -1, 9], [60, -1, 9], [0, -1, -90]])
    matrix = perspective(80, width / height, near, far)
    positions = project(corners, matrix)
    raster = rasterize(positions, height, width, perspective_correct=perspective_correct)
    x, y = np.meshgrid(*oracle.pixel_centres(height, width))
    slope = y / matrix[1, 1]
    distance = -1.0 / np.minimum(slope, -1e-6)
    hit = np.stack([distance * x / matrix[0, 0], -distance, np.ones_like(x)], axis=-1)
    weights = hit @ np.linalg.inv(np.stack([corners[:, 0], corners[:, 2], np.ones(3)])).T
    visible = (distance >= near) & (distance <= far) & (weights >= 0).all(-1)
    assert ((raster.face_index[0] >= 0) == visible).all()
    assert 0.2 < visible.mean() < 0.8
    if not perspective_correct:
        weights = weights * positions[:, 3] / distance[..., None]
    np.testing.assert_allclose(raster.barycentrics[0][visible], weights[visible], atol=1e-12)
    depth = (far + near) / (far - near) - 2 * far * near / (far - near) / distance
    np.testing.assert_allclose(raster.depth[0][visible], depth[visible], atol=1e-12)
    assert (raster.depth[0][~visible] == 1).all()


@pytest.mark.parametrize(("depth_clip", "expected"), [(True, [-1, -1, 0, 0, 0, 0, -1, -1]), (False, [0] * 8)])
def test_a_ramp_through_the_near_and_far_plane(depth_clip, expected):
    """z = 2.1 x over the whole width with w = 1: only |z| <= 1 is left of it."""
    corners = np.array([[-3.0, -1, -6.3], [3, -1, 6.3], [0, 9, 0]])
    raster = rasterize(homogeneous(corners), 1, 8, depth_clip=depth_clip)
    assert raster.face_index[0, 0].tolist() == expected


def test_what_lies_behind_the_camera_is_invisible_in_every_mode():
    positions = np.array([[-2.0, -2, -1, -1], [2, -2, -1, -1], [0, 2, 5, -1]])
    for depth_clip in (True, False):
        assert (rasterize(positions, 5, 5, depth_clip=depth_clip).face_index == -1).all()


def test_the_silhouette_of_a_sphere_has_the_area_of_its_disc():
    vertices, faces = icosphere(4)
    raster = rasterize(homogeneous(vertices * 0.75), 64, 64, faces)
    assert (raster.face_index >= 0).mean() * 4 == pytest.approx(np.pi * 0.75**2, rel=0.01)
    front = (vertices[faces[raster.face_index[raster.face_index >= 0]]].mean(axis=1))[:, 2]
    assert (front < 0.05).all()


def test_culling_leaves_the_faces_that_turn_to_the_camera():
    scene = scenes.sphere_perspective()
    culled = oracle.rasterize(scene)
    everything = oracle.rasterize(replace(scene, cull="none"))
    assert (culled.face_index == everything.face_index).all()
    inside_out = oracle.rasterize(replace(scene, faces=np.ascontiguousarray(scene.faces[:, ::-1])))
    assert not np.isin(inside_out.face_index[inside_out.face_index >= 0], everything.face_index).any()


def _exact_answer(corners: np.ndarray, x: Fraction, y: Fraction) -> Fraction | None:
    """Depth of the face [3, 4] at the centre in rational arithmetic, None where it is not visible: Cramer's rule on
    x = sum l_i x_i / sum l_i w_i with l_i >= 0, sum l_i w_i > 0 and -w <= z <= w."""
    px, py, pz, pw = ([Fraction(float(c)) for c in column] for column in corners.T)
    cross = [
        (px[j] - x * pw[j]) * (py[k] - y * pw[k]) - (px[k] - x * pw[k]) * (py[j] - y * pw[j])
        for j, k in ((1, 2), (2, 0), (0, 1))
    ]
    w = sum(c * v for c, v in zip(cross, pw, strict=True))
    if w == 0:
        return None
    weights = [c / w for c in cross]
    depth = sum(c * v for c, v in zip(weights, pz, strict=True))
    one_sign = all(c >= 0 for c in weights)
    return depth if one_sign and -1 <= depth <= 1 else None


@pytest.mark.parametrize(
    "make",
    [
        scenes.soup_through_the_camera,
        scenes.slivers,
        scenes.slanted_through_near_and_far,
        scenes.any_homogeneous_corners,
    ],
)
def test_coverage_and_order_equal_exact_rational_arithmetic(make):
    scene = make().rounded_to(np.float32)
    raster = oracle.rasterize(scene)
    rng = np.random.default_rng(0)
    for _ in range(40):
        j, i = int(rng.integers(scene.height)), int(rng.integers(scene.width))
        x, y = Fraction(2 * i + 1 - scene.width, scene.width), Fraction(scene.height - 2 * j - 1, scene.height)
        depths = [_exact_answer(scene.positions[0, face], x, y) for face in scene.faces]
        visible = [(depth, f) for f, depth in enumerate(depths) if depth is not None]
        expected = min(visible)[1] if visible else -1
        assert raster.face_index[0, j, i] == expected
        if visible:
            assert raster.depth[0, j, i] == pytest.approx(float(min(visible)[0]), abs=1e-12)


def test_every_centre_of_a_tiled_plane_is_covered_and_ties_go_to_the_lowest_index():
    """Vertices at multiples of 1/4 or 1/8 in an 8x8 image: many centres lie exactly on edges and vertices."""
    for cells in (5, 10, 20):
        positions, faces = scenes.tiled_plane(cells, cells, 0.0, 0)
        raster = rasterize(positions, 8, 8, faces)
        assert (raster.face_index >= 0).all()
        for b, (j, i) in enumerate(np.ndindex(8, 8)):
            x, y = Fraction(2 * i + 1 - 8, 8), Fraction(8 - 2 * j - 1, 8)
            touching = [f for f, face in enumerate(faces) if _exact_answer(positions[face], x, y) is not None]
            assert raster.face_index[0, j, i] == touching[0], b


def test_scenes_cover_a_fifth_to_four_fifths_in_several_layers():
    layered = [scene for scene in scenes.all_scenes() if scene.layered]
    assert len(layered) >= 10
    for scene in layered:
        covered = (oracle.rasterize(scene).face_index[0] >= 0).mean()
        visible = oracle.visible_polygons(scene)[0]
        layers = sum(polygon.covers(*oracle.pixel_centres(scene.height, scene.width)) for polygon in visible)
        assert 0.2 <= covered <= 0.8, scene.name
        assert layers.max() >= 2, scene.name


def test_needed_tolerance_tells_small_errors_from_large_ones():
    half = np.array([[-1.0, -1, 0], [1, -1, 0], [-1, 1, 0]])
    behind = np.add(half, [0, 0, 0.1])
    positions = homogeneous(np.concatenate([half, behind])[None]).astype(np.float32)
    scene = Scene("two", positions, np.array([[0, 1, 2], [3, 4, 5]], dtype=np.int32), 4, 4)
    visible = oracle.visible_polygons(scene)[0]
    assert oracle.needed_tolerance(visible, -0.5, -0.5, 0) == 0
    assert oracle.needed_tolerance(visible, -0.5, -0.5, 1) == pytest.approx(0.1)
    assert oracle.needed_tolerance(visible, -0.5, -0.5, -1) == pytest.approx(0.5)
    assert oracle.needed_tolerance(visible, 1e-7, 0.0, -1) == 0
    assert oracle.needed_tolerance(visible, 1e-7, 0.0, 0) == pytest.approx(1e-7 / 2**0.5)
    assert oracle.needed_tolerance(visible, -1e-7, 0.0, -1) == pytest.approx(1e-7 / 2**0.5)
    wrong = np.ones((1, 4, 4), dtype=np.int32)
    report = compare.compare_face_index(scene, oracle.rasterize(scene).face_index, wrong)
    assert report.mismatches == 16
    assert report.worst > 0.1


def test_interpolating_the_corner_positions_gives_the_pixel_centre_back():
    scene = scenes.soup_perspective()
    raster = oracle.rasterize(scene)
    clip = oracle.interpolate(scene.positions, scene.faces, raster.face_index, raster.barycentrics)
    covered = raster.face_index >= 0
    x, y = np.meshgrid(*oracle.pixel_centres(scene.height, scene.width))
    np.testing.assert_allclose(clip[covered][:, 0] / clip[covered][:, 3], x[covered[0]], atol=1e-12)
    np.testing.assert_allclose(clip[covered][:, 1] / clip[covered][:, 3], y[covered[0]], atol=1e-12)
    np.testing.assert_allclose(clip[covered][:, 2] / clip[covered][:, 3], raster.depth[covered], atol=1e-12)
    assert (clip[~covered] == 0).all()


def test_screen_space_weights_are_ratios_of_areas():
    scene = scenes.soup_perspective()
    raster = oracle.rasterize(scene, perspective_correct=False)
    _, rows, columns = np.nonzero(raster.face_index >= 0)
    corners = scene.positions[0, scene.faces[raster.face_index[0, rows, columns]]]
    corners = corners[..., :2] / corners[..., 3:]
    x, y = oracle.pixel_centres(scene.height, scene.width)
    centre = np.stack([x[columns], y[rows]], axis=1)

    def area(a, b, c):
        return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])

    a, b, c = corners.transpose(1, 0, 2)
    ratios = np.stack([area(centre, b, c), area(a, centre, c), area(a, b, centre)], axis=1) / area(a, b, c)[:, None]
    np.testing.assert_allclose(raster.barycentrics[0, rows, columns], ratios, atol=1e-10)


def soft_mask(corners, height, width, covered=False, **options):
    positions = torch.from_numpy(homogeneous(np.asarray(corners, dtype=float)))[None]
    faces = np.arange(positions.shape[1], dtype=np.int32).reshape(-1, 3)
    face_index = np.full((1, height, width), 0 if covered else -1, dtype=np.int32)
    return oracle.soft_mask(positions, faces, face_index, **options)


def test_soft_mask_of_distances_known_by_hand():
    """One row of centres at x = -0.9, -0.7 ... 0.9, y = 0; the face's left edge is x = 0.5, its left corners beyond."""
    corners = [[0.5, -2.0, 0], [3.0, 0.0, 0], [0.5, 2.0, 0]]
    mask = soft_mask(corners, 1, 10, sigmainv=2.0, boxlen=1.0).mask[0, 0]
    x = np.arange(-0.9, 1.0, 0.2)
    expected = np.where(x >= -0.5, np.exp(-2.0 * (x - 0.5) ** 2), 0.0)
    np.testing.assert_allclose(mask, expected, atol=1e-15)
    point = soft_mask([[0.5, 0.5, 0]] * 3, 1, 1, sigmainv=3.0, boxlen=1.0).mask
    assert float(point) == pytest.approx(np.exp(-3.0 * 0.5))
    assert float(soft_mask(corners, 1, 1, covered=True).mask) == 1


def test_soft_mask_takes_the_first_knum_boxes_in_index_order():
    near, far = [[0.1, -1.0, 0], [1, 0, 0], [0.1, 1, 0]], [[0.4, -1.0, 0], [1, 0, 0], [0.4, 1, 0]]
    p_near, p_far = np.exp(-0.01), np.exp(-0.16)
    options = {"sigmainv": 1.0, "boxlen": 0.5}
    assert float(soft_mask(far + near, 1, 1, knum=1, **options).mask) == pytest.approx(p_far)
    assert float(soft_mask(near + far, 1, 1, knum=1, **options).mask) == pytest.approx(p_near)
    assert float(soft_mask(far + near, 1, 1, knum=2, **options).mask) == pytest.approx(1 - (1 - p_near) * (1 - p_far))
    out_of_box = [[0.6, -1.0, 0], [1, 0, 0], [0.6, 1, 0]]
    assert float(soft_mask(out_of_box + far, 1, 1, knum=1, **options).mask) == pytest.approx(p_far)


def test_soft_mask_box_is_half_open_and_its_borders_are_flagged():
    corners = [[0.25, -1.0, 0], [0.5, 1.0, 0], [0.25, 1, 0]]
    lower, upper = (soft_mask(sign * np.array(corners), 1, 1, boxlen=0.25, sigmainv=1.0) for sign in (1, -1))
    assert float(lower.mask) > 0
    assert float(upper.mask) == 0
    assert lower.ambiguous.all()
    assert not soft_mask(corners, 1, 1, boxlen=0.25001, tolerance=1e-6).ambiguous.any()
    assert soft_mask(corners, 1, 1, boxlen=0.2499999, tolerance=1e-6).ambiguous.all()


@pytest.mark.parametrize("corner", [[np.nan, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, -1], [0, 0, -1.5, 1], [0, np.inf, 0, 1]])
def test_soft_mask_leaves_out_what_takes_no_part(corner):
    positions = torch.tensor([[[0.5, 0, 0, 1], [0.5, 0.5, 0, 1], corner]], dtype=torch.float64)
    face_index = np.full((1, 2, 2), -1, dtype=np.int32)
    assert (oracle.soft_mask(positions, TRIANGLE, face_index, boxlen=3.0, sigmainv=1.0).mask == 0).all()


@pytest.mark.parametrize(("wrap", "padding"), [("clamp", "border"), ("mirror", "reflection")])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_texture_equals_grid_sample(wrap, padding, mode):
    rng = np.random.default_rng(2)
    texels, uv = rng.random((2, 3, 5, 7)), rng.uniform(-2.5, 3.5, (2, 11, 13, 2))
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(texels), torch.from_numpy(uv * 2 - 1), mode, padding, align_corners=False
    )
    actual = oracle.texture(texels, uv, filter=mode, wrap=wrap)
    np.testing.assert_allclose(actual, expected.permute(0, 2, 3, 1), atol=1e-12)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_texture_repeats_and_starts_in_the_top_row(mode):
    texels = np.arange(12.0).reshape(1, 1, 3, 4)
    centres = np.stack(np.meshgrid((np.arange(4) + 0.5) / 4, (np.arange(3) + 0.5) / 3), axis=-1)[None]
    for shift in ([0, 0], [2, 0], [-1, 3]):
        sampled = oracle.texture(texels, centres + shift, filter=mode, wrap="repeat")
        np.testing.assert_allclose(sampled[0, :, :, 0], texels[0, 0], atol=1e-12)
    between = oracle.texture(texels, np.array([[[[0.0, 0.5 / 3]]]]), wrap="repeat")
    assert between.item() == pytest.approx((0 + 3) / 2)
    assert (oracle.texture(texels, np.array([[[[np.nan, 0.5], [0.5, np.inf]]]])) == 0).all()
