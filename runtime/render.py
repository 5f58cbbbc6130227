"""What `dibr render` does: a photo through an exported image-to-mesh model to pictures and a mesh, without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dibr_deploy.errors import DibrError

from .cameras import orbit, perspective
from .images import load_square, write_gif, write_png
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
    """The mesh turning once around its vertical axis, GIF."""
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
    """Predict a textured mesh from a photo and show it.

    Args:
        session: an open model with inputs image [B, 3, S, S] and world_to_clip [B, 4, 4], as ``dibr export`` writes it.
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
    size = _input_size(session)
    photo = load_square(image, size)[None]
    prediction = session.run(photo, np.eye(4, dtype=np.float32)[None])
    views = turntable(prediction["vertices"][0], prediction["image"].shape[1:3], frames, azimuth, elevation, fov_y)
    rendered = [session.run(photo, view[None]) for view in views]
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
    write_png(written.input, photo[0].transpose(1, 2, 0))
    write_png(written.prediction, rendered[0]["image"][0])
    write_png(written.mask, rendered[0]["mask"][0])
    write_gif(written.turntable, [frame["image"][0] for frame in rendered])
    return written


def _input_size(session: Session) -> int:
    """S of a model that takes an image [B, 3, S, S] and a camera [B, 4, 4]."""
    missing = [name for name in OUTPUTS if name not in [info.name for info in session.outputs]]
    if missing:
        raise DibrError(f"model {session.path} is no image-to-mesh model: it has no output {missing[0]}")
    shapes = [info.shape[1:] for info in session.inputs]
    size = shapes[0][-1] if shapes else None
    if not isinstance(size, int) or shapes != [(3, size, size), (4, 4)]:
        described = ", ".join(f"{info.name} {list(info.shape)}" for info in session.inputs)
        raise DibrError(
            f"model {session.path} is no image-to-mesh model: its inputs must be an image [B, 3, S, S] and a camera "
            f"[B, 4, 4], got {described}"
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
