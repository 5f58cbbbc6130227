"""Losses against closed forms, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from small_meshes import cube

from dibr_deploy.errors import DibrError
from dibr_deploy.losses import (
    edge_length_loss,
    flattening_loss,
    laplacian,
    laplacian_loss,
    mask_iou_loss,
    masked_l1_loss,
    shading_loss,
)
from dibr_deploy.mesh import edge_faces, icosphere, unique_edges
from dibr_deploy.metrics import mask_iou

ICOSAHEDRON = icosphere(0).to(torch.float64)
EDGES = unique_edges(ICOSAHEDRON.faces)


def overlapping_squares() -> tuple[torch.Tensor, torch.Tensor]:
    """4 x 4 pixels each, 2 x 4 of them shared: IoU 8 / 24."""
    first, second = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    first[:, 2:6, 0:4], second[:, 2:6, 2:6] = 1, 1
    return first, second


def test_iou_of_overlapping_squares() -> None:
    first, second = overlapping_squares()
    assert float(mask_iou_loss(first, second)) == pytest.approx(1 - 8 / 24, abs=1e-6)
    assert mask_iou(first, second).tolist() == pytest.approx([8 / 24])
    assert float(mask_iou_loss(first, first)) == pytest.approx(0, abs=1e-6)
    assert float(mask_iou_loss(first, torch.zeros_like(first))) == pytest.approx(1, abs=1e-6)


def test_shading_is_how_brightness_goes_along() -> None:
    """0 where it is a multiple plus a constant, 2 where it is the opposite, 1 where it is even; of grey alone."""
    target, mask = torch.rand(3, 6, 7, 3), (torch.rand(3, 6, 7) > 0.3).float()
    inside = mask.unsqueeze(-1)
    other = torch.rand(3, 6, 7, 3)
    assert float(shading_loss(0.3 * target + 0.2, target, mask)) == pytest.approx(0, abs=0.01)
    assert float(shading_loss((1 - target) * inside + other * (1 - inside), target, mask)) == pytest.approx(2, abs=0.01)
    assert float(shading_loss(torch.full_like(target, 0.4), target, mask)) == pytest.approx(1, abs=0.01)
    assert float(shading_loss(target.flip(-1), target, mask)) == pytest.approx(0, abs=0.01)
    own, wanted = (part[0].mean(dim=-1)[mask[0] == 1] for part in (other, target))
    expected = 1 - torch.corrcoef(torch.stack([own, wanted]))[0, 1]
    assert float(shading_loss(other[:1], target[:1], mask[:1])) == pytest.approx(float(expected), abs=0.01)
    assert float(shading_loss(other, target, torch.zeros_like(mask))) == 1


def test_iou_of_empty_masks() -> None:
    empty = torch.zeros(2, 4, 4)
    assert float(mask_iou_loss(empty, empty)) == 0
    assert mask_iou(empty, empty).tolist() == [1, 1]


def test_soft_iou_of_constant_masks() -> None:
    """p everywhere against q everywhere: p q / (p + q - p q)."""
    loss = mask_iou_loss(torch.full((1, 3, 5), 0.5), torch.full((1, 3, 5), 0.8))
    assert float(loss) == pytest.approx(1 - 0.4 / 0.9, abs=1e-6)


def test_masked_l1_by_hand() -> None:
    image, target, mask = torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2, 3), torch.zeros(1, 2, 2)
    mask[0, 0, 0], mask[0, 1, 1] = 1, 1
    image[0, 1, 1] = 0.5
    image[0, 0, 1] = 100
    assert float(masked_l1_loss(image, target, mask)) == pytest.approx((3 * 1 + 3 * 0.5) / 6)
    assert float(masked_l1_loss(image, target, torch.zeros_like(mask))) == 0


def test_laplacian_of_an_icosahedron() -> None:
    """Each vertex has five neighbours around it whose mean is v / sqrt(5)."""
    vertices = ICOSAHEDRON.vertices[None]
    shrunk = 1 - 1 / math.sqrt(5)
    torch.testing.assert_close(laplacian(vertices, EDGES), shrunk * vertices, rtol=0, atol=1e-7)
    assert float(laplacian_loss(vertices, EDGES)) == pytest.approx(shrunk**2)


def test_laplacian_of_a_flat_regular_grid_is_zero_inside() -> None:
    """Equilateral triangles: each inner vertex is the mean of its six neighbours."""
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(6), indexing="ij")
    vertices = torch.stack([columns + rows / 2, rows * math.sqrt(3) / 2, torch.zeros(5, 6)], dim=-1).reshape(1, 30, 3)
    corner = (rows * 6 + columns)[:-1, :-1].reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + 1, corner + 6], dim=-1),
            torch.stack([corner + 1, corner + 7, corner + 6], dim=-1),
        ]
    )
    result = laplacian(vertices, unique_edges(faces)).reshape(5, 6, 3)
    assert result[1:-1, 1:-1].abs().max() < 1e-6
    assert result[0].abs().max() > 0.1


def test_a_vertex_without_edges_has_no_laplacian() -> None:
    result = laplacian(torch.ones(1, 3, 3), torch.tensor([[0, 1]]))
    assert torch.equal(result, torch.zeros(1, 3, 3))


def test_flattening_of_a_cube() -> None:
    """12 edges at right angles count 1, 6 diagonals of flat sides 0."""
    box = cube().to(torch.float64)
    loss = flattening_loss(box.vertices[None], box.faces, edge_faces(box.faces))
    assert float(loss) == pytest.approx(12 / 18)


def test_flattening_of_a_plane_and_of_a_folded_one() -> None:
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    flat = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]])
    folded = flat.clone()
    folded[0, 3] = flat[0, 1]
    assert float(flattening_loss(flat, faces, edge_faces(faces))) == pytest.approx(0, abs=1e-6)
    assert float(flattening_loss(folded, faces, edge_faces(faces))) == pytest.approx(4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("height", [0.0, 1e-13])
def test_a_face_without_area_does_not_pull(height: float, dtype: torch.dtype) -> None:
    """Face 1 of three in a strip has its corners on a line: its two edges count 1 each, and the gradient is that of
    the third edge alone, at the other faces."""
    points = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, height, 0], [0, -1, 0], [1, -1, 0.3]]
    vertices = torch.tensor([points], dtype=dtype).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 4, 3], [3, 4, 5]])
    sides = edge_faces(faces)
    assert len(sides) == 3
    (gradient,) = torch.autograd.grad(flattening_loss(vertices, faces, sides), vertices)
    good = sides[(sides != 1).all(dim=1)]
    (wanted,) = torch.autograd.grad(flattening_loss(vertices, faces, good), vertices)
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(gradient, wanted / 3)


def test_edge_lengths_of_an_icosahedron() -> None:
    side = 1 / math.sin(2 * math.pi / 5)
    vertices = ICOSAHEDRON.vertices[None]
    assert float(edge_length_loss(vertices, EDGES)) == pytest.approx(side**2)
    assert float(edge_length_loss(vertices, EDGES, target=1.0)) == pytest.approx((side - 1) ** 2)


def test_gradients_match_finite_differences() -> None:
    vertices = ICOSAHEDRON.vertices + 0.1 * torch.randn(2, 12, 3, dtype=torch.float64)
    vertices.requires_grad_()
    sides = edge_faces(ICOSAHEDRON.faces)
    assert torch.autograd.gradcheck(lambda v: laplacian_loss(v, EDGES), (vertices,))
    assert torch.autograd.gradcheck(lambda v: flattening_loss(v, ICOSAHEDRON.faces, sides), (vertices,))
    assert torch.autograd.gradcheck(lambda v: edge_length_loss(v, EDGES), (vertices,))
    assert torch.autograd.gradcheck(lambda v: edge_length_loss(v, EDGES, 0.7), (vertices,))
    mask, target = (torch.rand(2, 4, 5, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda m: mask_iou_loss(m, target), (mask.requires_grad_(),))
    image, wanted = (torch.rand(2, 4, 5, 3, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda i: masked_l1_loss(i, wanted, target), (image.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda i: shading_loss(i, wanted, target), (image,))


def test_shapes_that_differ_are_named() -> None:
    for function in (mask_iou_loss, mask_iou):
        with pytest.raises(DibrError, match=rf"{function.__name__}: .*\[1, 2, 2\] and \[1, 2, 3\]"):
            function(torch.zeros(1, 2, 2), torch.zeros(1, 2, 3))
    for masked in (masked_l1_loss, shading_loss):
        with pytest.raises(DibrError, match=masked.__name__):
            masked(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 3))


@pytest.mark.parametrize(
    ("loss", "pairs"),
    [
        (laplacian_loss, "edges"),
        (lambda vertices, pairs: flattening_loss(vertices, ICOSAHEDRON.faces, pairs), "edge_faces"),
        (edge_length_loss, "edges"),
    ],
    ids=["laplacian", "flattening", "edge length"],
)
def test_meshes_of_another_shape_are_named(loss, pairs: str) -> None:
    with pytest.raises(DibrError, match=r"vertices must be \[B, V, 3\], but is \[12, 3\]"):
        loss(ICOSAHEDRON.vertices, EDGES)
    with pytest.raises(DibrError, match=rf"{pairs} must be \[E, 2\], but is \[20, 3\]"):
        loss(ICOSAHEDRON.vertices[None], ICOSAHEDRON.faces)
