"""How gradients pass through the torch door. What they are is tested with the ops."""

from __future__ import annotations

import pytest
import torch

from dibr_deploy import ops

HEIGHT, WIDTH = 13, 17


def call(op: str, arguments):
    outputs = getattr(torch.ops.dibr, op)(*arguments)
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("op", ["rasterize", "interpolate", "interpolate_raster", "soft_mask", "texture", "antialias"])
def test_second_derivatives_are_refused_by_name(op: str, arguments) -> None:
    inputs = [a for a in arguments[op] if isinstance(a, torch.Tensor) and a.requires_grad]
    loss = sum(output.square().sum() for output in call(op, arguments[op]) if output.is_floating_point())
    # Antialias has no gradient with respect to barycentrics, and interpolate_raster passes them by.
    gradients = [g for g in torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True) if g is not None]
    assert gradients
    with pytest.raises(RuntimeError, match=f"dibr::{op} has no second derivative"):
        sum(gradient.square().sum() for gradient in gradients).backward()


def test_three_coordinates_are_differentiable(mesh) -> None:
    """The nearest vertex of a soft mask and the weights of a covered pixel, by finite differences."""
    points = (mesh.positions[:1, :6, :3] * 0.7).clone().requires_grad_()
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32)

    def render(points):
        raster = ops.rasterize(points, faces, 3, 4)
        mask = ops.soft_mask(points, faces, raster.face_index, sigmainv=3.0, boxlen=3.0, knum=2)
        return raster.barycentrics, raster.depth, mask

    assert render(points)[0].any()
    assert torch.autograd.gradcheck(render, points, eps=1e-7, atol=1e-5)


def test_each_output_of_rasterize_alone_gives_its_share_of_the_gradient(mesh) -> None:
    positions = mesh.positions.clone().requires_grad_()
    raster = ops.rasterize(positions, mesh.faces, HEIGHT, WIDTH)
    weights, depths = torch.rand_like(raster.barycentrics), torch.rand_like(raster.depth)
    [through_barycentrics] = torch.autograd.grad((raster.barycentrics * weights).sum(), positions, retain_graph=True)
    [through_depth] = torch.autograd.grad((raster.depth * depths).sum(), positions, retain_graph=True)
    both = (raster.barycentrics * weights).sum() + (raster.depth * depths).sum()
    assert through_barycentrics.any() and through_depth.any()
    torch.testing.assert_close(torch.autograd.grad(both, positions)[0], through_barycentrics + through_depth)


def interpolated(mesh, *, clone: bool = False):
    """Leaves, raster and image. A clone of the barycentrics is what Interpolate does not look behind."""
    leaves = mesh.attributes.clone().requires_grad_(), mesh.positions.clone().requires_grad_()
    raster = ops.rasterize(leaves[1], mesh.faces, HEIGHT, WIDTH)
    barycentrics = raster.barycentrics.clone() if clone else raster.barycentrics
    return leaves, raster, ops.interpolate(leaves[0], mesh.faces, raster.face_index, barycentrics)


def test_interpolate_looks_behind_the_barycentrics_of_rasterize_alone(mesh) -> None:
    leaves, raster, image = interpolated(mesh)
    assert "interpolate_raster" in type(image.grad_fn).__name__
    others = {
        "cloned": (raster.face_index, raster.barycentrics.clone()),
        "other faces": (raster.face_index.clone(), raster.barycentrics),
        "cut off": (raster.face_index, raster.barycentrics.detach()),
        "another raster's": (raster.face_index, ops.rasterize(leaves[1], mesh.faces, HEIGHT, WIDTH).barycentrics),
    }
    for name, given in others.items():
        assert "raster" not in type(ops.interpolate(leaves[0], mesh.faces, *given).grad_fn).__name__, name
    torch.autograd.grad(image.sum(), leaves)
    after_the_graph_was_freed = ops.interpolate(leaves[0], mesh.faces, raster.face_index, raster.barycentrics)
    assert "raster" not in type(after_the_graph_was_freed.grad_fn).__name__


def test_barycentrics_that_somebody_watches_get_their_gradient(mesh) -> None:
    weights = torch.rand(2, HEIGHT, WIDTH, 5, dtype=torch.float64)
    leaves, raster, image = interpolated(mesh, clone=True)
    expected = torch.autograd.grad((image * weights).sum(), [*leaves, raster.barycentrics])
    for watch in ("retain_grad", "hook"):
        leaves, raster, image = interpolated(mesh)
        seen = []
        if watch == "hook":
            raster.barycentrics.register_hook(seen.append)
        else:
            raster.barycentrics.retain_grad()
        (image * weights).sum().backward()
        seen += [raster.barycentrics.grad] if watch == "retain_grad" else []
        for actual, wanted in zip([*(leaf.grad for leaf in leaves), *seen], expected, strict=True):
            torch.testing.assert_close(actual, wanted)


def test_only_the_gradients_that_are_asked_for_are_made(mesh) -> None:
    """The others come back empty from the native op, and as None from autograd."""
    leaves, raster, image = interpolated(mesh)
    arguments = leaves[0], mesh.faces, raster.face_index, raster.barycentrics
    with torch.no_grad():
        both = torch.ops.dibr.interpolate_backward(*arguments, image)
        for needs in ((True, False), (False, True), (False, False)):
            some = torch.ops.dibr.interpolate_backward(*arguments, image, *needs)
            for needed, one, other in zip(needs, some, both, strict=True):
                assert torch.equal(one, other) if needed else one.numel() == 0
        through = torch.ops.dibr.interpolate_raster_backward(*arguments, leaves[1], mesh.faces, image, True)
        alone = torch.ops.dibr.interpolate_raster_backward(*arguments, leaves[1], mesh.faces, image, True, False)
    assert alone[0].numel() == 0 and torch.equal(alone[1], through[1])


def test_face_index_has_no_gradient(mesh) -> None:
    raster = ops.rasterize(mesh.positions.clone().requires_grad_(), mesh.faces, HEIGHT, WIDTH)
    assert not raster.face_index.requires_grad
    assert raster.barycentrics.requires_grad and raster.depth.requires_grad


def test_gradients_that_are_not_contiguous(mesh, raster) -> None:
    attributes = mesh.attributes.clone().requires_grad_()
    image = ops.interpolate(attributes, mesh.faces, raster.face_index, raster.barycentrics)
    weights = torch.rand(5, 17, 13, 2, dtype=torch.float64)
    [strided] = torch.autograd.grad(image, attributes, weights.permute(3, 2, 1, 0), retain_graph=True)
    [contiguous] = torch.autograd.grad(image, attributes, weights.permute(3, 2, 1, 0).contiguous())
    assert torch.equal(strided, contiguous)
    # The gradient of a sum is expanded from one number.
    [summed] = torch.autograd.grad(
        ops.interpolate(attributes, mesh.faces, raster.face_index, raster.barycentrics).sum(), attributes
    )
    assert summed.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_the_number_of_threads(dtype: torch.dtype, make_scene_gradients) -> None:
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            results.append(make_scene_gradients(dtype))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)
