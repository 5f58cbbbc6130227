"""How good predictions from single images are, object by object and class by class, against what was rendered.

The measures are those of Chen et al. 2019, tables 1 and 2: intersection over union of solids, F-score of surfaces, the
difference of textures, and the angle between lights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .data.make import surface_color
from .data.opening import open_dataset
from .data.truth import TrueObject, light_of, read_true_mesh, read_truth
from .data.views import PosedViews, View
from .errors import DibrError
from .mesh import Mesh
from .metrics import f_score, light_angle, voxel_iou
from .models import ImageToMeshRenderer, MeshPrediction
from .points import sample_surface
from .renderer import MeshRenderer
from .voxels import voxelize

SIDE = 2.0
"""Of the cube around the origin in which solids are compared, world units."""
MEASURES = ("iou", "f_score", "texture_l1", "light_angle")

_POINTS = 4096


class Scores(NamedTuple):
    """Of one object, means over the views that it was predicted from; NaN where the truth does not say."""

    object_id: str
    class_name: str
    iou: float
    """Of the solids, voxels of SIDE / resolution."""
    f_score: float
    texture_l1: float
    """Mean absolute difference of the unlit renderings from the other views, over pixels that both cover."""
    light_angle: float
    """Degrees."""


def evaluate(
    model: ImageToMeshRenderer,
    data: str | Path,
    *,
    views: int = 4,
    resolution: int = 32,
    threshold: float = 0.05,
    seed: int = 0,
) -> list[Scores]:
    """Predicts every object of a dataset from its first views and compares with the truth.

    Args:
        model: a trained one, on the CPU.
        data: a dataset folder with ``truth.json``, best of objects that training never saw.
        views: how many images of each object are predicted from, one by one; at most as many as it has.
        resolution: of the voxels along each axis.
        threshold: of the F-score, world units; objects lie within the unit sphere.
        seed: of the points on surfaces.

    Raises:
        DibrError: there is no truth for an object, its mesh is not closed, or an argument is below 1.
    """
    if views < 1 or resolution < 1:
        raise DibrError(f"views and resolution must be at least 1, got {views} and {resolution}")
    dataset, truth = open_dataset(data), read_truth(data)
    missing = sorted(set(dataset.views_of) - set(truth))
    if missing:
        raise DibrError(f"truth of {data} has no object {missing[0]}")
    judge = _Judge(model.eval(), resolution, threshold, seed)
    scores = []
    for object_id, indices in tqdm(dataset.views_of.items(), desc="evaluating", unit="object", disable=None):
        mesh = read_true_mesh(data, truth[object_id])
        rows = judge(dataset, indices, views, object_id, mesh, truth[object_id])
        values = [float(np.mean(column)) for column in zip(*rows, strict=True)]
        scores.append(Scores(object_id, truth[object_id].class_name, *values))
    return scores


def fixed_shape_iou(solids: Tensor, training_solids: Tensor) -> Tensor:
    """The IoU of each solid with the one shape that suits the training objects best, [N].

    The shape is what more than a share of the training objects fill; of all shares the one with the best mean IoU among
    them. Nothing that does not look at the image can be expected to do better.

    Args:
        solids, training_solids: bool [N, R, R, R] and [M, R, R, R], of one grid.
    """
    filled = training_solids.float().mean(dim=0)
    shapes = torch.stack([filled > share for share in torch.linspace(0, 0.95, 20)])
    means = torch.stack([voxel_iou(shape.expand_as(training_solids), training_solids).mean() for shape in shapes])
    return voxel_iou(shapes[means.argmax()].expand_as(solids), solids)


def true_solids(data: str | Path, resolution: int = 32) -> dict[str, Tensor]:
    """The voxels of every object of a dataset with truth, bool [R, R, R] by id."""
    truth = read_truth(data)
    return {name: voxelize(read_true_mesh(data, entry), resolution, side=SIDE) for name, entry in truth.items()}


def bootstrap_interval(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` (Efron 1979, percentiles)."""
    array = np.asarray(values)
    picks = np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def class_means(scores: Sequence[Scores]) -> list[Scores]:
    """A row per class, by name, and a last one over all objects: object_id holds how many there are."""
    names = sorted({row.class_name for row in scores})
    groups = [(name, [row for row in scores if row.class_name == name]) for name in names]
    if len(names) > 1:
        groups.append(("all", list(scores)))
    return [
        Scores(str(len(rows)), name, *(float(np.mean([getattr(row, measure) for row in rows])) for measure in MEASURES))
        for name, rows in groups
    ]


class _Judge:
    """Compares predictions of one model with true objects."""

    def __init__(self, model: ImageToMeshRenderer, resolution: int, threshold: float, seed: int) -> None:
        self._model, self._resolution, self._threshold, self._seed = model, resolution, threshold, seed
        self._unlit = MeshRenderer(model.renderer.height, model.renderer.width)

    @torch.no_grad()
    def __call__(
        self, dataset: PosedViews, indices: list[int], views: int, object_id: str, mesh: Mesh, entry: TrueObject
    ) -> list[tuple[float, float, float, float]]:
        seen = dataset.views(indices[:views])
        wanted = dataset.views(indices)
        solid = voxelize(mesh, self._resolution, side=SIDE)
        points = self._points(mesh.vertices, mesh.faces)
        own = self._unlit(mesh.vertices[None], mesh.faces, wanted.world_to_clip, **surface_color(mesh, object_id))
        prediction = self._model.network(seen.resized(self._model.network.config.image_size))
        light = light_of(entry)
        rows = []
        for view in range(len(prediction.vertices)):
            one = MeshPrediction(*(part[view : view + 1] for part in prediction))
            surface = self._points(one.vertices[0], self._model.network.faces)
            rows.append(
                (
                    self._iou(one.vertices[0], solid),
                    float(f_score(surface, points, threshold=self._threshold)),
                    self._texture_l1(one, own.image, own.face_index >= 0, wanted),
                    float("nan") if light is None else float(light_angle(one.light[:, 1:], light[None, 1:])),
                )
            )
        return rows

    def _points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        return sample_surface(vertices[None], faces, _POINTS, torch.Generator().manual_seed(self._seed))

    def _iou(self, vertices: Tensor, solid: Tensor) -> float:
        own = voxelize(Mesh(vertices, self._model.network.faces.long()), self._resolution, side=SIDE)
        return float(voxel_iou(own[None], solid[None]))

    def _texture_l1(self, prediction: MeshPrediction, image: Tensor, covered: Tensor, wanted: View) -> float:
        network = self._model.network
        seen = self._unlit(
            prediction.vertices,
            network.faces,
            wanted.world_to_clip,
            texture=prediction.texture,
            uvs=network.uvs,
            uv_faces=network.uv_faces,
        )
        both = covered & (seen.face_index >= 0)
        return float((seen.image - image).abs().mean(dim=-1)[both].mean())
