"""Empty batches, no faces and vertices that are not finite give background and zero gradient, forward and backward."""

from __future__ import annotations

import pytest
import torch

from dibr_deploy import ops

TRIANGLE = torch.tensor([[-0.8, -0.8, 0.0, 1.0], [0.8, -0.8, 0.0, 1.0], [0.0, 0.8, 0.0, 1.0]])


def render(positions, faces):
    """All ops in a row, and the gradient of the sum of what they give with respect to positions and attributes."""
    batch, vertices = positions.shape[:2]
    positions = positions.clone().requires_grad_()
    attributes = torch.ones(batch, vertices, 2, requires_grad=True)
    texture = torch.ones(1, 3, 2, 2, requires_grad=True)
    raster = ops.rasterize(positions, faces, 5, 6)
    uv = ops.interpolate(attributes, faces, raster.face_index, raster.barycentrics)
    texels = ops.texture(texture, uv)
    image = ops.antialias(texels, positions, faces, raster.face_index, raster.barycentrics)
    mask = ops.soft_mask(positions, faces, raster.face_index)
    loss = image.sum() + uv.sum() + mask.sum() + raster.depth.sum()
    return raster, uv, image, mask, torch.autograd.grad(loss, (positions, attributes, texture))


def assert_background(raster, uv, mask) -> None:
    assert (raster.face_index == -1).all()
    assert (raster.depth == 1).all()
    for image in (raster.barycentrics, uv, mask):
        assert not image.any()


def test_an_empty_batch() -> None:
    raster, uv, image, mask, gradients = render(torch.zeros(0, 3, 4), torch.tensor([[0, 1, 2]]))
    assert (raster.face_index.shape, raster.barycentrics.shape) == ((0, 5, 6), (0, 5, 6, 3))
    assert (raster.depth.shape, uv.shape, image.shape, mask.shape) == ((0, 5, 6), (0, 5, 6, 2), (0, 5, 6, 3), (0, 5, 6))
    assert [gradient.shape for gradient in gradients] == [(0, 3, 4), (0, 3, 2), (1, 3, 2, 2)]
    assert not gradients[2].any()


@pytest.mark.parametrize("vertices", [0, 3])
def test_no_faces(vertices: int) -> None:
    raster, uv, _, mask, gradients = render(torch.ones(2, vertices, 4), torch.zeros(0, 3, dtype=torch.int32))
    assert_background(raster, uv, mask)
    assert not gradients[0].any() and not gradients[1].any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("coordinate", range(4))
def test_a_vertex_that_is_not_finite(value: float, coordinate: int) -> None:
    positions = TRIANGLE.repeat(2, 1, 1)
    positions[0, 1, coordinate] = value
    raster, uv, image, mask, gradients = render(positions, torch.tensor([[0, 1, 2]]))
    assert_background(type(raster)(*(output[0] for output in raster)), uv[0], mask[0])
    assert not gradients[0][0].any() and not gradients[1][0].any()
    assert (raster.face_index[1] == 0).any() and gradients[1][1].any()
    for output in (*raster, uv, image, mask, *gradients):
        assert output.isfinite().all()


def test_texture_coordinates_that_are_not_finite_sample_nothing() -> None:
    uv = torch.full((1, 2, 2, 2), 0.5)
    uv[0, 0, 0, 0], uv[0, 1, 1, 1] = float("nan"), float("inf")
    uv.requires_grad_()
    texture = torch.ones(1, 1, 2, 2, requires_grad=True)
    image = ops.texture(texture, uv)
    assert image[0, ..., 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    gradients = torch.autograd.grad(image.sum(), (texture, uv))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].sum() == 2
