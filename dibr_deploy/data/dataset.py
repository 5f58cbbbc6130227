"""Reads a dataset folder (docs/data.md): images, masks and cameras. It opens no other file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..cameras import from_opencv, invert_rigid
from ..errors import DibrError
from .transforms import Frame, Transforms, read_transforms
from .views import PosedViews


class PosedImages(PosedViews):
    """All frames of a dataset folder, decoded into memory: height x width x 4 bytes each.

    Objects and frames keep the file's order.

    Raises (on construction):
        DibrError: the camera file is wrong, a file is missing or not an image, sizes differ, an image has neither a
            mask nor an alpha channel, no mask of an object reaches 128, or a matrix is not a rigid motion.
    """

    def __init__(self, folder: str | Path, *, near: float = 0.1, far: float = 100.0) -> None:
        """near, far: clipping planes of the cameras, world units; the file has none."""
        self.folder = Path(folder)
        transforms = read_transforms(folder)
        decoded = [_decode(self.folder, frame) for frame in transforms.frames]
        self.height, self.width = _common_size(decoded, transforms, self.folder)
        self._pixels = torch.from_numpy(np.stack(decoded))
        self.world_to_clip = _cameras(transforms, self.height, self.width, near, far)
        self.views_of = {}
        for index, frame in enumerate(transforms.frames):
            self.views_of.setdefault(frame.object_id, []).append(index)
        for indices in self.views_of.values():
            _check_masks([(transforms.frames[index], decoded[index]) for index in indices], self.folder)

    def pixels(self, indices: list[int]) -> Tensor:
        return self._pixels[indices]


def _decode(folder: Path, frame: Frame) -> np.ndarray:
    """Image and mask of a frame, [H, W, 4] uint8."""
    path = _image_path(folder, frame)
    image = open_image(path)
    if frame.mask_path is None:
        if "A" not in image.getbands():
            raise DibrError(f"image {path} has no alpha channel, and its frame has no mask_path")
        return np.asarray(image.convert("RGBA"))
    mask_path = folder / frame.mask_path
    mask = open_image(mask_path).convert("L")
    if mask.size != image.size:
        raise DibrError(
            f"mask {mask_path} is {mask.width} x {mask.height} pixels, but its image is {image.width} x {image.height}"
        )
    return np.concatenate([np.asarray(image.convert("RGB")), np.asarray(mask)[..., None]], axis=-1)


def _image_path(folder: Path, frame: Frame) -> Path:
    path = folder / frame.file_path
    return path if path.suffix else path.with_suffix(".png")


def open_image(path: Path) -> Image.Image:
    """The decoded image of a file, 8 bits a channel. Raises DibrError where it is missing or not a whole image."""
    if not path.is_file():
        raise DibrError(f"image {path} is missing")
    try:
        with Image.open(path) as image:
            image.load()
    except OSError as error:
        raise DibrError(f"image {path} is cut off or not an image") from error
    return image if image.mode[0] not in "IF" else _from_sixteen_bits(image, path)


def _from_sixteen_bits(image: Image.Image, path: Path) -> Image.Image:
    """Greyscale of more than 8 bits, which Pillow's own conversion to 8 clips at 255."""
    values = np.asarray(image).astype(np.float64)
    lowest, highest = values.min(), values.max()
    # A largest value below 256 is 8 bits, or labels, kept in 16.
    if not (lowest >= 0 and (highest == 0 or 256 <= highest <= 65535)):
        raise DibrError(
            f"image {path} is not of 8 bits a channel (mode {image.mode}): expected values up to 65535 for white, "
            f"but they go from {lowest:g} to {highest:g}"
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank. Raises DibrError where it is missing or not text."""
    if not path.is_file():
        raise DibrError(f"{path} is missing")
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DibrError(f"{path} is not a text file in UTF-8") from error


def _check_masks(frames: list[tuple[Frame, np.ndarray]], folder: Path) -> None:
    """Raises where the mask files of one object look like labels: marked, but none reaches the middle of the range.

    A single one of them may look like that: of a thin object, seen from its side.
    """
    largest = {frame.mask_path: int(pixels[..., 3].max()) for frame, pixels in frames if frame.mask_path is not None}
    path, value = next(((path, value) for path, value in largest.items() if value > 0), ("", 0))
    if value > 0 and max(largest.values()) < 128:
        raise DibrError(
            f"mask {folder / path} must be 255 inside the object and 0 outside, but its largest value is {value}, "
            "and no mask of this object reaches 128"
        )


def _common_size(decoded: list[np.ndarray], transforms: Transforms, folder: Path) -> tuple[int, int]:
    height, width = decoded[0].shape[:2]
    for frame, pixels in zip(transforms.frames, decoded, strict=True):
        wanted = (frame.h or transforms.h or height, frame.w or transforms.w or width)
        if pixels.shape[:2] != wanted:
            raise DibrError(
                f"image {_image_path(folder, frame)} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"but this dataset's images are {wanted[1]} x {wanted[0]}"
            )
    return height, width


def _cameras(transforms: Transforms, height: int, width: int, near: float, far: float) -> Tensor:
    """world_to_clip of every frame, [N, 4, 4] float32; computed in float64."""
    camera_to_world = torch.tensor([frame.transform_matrix for frame in transforms.frames], dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.float64)
    rotation = camera_to_world[:, :3, :3]
    rigid = (rotation @ rotation.mT - identity[:3, :3]).abs().amax(dim=(1, 2)) < 1e-3
    rigid &= (torch.linalg.det(rotation) > 0) & ((camera_to_world[:, 3] - identity[3]).abs().amax(dim=1) < 1e-6)
    if not bool(rigid.all()):
        wrong = transforms.frames[int((~rigid).nonzero()[0])]
        raise DibrError(f"transform_matrix of {wrong.file_path} must be a rotation and a translation, but is not")
    intrinsics = [transforms.intrinsics(frame, height, width) for frame in transforms.frames]
    lenses = torch.tensor(intrinsics, dtype=torch.float64)
    # OpenCV's camera has y downwards and looks along +z.
    to_camera = invert_rigid(camera_to_world)[:, :3] * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64).view(3, 1)
    rotation, translation = to_camera.split([3, 1], dim=-1)
    return from_opencv(lenses, rotation, translation, height, width, near, far, first_center=0.5).float()
