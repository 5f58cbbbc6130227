"""Untrained networks from photos to meshes, for tests that need one to export and not one of sizes of its own.

TensorRT takes seconds to build what it has not built before (tensorrt_door/exported.py): that is why they are two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig

SIZE = 32
"""Of the photos."""
EXAMPLE: tuple[Tensor, Tensor] = (torch.zeros(1, 3, SIZE, SIZE), torch.eye(4).unsqueeze(0))


def coarse(**parts: Any) -> ImageToMeshRenderer:
    """42 vertices on 24 x 20 pixels; always with the same weights. Parts are fields of ModelConfig other than sizes."""
    return _network(24, 20, subdivisions=1, **parts)


def fine() -> ImageToMeshRenderer:
    """162 vertices on 48 x 64 pixels; always with the same weights."""
    return _network(48, 64, subdivisions=2)


def _network(height: int, width: int, **parts: Any) -> ImageToMeshRenderer:
    torch.manual_seed(0)
    config = ModelConfig(image_size=SIZE, texture_size=32, channels=8, features=16, **parts)
    return ImageToMeshRenderer(ImageToMesh(config), height, width).eval()
