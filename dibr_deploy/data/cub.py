"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011) in the layout of its archive, with cameras from its keypoints."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DibrError
from .dataset import open_image, read_lines
from .factorization import Structure, factorize
from .views import PosedViews

T = TypeVar("T")

RADIUS = 0.5
"""Of the sphere around the mean shape's keypoints, world units: that of the network's template."""
MARGIN = 0.1
"""Around the bounding box, as part of its longer side."""

_DEPTH = 4.0
"""Half the depth range of the cameras, in units of RADIUS."""
_LEAST_KEYPOINTS = 6


class CubBirds(PosedViews):
    """Square crops around the birds, each bird an object of its own with one view.

    An object's id is ``CLASS/IMAGE``, ``001.Black_footed_Albatross/Black_Footed_Albatross_0046_18`` for example. Images
    keep their background, and beyond their border are white. Cameras are parallel projections, found from the keypoints
    of all birds together as those of one rigid shape (``dibr_deploy.data.factorization``); world space has the bird's
    back at +y and its beak at +z. A bird with fewer than 6 visible keypoints is left out.

    Attributes:
        keypoints: [N, K, 2] float32, NDC of the crop. keypoint_visible: [N, K] bool.
        keypoint_names: the K parts. keypoint_positions: [K, 3] float32, the mean shape's, world space.
    """

    keypoints: Tensor
    keypoint_visible: Tensor
    keypoint_names: list[str]
    keypoint_positions: Tensor

    def __init__(self, root: str | Path, *, split: str = "train", size: int = 64) -> None:
        """
        Args:
            root: the folder of ``images.txt``. Masks are in ``segmentations``, here or beside this folder.
            split: "train", "test" or "all", by ``train_test_split.txt``.
            size: side of the crops, pixels.

        Raises:
            DibrError: an argument is out of range, or a file is missing or not what the archive has.
        """
        folder = Path(root)
        if split not in ("train", "test", "all"):
            raise DibrError(f"split must be train, test or all, got {split!r}")
        if size < 1:
            raise DibrError(f"size must be at least 1, got {size}")
        self.height = self.width = size
        names = dict(sorted(_table(folder / "parts" / "parts.txt", str)))
        birds = [
            bird for bird in _read_birds(folder, [*names]) if split == "all" or bird.training == (split == "train")
        ]
        if not birds:
            raise DibrError(f"{folder} has no birds with {_LEAST_KEYPOINTS} visible keypoints in split {split}")
        crops = [_square(bird.box) for bird in birds]
        masks = _segmentations(folder)
        self._pixels = torch.from_numpy(
            np.stack([_crop(folder, masks, bird.file, box, size) for bird, box in zip(birds, crops, strict=True)])
        )
        self.keypoint_names = [*names.values()]
        seen = np.stack([_in_crop(bird.parts, box) for bird, box in zip(birds, crops, strict=True)])
        visible = np.stack([bird.parts[:, 2] > 0 for bird in birds])
        structure = _upright(factorize(seen, visible), self.keypoint_names)
        radius = np.linalg.norm(structure.points, axis=1).max()
        self.keypoints, self.keypoint_visible = torch.from_numpy(seen).float(), torch.from_numpy(visible)
        self.keypoint_positions = torch.from_numpy(structure.points * RADIUS / radius).float()
        self.world_to_clip = torch.from_numpy(_world_to_clip(structure, radius / RADIUS)).float()
        self.views_of = {bird.file.rpartition(".")[0]: [index] for index, bird in enumerate(birds)}

    def pixels(self, indices: list[int]) -> Tensor:
        return self._pixels[indices]


class _Bird(NamedTuple):
    file: str
    """Below ``images``."""
    training: bool
    box: np.ndarray
    """x, y, width, height in pixels."""
    parts: np.ndarray
    """[K, 3], x and y in pixels, and whether it is visible."""


def _read_birds(folder: Path, part_numbers: list[int]) -> list[_Bird]:
    """Those with enough visible keypoints; ``part_numbers`` is what every bird must have a row for, ascending."""
    files = dict(_table(folder / "images.txt", str))
    training = dict(_table(folder / "train_test_split.txt", lambda text: bool(int(text))))
    boxes = dict(_table(folder / "bounding_boxes.txt", _box))
    location_file = folder / "parts" / "part_locs.txt"
    rows = _table(location_file, lambda text: _numbers(text, 4))
    parts: dict[int, list[np.ndarray]] = {}
    for image, row in sorted(rows, key=lambda entry: (entry[0], entry[1][0])):
        parts.setdefault(image, []).append(row)
    birds = []
    for image, file in files.items():
        tables: dict[str, Container[int]] = {"split": training, "box": boxes, "parts": parts}
        missing = [name for name, table in tables.items() if image not in table]
        if missing:
            raise DibrError(f"image {image} of {folder / 'images.txt'} has no {missing[0]}")
        numbered = np.stack(parts[image])
        if numbered[:, 0].tolist() != part_numbers:
            raise DibrError(
                f"{location_file} must have a row for each part of parts.txt, {len(part_numbers)}, for image {image}, "
                f"but has {len(numbered)}, of the parts {', '.join(f'{number:g}' for number in numbered[:, 0])}"
            )
        locations = numbered[:, 1:]
        if np.count_nonzero(locations[:, 2]) >= _LEAST_KEYPOINTS:
            birds.append(_Bird(file, training[image], boxes[image], locations))
    return birds


def _table(path: Path, parse: Callable[[str], T]) -> list[tuple[int, T]]:
    """The lines of a file as (number, what ``parse`` makes of the rest)."""
    rows: list[tuple[int, T]] = []
    for line in read_lines(path):
        number, _, rest = line.strip().partition(" ")
        try:
            rows.append((int(number), parse(rest.strip())))
        except ValueError as error:
            raise DibrError(f"{path} has a line that is not of this file's kind: {line!r}") from error
    return rows


def _numbers(text: str, count: int) -> np.ndarray:
    numbers = np.array([float(word) for word in text.split()])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(text)
    return numbers


def _box(text: str) -> np.ndarray:
    box = _numbers(text, 4)
    if box[2:].min() <= 0:
        raise ValueError(text)
    return box


def _segmentations(folder: Path) -> Path:
    for place in (folder / "segmentations", folder.parent / "segmentations"):
        if place.is_dir():
            return place
    raise DibrError(f"{folder} has no segmentations, neither inside nor beside it: they are an archive of their own")


def _square(box: np.ndarray) -> np.ndarray:
    """Left, top and side of the square around a bounding box with its margin."""
    side = box[2:].max() * (1 + 2 * MARGIN)
    return np.array([*(box[:2] + box[2:] / 2 - side / 2), side])


def _crop(folder: Path, masks: Path, file: str, square: np.ndarray, size: int) -> np.ndarray:
    """[S, S, 4] uint8; beyond the image's border it is white, and outside of the mask."""
    image = open_image(folder / "images" / file).convert("RGB")
    mask = open_image((masks / file).with_suffix(".png")).convert("L")
    if mask.size != image.size:
        raise DibrError(f"segmentation of {file} is {mask.width} x {mask.height} pixels, its image {image.size}")
    # Annotators disagreed where it is grey.
    inside = mask.point(lambda value: 255 if value >= 128 else 0)
    left, top, side = square
    box = (left, top, left + side, top + side)
    layers = [
        layer.transform((2 * size, 2 * size), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR, fillcolor=beyond)
        for layer, beyond in ((image, (255, 255, 255)), (inside, 0))
    ]
    pixels = np.dstack([np.asarray(layer, dtype=np.float32) for layer in layers])
    return np.rint(pixels.reshape(size, 2, size, 2, 4).mean(axis=(1, 3))).astype(np.uint8)


def _in_crop(parts: np.ndarray, square: np.ndarray) -> np.ndarray:
    """[K, 2] NDC. A keypoint names a pixel; its centre is meant."""
    left, top, side = square
    x = 2 * (parts[:, 0] + 0.5 - left) / side - 1
    y = 1 - 2 * (parts[:, 1] + 0.5 - top) / side
    return np.stack([x, y], axis=1)


def _upright(structure: Structure, names: list[str]) -> Structure:
    """Turned so that the back is up and the beak in front; mirrored in depth where left and right are swapped."""
    index = {name: number for number, name in enumerate(names)}
    ends = (("back", "belly"), ("beak", "tail"), ("left wing", "right wing"))
    if any(name not in index for pair in ends for name in pair):
        return structure
    points = structure.points
    up, front, left = (points[index[a]] - points[index[b]] for a, b in ends)
    mirrored = np.dot(np.cross(up, front), left) < 0
    flip = np.diag([1.0, 1.0, -1.0 if mirrored else 1.0])
    points, up, front = points @ flip, flip @ up, flip @ front
    y = up / np.linalg.norm(up)
    x = np.cross(y, front)
    x /= np.linalg.norm(x)
    turn = np.stack([x, y, np.cross(x, y)])
    # The same images, seen from the mirrored shape: the depth row changes its sign at either side.
    rotation = flip @ structure.rotation @ flip @ turn.T
    return Structure(points @ turn.T, structure.scale, rotation, structure.translation)


def _world_to_clip(structure: Structure, unit: float) -> np.ndarray:
    """[N, 4, 4] for a world in which the structure's points are divided by ``unit``."""
    matrices = np.zeros((len(structure.scale), 4, 4))
    matrices[:, :2, :3] = structure.scale[:, None, None] * unit * structure.rotation[:, :2]
    matrices[:, :2, 3] = structure.translation
    matrices[:, 2, :3] = -structure.rotation[:, 2] / (_DEPTH * RADIUS)
    matrices[:, 3, 3] = 1
    return matrices
