"""Opens a dataset folder, whichever of the known layouts it has."""

from __future__ import annotations

from pathlib import Path

from ..errors import DibrError
from . import transforms
from .cub import CubBirds
from .dataset import PosedImages
from .shapenet import CLASSES, RENDERINGS, ShapeNetRenderings
from .views import PosedViews


def open_dataset(folder: str | Path) -> PosedViews:
    """The dataset in ``folder``, told apart by what lies there; see docs/data.md.

    ``transforms.json`` is a :class:`PosedImages`, ``images.txt`` :class:`CubBirds`, and ``ShapeNetRendering`` or
    folders named after ShapeNet's synsets :class:`ShapeNetRenderings`.

    Raises:
        DibrError: it is none of these, or what the layout's class raises.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DibrError(f"dataset folder {folder} does not exist")
    if (folder / transforms.FILE_NAME).is_file():
        return PosedImages(folder)
    if (folder / "images.txt").is_file():
        return CubBirds(folder)
    if (folder / RENDERINGS).is_dir() or any((folder / synset).is_dir() for synset in CLASSES):
        return ShapeNetRenderings(folder)
    raise DibrError(
        f"dataset folder {folder} has no {transforms.FILE_NAME}, no images.txt as CUB has, and no {RENDERINGS}"
    )
