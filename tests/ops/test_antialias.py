"""Antialias against the float64 oracle, supersampled areas, values by hand, finite differences and its own limits."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import antialias as reference
from oracle import compare, kernel, oracle, scenes
from oracle.kernel import tensor
from oracle.scenes import Scene, homogeneous
from scipy.spatial import ConvexHull

from dibr_deploy import ops

DTYPES = [np.float32, np.float64]
MAKERS = (
    scenes.soup_culled,
    scenes.soup_perspective,
    scenes.soup_through_the_camera,
    scenes.sphere_perspective,
    scenes.nested_spheres,
    scenes.slivers,
    scenes.ground_under_the_camera,
    scenes.camera_inside_a_sphere,
    scenes.across_the_border,
    scenes.packed_topologies,
    scenes.degenerate_faces,
    scenes.no_faces,
    scenes.no_vertices,
    scenes.empty_batch,
)
SCENES = {make().name: make() for make in MAKERS} | {scene.name: scene for scene in scenes.tiny_images()}
BLENDED = [make().name for make in MAKERS[:10]]
CHANNELS = 2


@functools.cache
def raster_of(name: str) -> oracle.OracleRaster:
    return oracle.rasterize(SCENES[name])


def colours(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (*shape, CHANNELS))


def both(name: str, dtype: type, *, with_gradient: bool = False):
    """The kernel's image and the oracle's answer for one scene, and the leaves (image, positions) of each."""
    scene = SCENES[name].rounded_to(dtype)
    raster = raster_of(name)
    barycentrics = raster.barycentrics.astype(dtype)
    image = colours(raster.face_index.shape).astype(dtype)
    leaves = [[tensor(array.astype(kind)) for array in (image, scene.positions)] for kind in (dtype, np.float64)]
    for leaf in (*leaves[0], *leaves[1]):
        leaf.requires_grad_(with_gradient)
    (image, positions), (wide_image, wide_positions) = leaves
    actual = kernel.antialias(scene, image, tensor(raster.face_index), tensor(barycentrics), positions=positions)
    expected = reference.antialias(
        wide_image,
        wide_positions,
        scene.faces,
        raster.face_index,
        barycentrics,
        face_ranges=scene.face_ranges,
        epsilon=float(np.finfo(dtype).eps),
    )
    return actual, expected, leaves


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_equals_the_oracle(name, dtype, figure):
    """Pixels where rounding decides which edge counts are left out, and counted."""
    with torch.no_grad():
        actual, expected, _ = both(name, dtype)
    kind = np.dtype(dtype).name
    assert actual.dtype == tensor(np.empty(0, dtype)).dtype
    error = np.abs(actual.numpy() - expected.image.numpy()).max(axis=-1, initial=0.0)
    tolerance = compare.VALUE_TOLERANCE[np.dtype(dtype)] + 2.0 * expected.noise
    scaled = (error / tolerance)[~expected.ambiguous].max(initial=0.0)
    figure(f"antialias {kind} pixels", error.size)
    figure(f"antialias {kind} pixels where rounding decides left out", int(expected.ambiguous.sum()))
    figure(f"antialias {kind} largest error", error[~expected.ambiguous].max(initial=0.0))
    assert scaled <= 1.0
    assert error.size < 1000 or expected.ambiguous.mean() <= 2e-2
    changed = (expected.image != tensor(colours(error.shape).astype(dtype))).any(-1).sum()
    assert changed > 50 or name not in BLENDED


GRADIENT_SCENES = (
    "soup_culled",
    "soup_perspective",
    "soup_through_the_camera",
    "sphere_perspective",
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", GRADIENT_SCENES)
def test_gradients_equal_the_oracle(name, dtype, figure):
    """The oracle's gradients come from autograd. Left out, by a zero gradient of the output: pixels where rounding
    decides, or may give a blend to the other pixel of the pair."""
    actual, expected, leaves = both(name, dtype, with_gradient=True)
    left_out = expected.ambiguous | expected.kinked
    grad = np.random.default_rng(1).uniform(0.5, 1.5, actual.shape) * ~left_out[..., None]
    gradients = torch.autograd.grad(actual, leaves[0], tensor(grad.astype(dtype)))
    references = torch.autograd.grad(expected.image, leaves[1], tensor(grad))
    kind = np.dtype(dtype).name
    figure(f"antialias_backward {kind} pixels where rounding decides left out", int(left_out.sum()))
    for what, gradient, wanted in zip(("image", "positions"), gradients, references, strict=True):
        assert torch.isfinite(gradient).all()
        assert wanted.abs().max() > 0
        error = float((gradient - wanted).abs().max() / wanted.abs().max())
        figure(f"antialias_backward {kind} {what} largest error / largest gradient", error)
        assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]
    assert left_out.mean() <= (2e-2 if dtype is np.float32 else 2e-3)


# --- Areas.


def clip_scene(corners: np.ndarray, size: tuple[int, int], faces: np.ndarray | None = None) -> Scene:
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3) if faces is None else faces.astype(np.int32)
    return Scene("area", np.asarray(corners, dtype=np.float64)[None], faces, *size)


def antialiased_mask(scene: Scene, positions: torch.Tensor | None = None) -> torch.Tensor:
    """1 on the mesh and 0 beside it, antialiased: [H, W]."""
    points = tensor(scene.positions) if positions is None else positions
    raster = kernel.rasterize(scene, positions=points.detach())
    covered = (raster.face_index >= 0).to(points.dtype)[..., None]
    image = kernel.antialias(scene, covered, raster.face_index, raster.barycentrics, positions=points)
    return image[0, ..., 0]


def supersampled_area(scene: Scene, positions: np.ndarray, weights: np.ndarray, samples: int = 16) -> float:
    """The integral over the mesh's picture of weights [H, W], constant in each pixel, from samples x samples centres
    in each."""
    fine = replace(scene, positions=positions, height=scene.height * samples, width=scene.width * samples)
    covered = (kernel.rasterize(fine).face_index[0] >= 0).double().numpy()
    shares = covered.reshape(scene.height, samples, scene.width, samples).mean(axis=(1, 3))
    return float((weights * shares).sum())


def smooth_weights(height: int, width: int) -> np.ndarray:
    x, y = oracle.pixel_centres(height, width)
    return 1.0 + 0.5 * x[None] - 0.3 * y[:, None] + 0.4 * x[None] * y[:, None]


def half_plane(angle: float, offset: float, w: np.ndarray) -> np.ndarray:
    """A triangle that covers what of the image lies beyond a line: normal at `angle`, `offset` from the centre."""
    normal, along = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    points = np.stack([offset * normal + 4 * along, offset * normal + 12 * normal, offset * normal - 4 * along])
    return homogeneous(np.concatenate([points, np.zeros((3, 1))], axis=1)) * w[:, None]


@pytest.mark.parametrize(
    ("w", "size"),
    [((1.0, 1.0, 1.0), (64, 64)), ((0.7, 1.0, 2.5), (48, 96))],
    ids=["orthographic", "perspective"],
)
@pytest.mark.parametrize("degrees", [0, 7, 30, 45, 62, 90, 118, 135, 170, 200, 243, 270, 315, 341])
def test_derivatives_of_a_straight_edge_are_those_of_the_area(degrees, w, size, figure):
    """A line through the image near its centre, in every direction: how the weighted sum of the image changes when its
    two vertices move in x, y and w, against central differences of the area from 256 samples a pixel."""
    scene = clip_scene(half_plane(math.radians(degrees + 0.37), 0.013, np.array(w)), size)
    weights = smooth_weights(*size)
    positions = tensor(scene.positions).requires_grad_()
    (antialiased_mask(scene, positions) * tensor(weights)).sum().backward()
    gradient = positions.grad[0].numpy()
    assert (gradient[1] == 0).all()
    assert (gradient[:, 2] == 0).all()
    errors, expected = [], []
    for vertex in (0, 2):
        for axis in (0, 1, 3):
            step = np.zeros_like(scene.positions)
            step[0, vertex, axis] = 0.25
            ahead, behind = (supersampled_area(scene, scene.positions + s * step, weights) for s in (1, -1))
            expected.append((ahead - behind) / 0.5)
            errors.append(abs(gradient[vertex, axis] - expected[-1]))
    error = max(errors) / np.abs(expected).max()
    figure("antialias area of a straight edge: largest error / largest derivative", error)
    assert error <= 0.05


@pytest.mark.parametrize("degrees", range(0, 180, 12))
def test_a_moving_edge_changes_the_image_continuously_and_by_its_area(degrees):
    """The sum of the image follows the exact area of the half-plane, in steps far below a pixel."""
    sums, areas = [], []
    for offset in np.linspace(-0.05, 0.05, 23):
        scene = clip_scene(half_plane(math.radians(degrees + 0.37), offset, np.ones(3)), (40, 40))
        sums.append(float(antialiased_mask(scene).sum()))
        areas.append(supersampled_area(scene, scene.positions, np.ones((40, 40))))
    assert np.abs(np.array(sums) - areas).max() < 0.6
    assert np.abs(np.diff(sums) - np.diff(areas)).max() < 0.2


def test_a_rectangle_of_two_faces_has_its_area():
    """Axis-aligned edges at any place: every pixel but the four corners has its share of the area."""
    x0, x1, y0, y1 = -0.61, 0.43, -0.52, 0.72
    corners = homogeneous(np.array([[x0, y0, 0], [x1, y0, 0], [x1, y1, 0], [x0, y1, 0]]))
    x, y = oracle.pixel_centres(32, 32)
    share_x, share_y = (
        np.clip((np.minimum(high, centre + 1 / 32) - np.maximum(low, centre - 1 / 32)) * 16, 0, 1)
        for centre, low, high in ((x, x0, x1), (y, y0, y1))
    )
    corner = ((share_y > 0) & (share_y < 1))[:, None] & ((share_x > 0) & (share_x < 1))[None]
    for faces in ([[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]]):
        mask = antialiased_mask(clip_scene(corners, (32, 32), np.array(faces))).numpy()
        exact = share_y[:, None] * share_x[None]
        np.testing.assert_allclose(mask[~corner], exact[~corner], atol=1e-12)
    assert corner.sum() == 4


@pytest.mark.parametrize("subdivisions", [1, 2, 3, 4, 5])
def test_a_disc_has_its_area_however_fine_its_mesh(subdivisions, figure):
    """The outline of a sphere, seen from afar: its faces get as thin there as they like. The polygon that the vertices'
    hull makes has the area that the antialiased mask sums to."""
    vertices, faces = scenes.icosphere(subdivisions)
    turned = vertices @ scenes.rotation(0.3, 0) @ scenes.rotation(0.2, 1)
    scene = clip_scene(homogeneous(turned * 0.8), (64, 64), faces)
    exact = ConvexHull(turned[:, :2] * 0.8).volume * 32 * 32
    perimeter = 2 * np.pi * 0.8 * 32
    positions = tensor(scene.positions).requires_grad_()
    area = antialiased_mask(scene, positions).sum()
    area.backward()
    error = abs(area.item() - exact) / perimeter
    figure("antialias area of a disc: largest error in pixels of its edge", error)
    assert error < 0.02
    # Scaling the disc by 1 + t changes its area by 2 t.
    growth = float((positions.grad[0, :, :2] * tensor(scene.positions[0, :, :2])).sum())
    figure("antialias area of a disc: largest relative error of its growth", abs(growth / (2 * exact) - 1))
    assert growth == pytest.approx(2 * exact, rel=0.05)


# --- By hand.


def strip(x0: float, x1: float, z: float) -> list[list[float]]:
    """Corners of a triangle that covers x0 <= x <= x1 of a single row; one of the two must lie outside of the image."""
    outside, edge = (x0, x1) if x0 < -1 else (x1, x0)
    return [[outside, 0.0, z], [edge, -9.0, z], [edge, 9.0, z]]


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        (0.1, [1, 1, 1, 1, 1, 0.5, 0, 0, 0, 0]),
        (0.14, [1, 1, 1, 1, 1, 0.7, 0, 0, 0, 0]),
        (0.2, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]),
        (0.26, [1, 1, 1, 1, 1, 1, 0.3, 0, 0, 0]),
    ],
)
def test_one_row_by_hand(edge, expected):
    """10 columns, whose centres lie at -0.9, -0.7 ... 0.9: each shows the share of itself that the face covers."""
    scene = clip_scene(homogeneous(np.array(strip(-3.0, edge, 0.0))), (1, 10))
    np.testing.assert_allclose(antialiased_mask(scene)[0], expected, atol=1e-12)
    turned = clip_scene(scene.positions[0][:, [1, 0, 2, 3]], (10, 1))
    np.testing.assert_allclose(antialiased_mask(turned)[:, 0].flip(0), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("z", "expected"), [(0.8, [1, 1, 1, 1, 1, 1.3, 2, 2, 2, 2]), (0.2, [1, 1, 1, 1.3, 2, 2, 2, 2, 2, 2])]
)
def test_the_nearer_surface_gives_the_edge(z, expected):
    """A face of colour 1 at depth 0.5 that ends at 0.14, and one of colour 2 that begins at -0.26, behind or before."""
    scene = clip_scene(homogeneous(np.array(strip(-3.0, 0.14, 0.5) + strip(-0.26, 3.0, z))), (1, 10))
    raster = kernel.rasterize(scene)
    image = (1.0 + raster.face_index).double()[..., None]
    row = kernel.antialias(scene, image, raster.face_index, raster.barycentrics)[0, 0, :, 0]
    np.testing.assert_allclose(row, expected, atol=1e-12)


def test_a_line_thinner_than_a_pixel_keeps_its_width():
    """Both edges of a strip from 0.06 to 0.12 pass within the pixel that it covers: a width of 0.3 pixels."""
    quad = homogeneous(np.array([[0.06, -9.0, 0], [0.12, -9, 0], [0.12, 9, 0], [0.06, 9, 0]]))
    for faces in ([[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]]):
        row = antialiased_mask(clip_scene(quad, (1, 10), np.array(faces)))[0]
        np.testing.assert_allclose(row, [0, 0, 0, 0, 0, 0.3, 0, 0, 0, 0], atol=1e-12)


def test_the_way_to_the_outline_is_followed_over_many_faces():
    """A half-plane whose last two pixels have 15 or 18 upright strips of two faces each between their centres: more
    than 32 faces are given up."""
    for strips, expected in ((15, 0.3), (18, 0.0)):
        x = np.concatenate([[-3.0], np.linspace(0.1001, 0.26, strips)])
        points = np.concatenate([np.stack([x, np.full_like(x, y), 0 * x], axis=1) for y in (-9.0, 9.0)])
        lower = np.arange(strips)
        upper = lower + strips + 1
        faces = np.concatenate(
            [np.stack(f, axis=1) for f in ((lower, lower + 1, upper), (lower + 1, upper + 1, upper))]
        )
        row = antialiased_mask(clip_scene(homogeneous(points), (1, 10), faces))[0]
        assert row[5] == 1
        assert row[6].item() == pytest.approx(expected)


# --- Which edges are silhouettes.


def blended(points: np.ndarray, faces: list[list[int]], size: tuple[int, int] = (33, 33)) -> np.ndarray:
    """Which pixels [H, W] an image of noise changes in."""
    scene = clip_scene(points if points.shape[1] == 4 else homogeneous(points), size, np.array(faces))
    raster = kernel.rasterize(scene)
    image = tensor(colours((1, *size)))
    result = kernel.antialias(scene, image, raster.face_index, raster.barycentrics)
    return (result != image).any(-1)[0].numpy()


SQUARE = np.array([[-0.7, -0.7, 0.0], [0.7, -0.7, 0], [0.7, 0.7, 0], [-0.7, 0.7, 0]])
"""Its diagonal from corner 0 to corner 2 crosses the middle of the image."""


def middle(changed: np.ndarray) -> np.ndarray:
    return changed[8:25, 8:25]


def test_nothing_changes_inside_of_a_closed_surface():
    """A sphere of 1,280 faces in an image of noise: only pixels next to its outline change."""
    vertices, faces = scenes.icosphere(3)
    scene = clip_scene(homogeneous(vertices * 0.8), (64, 64), faces)
    raster = kernel.rasterize(scene)
    image = tensor(colours((1, 64, 64)))
    changed = (kernel.antialias(scene, image, raster.face_index, raster.barycentrics) != image).any(-1)[0].numpy()
    x, y = oracle.pixel_centres(64, 64)
    distance = np.abs(np.hypot(x[None], y[:, None]) - 0.8)
    assert changed.sum() > 120
    assert distance[changed].max() < 1.5 * 2 / 64


def test_a_boundary_is_a_silhouette_and_a_shared_edge_is_not():
    joined, split = [[0, 1, 2], [0, 2, 3]], [[0, 1, 2], [4, 5, 3]]
    apart = np.concatenate([SQUARE, SQUARE[[0, 2]]])
    assert not middle(blended(SQUARE, joined)).any()
    assert blended(SQUARE, joined).sum() > 80
    assert middle(blended(apart, split)).sum() > 10


def test_winding_does_not_matter():
    for second in ([0, 2, 3], [0, 3, 2], [3, 2, 0]):
        for first in ([0, 1, 2], [2, 1, 0]):
            assert not middle(blended(SQUARE, [first, second])).any()


def test_a_fold_is_a_silhouette():
    """The second face is folded over the diagonal, behind the first and smaller."""
    folded = np.concatenate([SQUARE[:3], [[0.3, -0.4, 0.5]]])
    assert middle(blended(folded, [[0, 1, 2], [0, 2, 3]])).sum() > 10


def test_a_face_that_is_absent_continues_nothing():
    for corner in ([np.nan, 0.7, 0.0], [-0.7, np.inf, 0], [0.2, 0.2, 0], [0.7, 0.7, 0]):
        points = np.concatenate([SQUARE[:3], [corner]])
        assert middle(blended(points, [[0, 1, 2], [0, 2, 3]])).sum() > 10
    assert middle(blended(SQUARE, [[0, 1, 2], [0, 2, 2]])).sum() > 10


def test_where_three_faces_meet_one_across_is_enough():
    """A second face folded behind the first makes no silhouette of an edge that a third one continues."""
    points = np.concatenate([SQUARE, [[0.3, -0.4, 0.5]]])
    faces = [[0, 1, 2], [0, 2, 4], [0, 2, 3]]
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        assert not middle(blended(points, [faces[i] for i in order])).any()


def test_faces_of_other_images_are_no_neighbours():
    """Both images have vertices of the same numbers, but the second face only belongs to the first image."""
    points = tensor(homogeneous(np.stack([SQUARE, SQUARE])))
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 2]], dtype=torch.int32)
    ranges = torch.tensor([[0, 2], [2, 1]])
    raster = ops.rasterize(points, faces, 33, 33, face_ranges=ranges)
    image = tensor(colours((2, 33, 33)))
    result = ops.antialias(image, points, faces, raster.face_index, raster.barycentrics, face_ranges=ranges)
    changed = (result != image).any(-1).numpy()
    assert not middle(changed[0]).any()
    assert middle(changed[1]).sum() > 10


def test_a_batch_of_several_meshes_is_each_mesh_alone():
    scene = scenes.packed_topologies()
    raster = kernel.rasterize(scene)
    image = tensor(colours(tuple(raster.face_index.shape)))
    positions = tensor(scene.positions)
    together = kernel.antialias(scene, image, raster.face_index, raster.barycentrics)
    for b, (start, count) in enumerate(scene.face_ranges):
        own = raster.face_index[b : b + 1]
        alone = ops.antialias(
            image[b : b + 1],
            positions[b : b + 1],
            tensor(scene.faces[start : start + count]),
            torch.where(own < 0, own, own - int(start)),
            raster.barycentrics[b : b + 1],
        )
        assert torch.equal(together[b], alone[0])


# --- The camera.


def test_an_edge_that_reaches_behind_the_camera_equals_its_visible_part():
    """A triangle with a vertex of w < 0 against the same one cut off, far below the image, where w > 0."""
    left, right, behind = (
        np.array([-0.9, 0.8, 0.2, 1.0]),
        np.array([0.7, 0.9, 0.2, 1.0]),
        np.array([0.1, -0.9, 0, -0.3]),
    )
    cut_left, cut_right = (corner + 0.72 * (behind - corner) for corner in (left, right))
    assert cut_left[3] > 0
    assert cut_left[1] / cut_left[3] < -1.5
    whole = clip_scene(np.stack([left, right, behind]), (40, 40))
    part = clip_scene(np.stack([left, right, cut_right, cut_left]), (40, 40), np.array([[0, 1, 2], [0, 2, 3]]))
    masks = [antialiased_mask(replace(scene, depth_clip=False)).numpy() for scene in (whole, part)]
    np.testing.assert_allclose(masks[0], masks[1], atol=1e-9)
    assert ((masks[0] > 0.01) & (masks[0] < 0.99)).sum() > 40


def test_a_surface_cut_by_the_near_plane_has_no_edge_there():
    ground = homogeneous(np.array([[-9.0, -9, -7.0], [9, -9, -7], [0, 14, 8]]))
    scene = clip_scene(ground, (24, 24))
    raster = kernel.rasterize(scene)
    assert 0.2 < (raster.face_index >= 0).double().mean() < 0.8
    image = tensor(colours((1, 24, 24)))
    assert torch.equal(kernel.antialias(scene, image, raster.face_index, raster.barycentrics), image)


# --- Gradients.


@functools.cache
def small_scene() -> tuple[Scene, ops.Raster]:
    """Four faces, w from 1 to 3, two sharing an edge, on 7x8 pixels: no centre near anything that rounding decides."""
    for seed in range(500):
        rng = np.random.default_rng(seed)
        positions = homogeneous(rng.uniform(-0.9, 0.9, (1, 10, 3))) * rng.uniform(1, 3, (1, 10, 1))
        faces = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6], [7, 8, 9]], dtype=np.int32)
        scene = Scene("small", positions, faces, 7, 8)
        raster = kernel.rasterize(scene)
        leaves = [tensor(colours((1, 7, 8))), tensor(positions)]
        arguments = faces, raster.face_index.numpy(), raster.barycentrics.numpy()
        answer = reference.antialias(*leaves, *arguments, epsilon=1e-5)
        blends = (answer.image != leaves[0]).any(-1).sum()
        if blends >= 20 and not (answer.ambiguous | answer.kinked).any():
            return scene, raster
    raise AssertionError("no seed gives such a scene")


def test_gradcheck():
    scene, raster = small_scene()
    image = tensor(colours((1, 7, 8))).requires_grad_()
    positions = tensor(scene.positions).requires_grad_()

    def run(image: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return kernel.antialias(scene, image, raster.face_index, raster.barycentrics, positions=positions)

    assert torch.autograd.gradcheck(run, (image, positions), eps=1e-7, atol=1e-5)


def test_the_gradient_on_the_border_between_two_pixels_is_one_sided():
    """The edge of the face lies on the border: moving it back uncovers P, and that derivative counts."""
    scene = clip_scene(homogeneous(np.array(strip(-3.0, 0.2, 0.0))), (1, 10))
    positions = tensor(scene.positions).requires_grad_()
    antialiased_mask(scene, positions).sum().backward()
    back = clip_scene(homogeneous(np.array(strip(-3.0, 0.2 - 1e-6, 0.0))), (1, 10))
    change = antialiased_mask(scene).sum() - antialiased_mask(back).sum()
    assert positions.grad[0, 1:, 0].sum().item() == pytest.approx(change.item() / 1e-6, rel=1e-6)
    assert change > 0


def test_a_loss_on_the_image_pulls_a_triangle_to_its_place():
    """20 pixels away in shape, by gradient descent on colours alone: no SoftMask, coverage has no other gradient."""
    target = torch.tensor([[[-0.6, -0.5, 0, 1], [0.7, -0.4, 0, 1], [0.0, 0.6, 0, 1]]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)

    def picture(positions: torch.Tensor) -> torch.Tensor:
        raster = ops.rasterize(positions.detach(), faces, 48, 48)
        covered = (raster.face_index >= 0).double()[..., None]
        return ops.antialias(covered, positions, faces, raster.face_index, raster.barycentrics)

    wanted = picture(target)
    offset = torch.tensor([[[0.15, 0.1], [-0.12, 0.14], [0.1, -0.16]]], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([offset], lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        positions = torch.cat([target[..., :2] + offset, target[..., 2:]], dim=-1)
        ((picture(positions) - wanted) ** 2).sum().backward()
        optimiser.step()
    assert offset.detach().abs().max() < 0.1 * 2 / 48


# --- Its own limits.


def test_the_same_bits_for_every_number_of_threads():
    scene = SCENES["packed_topologies"].rounded_to(np.float32)
    raster = raster_of("packed_topologies")
    image = tensor(colours(raster.face_index.shape).astype(np.float32)).requires_grad_()
    positions = tensor(scene.positions).requires_grad_()
    barycentrics = tensor(raster.barycentrics.astype(np.float32))

    def run() -> list[torch.Tensor]:
        output = kernel.antialias(scene, image, tensor(raster.face_index), barycentrics, positions=positions)
        return [output, *torch.autograd.grad(output, (image, positions), output.detach().cos())]

    kernel.assert_same_bits_for_every_number_of_threads(run)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_images_are_rounded_once(dtype):
    scene, raster = SCENES["soup_culled"].rounded_to(np.float32), raster_of("soup_culled")
    barycentrics = tensor(raster.barycentrics.astype(np.float32))
    image = tensor(colours(raster.face_index.shape)).to(dtype)
    actual = kernel.antialias(scene, image, tensor(raster.face_index), barycentrics)
    exact = kernel.antialias(scene, image.float(), tensor(raster.face_index), barycentrics)
    assert actual.dtype == dtype
    assert torch.equal(actual, exact.to(dtype))


def test_no_channels_and_no_gradient_wanted():
    scene, raster = small_scene()
    empty = torch.zeros(1, 7, 8, 0, dtype=torch.float64)
    assert kernel.antialias(scene, empty, raster.face_index, raster.barycentrics).shape == (1, 7, 8, 0)
    positions = tensor(scene.positions).requires_grad_()
    output = kernel.antialias(scene, empty, raster.face_index, raster.barycentrics, positions=positions)
    output.sum().backward()
    assert (positions.grad == 0).all()


def test_what_is_not_finite_stays_where_it_is():
    """A pixel that no edge crosses does not see its neighbours, whatever they are."""
    scene, raster = small_scene()
    image = tensor(colours((1, 7, 8)))
    changed = (kernel.antialias(scene, image, raster.face_index, raster.barycentrics) != image).any(-1)
    image[changed] = torch.nan
    result = kernel.antialias(scene, image, raster.face_index, raster.barycentrics)
    alone = ~changed
    assert alone.any()
    assert torch.equal(result[alone].isnan(), image[alone].isnan())
    barycentrics = torch.full_like(raster.barycentrics, torch.nan)
    assert torch.equal(kernel.antialias(scene, image, raster.face_index, barycentrics).nan_to_num(), image.nan_to_num())
