"""Photos for a model that makes meshes of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def photo(size: tuple[int, int] = (40, 30), form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 4, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(stream, form)
    return stream.getvalue()
