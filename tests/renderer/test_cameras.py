"""Camera matrices against matrices and pixels computed by hand."""

from __future__ import annotations

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


def test_batches_broadcast() -> None:
    matrix = cameras.perspective(torch.tensor([0.5, 0.6, 0.7])) @ cameras.orbit(torch.zeros(2, 1), 0.1, 2.0)
    assert matrix.shape == (2, 3, 4, 4)


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
        (lambda: cameras.perspective(1.0, near=0.0), "near and far must satisfy 0 < near < far, but are 0.0 and 100.0"),
        (lambda: cameras.orthographic(1.0, near=2.0, far=1.0), "near and far must satisfy near < far"),
        (lambda: cameras.project(torch.zeros(4, 3), torch.zeros(1, 4, 4)), r"vertices .*\[4, 3\]"),
        (lambda: cameras.project(torch.zeros(1, 4, 3), torch.zeros(4, 4)), r"world_to_clip .*\[4, 4\]"),
    ],
)
def test_bad_arguments_are_named(call, says: str) -> None:
    with pytest.raises(DibrError, match=says):
        call()
