"""Rasterize against the float64 oracle, hand-computed grids, finite differences and itself."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import compare, kernel, memory, oracle, scenes
from oracle.kernel import tensor
from oracle.scenes import Scene, homogeneous, icosphere, perspective, project

from dibr_deploy import ops

DTYPES = [np.float32, np.float64]
SCENES = {scene.name: scene for scene in scenes.all_scenes()}
BOTH_WEIGHTS = pytest.mark.parametrize("perspective_correct", [True, False], ids=["perspective", "screen"])


@functools.cache
def oracle_raster(name: str, dtype: type, perspective_correct: bool) -> oracle.OracleRaster:
    return oracle.rasterize(SCENES[name].rounded_to(dtype), perspective_correct=perspective_correct)


def raster_of(corners, faces, height, width, dtype=torch.float64, **options) -> ops.Raster:
    positions = torch.as_tensor(np.asarray(corners), dtype=dtype)[None]
    return ops.rasterize(positions, torch.as_tensor(np.asarray(faces, dtype=np.int32)), height, width, **options)


@BOTH_WEIGHTS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_equals_the_oracle(name, dtype, perspective_correct, figure):
    scene = SCENES[name].rounded_to(dtype)
    expected = oracle_raster(name, dtype, perspective_correct)
    actual = kernel.rasterize(scene, perspective_correct=perspective_correct)
    face_index, barycentrics, depth = (output.numpy() for output in actual)
    report = compare.assert_face_index(scene, expected.face_index, face_index)
    background = face_index < 0
    assert barycentrics.dtype == depth.dtype == dtype
    assert (barycentrics[background] == 0).all()
    assert (depth[background] == 1).all()
    agreed = (face_index == expected.face_index) & ~background
    tolerance = compare.value_tolerance(scene, expected.face_index)
    ordinary = tolerance == compare.VALUE_TOLERANCE[np.dtype(dtype)]
    print(f"{name}: {report}")
    kind = np.dtype(dtype).name
    figure(f"rasterize {kind} pixels", report.pixels)
    figure(f"rasterize {kind} face_index mismatches", report.mismatches)
    figure(f"rasterize {kind} largest tolerance needed by a mismatch", report.worst)
    for label, output, reference in (
        ("barycentrics", barycentrics, expected.barycentrics),
        ("depth", depth, expected.depth),
    ):
        scaled = compare.largest_scaled_error(output, reference, tolerance, agreed)
        plain = compare.largest_scaled_error(output, reference, np.ones_like(tolerance), agreed & ordinary)
        figure(f"rasterize {kind} {label} largest error on faces of condition < 10", plain)
        figure(f"rasterize {kind} {label} largest error / tolerance", scaled)
        if label == "barycentrics" or scene.depth_clip:
            assert scaled <= 1, f"{name}: {label} error {scaled:.2f} times the tolerance, {plain:.2e} on ordinary faces"
        else:
            spread = np.abs(expected.depth).max(initial=1.0)
            assert scaled <= spread, (
                f"{name}: {label} error {scaled:.2f} times the tolerance at depths up to {spread:.0f}"
            )


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_scenes_equal_the_oracle(dtype, figure):
    """Two hundred small ones; the share of pixels that differ is taken over all of them."""
    pixels = mismatches = 0
    for seed in range(200):
        scene = scenes.random_scene(seed).rounded_to(dtype)
        expected, actual = oracle.rasterize(scene), kernel.rasterize(scene)
        face_index = actual.face_index.numpy()
        report = compare.compare_face_index(scene, expected.face_index, face_index)
        assert report.worst <= compare.RELATIVE_TOLERANCE[np.dtype(dtype)], f"{scene.name}: {report}"
        agreed = (face_index == expected.face_index) & (face_index >= 0)
        tolerance = compare.value_tolerance(scene, expected.face_index)
        scaled = compare.largest_scaled_error(actual.barycentrics.numpy(), expected.barycentrics, tolerance, agreed)
        assert scaled <= 1, f"{scene.name}: barycentrics {scaled:.2f} times the tolerance"
        pixels, mismatches = pixels + report.pixels, mismatches + report.mismatches
    figure(f"rasterize {np.dtype(dtype).name} random scenes pixels", pixels)
    figure(f"rasterize {np.dtype(dtype).name} random scenes face_index mismatches", mismatches)
    assert mismatches <= compare.MOST_MISMATCHES * pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_of_the_image_with_its_inclusive_diagonal(dtype):
    """Centres at -3/4, -1/4, 1/4, 3/4; those with x + y = 0 lie exactly on the edge and are covered."""
    corners = [[-1.0, -1, 0, 1], [1, -1, 0.5, 1], [-1, 1, -0.5, 1]]
    raster = raster_of(corners, [[0, 1, 2]], 4, 4, dtype)
    assert raster.face_index[0].tolist() == [[0, -1, -1, -1], [0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]]
    eighths = [
        [[0, 1, 7], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[2, 1, 5], [0, 3, 5], [0, 0, 0], [0, 0, 0]],
        [[4, 1, 3], [2, 3, 3], [0, 5, 3], [0, 0, 0]],
        [[6, 1, 1], [4, 3, 1], [2, 5, 1], [0, 7, 1]],
    ]
    assert (raster.barycentrics[0] * 8).tolist() == eighths
    depth = (torch.tensor(eighths, dtype=dtype) @ torch.tensor([0, 0.5, -0.5], dtype=dtype)) / 8
    assert raster.depth[0].tolist() == torch.where(raster.face_index[0] < 0, 1.0, depth).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perspective_weights_by_hand(dtype):
    """The projected corners (-1, -1), (1, -1), (-1, 1) with w = 1, 2, 4: screen weights (3, 2, 3) / 8 at (-1/2, -1/4)
    become (12, 4, 3) / 19; z/w is linear on the screen."""
    corners = [[-1.0, -1, 0.5, 1], [2, -2, 0, 2], [-4, 4, -2, 4]]
    screen = raster_of(corners, [[0, 1, 2]], 4, 2, dtype, perspective_correct=False)
    correct = raster_of(corners, [[0, 1, 2]], 4, 2, dtype)
    assert (screen.barycentrics[0, 2, 0] * 8).tolist() == [3, 2, 3]
    expected = torch.tensor([12, 4, 3], dtype=dtype) / 19
    torch.testing.assert_close(correct.barycentrics[0, 2, 0], expected, rtol=0, atol=1e-6)
    assert screen.depth[0, 2, 0].item() == correct.depth[0, 2, 0].item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_overlapping_quads_by_hand(dtype):
    """A near square over the right half, a far one over the lower half, in a 4x4 image; the tie goes to face 0."""
    square = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]])
    right, lower = square * [1, 2, 0, 0] + [0, -1, 0.25, 1], square * [2, 1, 0, 0] + [-1, -1, 0.5, 1]
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7], [4, 5, 6]]
    raster = raster_of(np.concatenate([right, lower]), faces, 4, 4, dtype)
    assert raster.face_index[0].tolist() == [[-1, -1, 1, 1], [-1, -1, 1, 0], [3, 3, 1, 0], [3, 2, 0, 0]]
    assert raster.depth[0].tolist() == [
        [1, 1, 0.25, 0.25],
        [1, 1, 0.25, 0.25],
        [0.5, 0.5, 0.25, 0.25],
        [0.5, 0.5, 0.25, 0.25],
    ]


@pytest.mark.parametrize(("depth_clip", "expected"), [(True, [-1, -1, 0, 0, 0, 0, -1, -1]), (False, [0] * 8)])
def test_a_ramp_is_cut_by_the_near_and_far_plane(depth_clip, expected):
    corners = [[-3.0, -1, -6.3, 1], [3, -1, 6.3, 1], [0, 9, 0, 1]]
    assert raster_of(corners, [[0, 1, 2]], 1, 8, depth_clip=depth_clip).face_index[0, 0].tolist() == expected


@pytest.mark.parametrize("cull", ["none", "back"])
def test_counter_clockwise_is_the_front(cull):
    corners = [[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]]
    assert (raster_of(corners, [[0, 1, 2]], 3, 3, cull=cull).face_index[0, 1] == torch.tensor([-1, 0, -1])).all()
    clockwise = raster_of(corners, [[0, 2, 1]], 3, 3, cull=cull)
    assert clockwise.face_index[0, 1, 1].item() == (-1 if cull == "back" else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_in_depth_go_to_the_lowest_index(dtype):
    """Every face of a closed mesh three times, in shuffled order: the lowest copy of each is seen."""
    vertices, faces = icosphere(2)
    order = np.random.default_rng(0).permutation(3 * len(faces))
    copies = np.concatenate([faces] * 3)[order]
    positions = project(vertices - [0, 0, 2.5], perspective(45, 1.0, 0.5, 10))[None].astype(dtype)
    face_index = kernel.rasterize(Scene("copies", positions, copies, 70, 70)).face_index.numpy()
    lowest = np.array([np.flatnonzero((copies == face).all(axis=1))[0] for face in copies])
    covered = face_index[face_index >= 0]
    assert len(covered) > 1000
    assert (covered == lowest[covered]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constant_depth", [0.5, 0.3, -0.7])
def test_coplanar_faces_of_constant_depth_tie(dtype, constant_depth):
    """Overlapping triangles in one plane parallel to the image: nothing decides but the index."""
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(-1.5, 1.5, (60, 2)), np.full((60, 1), constant_depth)], axis=1)
    scene = Scene(
        "coplanar", homogeneous(points)[None].astype(dtype), np.arange(60, dtype=np.int32).reshape(20, 3), 40, 40
    )
    first = np.full((40, 40), -1)
    for f in range(19, -1, -1):
        alone = kernel.rasterize(replace(scene, faces=scene.faces[f : f + 1])).face_index[0].numpy()
        first[alone >= 0] = f
    assert (kernel.rasterize(scene).face_index[0].numpy() == first).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cells", [5, 10, 20])
@pytest.mark.parametrize("size", [8, 32])
def test_edges_exactly_through_pixel_centres(cells, size, dtype):
    """All numbers are small multiples of powers of two, so coverage is exact: no exception is excused."""
    positions, faces = scenes.tiled_plane(cells, cells, 0.0, 0)
    scene = Scene("tiles", positions[None].astype(dtype), faces, size, size)
    visible = oracle.visible_polygons(scene)[0]
    layers = sum(polygon.covers(*oracle.pixel_centres(size, size)).astype(int) for polygon in visible)
    assert (layers > 1).any()
    assert (kernel.rasterize(scene).face_index.numpy() == oracle.rasterize(scene).face_index).all()
    assert (faces_per_pixel(scene) == layers).all()


def faces_per_pixel(scene: Scene) -> np.ndarray:
    """How many faces cover each pixel [H, W], each rasterised alone by means of face_valid."""
    count = len(scene.faces)
    alone = replace(scene, positions=np.repeat(scene.positions, count, axis=0), face_valid=np.eye(count, dtype=bool))
    return (kernel.rasterize(alone).face_index.numpy() >= 0).sum(axis=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_neighbours_leave_no_crack_and_share_no_pixel(seed, dtype):
    """A jittered tiling in general position: every centre lies in exactly one triangle, also in float32."""
    positions, faces = scenes.tiled_plane(9, 7, 0.08, seed)
    layers = faces_per_pixel(Scene("tiles", positions[None].astype(dtype), faces, 61, 47))
    assert (layers == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tilt", [0.0, 0.4, 1.1, 1.5])
def test_a_closed_sphere_around_the_camera_has_no_crack(tilt, dtype):
    """Half of its faces are behind the camera or cross the near plane, or w = 0; every pixel sees one of the others."""
    vertices, faces = icosphere(3)
    clip = project(3 * vertices @ scenes.rotation(tilt, 1).T, perspective(100, 1.0, 0.05, 10))
    scene = Scene("inside", clip[None].astype(dtype), faces, 150, 150)
    assert (kernel.rasterize(scene).face_index >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tilt", [-0.3, 0.4, 1.1, 1.45])
def test_a_tiled_ground_cut_by_the_near_plane_has_no_crack(tilt, dtype):
    """Wherever the oracle sees a square that the jittered tiles cover with room to spare, they are seen."""
    tiles, faces = scenes.tiled_plane(12, 12, 0.08, 3)
    camera = perspective(60, 1.0, 0.5, 99)
    turn = 6 * scenes.rotation(np.pi - tilt, 0).T
    place = [0, 0, -3.0]
    scene = Scene("ground", project(tiles[:, :3] @ turn + place, camera)[None].astype(dtype), faces, 96, 96)
    square = np.array([[-1.1, -1.1, 0], [1.1, -1.1, 0], [1.1, 1.1, 0], [-1.1, 1.1, 0]])
    quad = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)
    outline = oracle.rasterize(Scene("outline", project(square @ turn + place, camera)[None], quad, 96, 96))
    seen = outline.face_index >= 0
    assert seen.mean() > 0.2
    assert (kernel.rasterize(scene).face_index.numpy()[seen] >= 0).all()


CLEARANCE = 1e-3
HEIGHT, WIDTH = 5, 4


def _corners(kind: str, seed: int) -> np.ndarray:
    """Clip-space corners [9, 4] of three random triangles of one kind."""
    rng = np.random.default_rng(seed)
    camera = perspective(70, 1.0, 0.5, 6)
    points = rng.uniform(-1, 1, (9, 3))
    if kind == "orthographic":
        return homogeneous(points * [1, 1, 0.8])
    if kind == "perspective":
        return project(points * [2, 2, 1] - [0, 0, 3], camera)
    if kind == "across the near plane":
        return project(
            points * [1.5, 1.5, 0] - [0, 0, 0.7] - np.tile([[0, 0, 1.5], [0, 0, -0.4], [0, 0, 0.5]], (3, 1)), camera
        )
    return project(points * [2, 2, 0] - [0, 0, 0.7] - np.tile([[0, 0, 1.5], [0, 0, -1.5], [0, 0, 0.5]], (3, 1)), camera)


@functools.cache
def scene_away_from_edges(kind: str, depth_clip: bool = True) -> Scene:
    """Three triangles of the kind, seen at five pixels or more, whose edges and depths keep clear of every centre."""
    faces = np.arange(9, dtype=np.int32).reshape(3, 3)
    for seed in range(500):
        scene = Scene(kind, _corners(kind, seed)[None], faces, HEIGHT, WIDTH, depth_clip=depth_clip)
        visible = oracle.visible_polygons(scene)[0]
        face_index = oracle.nearest_faces(visible, HEIGHT, WIDTH)
        enough = len(visible) == 3 and (face_index >= 0).sum() >= 5 and len(np.unique(face_index)) >= 3
        if enough and oracle.edge_clearance(visible, HEIGHT, WIDTH) > CLEARANCE:
            return scene
    raise AssertionError(f"no scene {kind} keeps its distance")


KINDS = ["orthographic", "perspective", "across the near plane", "behind the camera"]


@BOTH_WEIGHTS
@pytest.mark.parametrize("depth_clip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_in_positions(kind, depth_clip, perspective_correct):
    scene = scene_away_from_edges(kind, depth_clip)
    if kind == "across the near plane":
        assert ((scene.positions[..., 2] < -scene.positions[..., 3]) & (scene.positions[..., 3] > 0)).any()
    if kind == "behind the camera":
        assert (scene.positions[..., 3] < 0).any()

    def outputs(positions):
        raster = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=positions)
        return raster.barycentrics, raster.depth

    positions = tensor(scene.positions).requires_grad_()
    assert torch.autograd.gradcheck(outputs, (positions,), eps=1e-7, atol=1e-6, rtol=1e-5)


def gradients(scene: Scene, perspective_correct: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, ops.Raster]:
    """The kernel's gradient of a random weighted sum of barycentrics and depth, the oracle's, and the raster."""
    positions = tensor(scene.positions).requires_grad_()
    raster = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=positions)
    generator = torch.Generator().manual_seed(seed)
    weights = [
        torch.rand(o.shape, generator=generator, dtype=o.dtype) - 0.5 for o in (raster.barycentrics, raster.depth)
    ]
    (actual,) = torch.autograd.grad(
        [raster.barycentrics, raster.depth], positions, grad_outputs=weights, allow_unused=False
    )
    wide = tensor(scene.positions.astype(np.float64)).requires_grad_()
    values = oracle.values_at_pixels(wide, tensor(scene.faces), raster.face_index, perspective_correct)
    (expected,) = torch.autograd.grad(values, wide, grad_outputs=[weight.double() for weight in weights])
    return actual, expected, raster


GRADIENT_SCENES = [name for name, scene in SCENES.items() if scene.positions.size and scene.faces.size]


@BOTH_WEIGHTS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRADIENT_SCENES)
def test_gradient_equals_the_oracle(name, dtype, perspective_correct, figure):
    """The oracle differentiates its own linear solve by autograd. The error is relative to the largest gradient of the
    ordinary faces, or to that of the vertex's own face times its condition number where that is more."""
    scene = SCENES[name].rounded_to(dtype)
    actual, expected, raster = gradients(scene, perspective_correct)
    assert torch.isfinite(actual).all()
    scale = gradient_scale(scene, raster.face_index.numpy(), expected.numpy())
    error = (actual - expected).abs().numpy().max(axis=2) / scale
    figure(f"rasterize_backward {np.dtype(dtype).name} largest error / scale", error.max())
    assert error.max() <= compare.VALUE_TOLERANCE[np.dtype(dtype)], f"{name}: {error.max():.2e} of the scale"


def gradient_scale(scene: Scene, face_index: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The size [B, V] to which the error of the gradient [B, V, 4] is relative; see test_gradient_equals_the_oracle."""
    largest = np.abs(gradient).max(axis=2)
    condition = np.maximum(1.0, oracle.condition_numbers(scene.positions, scene.faces, face_index) / 10.0)
    scale = np.ones_like(largest)
    for b in range(len(largest)):
        seen, first = np.unique(face_index[b], return_index=True)
        seen, factor = seen[seen >= 0], condition[b].ravel()[first][seen >= 0]
        corners = scene.faces[seen]
        ordinary = corners[factor == 1]
        scale[b] = max(1.0, largest[b][ordinary].max(initial=0.0))
        own = np.repeat((factor * largest[b][corners].max(axis=1))[:, None], 3, axis=1)
        np.maximum.at(scale[b], corners, own)
    return scale


def test_background_and_coverage_have_no_gradient():
    """Moving the outline changes which pixels are covered, but the gradient does not know: background gives zero."""
    corners = np.array([[-0.5, -0.5, 0, 1], [0.5, -0.5, 0, 1], [0, 0.5, 0, 1]])
    scene = Scene("one", corners[None], np.array([[0, 1, 2]], np.int32), 8, 8)
    positions = tensor(scene.positions).requires_grad_()
    raster = kernel.rasterize(scene, positions=positions)
    background = raster.face_index < 0
    assert 0 < background.sum() < 64
    total = raster.barycentrics[background].sum() + raster.depth[background].sum()
    assert (torch.autograd.grad(total, positions)[0] == 0).all()


@BOTH_WEIGHTS
def test_gradient_on_an_edge_is_the_limit_from_inside(perspective_correct):
    """The diagonal goes exactly through centres; edges are inclusive, so they have the inner side's gradient, and a
    triangle that misses them by the smallest step gives them none."""
    w = np.array([[1.0], [2], [4]])
    corners = np.array([[-1.0, -1, 0, 1], [1, -1, 0.5, 1], [-1, 1, -0.5, 1]]) * w

    def gradient(shift: float) -> torch.Tensor:
        moved = corners + np.concatenate([w, w, 0 * w, 0 * w], axis=1) * shift
        scene = Scene("half", moved[None], np.array([[0, 1, 2]], np.int32), 4, 4)
        positions = tensor(scene.positions).requires_grad_()
        raster = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=positions)
        diagonal = torch.eye(4, dtype=torch.bool)
        weights = torch.tensor([1.0, 3.0, -2.0], dtype=torch.float64)
        total = (raster.barycentrics[0][diagonal] * weights).sum() + raster.depth[0][diagonal].sum()
        return torch.autograd.grad(total, positions)[0]

    on_edge, inside, outside = gradient(0.0), gradient(1e-9), gradient(-1e-9)
    assert (on_edge != 0).any()
    torch.testing.assert_close(on_edge, inside, rtol=1e-6, atol=1e-6)
    assert (outside == 0).all()


@BOTH_WEIGHTS
@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_input_gives_background_and_zero_finite_gradients(dtype, perspective_correct):
    scene = SCENES["degenerate_faces"].rounded_to(dtype)
    actual, _, raster = gradients(scene, perspective_correct)
    special = scene.faces[:10]
    only_bad = np.setdiff1d(special, scene.faces[10:])
    assert (raster.face_index >= 10).any()
    assert not ((raster.face_index >= 0) & (raster.face_index < 10)).any()
    assert torch.isfinite(raster.barycentrics).all()
    assert torch.isfinite(actual).all()
    assert (actual[0, torch.from_numpy(only_bad).long()] == 0).all()


@pytest.mark.parametrize("value", [1e18, 1e30, 3e38, 1e-30, 1e-42])
@pytest.mark.parametrize("axis", range(4))
def test_extreme_finite_coordinates_stay_finite(axis, value):
    """Products of such float32 numbers overflow or vanish; nothing that is written may be NaN or infinite."""
    scene = SCENES["tiny_17x33"].rounded_to(np.float32)
    positions = scene.positions.copy()
    positions[0, ::2, axis] = value
    positions[0, ::5, axis] = -value
    actual, _, raster = gradients(replace(scene, positions=positions), True)
    assert torch.isfinite(raster.barycentrics).all()
    assert torch.isfinite(raster.depth).all()
    assert not actual.isnan().any()


@pytest.mark.parametrize("name", ["no_faces", "no_vertices", "empty_batch"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_draw_has_a_gradient_of_zeros(name, dtype):
    scene = SCENES[name].rounded_to(dtype)
    positions = tensor(scene.positions).requires_grad_()
    raster = kernel.rasterize(scene, positions=positions)
    assert raster.face_index.shape == (len(scene.positions), scene.height, scene.width)
    (gradient,) = torch.autograd.grad(raster.barycentrics.sum() + raster.depth.sum(), positions)
    assert gradient.shape == positions.shape
    assert (gradient == 0).all()


def test_three_coordinates_are_w_one_and_int64_faces_are_int32_faces():
    scene = SCENES["soup_orthographic"]
    expected = kernel.rasterize(scene)
    faces = torch.from_numpy(scene.faces.astype(np.int64))
    actual = ops.rasterize(tensor(scene.positions[..., :3]), faces, scene.height, scene.width)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_strided_input_equals_contiguous_input():
    scene = SCENES["soup_perspective"]
    strided = tensor(scene.positions.transpose(0, 2, 1)).transpose(1, 2)
    assert not strided.is_contiguous()
    actual, expected = kernel.rasterize(scene, positions=strided), kernel.rasterize(scene)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_a_batch_equals_its_images_one_by_one():
    """Packed topologies and face_valid: each image alone, with its own faces cut out, gives the same bits."""
    for scene in (SCENES["packed_topologies"], SCENES["valid_faces"]):
        together = kernel.rasterize(scene)
        for b in range(len(scene.positions)):
            start, count = (0, len(scene.faces)) if scene.face_ranges is None else scene.face_ranges[b]
            chosen = np.arange(start, start + count)
            if scene.face_valid is not None:
                chosen = chosen[scene.face_valid[b, chosen]]
            alone = replace(
                scene,
                positions=scene.positions[b : b + 1],
                faces=scene.faces[chosen],
                face_ranges=None,
                face_valid=None,
            )
            face_index, barycentrics, depth = kernel.rasterize(alone)
            packed = np.append(chosen, -1).astype(np.int32)[face_index.numpy()]
            assert (together.face_index[b].numpy() == packed[0]).all()
            assert torch.equal(together.barycentrics[b], barycentrics[0])
            assert torch.equal(together.depth[b], depth[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["nested_spheres", "soup_through_the_camera", "packed_topologies"])
def test_same_bits_in_every_run_and_for_every_number_of_threads(name, dtype):
    scene = SCENES[name].rounded_to(dtype)

    def run():
        gradient, _, raster = gradients(scene, True)
        return [*raster, gradient]

    kernel.assert_same_bits_for_every_number_of_threads(run)


def test_a_second_derivative_is_refused_by_name():
    scene = scene_away_from_edges("orthographic")
    positions = tensor(scene.positions).requires_grad_()
    raster = kernel.rasterize(scene, positions=positions)
    (gradient,) = torch.autograd.grad(raster.depth.square().sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="rasterize"):
        gradient.square().sum().backward()


def test_memory_grows_with_pixels_and_faces_but_not_with_their_product():
    """81,920 faces of a fine sphere at 512x512: one byte per pixel and face would be 20 GiB."""
    megabytes = memory.peak_of("rasterize", faces=81920, size=512)
    print(f"rasterize forward and backward, 81,920 faces at 512x512: {megabytes:.0f} MiB above the inputs")
    assert megabytes < 64
