"""Writes what every op gives on the correctness scenes into an .npz: the soft mask and its pull as numbers, of all else
a digest. Run once for each DIBR_CPU_LEVEL."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from oracle import kernel, scenes
from oracle.kernel import tensor
from oracle.scenes import Scene

from dibr_deploy import ops

CHANNELS = (1, 2, 3, 4, 7)
HALVES = (torch.float16, torch.bfloat16)
FILTERS, WRAPS = ("nearest", "bilinear", "trilinear"), ("clamp", "repeat", "mirror")
MASK = {"sigmainv": 700.0, "boxlen": 0.05}
WHOLE = (" soft_mask", " soft_mask keeping", " soft_mask pull", " mask")
"""What is not the same bits at every level."""


def normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64).to(dtype)


def results(scene: Scene) -> Iterator[tuple[str, torch.Tensor]]:
    """Outputs and gradients of every op by name."""
    positions = tensor(scene.positions)
    assert positions is not None
    for perspective_correct in (True, False):
        kind = "perspective" if perspective_correct else "screen"
        raster = kernel.rasterize(scene, perspective_correct=perspective_correct)
        parts = (
            through_the_raster(scene, positions, perspective_correct),
            texture(scene, positions, raster) if perspective_correct else (),
            render(scene, positions, perspective_correct),
        )
        yield from ((f"{kind} {name}", output) for part in parts for name, output in part)
    for part in (interpolate, soft_mask, antialias):
        yield from part(scene, positions, raster)


def through_the_raster(
    scene: Scene, positions: torch.Tensor, perspective_correct: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Rasterize, its gradient, and the one that an interpolated image sends through it."""
    dtype = positions.dtype
    leaf = positions.clone().requires_grad_()
    raster = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=leaf)
    yield from raster._asdict().items()
    outputs = raster.barycentrics, raster.depth
    gradients = [normal(*output.shape, dtype=dtype) for output in outputs]
    yield "gradient", torch.autograd.grad(outputs, leaf, gradients, retain_graph=True)[0]
    for channels in CHANNELS:
        attributes = normal(*positions.shape[:2], channels, dtype=dtype).requires_grad_()
        image = ops.interpolate(attributes, tensor(scene.faces), raster.face_index, raster.barycentrics)
        gradients = torch.autograd.grad(image, [attributes, leaf], normal(*image.shape, dtype=dtype), retain_graph=True)
        yield f"interpolate {channels} attribute gradient", gradients[0]
        yield f"interpolate {channels} position gradient", gradients[1]


def interpolate(scene: Scene, positions: torch.Tensor, raster: ops.Raster) -> Iterator[tuple[str, torch.Tensor]]:
    dtype = positions.dtype
    for channels in CHANNELS:
        attributes = normal(*positions.shape[:2], channels, dtype=dtype)
        inputs = [leaf.clone().requires_grad_() for leaf in (attributes, raster.barycentrics)]
        image = ops.interpolate(inputs[0], tensor(scene.faces), raster.face_index, inputs[1])
        yield f"interpolate {channels}", image
        gradients = torch.autograd.grad(image, inputs, normal(*image.shape, dtype=dtype))
        yield f"interpolate {channels} attribute gradient", gradients[0]
        yield f"interpolate {channels} weight gradient", gradients[1]
        for half in _halves(dtype):
            stored = attributes.to(half)
            image = ops.interpolate(stored, tensor(scene.faces), raster.face_index, raster.barycentrics)
            yield f"interpolate {channels} {half}", image


def soft_mask(scene: Scene, positions: torch.Tensor, raster: ops.Raster) -> Iterator[tuple[str, torch.Tensor]]:
    """With a gradient, for which the forward keeps what it finds, and without. ``pull``: the gradient with respect to
    where the mesh is, the sum of what its vertices get, whichever of a face's edges that coincide these belong to; and
    the sum of its sizes."""
    leaf = positions.clone().requires_grad_()
    mask = kernel.soft_mask(scene, raster.face_index, positions=leaf, **MASK)
    yield "soft_mask keeping", mask
    (gradient,) = torch.autograd.grad(mask, leaf, normal(*mask.shape, dtype=leaf.dtype))
    yield "soft_mask gradient", gradient
    places = torch.where(gradient == 0, 0, gradient * positions[..., 3:])[..., :2]
    yield "soft_mask pull", torch.stack([places.sum(1), places.abs().sum(1)])
    yield "soft_mask", kernel.soft_mask(scene, raster.face_index, **MASK)


def antialias(scene: Scene, positions: torch.Tensor, raster: ops.Raster) -> Iterator[tuple[str, torch.Tensor]]:
    dtype = positions.dtype
    colours = normal(*raster.face_index.shape, 3, dtype=dtype)
    image, leaf = colours.clone().requires_grad_(), positions.clone().requires_grad_()
    blended = kernel.antialias(scene, image, raster.face_index, raster.barycentrics, positions=leaf)
    yield "antialias", blended
    gradients = torch.autograd.grad(blended, [image, leaf], normal(*blended.shape, dtype=dtype))
    yield from zip(("antialias image gradient", "antialias position gradient"), gradients, strict=True)
    for half in _halves(dtype):
        yield f"antialias {half}", kernel.antialias(scene, colours.to(half), raster.face_index, raster.barycentrics)


def texture(scene: Scene, positions: torch.Tensor, raster: ops.Raster) -> Iterator[tuple[str, torch.Tensor]]:
    """At uvs that leave 0..1."""
    dtype = positions.dtype
    texels = normal(len(positions), 3, 9, 7, dtype=dtype)
    uvs = normal(*positions.shape[:2], 2, dtype=dtype)
    uv = ops.interpolate(uvs, tensor(scene.faces), raster.face_index, raster.barycentrics)
    for filter, wrap in itertools.product(FILTERS, WRAPS):
        name = f"texture {filter} {wrap}"
        inputs = {"texture": texels, "uv": uv}
        if filter == "trilinear":
            inputs["mip_level"] = normal(*uv.shape[:3], dtype=dtype).abs()
        leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
        image = ops.texture(**leaves, filter=filter, wrap=wrap)
        yield name, image
        gradients = torch.autograd.grad(image, list(leaves.values()), normal(*image.shape, dtype=dtype))
        yield from ((f"{name} {key} gradient", gradient) for key, gradient in zip(leaves, gradients, strict=True))
        for half in _halves(dtype):
            yield f"{name} {half}", ops.texture(**inputs | {"texture": texels.to(half)}, filter=filter, wrap=wrap)


def render(scene: Scene, positions: torch.Tensor, perspective_correct: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """All that it can return, from attributes and texels of every dtype."""
    dtype = positions.dtype
    for stored, filter in itertools.product((dtype, *_halves(dtype)), FILTERS[:2]):
        outputs = ops.render(
            positions,
            **kernel.arguments(scene),
            perspective_correct=perspective_correct,
            outputs=ops.RENDER_OUTPUTS,
            uvs=normal(*positions.shape[:2], 2, dtype=dtype),
            texture=normal(len(positions), 3, 9, 7, dtype=stored),
            attributes=[normal(*positions.shape[:2], channels, dtype=stored) for channels in (1, 3)],
            filter=filter,
            wrap="repeat",
            **MASK,
        )
        yield from ((f"render {filter} {stored} {name}", output) for name, output in outputs.items())


def _halves(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """The 16-bit types that go with positions of a dtype."""
    return HALVES if dtype == torch.float32 else ()


def digest(output: torch.Tensor) -> np.ndarray:
    return np.array(hashlib.sha256(output.detach().flatten().view(torch.uint8).numpy().tobytes()).hexdigest())


def main(path: str) -> None:
    kept = {}
    for scene in scenes.all_scenes():
        for dtype in (np.float32, np.float64):
            for name, result in results(scene.rounded_to(dtype)):
                key = f"{scene.name} {np.dtype(dtype).name} {name}"
                assert key not in kept, key
                kept[key] = result.detach().numpy() if key.endswith(WHOLE) else digest(result)
    np.savez_compressed(path, **kept)


if __name__ == "__main__":
    main(sys.argv[1])
