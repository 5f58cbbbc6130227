"""Mip levels: how far uv moves between pixels, against a float64 reference, and what they do to an image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dibr_deploy import ops, shading
from dibr_deploy.cameras import look_at, orbit, perspective, project
from dibr_deploy.mesh import icosphere
from dibr_deploy.renderer import MeshRenderer

HEIGHT, WIDTH = 17, 23


def weights_at(corners: np.ndarray, column: float, row: float, perspective_correct: bool) -> np.ndarray:
    """Weights of a face's three corners [3, 4] in clip space where the ray of an image point meets its plane."""
    x, y = 2 * column / WIDTH - 1, 1 - 2 * row / HEIGHT
    points = corners[:, [0, 1, 3]].T
    if not perspective_correct:
        points = points / points[2]
    weights = np.linalg.solve(points, np.array([x, y, 1.0]))
    return weights / weights.sum()


def reference_footprint(
    positions: np.ndarray, faces: np.ndarray, uvs: np.ndarray, face_index: np.ndarray, perspective_correct: bool
) -> np.ndarray:
    """Central differences of uv on the plane of each pixel's face, [H, W, 2, 2]."""
    step, result = 1e-4, np.zeros((HEIGHT, WIDTH, 2, 2))
    for row, column in np.argwhere(face_index >= 0):
        corners = faces[face_index[row, column]]
        for axis, (right, down) in enumerate(((step, 0.0), (0.0, step))):
            ahead, behind = (
                weights_at(
                    positions[corners], column + 0.5 + sign * right, row + 0.5 + sign * down, perspective_correct
                )
                for sign in (1, -1)
            )
            result[row, column, axis] = (ahead - behind) @ uvs[corners] / (2 * step)
    return result


def footprint(positions: Tensor, faces: Tensor, uvs: Tensor, perspective_correct: bool) -> tuple[Tensor, ops.Raster]:
    raster = ops.rasterize(positions, faces, HEIGHT, WIDTH, perspective_correct=perspective_correct)
    uv = shading.pixel_uvs(uvs, faces, raster)
    found = shading.uv_footprint(positions, faces, uvs, faces, uv, raster, perspective_correct=perspective_correct)
    return found, raster


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("perspective_correct", [True, False])
def test_the_footprint_is_the_derivative_of_uv(perspective_correct: bool, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    w = rng.uniform(0.5, 3, (2, 24, 1))
    positions = np.concatenate([rng.uniform(-1.1, 1.1, (2, 24, 3)) * w, w], axis=-1)
    faces, uvs = np.arange(24).reshape(8, 3), rng.uniform(-1, 2, (24, 2))
    arguments = torch.from_numpy(positions).to(dtype), torch.from_numpy(faces), torch.from_numpy(uvs).to(dtype)
    actual, raster = footprint(*arguments, perspective_correct)
    for image in range(2):
        index = raster.face_index[image].numpy()
        expected = reference_footprint(positions[image], faces, uvs, index, perspective_correct)
        assert 0.3 < (index >= 0).mean() < 1
        tolerance = 2e-3 if dtype == torch.float32 else 1e-6
        scale = np.abs(expected).max(axis=(-2, -1), keepdims=True).clip(min=1e-3)
        assert (np.abs(actual[image].numpy() - expected) / scale).max() < tolerance
        assert (actual[image][raster.face_index[image] < 0] == 0).all()


def test_the_footprint_of_a_face_that_reaches_behind_the_viewer() -> None:
    """One corner has w < 0: dividing by it before the derivative is taken would be wrong."""
    floor = torch.tensor([[[-20.0, 0, -40], [20, 0, -40], [3, 0, 9]]], dtype=torch.float64)
    clip = project(floor, (perspective(0.9) @ look_at((0.0, 2.0, 2.0), (0.0, 0.0, -8.0)))[None].double())
    positions = clip[0].numpy()
    assert positions[2, 3] < -1
    faces, uvs = np.array([[0, 1, 2]]), np.array([[0.0, 0], [1, 0], [0.5, 2]])
    actual, raster = footprint(clip, torch.from_numpy(faces), torch.tensor(uvs), True)
    index = raster.face_index[0].numpy()
    assert (index >= 0).sum() > 20
    torch.testing.assert_close(
        actual[0], torch.from_numpy(reference_footprint(positions, faces, uvs, index, True)), rtol=1e-5, atol=1e-7
    )


def test_a_small_face_in_float32_keeps_its_digits() -> None:
    """A pixel-sized face far from the image's centre: its uv moves by 1 per pixel along both axes."""
    pixel = np.array([2 / 1024, -2 / 1024])
    corner = np.array([0.9, -0.8]) + 0.5 * pixel
    offsets = np.array([[-1.0, -1], [2, -1], [-1, 2]])
    positions = np.concatenate([corner + offsets * pixel, np.zeros((3, 1)), np.ones((3, 1))], axis=-1)
    faces, uvs = torch.tensor([[0, 1, 2]]), torch.from_numpy(offsets).float()
    clip = torch.from_numpy(positions).float()[None]
    raster = ops.rasterize(clip, faces, 1024, 1024)
    found = shading.uv_footprint(clip, faces, uvs, faces, shading.pixel_uvs(uvs, faces, raster), raster)
    covered = raster.face_index >= 0
    assert covered.sum() >= 3
    assert (found[covered] - torch.eye(2)).abs().max() < 2e-3


@pytest.mark.parametrize(("texels", "level"), [(16, 0.0), (32, 1.0), (64, 2.0), (8, 0.0), (48, math.log2(3))])
def test_the_level_of_a_square_that_fills_the_image(texels: int, level: float) -> None:
    """16 pixels show all texels: the level is log2(texels / 16), and never below 0."""
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    clip = torch.tensor([[[-1.0, 1, 0, 1], [-1, -1, 0, 1], [1, -1, 0, 1], [1, 1, 0, 1]]])
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    raster = ops.rasterize(clip, faces, 16, 16)
    found = shading.uv_footprint(clip, faces, uvs, faces, shading.pixel_uvs(uvs, faces, raster), raster)
    torch.testing.assert_close(shading.mip_level(found, texels, texels), torch.full((1, 16, 16), level))
    stretched = shading.mip_level(found, texels, 4 * texels)
    assert (stretched - math.log2(4 * texels / 16)).abs().max() < 1e-5


def ground(size: int, filter: str) -> Tensor:
    """A checkered floor of 64 x 64 squares that reaches to the horizon, seen at a slant."""
    board = (torch.arange(512) // 8 % 2).float()
    texture = (board[:, None] - board[None, :]).abs().expand(1, 3, 512, 512)
    vertices = torch.tensor([[[-20.0, 0, -40], [20, 0, -40], [20, 0, 0.0], [-20, 0, 0]]])
    uvs = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    camera = (perspective(0.9) @ look_at((0.0, 2.0, 2.0), (0.0, 0.0, -8.0)))[None]
    faces = torch.tensor([[0, 2, 1], [0, 3, 2]])
    return MeshRenderer(size, size, filter=filter)(vertices, faces, camera, texture=texture, uvs=uvs).image[0]


def test_a_slanted_floor_does_not_flicker() -> None:
    """Against an image of 16 x 16 samples a pixel: far away mipmaps tend to grey, a point sample is black or white."""
    size, times = 48, 16
    fine = ground(size * times, "bilinear").permute(2, 0, 1)[None]
    expected = torch.nn.functional.avg_pool2d(fine, times)[0].permute(1, 2, 0)
    error = {filter: (ground(size, filter) - expected).square().mean().sqrt() for filter in ops.FILTER}
    assert error["trilinear"] < 0.6 * error["bilinear"]
    assert error["trilinear"] < 0.6 * error["nearest"]


def test_there_is_no_line_of_coarse_texels_at_a_seam() -> None:
    """Differences between pixels would jump by a whole turn of u at the seam; derivatives of the face do not."""
    sphere = icosphere(3)
    assert sphere.uvs is not None and sphere.uv_faces is not None
    camera = (perspective(0.6) @ orbit(0.0, 0.0, 4.0))[None]
    clip = project(sphere.vertices[None], camera)
    raster = ops.rasterize(clip, sphere.faces, 64, 64)
    uv = shading.pixel_uvs(sphere.uvs, sphere.uv_faces, raster)
    found = shading.uv_footprint(clip, sphere.faces, sphere.uvs, sphere.uv_faces, uv, raster)
    level = shading.mip_level(found, 512, 1024)[0]
    middle = level[28:36, 16:48]
    assert (uv[0, 28:36, 16:48, 0].diff(dim=1).abs() > 0.5).any()
    assert middle.max() - middle.min() < 1.0
    assert middle.min() > 1


@pytest.mark.parametrize("perspective_correct", [True, False])
def test_the_renderer_takes_the_levels_of_its_own_interpolation(perspective_correct: bool) -> None:
    """A quad that leans away: its levels differ between the two ways to interpolate."""
    vertices = torch.tensor([[[-1.0, -1, 2], [1, -1, 2], [2, 2, -6], [-2, 2, -6]]])
    faces, texture = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.rand(1, 3, 128, 128)
    uvs = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    camera = (perspective(0.9) @ look_at((0.0, 0.0, 5.0)))[None]
    option = {"perspective_correct": perspective_correct}
    image = MeshRenderer(HEIGHT, WIDTH, filter="trilinear", **option)(
        vertices, faces, camera, texture=texture, uvs=uvs
    ).image
    found, raster = footprint(project(vertices, camera), faces, uvs, perspective_correct)
    other, _ = footprint(project(vertices, camera), faces, uvs, not perspective_correct)
    level, other_level = (shading.mip_level(value, 128, 128) for value in (found, other))
    uv = shading.pixel_uvs(uvs, faces, raster)
    expected, wrong = (
        ops.texture(texture, uv, filter="trilinear", wrap="repeat", mip_level=value) for value in (level, other_level)
    )
    seen = raster.face_index >= 0
    assert torch.equal(image[seen], expected[seen])
    assert not torch.equal(wrong[seen], expected[seen])


def test_vertices_that_are_not_finite_leave_the_gradient_finite() -> None:
    """The face of such a vertex is not drawn, and the others must not notice."""
    sphere = icosphere(1)
    vertices = torch.cat([sphere.vertices, torch.full((1, 3), torch.nan)])[None].double().requires_grad_()
    faces = torch.cat([sphere.faces, torch.tensor([[0, 1, 42]])])
    uvs = torch.rand(43, 2, dtype=torch.float64, requires_grad=True)
    camera = (perspective(0.6) @ orbit(0.3, 0.2, 4.0))[None].double()
    texture = torch.rand(1, 3, 256, 256, dtype=torch.float64)
    image = MeshRenderer(16, 16, filter="trilinear")(vertices, faces, camera, texture=texture, uvs=uvs).image
    through_vertices, through_uvs = torch.autograd.grad(image.square().sum(), (vertices, uvs))
    assert torch.isfinite(image).all()
    assert through_vertices[:, :42].isfinite().all()
    assert through_vertices[:, :42].any()
    assert through_uvs.isfinite().all()
