"""Ordinary tensors outside of a trace, which go past torch.library: they must not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
