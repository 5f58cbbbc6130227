"""transforms.json: the camera file of a dataset, as NeRF and its successors write it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DibrError

FILE_NAME = "transforms.json"

Row = Annotated[list[float], Field(min_length=4, max_length=4)]
Matrix = Annotated[list[Row], Field(min_length=4, max_length=4)]


class Frame(BaseModel):
    """One image and the camera that took it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    file_path: str
    """Image, relative to the dataset folder; without a suffix, ".png" is added."""
    mask_path: str | None = None
    """Greyscale mask of the same size; without one, the image's alpha channel is the mask."""
    object_id: str = "object"
    """Frames with the same id show the same object in the same pose; the light may be another."""
    transform_matrix: Matrix
    """Camera to world, OpenGL: the camera looks along its -z, +y is up in the image. A rotation and a translation."""
    rotation: float | None = None
    """Written by NeRF's synthetic scenes; not used."""


class Transforms(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    camera_angle_x: float = Field(gt=0, lt=3.14159)
    """Full horizontal opening angle of all cameras, radians. Pixels are square, the principal point is the centre."""
    w: int | None = Field(default=None, ge=1)
    h: int | None = Field(default=None, ge=1)
    """Size of all images in pixels; where they are given, the images must have it."""
    frames: list[Frame] = Field(min_length=1)


def read_transforms(folder: str | Path) -> Transforms:
    """Reads and checks ``folder/transforms.json``; does not look at the images.

    Raises:
        DibrError: the folder or the file is missing, or the file is not what docs/data.md says.
    """
    path = Path(folder) / FILE_NAME
    if not Path(folder).is_dir():
        raise DibrError(f"dataset folder {folder} does not exist")
    if not path.is_file():
        raise DibrError(f"dataset folder {folder} has no {FILE_NAME}")
    try:
        return Transforms.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DibrError(f"{path}: {_first_sentence(error)}") from error


def _first_sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = Frame.model_fields if first["loc"][0] == "frames" else Transforms.model_fields
        return f"unknown key {place}; known keys are {', '.join(known)}"
    if first["type"] == "missing":
        return f"key {place} is missing"
    if first["type"] == "json_invalid":
        return f"is cut off or not JSON ({first['ctx']['error']})"
    return f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}, but is {str(first['input'])[:80]}"
