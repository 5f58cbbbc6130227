"""What every dataset offers to training: posed images with masks, by object."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset


class View(NamedTuple):
    """One posed image, or a batch of them with a leading B."""

    image: Tensor
    """[3, H, W] float32 in 0..1, row 0 at the top."""
    mask: Tensor
    """[H, W] float32 in 0..1, the part of each pixel that the object covers."""
    world_to_clip: Tensor
    """[4, 4] float32."""

    def resized(self, size: int) -> Tensor:
        """The images of a batch as a network of this input size takes them, [B, 3, size, size]."""
        if self.image.shape[-2:] == (size, size):
            return self.image
        return F.interpolate(self.image, (size, size), mode="bilinear", antialias=True, align_corners=False)


class PosedViews(Dataset[View]):
    """A dataset whose images all have one size.

    Attributes:
        height, width: of every image, pixels.
        views_of: object id -> the indices of its views. What stands before the first "/" of an id is its class.
        world_to_clip: [N, 4, 4] float32, the camera of every view.
    """

    height: int
    width: int
    views_of: dict[str, list[int]]
    world_to_clip: Tensor

    @abstractmethod
    def pixels(self, indices: list[int]) -> Tensor:
        """Image and mask of these views, [B, H, W, 4] uint8."""

    def __len__(self) -> int:
        return len(self.world_to_clip)

    def __getitem__(self, index: int) -> View:
        return View(*(part[0] for part in self.views([index])))

    def views(self, indices: list[int]) -> View:
        """These views as one batch: [B, 3, H, W], [B, H, W], [B, 4, 4]."""
        pixels = self.pixels(indices).permute(0, 3, 1, 2).float() / 255
        return View(pixels[:, :3], pixels[:, 3], self.world_to_clip[indices])
