"""What `dibr render` does: a photo through an exported image-to-mesh model to pictures and a mesh, without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dibr_deploy.errors import DibrError

from .cameras import orbit, perspective
from .images import fit_square, read_pixels, write_gif, write_png
from .mesh_file import write_glb
from .session import Session

OUTPUTS = ("image", "mask", "vertices", "texture", "faces", "uvs", "uv_faces")
"""Outputs that a model must have."""
_MARGIN = 1.15
"""How much more than the mesh's bounding sphere a view shows."""


class Written(NamedTuple):
    """Files that ``render_photo`` wrote."""

    input: Path
    """The photo as the network saw it, PNG."""
    prediction: Path
    """The predicted mesh from the first view of the turntable, PNG."""
    mask: Path
    """Its soft silhouette, PNG."""
    turntable: Path
    """The mesh turning once around its vertical axis before a camera and a light that stand still, GIF."""
    mesh: Path
    """GLB with texture."""


def render_photo(
    session: Session,
    image: str | Path,
    output: str | Path,
    *,
    frames: int = 36,
    azimuth: float = 0.0,
    elevation: float = 0.35,
    fov_y: float = 0.7,
) -> Written:
    """Predict a textured mesh from a photo and show it, in light from where it came from in the photo.

    Args:
        session: a model as ``Predictor`` takes it.
        image: an image file of any size.
        output: folder for the files of ``Written``; made where it does not exist.
        frames: views of the turntable, at least 1.
        azimuth, elevation: of the first view, radians, as in ``dibr_deploy.cameras.orbit``.
        fov_y: full vertical opening angle of the camera, radians; its distance is such that it sees the whole mesh.

    Raises:
        FileNotFoundError: the image does not exist.
        DibrError: the image is no image, an argument is out of range, or the model is no image-to-mesh model.
    """
    if frames < 1:
        raise DibrError(f"frames must be at least 1, got {frames}")
    if not 0 < fov_y < math.pi:
        raise DibrError(f"fov_y must lie between 0 and pi, got {fov_y}")
    predictor = Predictor(session)
    photo = predictor.photo(read_pixels(image))
    prediction = session.run(**predictor.feed(photo, np.eye(4)))
    views = turntable(prediction["vertices"][0], prediction["image"].shape[1:3], frames, azimuth, elevation, fov_y)
    rendered = [session.run(**predictor.feed(photo, view)) for view in views]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(
        folder / "input.png",
        folder / "prediction.png",
        folder / "mask.png",
        folder / "turntable.gif",
        folder / "mesh.glb",
    )
    write_glb(
        written.mesh,
        prediction["vertices"][0],
        prediction["faces"],
        prediction["uvs"],
        prediction["uv_faces"],
        prediction["texture"][0],
    )
    write_png(written.input, predictor.shown(photo))
    write_png(written.prediction, rendered[0]["image"][0])
    write_png(written.mask, rendered[0]["mask"][0])
    write_gif(written.turntable, [frame["image"][0] for frame in rendered])
    return written


class Predictor:
    """An image-to-mesh model: what goes into it, and views of what comes out.

    Args:
        session: a model as ``dibr export`` writes it of a checkpoint: it takes a photo, as float32 [B, 3, S, S] in 0..1
            or as uint8 [B, S, S, 3], and a camera [B, 4, 4], and has the outputs ``OUTPUTS``. It stays the caller's.

    Raises:
        DibrError: it is another model.
    """

    def __init__(self, session: Session) -> None:
        missing = [name for name in OUTPUTS if name not in [info.name for info in session.outputs]]
        if missing:
            raise DibrError(f"model {session.path} is no image-to-mesh model: it has no output {missing[0]}")
        self.size = _photo_size(session)
        self.session = session
        self._photo, self._camera = (info.name for info in session.inputs)
        self.image_size = _image_size(session)

    def photo(self, pixels: np.ndarray) -> np.ndarray:
        """A picture, uint8 [H, W, 3 or 4], as the model's first input with a batch of one."""
        if self.session.can_preprocess:
            return self.session.preprocess(pixels)[self._photo]
        numbers = fit_square(pixels, self.size)[None]
        if self.session.inputs[0].dtype == np.uint8:
            return np.rint(numbers * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        return numbers

    def feed(self, photo: np.ndarray, world_to_clip: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the model by name, for one photo and a camera [4, 4].

        The model's output light is that of the world where it is the photo's camera; with the identity it has the axes
        of the photo's camera: x to the right, y up, z towards the viewer.
        """
        return {self._photo: photo, self._camera: np.asarray(world_to_clip, np.float32)[None]}

    def shown(self, photo: np.ndarray) -> np.ndarray:
        """The photo as a picture: [S, S, 3] in 0..1."""
        return photo[0] / np.float32(255) if photo.dtype == np.uint8 else photo[0].transpose(1, 2, 0)


def _image_size(session: Session) -> tuple[int, int]:
    """Height and width of the pictures that the model renders."""
    [shape] = [info.shape for info in session.outputs if info.name == "image"]
    if len(shape) != 4 or not isinstance(shape[1], int) or not isinstance(shape[2], int):
        raise DibrError(
            f"model {session.path} is no image-to-mesh model: its output image must be [B, H, W, 3] with fixed H "
            f"and W, got {list(shape)}"
        )
    return shape[1], shape[2]


def _photo_size(session: Session) -> int:
    """S of a model that takes a photo and a camera [B, 4, 4]."""
    shapes = [info.shape[1:] for info in session.inputs]
    photo = shapes[0] if shapes else ()
    size = photo[1] if len(photo) == 3 else None
    planes = (size, size, 3) if session.inputs and session.inputs[0].dtype == np.uint8 else (3, size, size)
    if not isinstance(size, int) or shapes != [planes, (4, 4)]:
        described = ", ".join(f"{info.name} {info.dtype} {list(info.shape)}" for info in session.inputs)
        raise DibrError(
            f"model {session.path} is no image-to-mesh model: its inputs must be an image [B, 3, S, S], or uint8 "
            f"[B, S, S, 3], and a camera [B, 4, 4], got {described}"
        )
    return size


def turntable(
    vertices: np.ndarray, image_size: tuple[int, ...], frames: int, azimuth: float, elevation: float, fov_y: float
) -> np.ndarray:
    """world_to_clip of every frame, [frames, 4, 4] float32, around the middle of vertices [V, 3]."""
    height, width = image_size
    finite = vertices[np.isfinite(vertices).all(axis=1)].astype(np.float64)
    low, high = (finite.min(axis=0), finite.max(axis=0)) if len(finite) else (np.zeros(3), np.ones(3))
    center = (low + high) / 2
    radius = max(float(np.linalg.norm(finite - center, axis=1).max(initial=0.0)), 1e-6)
    narrower = min(fov_y, 2 * math.atan(math.tan(fov_y / 2) * width / height))
    distance = _MARGIN * radius / math.sin(narrower / 2)
    lens = perspective(fov_y, width / height, near=distance - radius, far=distance + radius)
    turns = azimuth + 2 * math.pi * np.arange(frames) / frames
    return np.stack([lens @ orbit(turn, elevation, distance, center) for turn in turns]).astype(np.float32)
