"""How good predictions from single images are, object by object and class by class, against what was rendered.

The measures are those of Chen et al. 2019, tables 1 and 2: intersection over union of solids, F-score of surfaces, the
difference of textures, and the angle between lights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from .runtime.render import Predictor
from .runtime.session import Session
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
    model: ImageToMeshRenderer | Session,
    data: str | Path,
    *,
    views: int = 4,
    resolution: int = 32,
    threshold: float = 0.05,
    seed: int = 0,
    appearance: bool = True,
    solids: Mapping[str, Tensor] | None = None,
) -> list[Scores]:
    """Predicts every object of a dataset from its first views and compares with the truth.

    Args:
        model: a trained one, on the CPU; or one that ``dibr export`` wrote, opened.
        data: a dataset folder with ``truth.json``, best of objects that training never saw.
        views: how many images of each object are predicted from, one by one; at most as many as it has.
        resolution: of the voxels along each axis.
        threshold: of the F-score, world units; objects lie within the unit sphere.
        seed: of the points on surfaces.
        appearance: whether the model has learned texture and light; else their measures are NaN.
        solids: what ``true_solids`` gives for ``data`` and ``resolution``, where it is there already.

    Raises:
        DibrError: there is no truth for an object, its mesh is not closed, an argument is below 1, or the session's
            model is no image-to-mesh model.
    """
    if views < 1 or resolution < 1:
        raise DibrError(f"views and resolution must be at least 1, got {views} and {resolution}")
    dataset, truth = open_dataset(data), read_truth(data)
    missing = sorted(set(dataset.views_of) - set(truth))
    if missing:
        raise DibrError(f"truth of {data} has no object {missing[0]}")
    subject = _of_session(model) if isinstance(model, Session) else _of_module(model)
    judge = _Judge(subject, resolution, threshold, seed, appearance)
    scores = []
    for object_id, indices in tqdm(dataset.views_of.items(), desc="evaluating", unit="object", disable=None):
        mesh = read_true_mesh(data, truth[object_id])
        solid = voxelize(mesh, resolution, side=SIDE) if solids is None else solids[object_id]
        rows = judge(dataset, indices, views, object_id, mesh, solid, truth[object_id])
        values = [float(np.mean(column)) for column in zip(*rows, strict=True)]
        scores.append(Scores(object_id, truth[object_id].class_name, *values))
    return scores


def fixed_shape_iou(solids: Tensor, training_solids: Tensor) -> Tensor:
    """The IoU of each solid with the one shape that suits the training objects best, [N].

    The shape is what more than a share of the training objects fill; of all shares the one with the best mean IoU among
    them.

    Args:
        solids, training_solids: bool [N, R, R, R] and [M, R, R, R], of one grid.
    """
    filled = training_solids.float().mean(dim=0)
    shapes = torch.stack([filled > share for share in torch.linspace(0, 0.95, 20)])
    means = torch.stack([voxel_iou(shape.expand_as(training_solids), training_solids).mean() for shape in shapes])
    return voxel_iou(shapes[means.argmax()].expand_as(solids), solids)


def fixed_shape_of_class_iou(
    solids: Mapping[str, Tensor], training_solids: Mapping[str, Tensor], class_of: Mapping[str, str]
) -> dict[str, float]:
    """``fixed_shape_iou`` with a shape for each class: what could be had by somebody who sees nothing but the class.

    Args:
        solids, training_solids: what ``true_solids`` gives, by object id.
        class_of: class of every object of both.

    Returns:
        The IoU of each of ``solids``, by id.

    Raises:
        DibrError: a class has no training object.
    """
    result: dict[str, float] = {}
    for name in sorted({class_of[object_id] for object_id in solids}):
        ours = [object_id for object_id in solids if class_of[object_id] == name]
        training = [solid for object_id, solid in training_solids.items() if class_of[object_id] == name]
        if not training:
            raise DibrError(f"no training object has the class {name!r} of {ours[0]}")
        values = fixed_shape_iou(torch.stack([solids[object_id] for object_id in ours]), torch.stack(training))
        result.update(zip(ours, values.tolist(), strict=True))
    return result


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


class _Subject(NamedTuple):
    """What is judged, by whichever way it runs."""

    predict: Callable[[View], MeshPrediction]
    faces: Tensor
    """[F, 3] int32, like ``uv_faces``."""
    uvs: Tensor
    uv_faces: Tensor


def _of_module(model: ImageToMeshRenderer) -> _Subject:
    network = model.eval().network

    def predict(seen: View) -> MeshPrediction:
        with torch.no_grad():
            return network(seen.resized(network.config.image_size))

    return _Subject(predict, network.faces, network.uvs, network.uv_faces)


def _of_session(session: Session) -> _Subject:
    predictor = Predictor(session)

    def run(image: Tensor) -> dict[str, Tensor]:
        pixels = image.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
        outputs = session.run(**predictor.feed(predictor.photo(pixels), np.eye(4)))
        return {name: torch.from_numpy(array) for name, array in outputs.items()}

    def predict(seen: View) -> MeshPrediction:
        rows = [run(image) for image in seen.resized(predictor.size)]
        return MeshPrediction(*(torch.cat([row[name] for row in rows]) for name in MeshPrediction._fields))

    constant = run(torch.zeros(3, predictor.size, predictor.size))
    return _Subject(predict, constant["faces"], constant["uvs"], constant["uv_faces"])


class _Judge:
    """Compares predictions of one model with true objects."""

    def __init__(self, subject: _Subject, resolution: int, threshold: float, seed: int, appearance: bool) -> None:
        self._subject, self._resolution, self._threshold, self._seed = subject, resolution, threshold, seed
        self._appearance = appearance

    @torch.no_grad()
    def __call__(
        self,
        dataset: PosedViews,
        indices: list[int],
        views: int,
        object_id: str,
        mesh: Mesh,
        solid: Tensor,
        entry: TrueObject,
    ) -> list[tuple[float, float, float, float]]:
        seen = dataset.views(indices[:views])
        wanted = dataset.views(indices)
        points = self._points(mesh.vertices, mesh.faces)
        unlit = MeshRenderer(dataset.height, dataset.width)
        own = unlit(mesh.vertices[None], mesh.faces, wanted.world_to_clip, **surface_color(mesh, object_id))
        prediction = self._subject.predict(seen)
        light = light_of(entry) if self._appearance else None
        rows = []
        for view in range(len(prediction.vertices)):
            one = MeshPrediction(*(part[view : view + 1] for part in prediction))
            surface = self._points(one.vertices[0], self._subject.faces)
            rows.append(
                (
                    self._iou(one.vertices[0], solid),
                    float(f_score(surface, points, threshold=self._threshold)),
                    self._texture_l1(one, own.image, own.face_index >= 0, unlit, wanted)
                    if self._appearance
                    else math.nan,
                    math.nan if light is None else float(light_angle(one.light[:, 1:], light[None, 1:])),
                )
            )
        return rows

    def _points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        return sample_surface(vertices[None], faces, _POINTS, torch.Generator().manual_seed(self._seed))

    def _iou(self, vertices: Tensor, solid: Tensor) -> float:
        own = voxelize(Mesh(vertices, self._subject.faces.long()), self._resolution, side=SIDE)
        return float(voxel_iou(own[None], solid[None]))

    def _texture_l1(
        self, prediction: MeshPrediction, image: Tensor, covered: Tensor, unlit: MeshRenderer, wanted: View
    ) -> float:
        if not self._appearance:
            return math.nan
        subject = self._subject
        seen = unlit(
            prediction.vertices,
            subject.faces,
            wanted.world_to_clip,
            texture=prediction.texture,
            uvs=subject.uvs,
            uv_faces=subject.uv_faces,
        )
        both = covered & (seen.face_index >= 0)
        return float((seen.image - image).abs().mean(dim=-1)[both].mean())
