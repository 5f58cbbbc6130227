"""Interpolate against the float64 oracle, values by hand and finite differences."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from oracle import compare, kernel, oracle, scenes
from oracle.kernel import tensor
from oracle.scenes import Scene

from dibr_deploy import ops

DTYPES = [np.float32, np.float64]
SCENES = {
    make().name: make()
    for make in (
        scenes.soup_perspective,
        scenes.packed_topologies,
        scenes.valid_faces,
        scenes.no_faces,
        scenes.empty_batch,
    )
}


@functools.cache
def raster(name: str) -> oracle.OracleRaster:
    return oracle.rasterize(SCENES[name])


def random_input(name: str, dtype: type, channels: int, shared: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """attributes [B or 1, V, D], face_index and barycentrics of the oracle, the reals in dtype."""
    scene = SCENES[name]
    batch, vertices = scene.positions.shape[:2]
    attributes = np.random.default_rng(0).normal(size=(1 if shared else batch, vertices, channels)).astype(dtype)
    return attributes, raster(name).face_index, raster(name).barycentrics.astype(dtype)


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
@pytest.mark.parametrize("channels", [0, 1, 3, 17])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_equals_the_oracle(name, dtype, channels, shared, figure):
    attributes, face_index, barycentrics = random_input(name, dtype, channels, shared)
    faces = SCENES[name].faces
    actual = ops.interpolate(tensor(attributes), tensor(faces), tensor(face_index), tensor(barycentrics)).numpy()
    expected = oracle.interpolate(attributes, faces, face_index, barycentrics)
    assert actual.dtype == dtype
    assert actual.shape == (*face_index.shape, channels)
    assert (actual[face_index < 0] == 0).all()
    error = np.abs(actual - expected).max(initial=0.0)
    figure(f"interpolate {np.dtype(dtype).name} largest error", error)
    assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_face_by_hand(dtype):
    attributes = torch.tensor([[[1, 10], [2, 20], [4, 40], [8, 80]]], dtype=dtype)
    faces = torch.tensor([[3, 0, 1], [1, 2, 3]], dtype=torch.int32)
    face_index = torch.tensor([[[1, -1, 0]]], dtype=torch.int32)
    barycentrics = torch.tensor([[[[0.5, 0.25, 0.25], [0, 0, 0], [0, 1, 0]]]], dtype=dtype)
    output = ops.interpolate(attributes, faces, face_index, barycentrics)
    assert output.tolist() == [[[[4, 40], [0, 0], [1, 10]]]]


def _autograd_reference(attributes, faces, face_index, barycentrics):
    """Gathered by fancy indexing, so that torch differentiates it."""
    batch = torch.arange(face_index.shape[0])[:, None, None, None] if attributes.shape[0] == face_index.shape[0] else 0
    corners = attributes[batch, faces.long()[face_index.clamp(min=0).long()]]
    return (corners * barycentrics[..., None]).sum(3) * (face_index >= 0)[..., None]


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["soup_perspective", "packed_topologies", "valid_faces"])
def test_gradient_equals_autograd_in_float64(name, dtype, shared, figure):
    attributes, face_index, barycentrics = (tensor(array) for array in random_input(name, dtype, 3, shared))
    faces = tensor(SCENES[name].faces)
    weights = torch.rand(*face_index.shape, 3, generator=torch.Generator().manual_seed(0), dtype=attributes.dtype) - 0.5

    def gradients(function, *inputs):
        inputs = [value.requires_grad_() for value in inputs]
        output = function(inputs[0], faces, face_index, inputs[1])
        return torch.autograd.grad(output, inputs, weights.to(output.dtype))

    actual = gradients(ops.interpolate, attributes.clone(), barycentrics.clone())
    expected = gradients(_autograd_reference, attributes.double(), barycentrics.double())
    for label, a, e in zip(("attributes", "barycentrics"), actual, expected, strict=True):
        error = ((a - e).abs().max() / e.abs().max()).item()
        figure(f"interpolate_backward {np.dtype(dtype).name} {label} largest relative error", error)
        assert error <= compare.VALUE_TOLERANCE[np.dtype(dtype)]
    assert (actual[1][face_index < 0] == 0).all()


def _through_raster(name, dtype, channels, shared, perspective_correct, *, at_once):
    """Gradients of attributes and positions through rasterize and interpolate."""
    scene = SCENES[name].rounded_to(dtype)
    attributes = tensor(random_input(name, dtype, channels, shared)[0]).requires_grad_()
    positions = tensor(scene.positions).requires_grad_()
    found = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=positions)
    barycentrics = found.barycentrics if at_once else found.barycentrics.clone()
    image = ops.interpolate(attributes, tensor(scene.faces), found.face_index, barycentrics)
    assert ("interpolate_raster" in type(image.grad_fn).__name__) == at_once
    weights = torch.rand(*image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype) - 0.5
    return torch.autograd.grad(image, [attributes, positions], weights)


@pytest.mark.parametrize("perspective_correct", [True, False], ids=["perspective", "screen"])
@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCENES)
def test_the_gradient_through_a_raster_is_that_of_the_two_ops(
    name, dtype, channels, shared, perspective_correct, figure
):
    """The one pass against the two that the oracle was compared with, both of them, in float64."""
    arguments = channels, shared, perspective_correct
    actual = _through_raster(name, dtype, *arguments, at_once=True)
    expected = _through_raster(name, dtype, *arguments, at_once=False)
    for label, a, e in zip(("attributes", "positions"), actual, expected, strict=True):
        error = ((a - e).abs().max() / e.abs().max().clamp(min=1e-30)).item() if a.numel() else 0.0
        figure(f"interpolate_raster_backward {np.dtype(dtype).name} {label} largest relative difference", error)
        assert error <= (1e-4 if dtype == np.float32 else 1e-11)
    assert channels == 0 or name in ("no_faces", "empty_batch") or all(gradient.any() for gradient in actual)


def test_gradcheck_through_a_raster_in_attributes_and_positions():
    """With corners of their own for the attributes, and screen-space weights of faces with some w below 0."""
    points, faces = scenes.soup(40, 4, 0.6)
    positions = tensor(scenes.homogeneous(points)[None].repeat(2, axis=0) * [1, 1, 0.5, 1])
    positions[1, ::5, 3] = -0.3
    uv_faces = tensor(faces[:, ::-1].copy())
    fixed = ops.rasterize(positions, tensor(faces), 4, 5, depth_clip=False).face_index
    assert len(fixed.unique()) > 2
    attributes = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def render(attributes, positions, perspective_correct):
        found = ops.rasterize(positions, tensor(faces), 4, 5, perspective_correct=perspective_correct, depth_clip=False)
        assert torch.equal(found.face_index, fixed)
        return ops.interpolate(attributes, uv_faces, found.face_index, found.barycentrics)

    for perspective_correct in (True, False):
        inputs = attributes.requires_grad_(), positions.requires_grad_()
        function = functools.partial(render, perspective_correct=perspective_correct)
        assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-5)


def test_a_common_offset_of_attributes_leaves_positions_their_gradient():
    """Barycentrics sum to 1, so 100 more everywhere changes nothing but rounding; the digits of float32 must last."""
    scene = SCENES["soup_perspective"].rounded_to(np.float32)
    attributes = tensor(random_input("soup_perspective", np.float32, 3, False)[0])
    weights = torch.rand(*scene.positions.shape[:1], scene.height, scene.width, 3) - 0.5
    gradients = []
    for offset in (0.0, 128.0):
        positions = tensor(scene.positions).requires_grad_()
        found = kernel.rasterize(scene, positions=positions)
        # Rounded where the offset has been added, so that differences are the same in both.
        shifted = (attributes + 128.0) - 128.0 + offset
        image = ops.interpolate(shifted, tensor(scene.faces), found.face_index, found.barycentrics)
        gradients += torch.autograd.grad(image, positions, weights)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_gradcheck_in_attributes_and_barycentrics(shared):
    points, faces = scenes.soup(40, 4, 0.6)
    positions = scenes.homogeneous(points)[None].repeat(2, axis=0)
    positions[1] *= [1.1, 0.7, 0.5, 1]
    found = oracle.rasterize(Scene("small", positions, faces, 4, 5))
    assert len(np.unique(found.face_index)) > 2
    generator = torch.Generator().manual_seed(1)
    attributes = torch.rand(1 if shared else 2, 12, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    barycentrics = tensor(found.barycentrics).requires_grad_()
    fixed = tensor(faces), tensor(found.face_index)
    assert torch.autograd.gradcheck(lambda a, b: ops.interpolate(a, *fixed, b), (attributes, barycentrics))


def test_a_vertex_that_no_pixel_sees_has_no_influence():
    """NaN attributes of vertices outside of all seen faces reach neither the output nor any gradient."""
    attributes, face_index, barycentrics = random_input("soup_perspective", np.float64, 3, False)
    faces = SCENES["soup_perspective"].faces
    hidden = np.setdiff1d(faces, faces[np.unique(face_index[face_index >= 0])])
    assert len(hidden) > 0
    attributes[:, hidden] = np.nan
    inputs = [tensor(attributes).requires_grad_(), tensor(barycentrics).requires_grad_()]
    output = ops.interpolate(inputs[0], tensor(faces), tensor(face_index), inputs[1])
    gradients = torch.autograd.grad(output.sum(), inputs)
    assert torch.isfinite(output).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[0][:, hidden] == 0).all()


def test_other_faces_of_the_same_count_may_name_other_vertices():
    """Texture coordinates have vertices of their own: face k of uv_faces belongs to face k of faces."""
    attributes, face_index, barycentrics = random_input("soup_perspective", np.float64, 2, False)
    faces = SCENES["soup_perspective"].faces
    order = np.random.default_rng(3).permutation(attributes.shape[1])
    renamed = np.argsort(order)[faces].astype(np.int32)
    expected = ops.interpolate(tensor(attributes), tensor(faces), tensor(face_index), tensor(barycentrics))
    actual = ops.interpolate(tensor(attributes[:, order]), tensor(renamed), tensor(face_index), tensor(barycentrics))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_same_bits_in_every_run_and_for_every_number_of_threads(shared):
    attributes, face_index, barycentrics = random_input("packed_topologies", np.float32, 5, shared)
    faces = tensor(SCENES["packed_topologies"].faces)

    def run():
        inputs = [tensor(attributes).requires_grad_(), tensor(barycentrics).requires_grad_()]
        output = ops.interpolate(inputs[0], faces, tensor(face_index), inputs[1])
        return [output, *torch.autograd.grad(output.square().sum(), inputs)]

    kernel.assert_same_bits_for_every_number_of_threads(run)


@pytest.mark.parametrize("channels", [3, 5])
@pytest.mark.parametrize("shared", [False, True], ids=["batched", "shared"])
def test_gradients_through_a_raster_have_the_same_bits_for_every_number_of_threads(shared, channels):
    def run():
        return _through_raster("packed_topologies", np.float32, channels, shared, True, at_once=True)

    kernel.assert_same_bits_for_every_number_of_threads(run)


def test_a_second_derivative_is_refused_by_name():
    attributes, face_index, barycentrics = random_input("soup_perspective", np.float64, 2, False)
    inputs = [tensor(attributes).requires_grad_(), tensor(barycentrics).requires_grad_()]
    output = ops.interpolate(inputs[0], tensor(SCENES["soup_perspective"].faces), tensor(face_index), inputs[1])
    (gradient,) = torch.autograd.grad(output.square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="interpolate"):
        gradient.square().sum().backward()
