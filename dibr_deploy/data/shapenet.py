"""ShapeNet's renderings and voxels in the layout of Choy et al. (3D-R2N2, ECCV 2016), as they are downloaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cameras import look_at, perspective
from ..errors import DibrError
from .dataset import open_image, read_lines
from .views import PosedViews

RENDERINGS, VOXELS, MODELS = "ShapeNetRendering", "ShapeNetVox32", "ShapeNetCore.v1"
FIELD_OF_VIEW = 2 * math.atan(16 / 35)
"""Full opening angle of the renderings' cameras, radians: a lens of 35 mm before a sensor of 32 mm."""
LARGEST_DISTANCE = 1.75
"""Of a camera from the origin, world units; the metadata's distances are parts of it."""

CLASSES = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "loudspeaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "watercraft",
}
"""WordNet's synset, a folder's name -> the class of its objects."""


class ShapeNetRenderings(PosedViews):
    """The renderings below ``ShapeNetRendering/SYNSET/MODEL/rendering``; images are decoded when they are asked for.

    What has no folder ``rendering`` is not a model and is passed over.

    An object's id is ``CLASS/MODEL``. Images are composited over white, as ``dibr data make`` renders; the alpha
    channel is the mask. World space is that of the models: y upwards.

    Raises (on construction):
        DibrError: no renderings, a synset that is none of ``CLASSES``, or metadata that is missing or wrong.
    """

    def __init__(
        self, root: str | Path, *, classes: Sequence[str] | None = None, models: Sequence[str] | None = None
    ) -> None:
        """
        Args:
            root: the folder of ``ShapeNetRendering`` (and ``ShapeNetVox32``), or ``ShapeNetRendering`` itself.
            classes: names out of ``CLASSES.values()``; None takes all that are there.
            models: ids of models, for a split; None takes all.
        """
        folder = Path(root)
        folder = folder / RENDERINGS if (folder / RENDERINGS).is_dir() else folder
        self._voxels = folder.parent / VOXELS
        self._files: list[Path] = []
        self._folders: dict[str, str] = {}
        self.views_of = {}
        cameras: list[Tensor] = []
        for model in _models(folder, classes, models):
            found = _read_rendering(model)
            object_id = f"{CLASSES[model.parent.name]}/{model.name}"
            self._folders[object_id] = f"{model.parent.name}/{model.name}"
            self.views_of[object_id] = list(range(len(self._files), len(self._files) + len(found.files)))
            self._files += found.files
            cameras.append(found.world_to_clip)
        if not self._files:
            raise DibrError(f"{folder} holds no renderings: expected SYNSET/MODEL/rendering/rendering_metadata.txt")
        self.world_to_clip = torch.cat(cameras)
        self.width, self.height = open_image(self._files[0]).size
        self._pool = ThreadPoolExecutor(thread_name_prefix="shapenet")

    def pixels(self, indices: list[int]) -> Tensor:
        return torch.from_numpy(np.stack(list(self._pool.map(self._decode, indices))))

    def voxels(self, object_id: str) -> Voxels:
        """The solid of an object from ``ShapeNetVox32``. Raises DibrError where its file is missing or damaged."""
        import trimesh  # a second, which a training need not wait for

        path = self._voxels / self._folders[object_id] / "model.binvox"
        if not path.is_file():
            raise DibrError(f"voxels {path} are missing")
        try:
            with path.open("rb") as file:
                content = trimesh.exchange.binvox.parse_binvox(file)
        except (ValueError, OSError, IndexError) as error:
            raise DibrError(f"voxels {path} are cut off or not a binvox file") from error
        _check_binvox(content, path)
        solid = trimesh.exchange.binvox.voxel_from_binvox(content.rle_data, content.shape).matrix
        side = float(content.scale)
        x, y, z = (float(corner) + side / 2 for corner in content.translate)
        return Voxels(torch.from_numpy(np.array(solid)), (x, y, z), side)

    def mesh_file(self, object_id: str) -> Path:
        """Where the model that was rendered lies, if it is there: ``ShapeNetCore.v1/SYNSET/MODEL/model.obj``."""
        return self._voxels.parent / MODELS / self._folders[object_id] / "model.obj"

    def _decode(self, index: int) -> np.ndarray:
        path = self._files[index]
        image = open_image(path)
        if image.size != (self.width, self.height) or "A" not in image.getbands():
            raise DibrError(
                f"image {path} must have {self.width} x {self.height} pixels with alpha, "
                f"but has {image.width} x {image.height} and {''.join(image.getbands())}"
            )
        pixels = np.asarray(image.convert("RGBA")).astype(np.float32)
        alpha = pixels[..., 3:] / 255
        pixels[..., :3] = pixels[..., :3] * alpha + 255 * (1 - alpha)
        return np.rint(pixels).astype(np.uint8)


class Voxels(NamedTuple):
    """A solid on a cubic grid."""

    solid: Tensor
    """[R, R, R] bool by x, y, z, each growing."""
    center: tuple[float, float, float]
    """Of the grid, world units."""
    side: float
    """Of the grid, world units."""


class _Rendering(NamedTuple):
    files: list[Path]
    world_to_clip: Tensor


def camera(azimuth: Tensor, elevation: Tensor, distance: Tensor) -> Tensor:
    """world_to_clip [..., 4, 4] of a rendering.

    Args:
        azimuth, elevation: degrees; azimuth 0 puts the camera on +x, 90 on +z. distance: a part of LARGEST_DISTANCE.
    """
    around, up = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    direction = torch.stack([around.cos() * up.cos(), up.sin(), around.sin() * up.cos()], dim=-1)
    eye = LARGEST_DISTANCE * distance.unsqueeze(-1) * direction
    return perspective(torch.tensor(FIELD_OF_VIEW, dtype=eye.dtype)) @ look_at(eye)


def _check_binvox(content: Any, path: Path) -> None:
    """Raises where trimesh has parsed what is not a cube of cells that are 0 or 1 at a place in space."""
    shape, values, lengths = content.shape.tolist(), content.rle_data[::2], content.rle_data[1::2]
    if len(shape) != 3 or len({*shape}) != 1 or shape[0] < 1:
        raise DibrError(f"voxels {path} must be a cube, but have the dimensions {shape}")
    if len(content.translate) != 3 or not np.isfinite(content.translate).all() or not 0 < content.scale < math.inf:
        raise DibrError(
            f"voxels {path} must have a finite translation of three numbers and a scale above 0, "
            f"but have {content.translate.tolist()} and {content.scale:g}"
        )
    if len(values) != len(lengths) or lengths.sum(dtype=np.int64) != shape[0] ** 3:
        raise DibrError(f"voxels {path} are cut off: they do not hold the {shape[0] ** 3} cells that they announce")
    if values.max() > 1:
        raise DibrError(f"voxels {path} must have cells of 0 or 1, but have one of {values.max()}")


def _models(folder: Path, classes: Sequence[str] | None, models: Sequence[str] | None) -> list[Path]:
    if not folder.is_dir():
        raise DibrError(f"dataset folder {folder} does not exist")
    unknown = sorted(set(classes or ()) - set(CLASSES.values()))
    if unknown:
        raise DibrError(f"classes must be among {', '.join(CLASSES.values())}, got {unknown[0]}")
    wanted = None if models is None else set(models)
    found = []
    for synset in sorted(path for path in folder.iterdir() if path.is_dir()):
        if synset.name not in CLASSES:
            raise DibrError(f"{synset} is not one of the synsets {', '.join(CLASSES)}")
        if classes is None or CLASSES[synset.name] in classes:
            found += [
                path
                for path in sorted(synset.iterdir())
                if (path / "rendering").is_dir() and (wanted is None or path.name in wanted)
            ]
    return found


def _read_rendering(model: Path) -> _Rendering:
    folder = model / "rendering"
    metadata, names = folder / "rendering_metadata.txt", folder / "renderings.txt"
    rows = [_numbers(line, metadata) for line in read_lines(metadata)]
    files = [folder / line.strip() for line in read_lines(names)]
    if len(files) != len(rows) or not files:
        raise DibrError(f"{metadata} has {len(rows)} cameras, but {names} {len(files)} images")
    azimuth, elevation, _, distance, _ = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    return _Rendering(files, camera(azimuth, elevation, distance).float())


def _numbers(line: str, path: Path) -> list[float]:
    """azimuth, elevation and in-plane rotation in degrees, distance, and a number that says nothing of the image."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 5 or not all(math.isfinite(number) for number in numbers):
        raise DibrError(f"{path} must have lines of five numbers, got {line.strip()!r}")
    if numbers[2] != 0:
        raise DibrError(f"{path} has a camera that is turned in its plane by {numbers[2]} degrees, which is not read")
    if numbers[3] <= 0 or abs(numbers[1]) > 90:
        raise DibrError(
            f"{path} must have distances above 0 and elevations from -90 to 90 degrees, "
            f"but has a camera with {numbers[3]} and {numbers[1]}"
        )
    return numbers
