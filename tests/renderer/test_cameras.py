"""Camera matrices against matrices and pixels computed by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from dibr_deploy import cameras, ops
from dibr_deploy.errors import DibrError

DOUBLE = torch.float64


def points(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=DOUBLE)


def test_perspective_by_hand() -> None:
    """90 degrees upwards, twice as wide as high, planes at 1 and 3."""
    matrix = cameras.perspective(torch.tensor(math.pi / 2, dtype=DOUBLE), 2.0, near=1.0, far=3.0)
    expected = torch.tensor([[0.5, 0, 0, 0], [0, 1, 0, 0], [0, 0, -2, -3], [0, 0, -1, 0]], dtype=DOUBLE)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-15)


def test_perspective_maps_its_planes_and_edges_to_the_borders() -> None:
    fov, aspect, near, far = 0.7, 1.5, 0.2, 9.0
    matrix = cameras.perspective(torch.tensor(fov, dtype=DOUBLE), aspect, near, far)
    top = math.tan(fov / 2)
    clip = cameras.project(points((0, top * near, -near), (aspect * top * far, 0, -far)), matrix.unsqueeze(0))[0]
    ndc = clip[:, :3] / clip[:, 3:]
    torch.testing.assert_close(ndc, torch.tensor([[0.0, 1.0, -1.0], [1.0, 0.0, 1.0]], dtype=DOUBLE))


def test_orthographic_by_hand() -> None:
    matrix = cameras.orthographic(torch.tensor(2.0, dtype=DOUBLE), 2.0, near=1.0, far=3.0)
    expected = torch.tensor([[0.25, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, -1, -2], [0, 0, 0, 1]], dtype=DOUBLE)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-15)


def test_look_at_by_hand() -> None:
    """From +x at 5: what lies at +z appears on the left, the origin 5 in front."""
    matrix = cameras.look_at(torch.tensor([5.0, 0.0, 0.0], dtype=DOUBLE))
    expected = torch.tensor([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, -5], [0, 0, 0, 1]], dtype=DOUBLE)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-15)


def test_orbit_is_look_at_from_its_own_eye() -> None:
    azimuth = torch.linspace(-3.0, 3.0, 7, dtype=DOUBLE)
    elevation = torch.linspace(-1.4, 1.4, 7, dtype=DOUBLE)
    target = torch.tensor([0.3, -0.2, 0.5], dtype=DOUBLE)
    eye = target + 2.5 * torch.stack(
        [elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1
    )
    torch.testing.assert_close(cameras.orbit(azimuth, elevation, 2.5, target), cameras.look_at(eye, target))


@pytest.mark.parametrize("elevation", [math.pi / 2, -math.pi / 2])
def test_orbit_is_regular_at_the_poles(elevation: float) -> None:
    matrix = cameras.orbit(torch.tensor(0.4, dtype=DOUBLE), elevation, 2.0)
    rotation = matrix[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=DOUBLE))
    torch.testing.assert_close(matrix[:3, 3], torch.tensor([0.0, 0.0, -2.0], dtype=DOUBLE))


def test_invert_rigid_is_the_inverse() -> None:
    matrix = cameras.orbit(torch.tensor([0.3, 2.0], dtype=DOUBLE), 0.7, 3.0, (0.1, 0.2, 0.3))
    torch.testing.assert_close(cameras.invert_rigid(matrix), torch.linalg.inv(matrix))


def test_a_point_lands_on_the_pixel_computed_by_hand() -> None:
    """90 degrees from (0, 0, 4): (1.5, 2.5, 0) is at NDC (0.375, 0.625), the centre of row 1, column 5 of 8 x 8."""
    world_to_clip = cameras.perspective(math.pi / 2) @ cameras.look_at((0.0, 0.0, 4.0))
    around = torch.tensor([1.5, 2.5, 0.0]) + torch.tensor([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.0, 0.1, 0.0]])
    positions = cameras.project(around.unsqueeze(0), world_to_clip.unsqueeze(0))
    raster = ops.rasterize(positions, torch.tensor([[0, 1, 2]]), 8, 8)
    assert (raster.face_index[0] == 0).nonzero().tolist() == [[1, 5]]


@pytest.mark.parametrize("distance", [0.5, 2.0, 7.5])
def test_depth_gives_back_the_distance(distance: float) -> None:
    """The two formulas of docs/cameras.md."""
    near, far = 0.4, 8.0
    point = points((0.1, -0.2, -distance))
    seen = [
        cameras.project(point, make(torch.tensor([0.9], dtype=DOUBLE), near=near, far=far))[0, 0]
        for make in (cameras.perspective, cameras.orthographic)
    ]
    d, parallel = (float(clip[2] / clip[3]) for clip in seen)
    assert 2 * far * near / (far + near - d * (far - near)) == pytest.approx(distance)
    assert (far + near + parallel * (far - near)) / 2 == pytest.approx(distance)


def random_rotation() -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE))
    return q * torch.linalg.det(q).sign()


K = torch.tensor([[300.0, 2.0, 161.0], [0, 310, 118], [0, 0, 1]], dtype=DOUBLE)
R, T = torch.eye(3, dtype=DOUBLE), torch.tensor([0.1, -0.2, 4.0], dtype=DOUBLE)


@pytest.mark.parametrize("first_center", [0.0, 0.5])
def test_a_calibrated_camera_sends_points_to_its_pixels(first_center: float) -> None:
    """u = fx x/z + s y/z + cx, v = fy y/z + cy of R p + t; the pixel's centre i has NDC (2 i + 1 - W) / W."""
    rotation, height, width, near, far = random_rotation(), 240, 320, 0.5, 9.0
    world = torch.randn(20, 3, dtype=DOUBLE)
    in_camera = world @ rotation.T + T
    x, y, z = in_camera.unbind(dim=-1)
    column = 300 * x / z + 2 * y / z + 161 - first_center
    row = 310 * y / z + 118 - first_center
    expected = torch.stack([(2 * column + 1 - width) / width, (height - 2 * row - 1) / height], dim=-1)
    matrix = cameras.from_opencv(K, rotation, T, height, width, near, far, first_center=first_center)
    clip = cameras.project(world[None], matrix[None])[0]
    torch.testing.assert_close(clip[:, :2] / clip[:, 3:], expected)
    torch.testing.assert_close(clip[:, 3], z)
    depth = (far + near) / (far - near) - 2 * far * near / (far - near) / z
    torch.testing.assert_close(clip[:, 2] / clip[:, 3], depth)
    column_vector = cameras.from_opencv(K, rotation, T[:, None], height, width, near, far, first_center=first_center)
    assert torch.equal(column_vector, matrix)


def test_a_calibrated_camera_is_a_perspective_one() -> None:
    """Square pixels, the principal point in the middle: fov_y = 2 atan(H / (2 f)), turned by half a turn about x."""
    height, width, focal = 48, 64, 60.0
    intrinsics = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=DOUBLE)
    view = cameras.orbit(torch.tensor(0.4, dtype=DOUBLE), 0.2, 3.0)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=DOUBLE))
    matrix = cameras.from_opencv(intrinsics, flip @ view[:3, :3], flip @ view[:3, 3], height, width)
    angle = torch.tensor(2 * math.atan(height / 2 / focal), dtype=DOUBLE)
    torch.testing.assert_close(matrix, cameras.perspective(angle, width / height) @ view)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (32, 32)])
def test_pytorch3d_puts_points_where_we_do(height: int, width: int) -> None:
    """Its own formula: row vectors, +x to the left, z away, NDC f x/z + p over the shorter side."""
    world_to_view = cameras.orbit(torch.tensor(0.4, dtype=DOUBLE), 0.2, 3.0, (0.1, 0.2, 0.3))
    view_to_clip = cameras.perspective(torch.tensor(0.9, dtype=DOUBLE), width / height)
    view_to_clip[0, 2], view_to_clip[1, 2] = 0.1, -0.2  # off-centre
    camera = cameras.to_pytorch3d(world_to_view, view_to_clip, height, width)
    world = torch.randn(20, 3, dtype=DOUBLE)
    x, y, z = (world @ camera.R + camera.T).unbind(dim=-1)
    assert bool((z > 0).any())
    ndc_x = camera.focal_length[0] * x / z + camera.principal_point[0]
    ndc_y = camera.focal_length[1] * y / z + camera.principal_point[1]
    shorter = min(height, width)
    clip = cameras.project(world[None], (view_to_clip @ world_to_view)[None])[0]
    ours = clip[:, :2] / clip[:, 3:]
    torch.testing.assert_close(ours, torch.stack([-ndc_x * shorter / width, ndc_y * shorter / height], dim=-1))
    torch.testing.assert_close(clip[:, 3], z)
    assert float(torch.linalg.det(camera.R)) == pytest.approx(1)


def pytorch3d_pixels(camera: cameras.PyTorch3DCamera, world: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Columns and rows from the image's corner, [N, 2], by PyTorch3D's own formula: NDC of +1 are at the left and top
    border of the middle square."""
    x, y, z = (world @ camera.R + camera.T).unbind(dim=-1)
    ndc_x = camera.focal_length[..., 0] * x / z + camera.principal_point[..., 0]
    ndc_y = camera.focal_length[..., 1] * y / z + camera.principal_point[..., 1]
    shorter = min(height, width)
    return torch.stack([(width - shorter * ndc_x) / 2, (height - shorter * ndc_y) / 2], dim=-1)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_calibrated_camera_for_pytorch3d(height: int, width: int, dtype: torch.dtype) -> None:
    """The pixels of K (R x + t), far from the world's origin too."""
    intrinsics = torch.tensor([[300.0, 0, 130.5], [0, 310, 118], [0, 0, 1]], dtype=DOUBLE)
    for place in (1.0, 1000.0):
        rotation, translation = random_rotation(), torch.tensor([0.1, -0.2, 4.0], dtype=DOUBLE) * place
        world = torch.randn(20, 3, dtype=DOUBLE) * place
        pixel = (world @ rotation.T + translation) @ intrinsics.T
        world_to_clip = cameras.from_opencv(
            *(part.to(dtype) for part in (intrinsics, rotation, translation)), height, width, first_center=0.5
        )
        camera = cameras.to_pytorch3d(*cameras.split_projection(world_to_clip), height, width)
        actual = pytorch3d_pixels(camera, world.to(dtype), height, width).double()
        ahead = pixel[:, 2] > 0.1 * place
        assert ahead.sum() > 5
        error = (actual - pixel[:, :2] / pixel[:, 2:])[ahead].abs().max()
        assert error < (1e-8 if dtype == DOUBLE else 0.02), error


SHEARED = torch.eye(4, dtype=DOUBLE)
SHEARED[0, 1] = 0.2
CUT = torch.diag(torch.tensor([3.0, 2, 1, 1], dtype=DOUBLE))
CUT[0, 3], CUT[1, 3] = 0.1, -0.3
SHIFT = torch.zeros(4, 4)
SHIFT[1, 3] = 0.1


def test_a_matrix_is_split_into_motion_and_lens() -> None:
    """Of a calibrated camera the lens is K in units of the image, skew included."""
    view = cameras.orbit(torch.tensor([0.4, -2.0], dtype=DOUBLE), 0.7, 3.0, (0.1, 0.2, 0.3))
    centred = PROJECTIONS["perspective"]
    for lens in (centred, CUT @ centred, SHEARED @ centred):
        for actual, expected in zip(cameras.split_projection(lens @ view), (view, lens), strict=True):
            torch.testing.assert_close(actual, expected.expand(2, 4, 4), rtol=0, atol=1e-12)
    rotation = random_rotation()
    motion, lens = cameras.split_projection(cameras.from_opencv(K, rotation, T, 240, 320, first_center=0.5))
    torch.testing.assert_close(motion[:3, :3], torch.diag(torch.tensor([1.0, -1, -1], dtype=DOUBLE)) @ rotation)
    expected = torch.tensor([[600 / 320, -4 / 320, 1 - 322 / 320], [0, 620 / 240, 236 / 240 - 1]], dtype=DOUBLE)
    torch.testing.assert_close(lens[:2, :3], expected)


def test_pytorch3d_there_and_back() -> None:
    world_to_view = cameras.orbit(torch.tensor([0.4, 1.0], dtype=DOUBLE), 0.2, 3.0)
    view_to_clip = cameras.perspective(torch.tensor([0.9, 0.7], dtype=DOUBLE), 1.5, near=0.3, far=7.0)
    camera = cameras.to_pytorch3d(world_to_view, view_to_clip, 40, 60)
    for back, before in zip(
        cameras.from_pytorch3d(camera, 40, 60, near=0.3, far=7.0), (world_to_view, view_to_clip), strict=True
    ):
        torch.testing.assert_close(back, before)


def test_a_camera_of_pytorch3d_by_hand() -> None:
    """Its default camera, R = I and T = (0, 0, 5): +x of the world appears on the left, in front is +z."""
    camera = cameras.PyTorch3DCamera(torch.eye(3), torch.tensor([0.0, 0, 5]), torch.ones(2), torch.zeros(2))
    world_to_view, view_to_clip = cameras.from_pytorch3d(camera, 8, 8)
    clip = cameras.project(torch.tensor([[[1.0, 2.0, 0.0]]]), (view_to_clip @ world_to_view)[None])[0, 0]
    torch.testing.assert_close(clip[:2] / clip[3], torch.tensor([-0.2, 0.4]))
    assert float(clip[3]) == 5


def test_opengl_reads_columns() -> None:
    matrix = cameras.look_at((0.0, 0.0, 5.0))
    numbers = cameras.to_opengl(matrix)
    assert numbers[12:].tolist() == [0, 0, -5, 1]  # as glTranslate would leave it
    assert torch.equal(cameras.from_opengl(numbers), matrix)


def test_the_viewer_of_every_kind_of_camera() -> None:
    """A perspective camera is at its eye, the near plane on its far side; a parallel one is a direction."""
    eye = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    view = cameras.look_at(eye)
    seen = cameras.viewer(cameras.perspective(torch.tensor(0.7, dtype=DOUBLE), 1.5) @ view)
    assert seen[3] > 0
    torch.testing.assert_close(seen[:3] / seen[3], eye)
    parallel = cameras.viewer(cameras.orthographic(torch.tensor(2.0, dtype=DOUBLE), 1.5) @ view)
    assert abs(float(parallel[3])) < 1e-12
    torch.testing.assert_close(parallel[:3] / parallel[:3].norm(), eye / eye.norm())
    rotation = random_rotation()
    calibrated = cameras.viewer(cameras.from_opencv(K, rotation, T, 240, 320))
    torch.testing.assert_close(calibrated[:3] / calibrated[3], -rotation.T @ T)
    mirrored = cameras.viewer(
        torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=DOUBLE))
        @ cameras.orthographic(torch.tensor(2.0, dtype=DOUBLE))
        @ view
    )
    torch.testing.assert_close(mirrored[:3] / mirrored[:3].norm(), eye / eye.norm())


PROJECTIONS = {
    "perspective": cameras.perspective(torch.tensor(0.7, dtype=DOUBLE), 1.5),
    "orthographic": cameras.orthographic(torch.tensor(2.0, dtype=DOUBLE), 0.7, near=-3.0),
    "cut and magnified": torch.tensor([[3.0, 0, 0.4, 0.1], [0, 2, -0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=DOUBLE)
    @ cameras.perspective(torch.tensor(0.7, dtype=DOUBLE)),
}


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
@pytest.mark.parametrize("eye", [(0.0, 0.0, 5.0), (3.0, 0.0, 0.0), (1.0, 2.0, 3.0), (-2.0, 0.5, -1.0)])
def test_the_axes_are_those_of_the_motion(eye: tuple[float, float, float], projection: torch.Tensor) -> None:
    """The lens leaves them alone; seen from +x, right is -z of the world."""
    motion = cameras.look_at(torch.tensor(eye, dtype=DOUBLE), torch.tensor([0.0, 0.1, 0.0], dtype=DOUBLE))
    axes = cameras.view_axes(projection @ motion)
    torch.testing.assert_close(axes, motion[:3, :3], rtol=0, atol=1e-12)
    if eye == (3.0, 0.0, 0.0):
        torch.testing.assert_close(axes[0], torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE), rtol=0, atol=1e-12)


def test_the_axes_of_other_matrices() -> None:
    """A calibrated camera has those of its rotation with y and z turned around; the identity keeps its own."""
    rotation = random_rotation()
    axes = cameras.view_axes(cameras.from_opencv(K, rotation, T, 240, 320))
    torch.testing.assert_close(axes, torch.tensor([[1.0], [-1.0], [-1.0]], dtype=DOUBLE) * rotation)
    assert torch.equal(cameras.view_axes(torch.eye(4)), torch.eye(3))
    many = torch.eye(4).expand(2, 5, 4, 4) * torch.tensor([2.0, 3.0, -4.0, 1.0]).unsqueeze(-1)
    assert torch.equal(cameras.view_axes(many), torch.eye(3).expand(2, 5, 3, 3))
    assert torch.equal(cameras.view_axes(torch.zeros(4, 4)), torch.zeros(3, 3))


@pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS)
def test_the_axes_are_differentiable(projection: torch.Tensor) -> None:
    matrix = (projection @ cameras.look_at(torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE))).requires_grad_()
    assert torch.autograd.gradcheck(cameras.view_axes, (matrix,))


def test_batches_broadcast() -> None:
    matrix = cameras.perspective(torch.tensor([0.5, 0.6, 0.7])) @ cameras.orbit(torch.zeros(2, 1), 0.1, 2.0)
    assert matrix.shape == (2, 3, 4, 4)


def one_by_one(make, *parts: torch.Tensor, inner: tuple[int, ...]) -> torch.Tensor:
    """What ``make`` gives for each of 4; parts with fewer dimensions than ``inner`` and one more are shared."""
    return torch.stack(
        [
            make(*(part[i] if part.dim() > dims else part for part, dims in zip(parts, inner, strict=True)))
            for i in range(4)
        ]
    )


@pytest.mark.parametrize("batched", [*itertools.product([False, True], repeat=3)])
@pytest.mark.parametrize("column", [False, True])
def test_calibrated_cameras_broadcast(batched: tuple[bool, bool, bool], column: bool) -> None:
    """Each of K, R and t for one camera or for 4 is the loop over single ones."""
    many = (K + torch.rand(4, 1, 1, dtype=DOUBLE), torch.stack([random_rotation() for _ in range(4)]))
    translation = torch.randn(4, 3, dtype=DOUBLE)
    parts = [
        part if several else part[0]
        for part, several in zip((*many, translation[..., None] if column else translation), batched, strict=True)
    ]

    def make(*parts: torch.Tensor) -> torch.Tensor:
        return cameras.from_opencv(*parts, 48, 64)

    expected = one_by_one(make, *parts, inner=(2, 2, 2 if column else 1))
    actual = make(*parts)
    assert actual.shape == ((4, 4, 4) if any(batched) else (4, 4))
    torch.testing.assert_close(actual.expand(4, 4, 4), expected, rtol=0, atol=1e-12)


def test_targets_and_cameras_of_pytorch3d_broadcast() -> None:
    targets = torch.randn(4, 3, dtype=DOUBLE)
    turn = torch.tensor(0.3, dtype=DOUBLE)

    def from_target(target: torch.Tensor) -> torch.Tensor:
        return cameras.orbit(turn, 0.2, 2.0, target)

    torch.testing.assert_close(from_target(targets), one_by_one(from_target, targets, inner=(1,)))
    focal, points = torch.tensor([2.0, 3.0], dtype=DOUBLE), torch.randn(4, 2, dtype=DOUBLE)
    for moved, shifted in ((targets, points[0]), (targets[0], points), (targets, points)):

        def whole(motion: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
            view, lens = cameras.from_pytorch3d(cameras.PyTorch3DCamera(R, motion, focal, point), 48, 64)
            return lens @ view

        torch.testing.assert_close(whole(moved, shifted), one_by_one(whole, moved, shifted, inner=(1, 1)))


def test_checks_of_values_leave_traces_alone() -> None:
    """torch.export and torch.vmap, which have no values to check."""

    class Camera(torch.nn.Module):
        def forward(self, fov: torch.Tensor, distance: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
            calibrated = cameras.from_opencv(K, R, moved, 48, 64)
            return calibrated + cameras.perspective(fov) @ cameras.orbit(torch.zeros_like(fov), 0.1, distance)

    arguments = (torch.rand(4, dtype=DOUBLE) + 0.1, torch.rand(4, dtype=DOUBLE) + 1, torch.rand(4, 3, dtype=DOUBLE))
    expected = Camera()(*arguments)
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(Camera(), arguments, dynamic_shapes=(batch, batch, batch))
    torch.testing.assert_close(program.module()(*arguments), expected)
    torch.testing.assert_close(torch.vmap(Camera())(*arguments), expected)


def test_cameras_are_differentiable() -> None:
    azimuth, elevation, distance = (torch.tensor(v, dtype=DOUBLE, requires_grad=True) for v in (0.3, 0.4, 2.0))
    assert torch.autograd.gradcheck(cameras.orbit, (azimuth, elevation, distance))
    assert torch.autograd.gradcheck(cameras.perspective, (torch.tensor(0.8, dtype=DOUBLE, requires_grad=True),))
    eye = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(cameras.look_at, (eye,))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cameras.perspective(4.0), "fov_y must lie between 0 and 3.1416, but is 4.0"),
        (lambda: cameras.perspective(1.0, -1.0), "aspect"),
        (lambda: cameras.perspective(torch.tensor(4.0)), "fov_y must lie between 0 and 3.1416, but is 4.0"),
        (lambda: cameras.perspective(torch.tensor([1.0, math.nan])), "fov_y must lie .* but is nan"),
        (lambda: cameras.perspective(1.0, torch.tensor([1.0, -2.0])), "aspect must lie .* but is -2.0"),
        (lambda: cameras.perspective(torch.tensor(1)), "fov_y must be floating point, but is torch.int64"),
        (lambda: cameras.orthographic(torch.tensor(0.0)), "half_height must lie between 0 and inf, but is 0.0"),
        (lambda: cameras.orbit(0.0, 0.0, -1.0), "distance must lie between 0 and inf, but is -1.0"),
        (lambda: cameras.orbit(0.0, 0.0, torch.tensor([1.0, 0.0])), "distance must lie .* but is 0.0"),
        (lambda: cameras.look_at(torch.tensor([0, 0, 2])), "eye must be floating point, but is torch.int64"),
        (lambda: cameras.perspective(1.0, near=0.0), "near and far must satisfy 0 < near < far, but are 0.0 and 100.0"),
        (lambda: cameras.orthographic(1.0, near=2.0, far=1.0), "near and far must satisfy near < far"),
        (lambda: cameras.look_at((1.0, 2.0, 3.0), (1.0, 2.0, 3.0)), "look_at: eye and target must be two points"),
        (lambda: cameras.look_at((0.0, 2.0, 0.0)), "look_at: up must not be zero or parallel"),
        (lambda: cameras.look_at((0.0, 0.0, 2.0), up=(0.0, 0.0, 0.0)), "look_at: up must not be zero or parallel"),
        (lambda: cameras.from_opencv(K, R, T, 0, 4), "height and width must be at least 1, but are 0 and 4"),
        (lambda: cameras.from_opencv(K[:2], R, T, 4, 4), r"intrinsics must be \[..., 3, 3\], but is \[2, 3\]"),
        (lambda: cameras.from_opencv(K, R[0], T, 4, 4), r"rotation must be \[..., 3, 3\], but is \[3\]"),
        (lambda: cameras.from_opencv(K, R, T[:2], 4, 4), r"translation must be \[..., 3\], but is \[2\]"),
        (
            lambda: cameras.from_opencv(K, R.float(), T, 4, 4),
            "rotation must have the dtype of intrinsics, torch.float64, but has torch.float32",
        ),
        (lambda: cameras.from_opencv(K, R, T.float(), 4, 4), "translation must have the dtype of intrinsics"),
        (lambda: cameras.from_opencv(K.long(), R, T, 4, 4), "intrinsics must be floating point, but is torch.int64"),
        (
            lambda: cameras.from_opencv(K.expand(2, 3, 3), R, T.expand(4, 3), 4, 4),
            r"leading dimensions must broadcast, but are \[2\] of intrinsics, \[\] of rotation, \[4\] of translation",
        ),
        (lambda: cameras.from_opencv(K, R, T, 4, 4, near=0.0), "near and far must satisfy 0 < near < far"),
        (lambda: cameras.to_pytorch3d(torch.eye(4), torch.eye(4), 4, 0), "height and width must be at least 1"),
        (
            lambda: cameras.to_pytorch3d(torch.eye(4), cameras.orthographic(1.0), 4, 4),
            r"to_pytorch3d: view_to_clip must be .* w = -z, .*, but its last row is \[0.0, 0.0, 0.0, 1.0\]",
        ),
        (
            lambda: cameras.to_pytorch3d(torch.eye(4), torch.stack([cameras.perspective(1.0), torch.eye(4)]), 4, 4),
            r"its last row is \[0.0, 0.0, 0.0, 1.0\]",
        ),
        (
            lambda: cameras.to_pytorch3d(*cameras.split_projection(cameras.from_opencv(K, R, T, 4, 4)), 4, 4),
            "to_pytorch3d: view_to_clip must have no skew, but has one of",
        ),
        (
            lambda: cameras.to_pytorch3d(torch.eye(4), SHEARED.mT.float() @ cameras.perspective(1.0), 4, 4),
            "view_to_clip must have no skew",
        ),
        (
            lambda: cameras.to_pytorch3d(torch.eye(4), cameras.perspective(1.0) @ cameras.look_at((1.0, 0, 3)), 4, 4),
            "view_to_clip must be",
        ),
        (
            lambda: cameras.to_pytorch3d(torch.eye(4), cameras.perspective(1.0) + SHIFT, 4, 4),
            r"view_to_clip must have no shift in y, but has one of 0\.1",
        ),
        (
            lambda: cameras.split_projection(cameras.orthographic(1.0) @ cameras.look_at((1.0, 2.0, 3.0))),
            "split_projection: world_to_clip must be a perspective projection, but is a parallel one",
        ),
        (lambda: cameras.from_opengl(torch.zeros(4, 4)), r"numbers must be \[..., 16\], but is \[4, 4\]"),
        (lambda: cameras.project(torch.zeros(4, 3), torch.zeros(1, 4, 4)), r"vertices .*\[4, 3\]"),
        (lambda: cameras.project(torch.zeros(1, 4, 3), torch.zeros(4, 4)), r"world_to_clip .*\[4, 4\]"),
    ],
)
def test_bad_arguments_are_named(call, says: str) -> None:
    with pytest.raises(DibrError, match=says):
        call()
