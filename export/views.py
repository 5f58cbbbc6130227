"""Inputs that show what a model predicts: pictures, and cameras that see the mesh which it makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from dibr_deploy.models import ImageToMeshRenderer
from dibr_deploy.runtime.render import turntable


def noise(count: int, size: int) -> Tensor:
    """Pictures of nothing, the same ones every time: [count, 3, size, size] in 0..1."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def cameras(model: ImageToMeshRenderer, images: Tensor) -> Tensor:
    """A camera per image that sees the whole predicted mesh, each from another side: [B, 4, 4]."""
    with torch.no_grad():
        vertices = model.eval().network(images).vertices
    image_size = (model.renderer.height, model.renderer.width)
    return torch.from_numpy(turntable(vertices[0].numpy(), image_size, len(images), 0.0, 0.35, 0.7))
