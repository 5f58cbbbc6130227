"""transforms.json: the camera file of a dataset, as NeRF and its successors write it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DibrError

FILE_NAME = "transforms.json"

Row = Annotated[list[float], Field(min_length=4, max_length=4)]
Matrix = Annotated[list[Row], Field(min_length=4, max_length=4)]


Angle = Annotated[float, Field(gt=0, lt=3.14159)]
Focal = Annotated[float, Field(gt=0)]
Size = Annotated[int, Field(ge=1)]
Zero = Literal[0]


class Lens(BaseModel):
    """What a camera's lens and sensor are, for one frame or for all: a frame's own come first."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    fl_x: Focal | None = None
    fl_y: Focal | None = None
    """Focal lengths in pixels."""
    cx: float | None = None
    cy: float | None = None
    """The principal point in pixels from the image's upper left corner, so that its centre is (w / 2, h / 2)."""
    w: Size | None = None
    h: Size | None = None
    """Size of the images in pixels; where they are given, the images must have it."""
    camera_model: Literal["OPENCV", "PINHOLE", "SIMPLE_PINHOLE"] = "OPENCV"
    is_fisheye: Literal[False] = False
    k1: Zero = 0
    k2: Zero = 0
    k3: Zero = 0
    k4: Zero = 0
    p1: Zero = 0
    p2: Zero = 0
    """Lens distortion, of which there must be none."""


class Frame(Lens):
    """One image and the camera that took it."""

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
    sharpness: float | None = None
    """Written by instant-ngp; not used."""
    colmap_im_id: int | None = None
    depth_file_path: str | None = None
    """Written by nerfstudio; not used."""


class Transforms(Lens):
    """The whole file."""

    camera_angle_x: Angle | None = None
    camera_angle_y: Angle | None = None
    """Full opening angles of all cameras, radians, where there are no focal lengths."""
    frames: list[Frame] = Field(min_length=1)
    aabb_scale: float | None = None
    """Written by instant-ngp; not used."""
    applied_transform: list[Row] | None = None
    applied_scale: float | None = None
    ply_file_path: str | None = None
    """Written by nerfstudio; not used: what transform_matrix holds is transformed already."""

    def intrinsics(self, frame: Frame, height: int, width: int) -> list[list[float]]:
        """K of a frame's camera, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], in pixels from the upper left corner.

        Pixels are square and the principal point is the centre where the file does not say otherwise.

        Raises:
            DibrError: there is neither a focal length nor an angle.
        """
        f_x = _first(frame.fl_x, self.fl_x, _focal_length(self.camera_angle_x, width))
        f_y = _first(frame.fl_y, frame.fl_x, self.fl_y, _focal_length(self.camera_angle_y, height), f_x)
        if f_x is None or f_y is None:
            raise DibrError(f"key camera_angle_x is missing, or fl_x, for all frames or for {frame.file_path}")
        c_x, c_y = _first(frame.cx, self.cx, width / 2), _first(frame.cy, self.cy, height / 2)
        assert c_x is not None
        assert c_y is not None
        return [[f_x, 0, c_x], [0, f_y, c_y], [0, 0, 1]]


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _focal_length(angle: float | None, size: int) -> float | None:
    return None if angle is None else size / 2 / math.tan(angle / 2)


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
    said = f"{first['msg'][0].lower()}{first['msg'][1:]}, but is {str(first['input'])[:80]}"
    said = f"{place}: {said}" if place else said
    return f"{said}; take lens distortion out of the images first" if first["type"] == "literal_error" else said
