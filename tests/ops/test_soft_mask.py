"""SoftMask against the float64 oracle, values by hand, finite differences and its own limits."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import compare, kernel, memory, oracle, scenes
from oracle.kernel import tensor
from oracle.scenes import Scene, homogeneous

from dibr_deploy import ops

DTYPES = [np.float32, np.float64]
MAKERS = (
    scenes.soup_culled,
    scenes.soup_perspective,
    scenes.soup_through_the_camera,
    scenes.sphere_perspective,
    scenes.slivers,
    scenes.ground_under_the_camera,
    scenes.packed_topologies,
    scenes.degenerate_faces,
    scenes.no_faces,
    scenes.no_vertices,
    scenes.empty_batch,
)
SCENES = {make().name: make() for make in MAKERS} | {scene.name: scene for scene in scenes.tiny_images()}
OPTIONS = {
    "defaults": {},
    "wide": {"sigmainv": 60.0, "boxlen": 0.3, "knum": 5},
    "first only": {"sigmainv": 500.0, "boxlen": 0.1, "knum": 1},
    "all": {"sigmainv": 200.0, "boxlen": 0.15, "knum": 1000},
    "no margin": {"sigmainv": 7000.0, "boxlen": 0.0, "knum": 30},
}
BORDER_TOLERANCE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-13}


@functools.cache
def face_index_of(name: str) -> np.ndarray:
    return oracle.rasterize(SCENES[name]).face_index


def oracle_mask(
    scene: Scene, face_index: np.ndarray, positions=None, tolerance=0.0, **options
) -> oracle.OracleSoftMask:
    positions = tensor(scene.positions.astype(np.float64)) if positions is None else positions
    return oracle.soft_mask(
        positions, scene.faces, face_index, face_ranges=scene.face_ranges, tolerance=tolerance, **options
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_equals_the_oracle(name, dtype, options, figure):
    """Pixels within rounding of a box border that counts are left out, and counted: the mask jumps there."""
    scene = SCENES[name].rounded_to(dtype)
    face_index = face_index_of(name)
    actual = kernel.soft_mask(scene, tensor(face_index), **OPTIONS[options]).numpy()
    tolerance = BORDER_TOLERANCE[np.dtype(dtype)]
    with torch.no_grad():
        expected = oracle_mask(scene, face_index, tolerance=tolerance, **OPTIONS[options])
    assert actual.dtype == dtype
    assert actual.shape == face_index.shape
    assert (actual[face_index >= 0] == 1).all()
    error = np.abs(actual - expected.mask.numpy())[~expected.ambiguous].max(initial=0.0)
    kind = np.dtype(dtype).name
    figure(f"soft_mask {kind} pixels", face_index.size)
    figure(f"soft_mask {kind} pixels at a box border left out", int(expected.ambiguous.sum()))
    figure(f"soft_mask {kind} largest error", error)
    assert expected.ambiguous.sum() <= 1e-3 * face_index.size
    assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]


GRADIENT_CASES = [
    (name, dtype)
    for name in ("soup_culled", "soup_perspective", "soup_through_the_camera", "packed_topologies")
    for dtype in DTYPES
] + [("slivers", np.float64)]


@pytest.mark.parametrize("options", ["defaults", "wide", "all"])
@pytest.mark.parametrize(("name", "dtype"), GRADIENT_CASES)
def test_gradient_equals_the_oracle(name, dtype, options, figure):
    """The oracle's gradient comes from autograd. Left out and counted: pixels at a box border, and those to which two
    points of one boundary are equally near but for rounding. Slivers in float64 alone: which of its two long edges is
    the nearer one is below the resolution of float32."""
    scene = SCENES[name].rounded_to(dtype)
    face_index = face_index_of(name)
    wide = tensor(scene.positions.astype(np.float64)).requires_grad_()
    expected = oracle_mask(scene, face_index, wide, BORDER_TOLERANCE[np.dtype(dtype)], **OPTIONS[options])
    left_out = expected.ambiguous | expected.creased
    weights = np.random.default_rng(0).uniform(0.5, 1.5, face_index.shape) * ~left_out
    reference = torch.autograd.grad(expected.mask, wide, tensor(weights))[0].numpy()
    positions = tensor(scene.positions).requires_grad_()
    mask = kernel.soft_mask(scene, tensor(face_index), positions=positions, **OPTIONS[options])
    actual = torch.autograd.grad(mask, positions, tensor(weights.astype(dtype)))[0].numpy()
    reference = np.nan_to_num(reference, nan=0.0)
    assert np.isfinite(actual).all()
    error = np.abs(actual - reference).max() / np.abs(reference).max()
    kind = np.dtype(dtype).name
    figure(f"soft_mask_backward {kind} pixels at a border or crease left out", int(left_out.sum()))
    figure(f"soft_mask_backward {kind} largest error / largest gradient", error)
    assert left_out.mean() <= 2e-3
    assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]


@functools.cache
def small_scene(knum: int) -> tuple[Scene, np.ndarray, dict]:
    """Four faces, w from 1 to 3, on 6x7 pixels, no box border or crease near a centre; with face_index and options."""
    options = {"sigmainv": 15.0, "boxlen": 0.4, "knum": knum}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        positions = homogeneous(rng.uniform(-0.7, 0.7, (1, 12, 3))) * rng.uniform(1, 3, (1, 12, 1))
        scene = Scene("small", positions, np.arange(12, dtype=np.int32).reshape(4, 3), 6, 7)
        face_index = oracle.rasterize(scene).face_index
        if not 5 <= (face_index >= 0).sum() <= 25:
            continue
        found = oracle_mask(scene, face_index, tolerance=1e-4, **options)
        if not (found.ambiguous | found.creased).any():
            return scene, face_index, options
    raise AssertionError("no scene keeps its distance")


@pytest.mark.parametrize("knum", [1, 2, 30])
def test_gradient_equals_central_differences_of_the_oracle(knum):
    """All four coordinates of every vertex, w among them."""
    scene, face_index, options = small_scene(knum)
    weights = tensor(np.random.default_rng(1).normal(size=face_index.shape))
    positions = tensor(scene.positions).requires_grad_()
    mask = kernel.soft_mask(scene, tensor(face_index), positions=positions, **options)
    (actual,) = torch.autograd.grad(mask, positions, weights)
    step = 1e-6
    expected = torch.zeros_like(actual)
    for place in np.ndindex(*scene.positions.shape):
        sides = []
        for sign in (1, -1):
            moved = scene.positions.copy()
            moved[place] += sign * step
            sides.append((oracle_mask(scene, face_index, tensor(moved), **options).mask * weights).sum())
        expected[place] = (sides[0] - sides[1]) / (2 * step)
    assert expected[..., [0, 1, 3]].abs().max() > 0.1
    assert (actual[..., 2] == 0).all()
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("knum", [1, 2, 30])
def test_gradcheck_in_positions(knum):
    scene, face_index, options = small_scene(knum)
    positions = tensor(scene.positions).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: kernel.soft_mask(scene, tensor(face_index), positions=p, **options), (positions,), eps=1e-6
    )


def mask_of(corners, height=1, width=1, covered=False, dtype=torch.float64, **options):
    """Mask [H, W] of unconnected faces with corners [3 F, 3], w = 1, and the leaf positions."""
    positions = torch.as_tensor(homogeneous(np.asarray(corners, dtype=float))[None], dtype=dtype).requires_grad_()
    faces = torch.arange(positions.shape[1], dtype=torch.int32).reshape(-1, 3)
    face_index = torch.full((1, height, width), 0 if covered else -1, dtype=torch.int32)
    return ops.soft_mask(positions, faces, face_index, **options)[0], positions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_to_an_edge_and_a_vertex_by_hand(dtype):
    """Centres at x = -0.9, -0.7 ... 0.9, y = 0; the left edge at x = 0.5, then only a corner at (0.5, 0.5)."""
    mask, _ = mask_of([[0.5, -2, 0], [3, 0, 0], [0.5, 2, 0]], 1, 10, dtype=dtype, sigmainv=2.0, boxlen=1.0)
    x = np.arange(-0.9, 1.0, 0.2)
    expected = np.where(x >= -0.5, np.exp(-2.0 * (x - 0.5) ** 2), 0.0)
    np.testing.assert_allclose(mask[0].detach(), expected, atol=1e-6)
    mask, _ = mask_of([[0.5, 0.5, 0], [2, 0.5, 0], [0.5, 2, 0]], dtype=dtype, sigmainv=3.0, boxlen=1.0)
    assert mask.item() == pytest.approx(np.exp(-1.5))
    mask, _ = mask_of([[0.5, 0.5, 0]] * 3, dtype=dtype, sigmainv=3.0, boxlen=1.0)
    assert mask.item() == pytest.approx(np.exp(-1.5)), "a face without area takes part"
    mask, _ = mask_of([[0.5, -2, 0], [0.5, 2, 0], [3, 0, 0]], dtype=dtype, sigmainv=2.0, boxlen=1.0)
    assert mask.item() == pytest.approx(np.exp(-0.5)), "a back-facing one too"


def test_inside_a_face_that_is_not_visible_the_distance_is_to_its_boundary():
    """A culled face around the centre: the nearest edge is 0.3 away."""
    mask, _ = mask_of([[-0.3, -9, 0], [-0.3, 9, 0], [9, 0, 0]], sigmainv=2.0)
    assert mask.item() == pytest.approx(np.exp(-2 * 0.09))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_knum_boxes_in_index_order_count(dtype):
    near, far = [[0.1, -1, 0], [1, 0, 0], [0.1, 1, 0]], [[0.4, -1, 0], [1, 0, 0], [0.4, 1, 0]]
    out_of_box = [[0.6, -1, 0], [1, 0, 0], [0.6, 1, 0]]
    behind = [[0.1, -1, -1.5], [1, 0, 0], [0.1, 1, 0]]
    p_near, p_far = np.exp(-0.01), np.exp(-0.16)
    for corners, knum, expected in (
        (far + near, 1, p_far),
        (near + far, 1, p_near),
        (far + near, 2, 1 - (1 - p_near) * (1 - p_far)),
        (out_of_box + far + near, 1, p_far),
        (behind + far + near, 1, p_far),
    ):
        assert mask_of(corners, dtype=dtype, knum=knum, sigmainv=1.0, boxlen=0.5)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_box_is_half_open(axis, dtype):
    """The centre (0, 0) on the lower border of the enlarged box counts, on the upper one it does not."""
    corners = np.array([[0.25, -1, 0], [0.5, 1, 0], [0.25, 1, 0]])
    corners = corners if axis == 0 else corners[:, [1, 0, 2]]
    assert mask_of(corners, boxlen=0.25, sigmainv=1.0, dtype=dtype)[0].item() == pytest.approx(np.exp(-0.0625))
    assert mask_of(-corners, boxlen=0.25, sigmainv=1.0, dtype=dtype)[0].item() == 0


@pytest.mark.parametrize("corner", [[np.nan, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, -1], [0, 0, -1.5, 1], [0, np.inf, 0, 1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_faces_that_take_no_part_leave_no_mask_and_no_gradient(corner, dtype):
    positions = torch.tensor([[[0.5, 0, 0, 1], [0.5, 0.5, 0, 1], corner]], dtype=dtype, requires_grad=True)
    face_index = torch.full((1, 2, 2), -1, dtype=torch.int32)
    mask = ops.soft_mask(positions, torch.tensor([[0, 1, 2]]), face_index, boxlen=3.0, sigmainv=1.0)
    assert (mask == 0).all()
    assert (torch.autograd.grad(mask.sum(), positions)[0] == 0).all()


def test_covered_pixels_have_no_gradient():
    mask, positions = mask_of([[0.5, -2, 0], [3, 0, 0], [0.5, 2, 0]], 3, 4, covered=True, sigmainv=1.0, boxlen=2.0)
    assert (mask == 1).all()
    assert (torch.autograd.grad(mask.sum(), positions)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "touching",
    [
        [[0, -1, 0], [0, 1, 0], [1, 0, 0]],
        [[0, 0, 0], [1, 0.5, 0], [1, -0.5, 0]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0], [1, 0, 0]],
        [[-1, 0, 0], [0, 0, 0], [1, 0, 0]],
    ],
    ids=["on an edge", "on a vertex", "on a point", "on the end of a line", "on the middle of a line"],
)
def test_a_centre_exactly_on_an_invisible_boundary_is_safe(touching, dtype):
    """There p = 1: the mask is 1, d^2 is at its minimum, and the factor 1 - p takes away the other faces' pull."""
    other = [[0.1, -1, 0], [0.1, 1, 0], [1, 0.1, 0]]
    for corners in (touching, touching + other, other + touching, touching + touching):
        mask, positions = mask_of(corners, dtype=dtype, sigmainv=50.0, boxlen=0.5)
        assert mask.item() == 1
        assert (torch.autograd.grad(mask.sum(), positions)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [2.0**-13, 2.0**-16, 2.0**-20, 2.0**-40])
def test_p_near_one_gives_the_closed_form_without_division(distance, dtype):
    """Edges at x = d and x = 2 d from the centre: p_k = exp(-s d_k^2) rounds towards 1, the gradient stays right."""
    edges = [[x, y, 0] for k in (1, 2) for x, y in ((k * distance, -1), (1, 0), (k * distance, 1))]
    sharpness = 7000.0
    mask, positions = mask_of(edges, dtype=dtype, sigmainv=sharpness)
    (gradient,) = torch.autograd.grad(mask.sum(), positions)
    squared = [distance**2, (2 * distance) ** 2]
    missing = [-np.expm1(-sharpness * value) for value in squared]
    assert mask.item() == pytest.approx(1 - missing[0] * missing[1], abs=1e-7 if dtype == torch.float32 else 1e-15)
    for k in range(2):
        expected = -sharpness * np.exp(-sharpness * squared[k]) * missing[1 - k] * 2 * (k + 1) * distance
        pulled = gradient[0, [3 * k, 3 * k + 2], 0].sum().item()
        # 1 - p carries the rounding of p itself, one unit in the last place of 1.
        allowed = sharpness * 2 * (k + 1) * distance * 2 * torch.finfo(dtype).eps + 1e-4 * abs(expected)
        assert pulled == pytest.approx(expected, abs=allowed)


def test_at_the_outline_the_mask_is_continuous_and_its_gradient_vanishes():
    """A pixel just outside has mask 1 - s d^2 and gradient -2 s d; on the covered side both limits are 1 and 0."""
    for distance in (1e-5, 1e-7, 1e-9):
        mask, positions = mask_of([[distance, -1, 0], [1, 0, 0], [distance, 1, 0]], sigmainv=7000.0)
        (gradient,) = torch.autograd.grad(mask.sum(), positions)
        assert mask.item() == pytest.approx(1 - 7000 * distance**2, abs=1e-9)
        assert gradient[0, :, 0].sum().item() == pytest.approx(-14000 * distance, rel=1e-5)


def test_between_two_equally_near_edges_the_gradient_is_one_of_the_one_sided_limits():
    """Inside an invisible right angle the centre is 0.25 from both legs."""

    def gradient(shift):
        corners = np.add([[-0.25, -0.25, 0], [4, -0.25, 0], [-0.25, 4, 0]], [shift, -shift, 0])
        mask, positions = mask_of(corners, sigmainv=3.0)
        return torch.autograd.grad(mask.sum(), positions)[0]

    on, sides = gradient(0.0), (gradient(1e-9), gradient(-1e-9))
    assert (sides[0] - sides[1]).abs().max() > 0.1
    assert min((on - side).abs().max().item() for side in sides) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 0, 2], [0, 0, 2], [2, 2, 0]])
def test_the_pull_on_a_face_without_area_is_that_on_its_line(order, dtype):
    """The face lies on the line x = 0.2. Which of its coinciding edges is nearest is open, how they are pulled as a
    whole is not: force -dmask/dd along x, torque about the nearest point (0.2, 0) none."""
    line = np.array([[0.2, -0.6, 0], [0.2, 0.5, 0], [0.2, 0.7, 0]])[order]
    mask, positions = mask_of(line, dtype=dtype, sigmainv=9.0, boxlen=1.0)
    (gradient,) = torch.autograd.grad(mask.sum(), positions)
    force = gradient[0].sum(dim=0)
    assert mask.item() == pytest.approx(np.exp(-0.36))
    assert force[0].item() == pytest.approx(-2 * 9 * 0.2 * np.exp(-0.36), rel=1e-5)
    assert force[1].item() == pytest.approx(0, abs=1e-6)
    assert (gradient[0, :, 0] * positions[0, :, 1]).sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_input_is_finite(dtype):
    scene = SCENES["degenerate_faces"].rounded_to(dtype)
    background = torch.full((1, scene.height, scene.width), -1, dtype=torch.int32)
    positions = tensor(scene.positions).requires_grad_()
    mask = kernel.soft_mask(scene, background, positions=positions, sigmainv=50.0, boxlen=0.2)
    (gradient,) = torch.autograd.grad(mask.sum(), positions)
    assert ((mask >= 0) & (mask <= 1)).all()
    assert torch.isfinite(gradient).all()
    excluded = (~np.isfinite(scene.positions[0]).all(axis=1)) | (scene.positions[0, :, 3] <= 0)
    assert excluded.sum() >= 8
    assert (gradient[0, torch.from_numpy(excluded)] == 0).all()


@pytest.mark.parametrize("value", [1e18, 1e30, 3e38, 1e-30, 1e-42])
@pytest.mark.parametrize("axis", range(4))
def test_extreme_finite_coordinates_stay_finite(axis, value):
    scene = SCENES["tiny_17x33"].rounded_to(np.float32)
    moved = scene.positions.copy()
    moved[0, ::2, axis] = value
    moved[0, ::5, axis] = -value
    positions = tensor(moved).requires_grad_()
    background = torch.full((1, scene.height, scene.width), -1, dtype=torch.int32)
    mask = kernel.soft_mask(scene, background, positions=positions, sigmainv=50.0, boxlen=0.2)
    assert ((mask >= 0) & (mask <= 1)).all()
    assert not torch.autograd.grad(mask.sum(), positions)[0].isnan().any()


@pytest.mark.parametrize("name", ["no_faces", "no_vertices", "empty_batch"])
def test_nothing_to_mask_has_a_gradient_of_zeros(name):
    scene = SCENES[name]
    positions = tensor(scene.positions).requires_grad_()
    mask = kernel.soft_mask(scene, tensor(face_index_of(name)), positions=positions)
    assert (mask == 0).all()
    (gradient,) = torch.autograd.grad(mask.sum(), positions)
    assert gradient.shape == positions.shape
    assert (gradient == 0).all()


def test_a_batch_equals_its_images_one_by_one():
    scene = SCENES["packed_topologies"]
    face_index = face_index_of("packed_topologies")
    together = kernel.soft_mask(scene, tensor(face_index), boxlen=0.1)
    for b, (start, count) in enumerate(scene.face_ranges):
        alone = replace(
            scene, positions=scene.positions[b : b + 1], faces=scene.faces[start : start + count], face_ranges=None
        )
        own = np.where(face_index[b : b + 1] >= 0, 0, -1).astype(np.int32)
        assert torch.equal(together[b], kernel.soft_mask(alone, tensor(own), boxlen=0.1)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["soup_perspective", "packed_topologies"])
def test_same_bits_in_every_run_and_for_every_number_of_threads(name, dtype):
    scene = SCENES[name].rounded_to(dtype)

    def run():
        positions = tensor(scene.positions).requires_grad_()
        mask = kernel.soft_mask(scene, tensor(face_index_of(name)), positions=positions, sigmainv=100.0, boxlen=0.2)
        return [mask, torch.autograd.grad(mask.square().sum(), positions)[0]]

    kernel.assert_same_bits_for_every_number_of_threads(run)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width", "copies"), [(70, 131, 1), (64, 96, 1), (33, 40, 60), (1, 1, 1)])
def test_what_the_forward_keeps_changes_no_bit_of_the_gradient(height, width, copies, dtype):
    """Also where it does not all fit, with 60 copies of each face, and where most pixels have no gradient."""
    largest = 0.0
    for seed in range(4):
        scene, face_index, options = blobs(seed, height, width, dtype)
        faces = np.tile(scene.faces, (copies, 1))
        inputs = [tensor(scene.positions), tensor(faces), tensor(face_index), None]
        mask, kept = torch.ops.dibr.soft_mask_keeping(*inputs, *options.values())
        assert torch.equal(mask, torch.ops.dibr.soft_mask(*inputs, *options.values()))
        random = np.random.default_rng(seed)
        gradient = tensor(random.normal(size=face_index.shape).astype(dtype))
        for sparse in (gradient, gradient * tensor(random.random(face_index.shape) < 0.02)):
            searched, recalled = (
                torch.ops.dibr.soft_mask_backward(*inputs, sparse, *options.values(), False, source)
                for source in (None, kept)
            )
            assert searched.view(torch.uint8).equal(recalled.view(torch.uint8))
            largest = max(largest, float(searched.abs().max()))
    assert largest > 0 or height * width == 1


def blobs(seed: int, height: int, width: int, dtype: type) -> tuple[Scene, np.ndarray, dict]:
    """Faces from a pixel to the whole image, some beside it or behind the camera, and discs of a coverage that has
    nothing to do with them; with face_index and options."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(40, 90))
    centres = rng.uniform(-1.3, 1.3, (count, 1, 3)) * [1, 1, 0.5]
    corners = centres + rng.normal(size=(count, 3, 3)) * 10.0 ** rng.uniform(-3, 0.3, (count, 1, 1))
    positions = homogeneous(corners.reshape(1, -1, 3))
    positions[..., 3] = np.where(rng.random(3 * count) < 0.02, -1.0, 1.0)
    positions[..., :3] *= positions[..., 3:] * rng.choice([0.5, 1.0, 2.0], (1, 3 * count, 1))
    positions[..., 3] *= rng.choice([0.5, 1.0, 2.0])
    scene = Scene("blobs", positions, np.arange(3 * count, dtype=np.int32).reshape(-1, 3), height, width)
    y, x = np.mgrid[:height, :width]
    covered = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(0, 6))):
        covered |= (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < rng.uniform(0, width) ** 2 / 4
    covered ^= rng.random((height, width)) < rng.choice([0.0, 0.01])
    face_index = np.where(covered, 0, -1).astype(np.int32)[None]
    options = {"sigmainv": float(rng.choice([30.0, 400.0])), "boxlen": float(rng.choice([0.0, 0.02, 0.2]))}
    return scene.rounded_to(dtype), face_index, options | {"knum": int(rng.choice([2, 7, 30]))}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (3, 200), (31, 33), (32, 32), (64, 96), (65, 37), (100, 7), (70, 131), (40, 256), (80, 290), (5, 520)],
)
def test_any_coverage_and_size_of_image_and_faces(height, width, dtype):
    """Crosses the borders of what the search for faces is divided into, whatever that is, also with the knum cut."""
    for seed in range(3):
        scene, face_index, options = blobs(100 * height + width + seed, height, width, dtype)
        wide = tensor(scene.positions.astype(np.float64)).requires_grad_()
        expected = oracle_mask(scene, face_index, wide, BORDER_TOLERANCE[np.dtype(dtype)], **options)
        positions = tensor(scene.positions).requires_grad_()
        actual = kernel.soft_mask(scene, tensor(face_index), positions=positions, **options)
        error = np.abs(actual.detach().numpy() - expected.mask.detach().numpy())[~expected.ambiguous].max(initial=0.0)
        assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]
        left_out = expected.ambiguous | expected.creased
        assert left_out.mean() <= 2e-2
        weights = np.random.default_rng(seed).uniform(0.5, 1.5, face_index.shape) * ~left_out
        reference = np.nan_to_num(torch.autograd.grad(expected.mask, wide, tensor(weights))[0].numpy(), nan=0.0)
        gradient = torch.autograd.grad(actual, positions, tensor(weights.astype(dtype)))[0].numpy()
        # Of a face much smaller than its distance, float32 does not always know which edge is nearest.
        allowed = {np.float32: 1e-3, np.float64: compare.VALUE_TOLERANCE[np.dtype(np.float64)]}[dtype]
        assert np.abs(gradient - reference).max() <= allowed * max(np.abs(reference).max(), 1.0)


@pytest.mark.parametrize("row", [0, 20, 39])
@pytest.mark.parametrize("column", [0, 3, 251, 252, 255, 256, 259, 260, 383, 511, 512, 599])
def test_a_face_that_reaches_the_only_uncovered_pixel_counts_wherever_that_is(row, column):
    """The search for faces looks at the inside of an outline many cells at once. Each face has an image of its own."""
    height, width, count = 40, 600, 150
    rng = np.random.default_rng(height * column + row)
    centres = np.array([column, row]) + rng.uniform(-25, 25, (count, 1, 2))
    pixels = centres + rng.normal(size=(count, 3, 2)) * 10.0 ** rng.uniform(-1, 1.2, (count, 1, 1))
    ndc = (2 * pixels + 1 - [width, height]) / [width, -height]
    positions = homogeneous(np.concatenate([ndc, np.zeros((count, 3, 1))], axis=2).reshape(1, -1, 3))
    ranges = np.stack([np.arange(count), np.ones(count)], axis=1).astype(np.int32)
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    scene = Scene("near", np.repeat(positions, count, axis=0), faces, height, width, face_ranges=ranges)
    face_index = np.repeat(np.arange(count, dtype=np.int32), height * width).reshape(count, height, width)
    face_index[:, row, column] = -1
    options = {"sigmainv": 5.0, "boxlen": 0.05}
    x, y = (np.array([column, row]) * 2 + 1 - [width, height]) / [width, -height]
    low, high = ndc.min(axis=1) - options["boxlen"], ndc.max(axis=1) + options["boxlen"]
    reaches = ((low <= [x, y]) & ([x, y] < high)).all(axis=1)
    assert 10 < reaches.sum() < count - 10
    mask = kernel.soft_mask(scene, tensor(face_index), **options)[:, row, column].numpy()
    assert np.array_equal(mask > 0.0, reaches)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probability_is_that_of_the_exponential_function_over_its_whole_range(dtype):
    """A thousand images of one pixel, each with an edge at another distance: the gradient is 2 s p d without loss where
    the mask itself, 1 - (1 - p), has lost p. Rounding of s d^2 weighs as much as the exponent; below the least normal
    number p is 0."""
    least = torch.finfo(dtype).tiny
    distances = torch.linspace(0, (1.02 * -np.log(least)) ** 0.5, 1000, dtype=dtype)
    positions = torch.zeros(len(distances), 3, 4, dtype=dtype)
    positions[:, :, 0] = distances[:, None] + torch.tensor([0.0, 5.0, 0.0], dtype=dtype)
    positions[:, :, 1] = torch.tensor([-50.0, 0.0, 50.0], dtype=dtype)
    positions[:, :, 3] = 1
    positions.requires_grad_()
    background = torch.full((len(distances), 1, 1), -1, dtype=torch.int32)
    mask = ops.soft_mask(positions, torch.tensor([[0, 1, 2]]), background, sigmainv=1.0, boxlen=100.0)
    (gradient,) = torch.autograd.grad(mask.sum(), positions)
    actual = -gradient[:, :, 0].sum(1).double().numpy()
    wide = distances.double().numpy()
    expected = 2 * wide * np.exp(-(wide**2))
    normal = expected >= 4 * least * wide
    allowed = (8 + 4 * wide**2) * torch.finfo(dtype).eps * expected
    assert (np.abs(actual - expected) <= allowed)[normal].all()
    assert (np.abs(actual[~normal]) <= 8 * least * wide[~normal]).all()
    assert (actual[wide**2 > -np.log(least / 2)] == 0).all()
    assert normal.sum() > 900
    torch.testing.assert_close(mask.detach().double().flatten(), tensor(np.exp(-(wide**2))), rtol=0, atol=2e-7)


def print_results() -> None:
    """Masks and gradients in both dtypes, as an .npz."""
    results = {}
    for dtype in DTYPES:
        for seed in range(4):
            scene, face_index, options = blobs(seed, 65, 77, dtype)
            positions = tensor(scene.positions).requires_grad_()
            mask = kernel.soft_mask(scene, tensor(face_index), positions=positions, **options)
            name = f"{np.dtype(dtype).name} {seed}"
            results[f"{name} mask"] = mask.detach().numpy()
            results[f"{name} gradient"] = torch.autograd.grad(mask.square().sum(), positions)[0].numpy()
    np.savez(sys.stdout.buffer, **results)


def test_every_instruction_set_gives_the_same():
    """Those that this machine has; `baseline` and another one on any x86 of the last ten years. Bit for bit, but for
    the baseline, which rounds products before it adds them up. No face here has edges that coincide."""
    path = os.pathsep.join(path for path in sys.path if path)
    results = {}
    for level in ("baseline", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, __file__],
            env=dict(os.environ, DIBR_CPU_LEVEL=level, PYTHONPATH=path, OMP_NUM_THREADS="1"),
            capture_output=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            assert b"and on this machine" in done.stderr, done.stderr
            continue
        results[level] = np.load(io.BytesIO(done.stdout))
    baseline = results.pop("baseline")
    for level, others in results.items():
        assert baseline.files == others.files
        for key in baseline.files:
            size = 1 if key.endswith("mask") else np.abs(baseline[key]).max()
            rounding = 64 * np.finfo(baseline[key].dtype).eps * size
            np.testing.assert_allclose(others[key], baseline[key], rtol=0, atol=rounding, err_msg=f"{level} {key}")
            np.testing.assert_array_equal(others[key], results["avx2"][key], err_msg=f"{level} {key}")


def test_a_second_derivative_is_refused_by_name():
    mask, positions = mask_of([[0.5, -2, 0], [3, 0, 0], [0.5, 2, 0]], sigmainv=1.0, boxlen=1.0)
    (gradient,) = torch.autograd.grad(mask.square().sum(), positions, create_graph=True)
    with pytest.raises(RuntimeError, match="soft_mask"):
        gradient.square().sum().backward()


def test_memory_grows_neither_with_pixels_times_faces_nor_with_pixels_times_knum():
    """20,480 faces at 256x256 and knum = 4096: one float per pixel and slot would be 1 GiB, per pixel and face 5 GiB.
    About a thousand faces' boxes contain a pixel of the sphere; storing those pairs would take 130 MiB and more."""
    megabytes = memory.peak_of("soft_mask", faces=20480, size=256, knum=4096, boxlen=0.15)
    print(f"soft_mask forward and backward, 20,480 faces at 256x256, knum 4096: {megabytes:.0f} MiB above the inputs")
    assert megabytes < 32


if __name__ == "__main__":
    print_results()
