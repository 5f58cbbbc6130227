"""Pictures in and out: any image file to a network's input, arrays to PNG and GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dibr_deploy.errors import DibrError
from dibr_deploy.files import write_atomically

BACKGROUND = (255, 255, 255)
"""What stands behind transparent pixels and beside an image that is not square."""


def load_square(path: str | Path, size: int) -> np.ndarray:
    """Read an image of any size and mode as a network takes it: fitted into a square, centred on the background.

    Returns [3, size, size] float32 in 0..1, row 0 at the top. Raises FileNotFoundError where there is no file,
    DibrError where it is cut off or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DibrError(f"image {path} cannot be read, it is cut off or no image: {error}") from error
    scale = size / max(picture.size)
    fitted = picture.resize([max(round(side * scale), 1) for side in picture.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (*BACKGROUND, 255))
    canvas.alpha_composite(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(canvas.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255


def to_picture(image: np.ndarray) -> Image.Image:
    """[H, W, 3] or [H, W] in 0..1 as an 8-bit picture; NaN and what lies outside is clamped."""
    pixels = np.rint(np.clip(np.nan_to_num(image), 0.0, 1.0) * 255).astype(np.uint8)
    return Image.fromarray(pixels)


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write [H, W, 3] or [H, W] in 0..1."""
    stream = io.BytesIO()
    to_picture(image).save(stream, format="PNG")
    write_atomically(path, stream.getvalue())


def write_gif(path: str | Path, frames: Sequence[np.ndarray], *, milliseconds: int = 80) -> None:
    """Write frames [H, W, 3] in 0..1 as an animation that repeats."""
    first, *others = (to_picture(frame) for frame in frames)
    stream = io.BytesIO()
    first.save(stream, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    write_atomically(path, stream.getvalue())
