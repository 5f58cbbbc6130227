"""Prints, as JSON, digests of what every op gives on the correctness scenes: run once for each DIBR_CPU_LEVEL."""

from __future__ import annotations

import hashlib
import json
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


def normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64).to(dtype)


def results(scene: Scene) -> Iterator[tuple[str, torch.Tensor]]:
    """Outputs and gradients by name."""
    positions = tensor(scene.positions)
    assert positions is not None
    dtype = positions.dtype
    for perspective_correct in (True, False):
        kind = "perspective" if perspective_correct else "screen"
        leaf = positions.clone().requires_grad_()
        raster = kernel.rasterize(scene, perspective_correct=perspective_correct, positions=leaf)
        yield from ((f"{kind} {name}", output) for name, output in raster._asdict().items())
        outputs = raster.barycentrics, raster.depth
        gradients = [normal(*output.shape, dtype=dtype) for output in outputs]
        yield f"{kind} gradient", torch.autograd.grad(outputs, leaf, gradients, retain_graph=True)[0]
        for channels in CHANNELS:
            attributes = normal(*positions.shape[:2], channels, dtype=dtype).requires_grad_()
            image = ops.interpolate(attributes, tensor(scene.faces), raster.face_index, raster.barycentrics)
            gradients = torch.autograd.grad(
                image, [attributes, leaf], normal(*image.shape, dtype=dtype), retain_graph=True
            )
            yield f"{kind} interpolate {channels} attribute gradient", gradients[0]
            yield f"{kind} interpolate {channels} position gradient", gradients[1]
    barycentrics = raster.barycentrics.detach().requires_grad_()
    for channels in CHANNELS:
        attributes = normal(*positions.shape[:2], channels, dtype=dtype).requires_grad_()
        image = ops.interpolate(attributes, tensor(scene.faces), raster.face_index, barycentrics)
        yield f"interpolate {channels}", image
        gradients = torch.autograd.grad(image, [attributes, barycentrics], normal(*image.shape, dtype=dtype))
        yield f"interpolate {channels} attribute gradient", gradients[0]
        yield f"interpolate {channels} weight gradient", gradients[1]
    leaf = positions.clone().requires_grad_()
    mask = kernel.soft_mask(scene, raster.face_index, positions=leaf, sigmainv=700.0, boxlen=0.05)
    yield "soft_mask", mask
    yield "soft_mask gradient", torch.autograd.grad(mask, leaf, normal(*mask.shape, dtype=dtype))[0]


def main() -> None:
    digests = {}
    for scene in scenes.all_scenes():
        for dtype in (np.float32, np.float64):
            for name, result in results(scene.rounded_to(dtype)):
                key = f"{scene.name} {np.dtype(dtype).name} {name}"
                digests[key] = hashlib.sha256(result.detach().numpy().tobytes()).hexdigest()
    json.dump(digests, sys.stdout)


if __name__ == "__main__":
    main()
