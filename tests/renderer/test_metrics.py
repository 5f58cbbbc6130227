"""Metrics and point sets against closed forms and slow independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial
import torch
from small_meshes import cube
from torch import Tensor

from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import make_light
from dibr_deploy.losses import l1_loss, multi_view_loss, perceptual_loss, ssim_loss
from dibr_deploy.mesh import icosphere
from dibr_deploy.metrics import chamfer_distance, f_score, light_angle, ssim, texture_l1, voxel_iou
from dibr_deploy.points import nearest_distances, sample_surface
from dibr_deploy.renderer import Rendering

DOUBLE = torch.float64


def scipy_ssim(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """Wang et al. 2004 with scipy's Gaussian filter, 11 x 11 and sigma 1.5, away from the borders."""

    def blur(image: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_ssim_is_the_published_formula(data_range: float) -> None:
    image = torch.rand(2, 20, 25, 3, dtype=DOUBLE) * data_range
    target = (image + 0.2 * data_range * torch.rand_like(image)).clamp(max=data_range)
    expected = [
        np.mean([scipy_ssim(x[..., c].numpy(), y[..., c].numpy(), data_range) for c in range(3)])
        for x, y in zip(image, target, strict=True)
    ]
    torch.testing.assert_close(ssim(image, target, data_range=data_range), torch.tensor(expected, dtype=DOUBLE))
    assert float(ssim_loss(image, target, data_range=data_range)) == pytest.approx(1 - np.mean(expected))


def test_ssim_of_even_images_and_of_itself() -> None:
    """Without variance only the means are left: (2 a b + C1) / (a^2 + b^2 + C1)."""
    a, b = 0.3, 0.7
    even = [torch.full((1, 12, 12, 1), value, dtype=DOUBLE) for value in (a, b)]
    assert float(ssim(*even)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4))
    image = torch.rand(1, 12, 12, 3, dtype=DOUBLE)
    assert float(ssim(image, image)) == pytest.approx(1)
    assert float(ssim(image, image, window=3, sigma=0.5)) == pytest.approx(1)


def points(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor([rows], dtype=DOUBLE)


def test_chamfer_by_hand() -> None:
    """To the right, distances 1 and 3; back, 1: the point at 5 is nobody's nearest."""
    first, second = points((0, 0, 0), (5, 0, 0)), points((1, 0, 0), (2, 0, 0))
    assert float(chamfer_distance(first, second, squared=False)) == pytest.approx((1 + 3) / 2 + (1 + 2) / 2)
    assert float(chamfer_distance(first, second, squared=True)) == pytest.approx((1 + 9) / 2 + (1 + 4) / 2)
    with pytest.raises(TypeError, match="squared"):
        chamfer_distance(first, second)  # type: ignore[call-arg]


def test_f_score_by_hand() -> None:
    """One of two points is near (precision 1/2), one of four is reached (recall 1/4): 2 p r / (p + r) = 1/3."""
    first = points((0, 0, 0), (9, 0, 0))
    second = points((0.1, 0, 0), (0, 3, 0), (0, 4, 0), (0, 5, 0))
    assert float(f_score(first, second, threshold=0.2)) == pytest.approx(1 / 3)
    assert float(f_score(first, second, threshold=0.1)) == 0  # nearer, not as near
    assert float(f_score(first, first, threshold=0.01)) == 1


def test_nearest_distances_are_those_of_a_tree() -> None:
    first, second = torch.rand(2, 500, 3, dtype=DOUBLE), torch.rand(2, 300, 3, dtype=DOUBLE)
    expected = [scipy.spatial.cKDTree(b).query(a)[0] for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(nearest_distances(first, second), torch.from_numpy(np.stack(expected)))


def test_many_points_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from dibr_deploy import points as module

    first, second = torch.rand(2, 50, 3, dtype=DOUBLE), torch.rand(2, 30, 3, dtype=DOUBLE)
    whole = nearest_distances(first, second)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 200)
    assert torch.equal(nearest_distances(first, second), whole)


def test_points_are_drawn_evenly_from_a_surface() -> None:
    """A cube of side 2: every point on a side, 1/6 of them on each, spread over it with mean 0 and variance 1/3."""
    box = cube().to(DOUBLE)
    drawn = sample_surface(box.vertices[None], box.faces, 30000, torch.Generator().manual_seed(0))[0]
    on_side = (drawn.abs() - 1).abs() < 1e-9
    assert torch.equal(on_side.sum(dim=1), torch.ones(30000, dtype=torch.int64))
    for axis in range(3):
        for sign in (-1, 1):
            side = drawn[on_side[:, axis] & (drawn[:, axis] * sign > 0)]
            assert len(side) == pytest.approx(5000, abs=200)
            spread = side[:, [other for other in range(3) if other != axis]]
            assert spread.mean(dim=0).abs().max() < 0.03
            assert (spread.var(dim=0) - 1 / 3).abs().max() < 0.02
    again = sample_surface(box.vertices[None], box.faces, 30000, torch.Generator().manual_seed(0))[0]
    assert torch.equal(drawn, again)


def test_the_chamfer_distance_of_two_spheres() -> None:
    """Radii 1 and 1.2: every point is 0.2 from the other sphere, up to how far apart the samples lie."""
    sphere = icosphere(4).to(DOUBLE)
    inner, outer = (sample_surface(sphere.vertices[None] * r, sphere.faces, 4000) for r in (1.0, 1.2))
    assert float(chamfer_distance(inner, outer, squared=False)) == pytest.approx(0.4, abs=0.02)
    assert float(chamfer_distance(inner, outer, squared=True)) == pytest.approx(0.08, abs=0.01)
    assert float(f_score(inner, outer, threshold=0.19)) == 0
    assert float(f_score(inner, outer, threshold=0.3)) > 0.99


def test_texture_l1_by_hand() -> None:
    texture, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    target[1, 0, :2] = 0.6
    torch.testing.assert_close(texture_l1(texture, target), torch.tensor([0.0, 0.6 / 6]))
    assert float(l1_loss(texture, target)) == pytest.approx(0.05)


def test_light_angle_by_hand() -> None:
    first = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 2, 0], [1, 1, 0], [0, 0, 1e-6]], dtype=DOUBLE)
    second = torch.tensor([[5.0, 0, 0], [-3, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1e-6, 1e-6]], dtype=DOUBLE)
    torch.testing.assert_close(light_angle(first, second), torch.tensor([0.0, 180, 90, 45, 45], dtype=DOUBLE))
    tiny = torch.tensor([[1.0, 1e-7, 0]], dtype=DOUBLE)  # arccos would round this to 0
    assert float(light_angle(first[:1], tiny)) == pytest.approx(math.degrees(1e-7))
    light = make_light(torch.tensor([0.2]), torch.tensor([[0.0, 1.0, 0.0]]), 0.5)
    assert float(light_angle(light[:, 1:], torch.tensor([[1.0, 1.0, 0.0]]))) == pytest.approx(45, abs=1e-4)


def test_perceptual_loss_of_two_layers() -> None:
    """Layers x and 3 x of images [B, C, H, W]: the mean of d^2 and 9 d^2. No gradient to the target."""
    image, target = torch.rand(2, 4, 5, 3, requires_grad=True), torch.rand(2, 4, 5, 3, requires_grad=True)

    def features(picture: Tensor) -> list[Tensor]:
        assert picture.shape == (2, 3, 4, 5)
        return [picture, 3 * picture]

    loss = perceptual_loss(features, image, target)
    torch.testing.assert_close(loss, 5 * (image - target).square().mean())
    torch.testing.assert_close(perceptual_loss(lambda picture: picture, image, target), loss / 5)
    assert torch.autograd.grad(loss, target, allow_unused=True) == (None,)


def test_multi_view_loss_by_hand() -> None:
    """Two views: a perfect one, and one whose mask is half right and whose image is off by 0.2."""
    masks = torch.zeros(2, 1, 4, 4)
    masks[:, :, :, :2] = 1
    images = torch.full((2, 1, 4, 4, 3), 0.5)
    cameras = torch.stack([torch.eye(4), 2 * torch.eye(4)]).unsqueeze(1)

    def render(camera: Tensor) -> Rendering:
        first = camera[0, 0, 0] == 1
        seen = masks[0] if first else masks[0] * torch.tensor([1.0, 0, 0, 0])
        nothing = torch.zeros(1, 4, 4)
        return Rendering(images[0] if first else images[0] + 0.2, seen, nothing, nothing)

    assert float(multi_view_loss(render, cameras, images, masks)) == pytest.approx((0.5 + 0.2) / 2, abs=1e-5)
    weighted = multi_view_loss(render, cameras, images, masks, mask_weight=3.0, color_weight=10.0)
    assert float(weighted) == pytest.approx((1.5 + 2) / 2, abs=1e-5)
    with pytest.raises(DibrError, match="same number of views, at least 1, but have 1, 2 and 2"):
        multi_view_loss(render, cameras[:1], images, masks)


def test_voxel_iou_by_hand() -> None:
    first, second = torch.zeros(2, 4, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    first[0, :2], second[0, 1:3] = True, True
    assert voxel_iou(first, second).tolist() == pytest.approx([1 / 3, 1])


def test_gradients_match_finite_differences() -> None:
    first, second = (torch.rand(2, count, 3, dtype=DOUBLE, requires_grad=True) for count in (5, 7))
    for squared in (True, False):
        assert torch.autograd.gradcheck(lambda a, b, s=squared: chamfer_distance(a, b, squared=s), (first, second))
    image, target = (torch.rand(1, 12, 13, 2, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(ssim_loss, (image, target), fast_mode=True)
    assert torch.autograd.gradcheck(l1_loss, (image, target), fast_mode=True)
    assert torch.autograd.gradcheck(
        lambda i: perceptual_loss(lambda p: torch.tanh(p), i, target.detach()), (image,), fast_mode=True
    )
    direction = torch.randn(3, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(light_angle, (direction, torch.randn(3, 3, dtype=DOUBLE)))
    box = cube().to(DOUBLE)

    def drawn(vertices: Tensor) -> Tensor:
        return sample_surface(vertices, box.faces, 4, torch.Generator().manual_seed(1))

    assert torch.autograd.gradcheck(drawn, (box.vertices[None].clone().requires_grad_(),))


def test_points_that_meet_have_a_finite_gradient() -> None:
    first = torch.rand(1, 4, 3, requires_grad=True)
    chamfer_distance(first, first.detach().clone(), squared=False).sum().backward()
    assert first.grad is not None
    assert float(first.grad.abs().max()) == 0


SQUARE = torch.rand(1, 12, 12, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ssim(SQUARE, SQUARE[:, :, :11]), r"^ssim: shapes must be the same"),
        (lambda: ssim(SQUARE[0], SQUARE[0]), r"image must be \[B, H, W, C\], but is \[12, 12, 3\]"),
        (lambda: ssim(SQUARE, SQUARE, window=13), "window must be odd and no larger than the image of 12 x 12"),
        (lambda: ssim(SQUARE, SQUARE, window=4), "window must be odd"),
        (lambda: l1_loss(SQUARE, SQUARE[:, 1:]), "^l1_loss: shapes"),
        (lambda: perceptual_loss(torch.tanh, SQUARE, SQUARE[:, 1:]), "^perceptual_loss: shapes"),
        (lambda: texture_l1(SQUARE, SQUARE[:, 1:]), "^texture_l1: shapes"),
        (lambda: f_score(SQUARE[0], SQUARE[0], threshold=0.0), "threshold must be above 0, but is 0.0"),
        (lambda: nearest_distances(SQUARE, SQUARE), r"points must be \[B, N, 3\] with N at least 1"),
        (lambda: nearest_distances(SQUARE[0], SQUARE[0, :, :0]), r"target must be .* but is \[12, 0, 3\]"),
        (lambda: nearest_distances(SQUARE[0], SQUARE[0, :1]), "same B, but have 12 and 1"),
        (lambda: light_angle(torch.ones(1, 3), torch.zeros(1, 3)), "must not be the zero vector"),
        (lambda: light_angle(torch.ones(1, 4), torch.ones(1, 4)), r"directions must be \[B, 3\], but is \[1, 4\]"),
        (lambda: voxel_iou(SQUARE, SQUARE), r"must be bool \[B, R, R, R\], but are torch.float32"),
        (lambda: sample_surface(SQUARE, cube().faces, 5), r"vertices must be \[B, V, 3\]"),
        (lambda: sample_surface(torch.zeros(1, 8, 3), cube().faces, 5), "must have faces with area"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Tensor], says: str) -> None:
    with pytest.raises(DibrError, match=says):
        call()
