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

from .data.opening import open_dataset
from .data.shapenet import Voxels
from .data.views import PosedViews, View
from .errors import DibrError
from .mesh import Mesh, unit
from .metrics import f_score, light_angle, voxel_iou
from .models import ImageToMeshRenderer, MeshPrediction
from .points import sample_surface
from .renderer import MeshRenderer
from .runtime.render import Predictor
from .runtime.session import Session
from .true_objects import PaintedMesh, TrueShape, open_truth, without_light
from .voxels import voxelize

MEASURES = ("iou", "f_score", "texture_l1", "light_angle")

F_SCORE_THRESHOLD = 0.05
"""World units; rendered objects lie within the unit sphere."""

_POINTS = 4096


class Scores(NamedTuple):
    """Of one object, means over the views that it was predicted from.

    NaN where the truth does not say, and a texture's also where nothing is seen of truth and prediction both.
    """

    object_id: str
    class_name: str
    iou: float
    """Of the solids."""
    f_score: float
    texture_l1: float
    """Mean absolute difference of the unlit renderings from the other views, over pixels that both cover."""
    light_angle: float
    """Degrees, the predicted light turned into the world by the camera of the image that it was predicted from."""


def evaluate(
    model: ImageToMeshRenderer | Session,
    data: str | Path,
    *,
    views: int = 4,
    resolution: int = 32,
    threshold: float = F_SCORE_THRESHOLD,
    seed: int = 0,
    appearance: bool = True,
) -> list[Scores]:
    """Predicts every object of a dataset from its first views and compares with the truth.

    Args:
        model: a trained one, on the CPU; or one that ``dibr export`` wrote, opened.
        data: a dataset folder whose truth ``open_truth`` finds, best of objects that training never saw.
        views: how many images of each object are predicted from, one by one; at most as many as it has.
        resolution: of the voxels along each axis; ShapeNet's have 32.
        threshold: of the F-score, world units; rendered objects lie within the unit sphere.
        seed: of the points on surfaces.
        appearance: whether the model has learned texture and light; else their measures are NaN.

    Raises:
        DibrError: an argument is below 1, the session's model is no image-to-mesh model, or as ``open_truth``.
    """
    if views < 1 or resolution < 1:
        raise DibrError(f"views and resolution must be at least 1, got {views} and {resolution}")
    dataset = open_dataset(data)
    truth = open_truth(data, dataset)
    subject = _of_session(model) if isinstance(model, Session) else _of_module(model)
    judge = _Judge(subject, threshold, seed, appearance)
    scores = []
    for object_id, indices in tqdm(dataset.views_of.items(), desc="evaluating", unit="object", disable=None):
        true = truth[object_id](resolution)
        rows = judge(dataset, indices, views, true)
        values = [float(np.mean(column)) for column in zip(*rows, strict=True)]
        scores.append(Scores(object_id, true.class_name, *values))
    return scores


def fixed_shape_iou(solids: Tensor, training_solids: Tensor) -> Tensor:
    """The IoU of each solid with the one shape that suits the training objects best, [N].

    The shape is what more than a share of the training objects fill; of all shares the one with the best mean IoU among
    them.

    Args:
        solids, training_solids: bool [N, R, R, R] and [M, R, R, R], of one grid.
    """
    filled = training_solids.float().mean(dim=0)
    shapes = torch.stack([filled > share for share in torch.linspace(0, 0.95, 20, device=filled.device)])
    means = torch.stack([voxel_iou(shape.expand_as(training_solids), training_solids).mean() for shape in shapes])
    return voxel_iou(shapes[means.argmax()].expand_as(solids), solids)


def fixed_shape_of_class_iou(
    solids: Mapping[str, Tensor], training_solids: Mapping[str, Tensor], class_of: Mapping[str, str]
) -> dict[str, float]:
    """``fixed_shape_iou`` with a shape for each class: what could be had by somebody who sees nothing but the class.

    Args:
        solids, training_solids: what ``true_solids`` gives for two datasets, by object id.
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


def best_fixed_direction(directions: Tensor) -> Tensor:
    """The direction [3] with the smallest mean angle to [N, 3], of 2,048 spread evenly over the sphere."""
    places = torch.arange(2048, dtype=directions.dtype, device=directions.device) + 0.5
    height, around = 1 - places / 1024, places * math.pi * (3 - math.sqrt(5))
    level = (1 - height.square()).sqrt()
    tried = torch.stack([level * around.cos(), height, level * around.sin()], dim=1)
    angles = (tried @ unit(directions).mT).clamp(-1, 1).acos()
    return tried[angles.mean(dim=1).argmin()]


def true_solids(*data: str | Path, resolution: int = 32) -> list[dict[str, Tensor]]:
    """The voxels of every object of each dataset with truth, bool [R, R, R] by id, all on one grid.

    Raises:
        DibrError: the grids of two objects differ, or as ``open_truth``.
    """
    result = []
    first: tuple[str, Voxels] | None = None
    for folder in data:
        solids: dict[str, Tensor] = {}
        for name, read in open_truth(folder).items():
            voxels = read(resolution).voxels
            first = first or (name, voxels)
            if not np.allclose([*voxels.center, voxels.side], [*first[1].center, first[1].side]):
                raise DibrError(
                    f"solids must be on one grid, that of {first[0]} {_grid(first[1])}, got {name} {_grid(voxels)}"
                )
            solids[name] = voxels.solid
        result.append(solids)
    return result


def _grid(voxels: Voxels) -> str:
    center = ", ".join(f"{value:g}" for value in voxels.center)
    return f"(centre {center}, side {voxels.side:g})"


def bootstrap_interval(values: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` (Efron 1979, percentiles)."""
    array = np.asarray(values)
    picks = np.random.default_rng(seed).integers(0, len(array), (draws, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def class_means(scores: Sequence[Scores]) -> list[Scores]:
    """A row per class, by name, and a last one over all objects: object_id holds how many there are.

    Each mean is over the objects whose value is known, and NaN where none is.
    """
    names = sorted({row.class_name for row in scores})
    groups = [(name, [row for row in scores if row.class_name == name]) for name in names]
    if len(names) > 1:
        groups.append(("all", list(scores)))
    return [
        Scores(str(len(rows)), name, *(_known_mean([getattr(row, measure) for row in rows]) for measure in MEASURES))
        for name, rows in groups
    ]


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


class _Subject(NamedTuple):
    """What is judged, by whichever way it runs."""

    predict: Callable[[View], MeshPrediction]
    """All in world space."""
    faces: Tensor
    """[F, 3] int32, like ``uv_faces``."""
    uvs: Tensor
    uv_faces: Tensor


def _of_module(model: ImageToMeshRenderer) -> _Subject:
    network = model.eval().network

    def predict(seen: View) -> MeshPrediction:
        with torch.no_grad():
            return network.in_world(network(seen.resized(network.config.image_size)), seen.world_to_clip)

    return _Subject(predict, network.faces, network.uvs, network.uv_faces)


def _of_session(session: Session) -> _Subject:
    predictor = Predictor(session)

    def run(image: Tensor, camera: Tensor) -> dict[str, Tensor]:
        pixels = image.permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
        outputs = session.run(**predictor.feed(predictor.photo(pixels), camera.numpy()))
        return {name: torch.from_numpy(array) for name, array in outputs.items()}

    def predict(seen: View) -> MeshPrediction:
        rows = [run(*pair) for pair in zip(seen.resized(predictor.size), seen.world_to_clip, strict=True)]
        return MeshPrediction(*(torch.cat([row[name] for row in rows]) for name in MeshPrediction._fields))

    constant = run(torch.zeros(3, predictor.size, predictor.size), torch.eye(4))
    return _Subject(predict, constant["faces"], constant["uvs"], constant["uv_faces"])


class _Judge:
    """Compares predictions of one model with true objects."""

    def __init__(self, subject: _Subject, threshold: float, seed: int, appearance: bool) -> None:
        self._subject, self._threshold, self._seed, self._appearance = subject, threshold, seed, appearance

    @torch.no_grad()
    def __call__(
        self, dataset: PosedViews, indices: list[int], views: int, true: TrueShape
    ) -> list[tuple[float, float, float, float]]:
        """A row of MEASURES for each of the object's first views."""
        prediction = self._subject.predict(dataset.views(indices[:views]))
        points = None if true.mesh is None else self._points(true.mesh.vertices, true.mesh.faces)
        painted = self._painted(dataset, indices, true) if self._appearance else None
        lights = true.lights if self._appearance else None
        rows = []
        for view in range(len(prediction.vertices)):
            one = MeshPrediction(*(part[view : view + 1] for part in prediction))
            rows.append(
                (
                    self._iou(one.vertices[0], true.voxels),
                    math.nan if points is None else self._f_score(one.vertices[0], points),
                    math.nan if painted is None else self._texture_l1(one, painted),
                    math.nan if lights is None else float(light_angle(one.light[:, 1:], lights[view : view + 1, 1:])),
                )
            )
        return rows

    def _points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        return sample_surface(vertices[None], faces, _POINTS, torch.Generator().manual_seed(self._seed))

    def _iou(self, vertices: Tensor, true: Voxels) -> float:
        own = Mesh(vertices, self._subject.faces.long())
        solid = voxelize(own, len(true.solid), center=true.center, side=true.side)
        return float(voxel_iou(solid[None], true.solid[None]))

    def _f_score(self, vertices: Tensor, points: Tensor) -> float:
        return float(f_score(self._points(vertices, self._subject.faces), points, threshold=self._threshold))

    def _painted(self, dataset: PosedViews, indices: list[int], true: TrueShape) -> _Painted | None:
        if true.mesh is None or true.paint is None:
            return None
        image, covered = without_light(dataset, indices, PaintedMesh(true.mesh, true.paint))
        return _Painted(MeshRenderer(dataset.height, dataset.width), dataset.world_to_clip[indices], image, covered)

    def _texture_l1(self, prediction: MeshPrediction, true: _Painted) -> float:
        subject = self._subject
        seen = true.renderer(
            prediction.vertices,
            subject.faces,
            true.cameras,
            texture=prediction.texture,
            uvs=subject.uvs,
            uv_faces=subject.uv_faces,
        )
        both = true.covered & (seen.face_index >= 0)
        return float((seen.image - true.image).abs().mean(dim=-1)[both].mean())


class _Painted(NamedTuple):
    """A true object without light."""

    renderer: MeshRenderer
    cameras: Tensor
    """[N, 4, 4]."""
    image: Tensor
    """[N, H, W, 3]."""
    covered: Tensor
    """[N, H, W] bool."""
