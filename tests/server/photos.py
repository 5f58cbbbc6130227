"""A model that makes meshes of photos, small and untrained, and photos."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig

SIZE = 32
EXAMPLE = (torch.zeros(1, 3, SIZE, SIZE), torch.eye(4)[None])


def network() -> ImageToMeshRenderer:
    torch.manual_seed(0)
    config = ModelConfig(image_size=SIZE, subdivisions=1, texture_size=32, channels=8, features=16)
    return ImageToMeshRenderer(ImageToMesh(config), 24, 20).eval()


def photo(size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()
