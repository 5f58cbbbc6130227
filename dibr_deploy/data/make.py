"""Renders a dataset folder (docs/data.md) from a folder of meshes, through this package's own renderer."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ..cameras import invert_rigid, orbit, perspective
from ..errors import DibrError
from ..lighting import make_light
from ..mesh import MESH_SUFFIXES, Mesh, normalize, read_mesh
from ..pictures import to_bytes
from ..renderer import MeshRenderer
from .transforms import FILE_NAME
from .truth import TrueObject, write_object, write_truth

FIELD_OF_VIEW = math.radians(42.0)
"""Full opening angle of the cameras; at DISTANCE the unit sphere fills 92 % of the image's height."""
DISTANCE = 3.0
ELEVATIONS = (math.radians(-20.0), math.radians(50.0))
AMBIENT = 0.6
SUPERSAMPLING = 4
BACKGROUND = (1.0, 1.0, 1.0)

_CAMERAS_AT_ONCE = 8
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def make_dataset(
    meshes: str | Path,
    output: str | Path,
    *,
    views: int = 24,
    size: int = 64,
    up: str = "y",
    seed: int = 0,
    lights: str = "object",
    ambient: float = AMBIENT,
    with_truth: bool = False,
) -> Path:
    """Renders every mesh under ``meshes`` from ``views`` cameras around it.

    Each mesh is moved and scaled into the unit sphere, keeps its texture or vertex colours (one without gets a colour
    made from its name), and has lights drawn from ``seed``. Pixels are averages of 4 x 4 samples.

    Args:
        meshes: folder that is searched, with its subfolders, for OBJ, PLY, GLB, glTF, STL and OFF files; or one file.
        output: folder to be made; must not exist or be empty. It appears when all is rendered, or not at all.
        views: per mesh, >= 1. size: of the square images, pixels, >= 1.
        up: the meshes' upward axis, "y" or "z"; the dataset's is y.
        lights: "object", one for all views of an object, as a fit to its pictures wants; or "view", another one in
            each, without which a network cannot tell the light from the paint.
        ambient: of the lights, in [0, 1); the rest up to 1 comes from one direction. The less it is, the better that
            direction can be seen.
        with_truth: also write what was rendered, for ``dibr evaluate``: ``truth.json`` and the meshes. Training never
            opens it. An object's class is the first folder below ``meshes``.

    Returns:
        ``output`` as a Path.

    Raises:
        DibrError: an argument is out of range, there are no meshes, one cannot be read, or ``output`` is not empty.
    """
    output = Path(output)
    _check_arguments(output, views, size, up, lights, ambient)
    paths = mesh_paths(Path(meshes))
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    try:
        frames: list[dict[str, object]] = []
        truths: dict[str, TrueObject] = {}
        for object_id, path in tqdm(paths.items(), desc="rendering", unit="mesh", disable=None):
            mesh = _prepare(path, object_id, up)
            object_seed = seed + zlib.crc32(object_id.encode())
            # Another seed than the cameras', which lights must not depend on.
            count, light_seed = (views, object_seed + 1) if lights == "view" else (1, object_seed)
            drawn = _random_lights(count, light_seed, ambient)
            world_to_view = camera_ring(views, object_seed)
            frames += _render_object(mesh, object_id, staging, world_to_view, size, drawn)
            if with_truth:
                truths[object_id] = write_object(staging, object_id, mesh, drawn, _class_of(path, Path(meshes)))
        if with_truth:
            write_truth(staging, truths)
        transforms = {"camera_angle_x": FIELD_OF_VIEW, "w": size, "h": size, "frames": frames}
        (staging / FILE_NAME).write_text(json.dumps(transforms, indent=1))
        staging.chmod(0o755)
        staging.replace(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def surface_color(mesh: Mesh, object_id: str) -> dict[str, Tensor | None]:
    """What MeshRenderer needs to colour a mesh: its texture, its vertex colours, or one colour made from its name."""
    if mesh.texture is not None and mesh.uvs is not None:
        return {"texture": mesh.texture.unsqueeze(0), "uvs": mesh.uvs, "uv_faces": mesh.uv_faces}
    colors = mesh.vertex_colors
    if colors is None:
        hue = zlib.crc32(object_id.encode()) / 2**32
        phases = torch.tensor([0.0, 1 / 3, 2 / 3]) + hue
        colors = (0.6 + 0.3 * torch.cos(2 * math.pi * phases)).expand(len(mesh.vertices), 3)
    return {"vertex_colors": colors.unsqueeze(0)}


def camera_ring(views: int, seed: int = 0) -> Tensor:
    """World-to-view matrices [views, 4, 4] around the origin: golden-angle steps in azimuth, spread in elevation."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(2, generator=generator)
    steps = torch.arange(views, dtype=torch.float32)
    azimuth = 2 * math.pi * phase[0] + _GOLDEN_ANGLE * steps
    fraction = torch.remainder(phase[1] + steps / math.sqrt(2), 1.0)
    low, high = ELEVATIONS
    return orbit(azimuth, low + (high - low) * fraction, DISTANCE)


def _check_arguments(output: Path, views: int, size: int, up: str, lights: str, ambient: float) -> None:
    if views < 1 or size < 1:
        raise DibrError(f"views and size must be at least 1, but are {views} and {size}")
    if up not in ("y", "z"):
        raise DibrError(f"up must be 'y' or 'z', but is {up!r}")
    if lights not in ("object", "view"):
        raise DibrError(f"lights must be 'object' or 'view', but is {lights!r}")
    if not 0 <= ambient < 1:
        raise DibrError(f"ambient must be at least 0 and below 1, but is {ambient}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DibrError(f"output {output} exists already and is not an empty folder")


def mesh_paths(root: Path) -> dict[str, Path]:
    """object id -> file, sorted by id; the id is the path below ``root`` without its suffix."""
    if not root.exists():
        raise DibrError(f"mesh folder {root} does not exist")
    files = [root] if root.is_file() else [p for p in root.rglob("*") if p.suffix.lower() in MESH_SUFFIXES]
    base = root.parent if root.is_file() else root
    paths: dict[str, Path] = {}
    for path in sorted(files):
        object_id = "_".join(path.relative_to(base).with_suffix("").parts)
        if object_id in paths:
            raise DibrError(f"mesh files {paths[object_id]} and {path} would both be object {object_id}")
        paths[object_id] = path
    if not paths:
        raise DibrError(f"mesh folder {root} has no file that ends in one of {', '.join(MESH_SUFFIXES)}")
    return paths


def _prepare(path: Path, object_id: str, up: str) -> Mesh:
    mesh = read_mesh(path)
    vertices = mesh.vertices if up == "y" else mesh.vertices[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0])
    try:
        normalized = normalize(vertices)
    except DibrError as error:
        raise DibrError(f"mesh file {path} cannot be scaled to unit size: {error}") from error
    return Mesh(normalized, mesh.faces, mesh.uvs, mesh.uv_faces, mesh.texture, mesh.vertex_colors)


def _render_object(
    mesh: Mesh, object_id: str, folder: Path, world_to_view: Tensor, size: int, lights: Tensor
) -> Iterator[dict[str, object]]:
    """Writes the images and masks of one object and yields its frames. lights: one, or one for each view."""
    images, masks = _render(mesh, object_id, world_to_view, size, lights.expand(len(world_to_view), 4))
    for kind in ("images", "masks"):
        (folder / kind).mkdir(exist_ok=True)
    for view, camera_to_world in enumerate(invert_rigid(world_to_view.double())):
        name = f"{object_id}_{view:03d}.png"
        Image.fromarray(images[view]).save(folder / "images" / name)
        Image.fromarray(masks[view]).save(folder / "masks" / name)
        yield {
            "file_path": f"images/{name}",
            "mask_path": f"masks/{name}",
            "object_id": object_id,
            "transform_matrix": camera_to_world.tolist(),
        }


def _class_of(path: Path, root: Path) -> str:
    """The first folder below ``root`` on the way to ``path``; empty where there is none."""
    parts = path.relative_to(root).parts if root.is_dir() else ()
    return parts[0] if len(parts) > 1 else ""


@torch.no_grad()
def _render(
    mesh: Mesh, object_id: str, world_to_view: Tensor, size: int, lights: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, S, S, 3] and coverage masks [N, S, S], uint8."""
    renderer = MeshRenderer(size * SUPERSAMPLING, size * SUPERSAMPLING, background=BACKGROUND)
    world_to_clip = perspective(FIELD_OF_VIEW) @ world_to_view
    surface = surface_color(mesh, object_id)
    images, masks = [], []
    for cameras, light in zip(world_to_clip.split(_CAMERAS_AT_ONCE), lights.split(_CAMERAS_AT_ONCE), strict=True):
        rendering = renderer(mesh.vertices.unsqueeze(0), mesh.faces, cameras, light=light, **surface)
        covered = (rendering.face_index >= 0).float().unsqueeze(1)
        images.append(F.avg_pool2d(rendering.image.permute(0, 3, 1, 2), SUPERSAMPLING).permute(0, 2, 3, 1))
        masks.append(F.avg_pool2d(covered, SUPERSAMPLING).squeeze(1))
    return to_bytes(torch.cat(images)), to_bytes(torch.cat(masks))


def _random_lights(count: int, seed: int, ambient: float) -> Tensor:
    """[count, 4]: sources somewhere in the upper half of the sky."""
    directions = F.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
    directions[:, 1].abs_()
    return make_light(ambient, directions, 1 - ambient)
