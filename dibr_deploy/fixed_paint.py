"""The texture L1 of paint that does not look at the image: what a texture has to undercut that counts as predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from .data.opening import open_dataset
from .data.views import PosedViews
from .errors import DibrError
from .true_objects import PaintedMesh, painted_meshes, without_light


def true_colours(data: str | Path) -> dict[str, Tensor]:
    """What is seen of every object without light, by id: the colours [P, 3] of the pixels that it covers in its views.

    Args:
        data: a dataset folder whose truth ``open_truth`` finds. Objects whose paint is not known are left out.

    Raises:
        DibrError: as ``open_truth``.
    """
    dataset = open_dataset(data)
    return {name: _colours(dataset, name, read()) for name, read in painted_meshes(data).items()}


def fixed_colour_l1(colours: Mapping[str, Tensor], training: Sequence[Tensor]) -> dict[str, float]:
    """The texture L1 of each object with the one colour for which that of the training objects is least, by id.

    Args:
        colours: what ``true_colours`` gives.
        training: its values for the training objects, each of which counts as much as any other.
    """
    colour = _median(training)
    return {name: float((seen - colour).abs().mean()) for name, seen in colours.items()}


def fixed_colour_of_class_l1(
    colours: Mapping[str, Tensor], training: Mapping[str, Tensor], class_of: Mapping[str, str]
) -> dict[str, float]:
    """``fixed_colour_l1`` with a colour for each class.

    Args:
        colours, training: what ``true_colours`` gives for two datasets. class_of: class of every object of both.

    Raises:
        DibrError: a class has no training object.
    """
    result: dict[str, float] = {}
    for own, others in _by_class(colours, training, class_of):
        result |= fixed_colour_l1({name: colours[name] for name in own}, [training[name] for name in others])
    return {name: result[name] for name in colours}


def mean_paint_of_class_l1(
    data: str | Path, training_data: str | Path, class_of: Mapping[str, str]
) -> dict[str, float]:
    """The texture L1 of each object when it is painted as the training objects of its class are in the mean, by id.

    For classes whose objects are variants of one mesh, with the same faces and places of paint: it is known then where
    on an object which colour belongs.

    Raises:
        DibrError: a class has no training object, or objects that are no variants of one mesh; or as ``open_truth``.
    """
    dataset, objects, training = open_dataset(data), painted_meshes(data), painted_meshes(training_data)
    result: dict[str, float] = {}
    for own, others in _by_class(objects, training, class_of):
        mean = _mean_paint([training[name] for name in others], class_of[own[0]])
        for name in own:
            true = objects[name]()
            result[name] = _difference(dataset, name, true, _repainted(true, mean, class_of[name]))
    return {name: result[name] for name in objects}


def _by_class(
    ours: Mapping[str, object], training: Mapping[str, object], class_of: Mapping[str, str]
) -> Iterator[tuple[list[str], list[str]]]:
    """The ids of each class among ``ours``, and those of its training objects, of which there is at least one."""
    for class_name in sorted({class_of[name] for name in ours}):
        own, others = ([name for name in names if class_of[name] == class_name] for names in (ours, training))
        if not others:
            raise DibrError(f"no training object has the class {class_name!r} of {own[0]}")
        yield own, others


def _colours(dataset: PosedViews, name: str, true: PaintedMesh) -> Tensor:
    image, covered = without_light(dataset, dataset.views_of[name], true)
    return image[covered]


def _difference(dataset: PosedViews, name: str, true: PaintedMesh, other: PaintedMesh) -> float:
    """Of two paints of one mesh."""
    return float((_colours(dataset, name, true) - _colours(dataset, name, other)).abs().mean())


def _median(colours: Sequence[Tensor]) -> Tensor:
    """Per channel that of all colours [P, 3], each of the tensors weighing as much as any other: [3]."""
    weights = torch.cat([torch.full((len(seen),), 1 / len(seen), dtype=torch.float64) for seen in colours])
    values, order = torch.cat(list(colours)).sort(dim=0)
    below = weights[order].cumsum(dim=0)
    middle = (below < below[-1] / 2).sum(dim=0, keepdim=True)
    return values.gather(0, middle).squeeze(0)


def _mean_paint(objects: Sequence[Callable[[], PaintedMesh]], class_name: str) -> PaintedMesh:
    """The first of some painted meshes, in the mean of the colours of all of them."""
    first = objects[0]()
    kind = _kind(first)
    total = torch.zeros_like(_paint(first))
    for read in objects:
        total += _paint(_repainted(first, read(), class_name))
    return PaintedMesh(first.mesh, {**first.paint, kind: total / len(objects)})


def _repainted(true: PaintedMesh, other: PaintedMesh, class_name: str) -> PaintedMesh:
    """A mesh in the paint of another one of its class."""
    same_mesh = _kind(true) == _kind(other) and torch.equal(true.mesh.faces, other.mesh.faces)
    if not same_mesh or _paint(true).shape != _paint(other).shape:
        raise DibrError(f"objects of the class {class_name!r} are not variants of one mesh")
    return PaintedMesh(true.mesh, {**true.paint, _kind(true): _paint(other)})


def _kind(true: PaintedMesh) -> str:
    return "texture" if "texture" in true.paint else "vertex_colors"


def _paint(true: PaintedMesh) -> Tensor:
    return cast(Tensor, true.paint[_kind(true)])
