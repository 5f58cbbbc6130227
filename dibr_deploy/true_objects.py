"""What is known of a dataset's objects, wherever it lies: what predictions are judged by, and training never opens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .data.make import surface_color
from .data.opening import open_dataset
from .data.shapenet import ShapeNetRenderings, Voxels
from .data.truth import TRUTH_NAME, TrueObject, lights_of, read_true_mesh, read_truth
from .data.views import PosedViews
from .errors import DibrError
from .mesh import Mesh, read_mesh
from .renderer import MeshRenderer
from .voxels import voxelize

SIDE = 2.0
"""Of the cube around the origin in which meshes are compared as solids, world units."""


class PaintedMesh(NamedTuple):
    """A surface and what MeshRenderer needs to colour it."""

    mesh: Mesh
    paint: dict[str, Tensor | None]


class TrueShape(NamedTuple):
    """Of one object."""

    class_name: str
    voxels: Voxels
    mesh: Mesh | None
    """None where nothing but the solid is known."""
    paint: dict[str, Tensor | None] | None
    """What MeshRenderer needs to colour the mesh; None where it is not known."""
    lights: Tensor | None
    """[1 or N, 4], of all of its views or of each; None where they are not known."""


def open_truth(data: str | Path, dataset: PosedViews | None = None) -> dict[str, Callable[[int], TrueShape]]:
    """How to read each object of a dataset, by id: called with a resolution, voxels along each axis.

    Args:
        data: a folder with ``truth.json``, or ShapeNet's renderings with ``ShapeNetVox32`` beside them, whose
            resolution is that of its files; surfaces come from ``ShapeNetCore.v1`` where that is there too.
        dataset: what ``open_dataset`` gives for the folder, where it is open already.

    Raises:
        DibrError: there is no truth, or none for an object. When an object is read: its file is missing or damaged, a
            mesh is not closed, voxels have another resolution, or there are fewer lights than views.
    """
    dataset = dataset or open_dataset(data)
    if isinstance(dataset, ShapeNetRenderings) and not (Path(data) / TRUTH_NAME).is_file():
        return {name: _of_shapenet(dataset, name) for name in dataset.views_of}
    objects = read_truth(data)
    missing = sorted(set(dataset.views_of) - set(objects))
    if missing:
        raise DibrError(f"truth of {data} has no object {missing[0]}")
    return {name: _rendered(data, name, objects[name], len(views)) for name, views in dataset.views_of.items()}


def painted_meshes(data: str | Path) -> dict[str, Callable[[], PaintedMesh]]:
    """How to read objects whose surface and paint are known, by id: none of ShapeNet's. Raises as ``open_truth``."""
    if not (Path(data) / TRUTH_NAME).is_file():
        open_truth(data)
        return {}
    return {name: partial(_painted, data, name, entry) for name, entry in read_truth(data).items()}


@torch.no_grad()
def without_light(dataset: PosedViews, indices: list[int], true: PaintedMesh) -> tuple[Tensor, Tensor]:
    """What N views of a dataset show of an object without light: the image [N, H, W, 3], and where it is, [N, H, W]."""
    render = MeshRenderer(dataset.height, dataset.width)
    seen = render(true.mesh.vertices[None], true.mesh.faces, dataset.world_to_clip[indices], **true.paint)
    return seen.image, seen.face_index >= 0


def _painted(data: str | Path, name: str, entry: TrueObject) -> PaintedMesh:
    mesh = read_true_mesh(data, entry)
    return PaintedMesh(mesh, surface_color(mesh, name))


def _rendered(data: str | Path, name: str, entry: TrueObject, views: int) -> Callable[[int], TrueShape]:
    def read(resolution: int) -> TrueShape:
        mesh, paint = _painted(data, name, entry)
        voxels = Voxels(voxelize(mesh, resolution, side=SIDE), (0.0, 0.0, 0.0), SIDE)
        return TrueShape(entry.class_name, voxels, mesh, paint, lights_of(entry, views))

    return read


def _of_shapenet(dataset: ShapeNetRenderings, name: str) -> Callable[[int], TrueShape]:
    def read(resolution: int) -> TrueShape:
        voxels, file = dataset.voxels(name), dataset.mesh_file(name)
        if len(voxels.solid) != resolution:
            raise DibrError(f"voxels of {name} have resolution {len(voxels.solid)}, got {resolution}")
        mesh = read_mesh(file) if file.is_file() else None
        return TrueShape(name.partition("/")[0], voxels, mesh, None, None)

    return read
