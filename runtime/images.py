"""Pictures in and out: any image file to a network's input, arrays to PNG and GIF."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from dibr_deploy.errors import DibrError
from dibr_deploy.files import write_atomically

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises at damaged files."""

BACKGROUND = (255, 255, 255)
"""What stands behind transparent pixels and beside an image that is not square."""


def load_square(path: str | Path, size: int) -> np.ndarray:
    """Read an image of any size and mode as a network takes it: fitted into a square, centred on the background.

    Returns [3, size, size] float32 in 0..1, row 0 at the top. Raises FileNotFoundError where there is no file,
    DibrError where it is cut off or no image.
    """
    return fit_square(read_pixels(path), size)


def read_pixels(path: str | Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3], or [H, W, 4] where it has transparency; turned as its EXIF data say.

    Raises FileNotFoundError where there is no file, DibrError where it is cut off or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    with path.open("rb") as file:
        return _pixels(file, f"image {path}")


def decode_pixels(content: bytes, formats: tuple[str, ...], max_pixels: int) -> np.ndarray:
    """The same of an image that came over a network.

    Args:
        content: the file.
        formats: as Pillow names them, for example "PNG"; no other is tried.
        max_pixels: no larger image is decoded.
    """
    return _pixels(io.BytesIO(content), "the image", formats, max_pixels)


def _pixels(
    file: BinaryIO, what: str, formats: tuple[str, ...] | None = None, max_pixels: int | None = None
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=formats) as image:
                if max_pixels is not None and image.width * image.height > max_pixels:
                    raise DibrError(
                        f"{what} has {image.width} x {image.height} pixels, more than the {max_pixels} that are taken"
                    )
                image.load()
                upright = ImageOps.exif_transpose(image)
                return np.asarray(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))
    except DibrError:
        raise
    except _UNREADABLE as error:
        raise DibrError(f"{what} cannot be read, it is cut off or no image: {error}") from error


def fit_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3 or 4] as ``load_square`` returns it."""
    picture = Image.fromarray(pixels).convert("RGBA")
    scale = size / max(picture.size)
    fitted = picture.resize([max(round(side * scale), 1) for side in picture.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (size, size), (*BACKGROUND, 255))
    canvas.alpha_composite(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(canvas.convert("RGB"), dtype=np.float32).transpose(2, 0, 1) / 255


def to_picture(image: np.ndarray) -> Image.Image:
    """[H, W, 3] or [H, W] in 0..1 as an 8-bit picture; NaN and what lies outside is clamped."""
    pixels = np.rint(np.clip(np.nan_to_num(image), 0.0, 1.0) * 255).astype(np.uint8)
    return Image.fromarray(pixels)


def png(image: np.ndarray) -> bytes:
    """[H, W, 3] or [H, W] in 0..1 as the content of a PNG file."""
    stream = io.BytesIO()
    to_picture(image).save(stream, format="PNG")
    return stream.getvalue()


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write [H, W, 3] or [H, W] in 0..1."""
    write_atomically(path, png(image))


def write_gif(path: str | Path, frames: Sequence[np.ndarray], *, milliseconds: int = 80) -> None:
    """Write frames [H, W, 3] in 0..1 as an animation that repeats."""
    first, *others = (to_picture(frame) for frame in frames)
    stream = io.BytesIO()
    first.save(stream, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    write_atomically(path, stream.getvalue())
