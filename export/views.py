"""Inputs that show what a model makes: pictures or codes, and cameras that see the mesh which it makes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from dibr_deploy.models import ImageToMeshRenderer, MeshGeneratorRenderer
from dibr_deploy.runtime.render import turntable

Model = ImageToMeshRenderer | MeshGeneratorRenderer
"""What a checkpoint may hold. Both take something to make a mesh of, and a camera."""


def noise(count: int, size: int) -> Tensor:
    """Pictures of nothing, the same ones every time: [count, 3, size, size] in 0..1."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def sources(model: Model, count: int) -> Tensor:
    """What a model makes meshes of, the same every time: noise for pictures, or codes [count, latent]."""
    if isinstance(model, ImageToMeshRenderer):
        return noise(count, model.network.config.image_size)
    return torch.randn(count, model.network.config.latent, generator=torch.Generator().manual_seed(0))


def cameras(model: Model, given: Tensor) -> Tensor:
    """A camera for each of these that sees the whole mesh made of it, each from another side: [B, 4, 4]."""
    with torch.no_grad():
        vertices = model.eval().network(given).vertices
    image_size = (model.renderer.height, model.renderer.width)
    return torch.from_numpy(turntable(vertices[0].numpy(), image_size, len(given), 0.0, 0.35, 0.7))
