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
            mask nor an alpha channel, or a matrix is not a rigid motion.
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

    def pixels(self, indices: list[int]) -> Tensor:
        return self._pixels[indices]


def _decode(folder: Path, frame: Frame) -> np.ndarray:
    """Image and mask of a frame, [H, W, 4] uint8."""
    path = folder / frame.file_path
    path = path if path.suffix else path.with_suffix(".png")
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


def open_image(path: Path) -> Image.Image:
    """The decoded image of a file. Raises DibrError where it is missing or not a whole image."""
    if not path.is_file():
        raise DibrError(f"image {path} is missing")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise DibrError(f"image {path} is cut off or not an image") from error


def _common_size(decoded: list[np.ndarray], transforms: Transforms, folder: Path) -> tuple[int, int]:
    height, width = decoded[0].shape[:2]
    for frame, pixels in zip(transforms.frames, decoded, strict=True):
        wanted = (frame.h or transforms.h or height, frame.w or transforms.w or width)
        if pixels.shape[:2] != wanted:
            raise DibrError(
                f"image {folder / frame.file_path} is {pixels.shape[1]} x {pixels.shape[0]} pixels, "
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
