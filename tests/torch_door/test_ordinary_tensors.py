"""Ordinary tensors outside of a trace, which go past torch.library: they must not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from dibr_deploy import ops

SOFT = {"sigmainv": 70.0, "boxlen": 0.2, "knum": 4}
CALLS: dict[str, Callable[..., Any]] = {
    "rasterize": lambda positions, faces, ranges, valid, height, width, *_: ops.rasterize(
        positions, faces, height, width, face_ranges=ranges, face_valid=valid.bool()
    ),
    "interpolate": ops.interpolate,
    "soft_mask": lambda positions, faces, face_index, ranges, *_: ops.soft_mask(
        positions, faces, face_index, face_ranges=ranges, **SOFT
    ),
    "texture": lambda texture, uv, mip_level, *_: ops.texture(
        texture, uv, filter="trilinear", wrap="mirror", mip_level=mip_level
    ),
    "antialias": lambda image, positions, faces, face_index, barycentrics, ranges: ops.antialias(
        image, positions, faces, face_index, barycentrics, face_ranges=ranges
    ),
}


def real_outputs(outputs: Any) -> list[Tensor]:
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    return [output for output in outputs if output.is_floating_point()]


def outputs_and_gradients(outputs: Any, inputs: list[Tensor], **options: bool) -> list[Tensor]:
    real = real_outputs(outputs)
    loss = sum((output * torch.arange(output.numel()).reshape(output.shape)).sum() for output in real)
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, **options)
    return real + [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("op", CALLS)
def test_outputs_and_gradients_are_the_operators(op: str, arguments) -> None:
    inputs = [a for a in arguments[op] if isinstance(a, Tensor) and a.requires_grad]
    ours, operators = CALLS[op](*arguments[op]), getattr(torch.ops.dibr, op)(*arguments[op])
    assert type(real_outputs(ours)[0].grad_fn) is not type(real_outputs(operators)[0].grad_fn)
    found, expected = outputs_and_gradients(ours, inputs), outputs_and_gradients(operators, inputs)
    assert len(found) > len(real_outputs(ours))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("op", CALLS)
def test_nothing_is_recorded_without_a_gradient(op: str, arguments) -> None:
    with torch.no_grad():
        forbidden = CALLS[op](*arguments[op])
    detached = CALLS[op](*(a.detach() if isinstance(a, Tensor) else a for a in arguments[op]))
    recorded = CALLS[op](*arguments[op])
    for outputs in zip(*map(real_outputs, (forbidden, detached, recorded)), strict=True):
        assert [output.requires_grad for output in outputs] == [False, False, True]
        assert torch.equal(outputs[0], outputs[2])
        assert torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("op", CALLS)
def test_second_derivatives_are_refused_by_name(op: str, arguments) -> None:
    inputs = [a for a in arguments[op] if isinstance(a, Tensor) and a.requires_grad]
    everything = outputs_and_gradients(CALLS[op](*arguments[op]), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=f"dibr::{op}\\w* has no second derivative"):
        torch.autograd.grad(everything[-1].square().sum(), inputs)


def left_over(transform: str, tensor: Tensor) -> Tensor:
    """A tensor as a transform passed it on that has ended: of torch's own type, with the tensor inside."""
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum()

    if transform == "jvp":
        torch.func.jvp(look, (tensor,), (torch.ones_like(tensor),))
    else:
        torch.func.grad(look)(tensor)
    assert type(seen[0]) is Tensor and seen[0] is not tensor
    return seen[0]


@pytest.mark.parametrize("transform", ["grad", "jvp"])
@pytest.mark.parametrize("op", CALLS)
def test_gradients_go_through_what_a_transform_has_left(op: str, transform: str, arguments) -> None:
    inputs = [a for a in arguments[op] if isinstance(a, Tensor) and a.requires_grad]
    leftovers = [left_over(transform, a) if isinstance(a, Tensor) and a.requires_grad else a for a in arguments[op]]
    found = outputs_and_gradients(CALLS[op](*leftovers), inputs)
    expected = outputs_and_gradients(CALLS[op](*arguments[op]), inputs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_modes_and_subclasses_see_the_operators(arguments) -> None:
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    class Own(Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(f"own {function}")
            return super().__torch_function__(function, types, args, kwargs or {})

    with Watch():
        CALLS["rasterize"](*arguments["rasterize"])
    assert "dibr.rasterize.default" in seen
    positions, *others = arguments["rasterize"]
    CALLS["rasterize"](positions.detach().as_subclass(Own), *others)
    assert "own dibr.rasterize.default" in seen


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes that are checked become constants
@pytest.mark.parametrize("recorded", [False, True])
def test_a_traced_graph_holds_the_operators(mesh, raster, recorded: bool) -> None:
    def mask(positions):
        return ops.soft_mask(positions, mesh.faces, raster.face_index, **SOFT)

    traced = torch.jit.trace(mask, (mesh.positions.clone().requires_grad_(recorded),))
    assert "dibr::soft_mask" in str(traced.graph)


def draw(mesh, positions: Tensor, texture: Tensor) -> tuple[Tensor, Tensor]:
    """All ops, one after another."""
    raster = ops.rasterize(positions, mesh.faces, 13, 17)
    uv = ops.interpolate(mesh.attributes[..., :2], mesh.faces, raster.face_index, raster.barycentrics)
    image = ops.texture(texture, uv)
    image = ops.antialias(image, positions, mesh.faces, raster.face_index, raster.barycentrics)
    return image, ops.soft_mask(positions, mesh.faces, raster.face_index, **SOFT)


def gradients_of_drawing(mesh, run: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
    leaves = [leaf.clone().requires_grad_() for leaf in (mesh.positions, mesh.texture)]
    image, mask = run(*leaves)
    return list(torch.autograd.grad(image.square().sum() + mask.square().sum(), leaves))


def expect_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_checkpoint_computes_everything_once_more(mesh) -> None:
    calls = []

    def run(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(1)
        return draw(mesh, *leaves)

    expected = gradients_of_drawing(mesh, run)
    expect_close(gradients_of_drawing(mesh, lambda *leaves: checkpoint(run, *leaves, use_reentrant=False)), expected)
    assert len(calls) == 1 + 2


def test_saved_tensors_can_be_kept_elsewhere(mesh) -> None:
    """Each is fetched as often as it was put away, or less."""
    moved = []

    def put(tensor: Tensor) -> Tensor:
        moved.append(1)
        return tensor.clone()

    def fetch(tensor: Tensor) -> Tensor:
        moved.append(-1)
        return tensor

    expected = gradients_of_drawing(mesh, lambda *leaves: draw(mesh, *leaves))
    with torch.autograd.graph.saved_tensors_hooks(put, fetch):
        expect_close(gradients_of_drawing(mesh, lambda *leaves: draw(mesh, *leaves)), expected)
    assert sum(moved) >= 0


@pytest.mark.parametrize("op", CALLS)
def test_a_compiled_backward_pass_has_the_same_gradients(op: str, arguments) -> None:
    inputs = [a for a in arguments[op] if isinstance(a, Tensor) and a.requires_grad]
    losses = [sum(output.square().sum() for output in real_outputs(CALLS[op](*arguments[op]))) for _ in range(2)]
    expected = torch.autograd.grad(losses[0], inputs, allow_unused=True)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
        losses[1].backward()
    for leaf, gradient in zip(inputs, expected, strict=True):
        assert (leaf.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(leaf.grad, gradient)


def test_inference_mode_gives_the_same_images(mesh) -> None:
    expected = draw(mesh, mesh.positions, mesh.texture)
    with torch.inference_mode():
        found = draw(mesh, mesh.positions, mesh.texture)
    for one, other in zip(found, expected, strict=True):
        assert one.is_inference()
        assert torch.equal(one, other)
