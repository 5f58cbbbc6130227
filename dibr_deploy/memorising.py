"""Does a generator repeat the objects that it was trained on?

Samples, training objects and new objects are rendered from one ring of cameras and compared as objects, in shape, in
colour and in both. A sample is held against training and new objects alike: bad samples are far from both, and only one
that repeats is nearer to training objects than to new ones. What a copier of the same quality would score stands beside
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .cameras import perspective
from .data.make import FIELD_OF_VIEW, camera_ring, surface_color
from .data.truth import lights_of, read_true_mesh, read_truth
from .errors import DibrError
from .generation import meshes
from .models import MeshGeneratorRenderer
from .renderer import MeshRenderer

VIEWS, SIZE = 8, 48
"""Of the ring, and of its pictures in pixels."""
CHANCE = 0.01
"""Of calling memorising what is not: of it each measure has a third."""
MEASURES = ("shape", "colour", "both")
SAMPLES = "samples"
NEW = "new objects"
COPIES = "training objects, made as bad"
_RELABELLINGS = 9999
_WAVES = 24
_STEEPNESS = 6.0
_BISECTIONS = 8
_CALIBRATED_ON = 32
_LEAST_DISTANCE = 0.005


class Solid(NamedTuple):
    """An object as it is rendered."""

    vertices: Tensor
    """[V, 3]."""
    faces: Tensor
    """[F, 3]."""
    paint: dict[str, Tensor | None]
    """What MeshRenderer needs to colour it."""
    light: Tensor | None
    """[1, 4] as in ``dibr_deploy.lighting``; None shows the surface's own colour."""


class Seen(NamedTuple):
    """N objects, each from the cameras of the ring."""

    masks: Tensor
    """[N, VIEWS, SIZE * SIZE], 1 where the object is."""
    colours: Tensor
    """[N, VIEWS, SIZE * SIZE, 3], 0 where it is not."""

    def first(self, count: int) -> Seen:
        """The first of them."""
        return Seen(*(part[:count] for part in self))


class Apart(NamedTuple):
    """Distances of N objects to M others, [N, M]."""

    shape: Tensor
    """1 - IoU of the outlines, mean over the ring."""
    colour: Tensor
    """Root mean square difference of the colours, in 0..1, where both are seen; infinite where they never are."""


class Preference(NamedTuple):
    """Whether N objects are nearer to training objects than to new ones."""

    to_training: Tensor
    """[N], distance to the nearest training object."""
    to_new: Tensor
    """[N], to the nearest new one."""
    share: float
    """Of the objects, whose nearest object of both kinds is a training object."""
    expected: float
    """The same where objects do not depend on which were trained on: the share of training objects among all."""
    chance: float
    """Of a share as high as that, had the names "training" and "new" been dealt at random."""


class Flaws(NamedTuple):
    """What objects are worsened by."""

    dents: float
    """Root mean square way of a vertex along each axis, world units, in smooth waves."""
    stain: float
    """Standard deviation of what is added to each channel of an object's colour."""


@torch.no_grad()
def solids_of(model: MeshGeneratorRenderer, codes: Tensor) -> list[Solid]:
    """What a generator makes of codes [N, latent]."""
    lights = model.network(codes).light
    return [
        Solid(mesh.vertices, mesh.faces, surface_color(mesh, ""), light.unsqueeze(0))
        for mesh, light in zip(meshes(model, codes), lights, strict=True)
    ]


def true_solids_of(data: str | Path) -> list[Solid]:
    """The objects of a dataset that was made with its truth, each in the first of its lights.

    Raises:
        DibrError: there is no truth, or a mesh is missing or damaged.
    """
    solids = []
    for name, entry in read_truth(data).items():
        mesh = read_true_mesh(data, entry)
        lights = None if entry.lights is None else lights_of(entry, len(entry.lights))
        solids.append(
            Solid(mesh.vertices, mesh.faces, surface_color(mesh, name), None if lights is None else lights[:1])
        )
    return solids


@torch.no_grad()
def seen(solids: Sequence[Solid], views: int = VIEWS, size: int = SIZE) -> Seen:
    """Renders objects from the ring."""
    cameras = perspective(FIELD_OF_VIEW) @ camera_ring(views)
    renderer = MeshRenderer(size, size)
    masks, colours = [], []
    for solid in solids:
        layers = renderer(
            solid.vertices.unsqueeze(0),
            solid.faces,
            cameras,
            light=solid.light,
            outputs=("image", "face_index"),
            **solid.paint,
        )
        covered = (layers["face_index"] >= 0).flatten(1)
        masks.append(covered.float())
        colours.append(layers["image"].flatten(1, 2) * covered.unsqueeze(2))
    return Seen(torch.stack(masks), torch.stack(colours))


def apart(found: Seen, others: Seen) -> Apart:
    """All distances between two groups of objects."""
    overlap, common, difference = torch.zeros(3, len(found.masks), len(others.masks), dtype=torch.float64)
    for mask, other, colour, wanted in zip(
        found.masks.unbind(1), others.masks.unbind(1), found.colours.unbind(1), others.colours.unbind(1), strict=True
    ):
        both = (mask @ other.mT).double()
        either = mask.sum(dim=1, keepdim=True) + other.sum(dim=1) - both
        overlap += torch.where(either > 0, both / either.clamp(min=1), 1.0)
        common += both
        cross = (colour.flatten(1) @ wanted.flatten(1).mT).double()
        squares = colour.square().sum(dim=2) @ other.mT + mask @ wanted.square().sum(dim=2).mT
        difference += squares - 2 * cross
    colour_apart = (difference.clamp(min=0) / (3 * common)).sqrt()
    return Apart(1 - overlap / found.masks.shape[1], colour_apart.where(common > 0, torch.inf))


def preference(to_training: Tensor, to_new: Tensor, *, seed: int = 0) -> Preference:
    """Whether N objects prefer training objects, from their distances [N, T] and [N, M].

    Had training not seen the training objects, which of the T + M objects are called so would be a matter of chance:
    the share is compared with those of names dealt anew. This holds however good the objects are, and where some real
    objects are the nearest of many. Equally near objects share a vote.

    Raises:
        DibrError: there is nothing to compare.
    """
    if 0 in (*to_training.shape, *to_new.shape):
        raise DibrError(f"preference: nothing to compare in {list(to_training.shape)} and {list(to_new.shape)}")
    together = torch.cat([to_training, to_new], dim=1)
    nearest = (together == together.amin(dim=1, keepdim=True)).double()
    votes = (nearest / nearest.sum(dim=1, keepdim=True)).sum(dim=0)
    count, known = together.shape[1], to_training.shape[1]
    dealt = torch.rand(_RELABELLINGS, count, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)[:, :known]
    as_high = votes[dealt].sum(dim=1) >= votes[:known].sum() - 1e-9
    return Preference(
        to_training.amin(dim=1),
        to_new.amin(dim=1),
        float(votes[:known].sum() / votes.sum()),
        known / count,
        float((as_high.sum() + 1) / (_RELABELLINGS + 1)),
    )


def worsened(solids: Sequence[Solid], flaws: Flaws, seed: int = 0) -> list[Solid]:
    """Objects as a generator might make them that is not good: with dents, and in a colour that is off."""
    random = torch.Generator().manual_seed(seed)
    return [_worsened(solid, flaws, random) for solid in solids]


def _worsened(solid: Solid, flaws: Flaws, random: torch.Generator) -> Solid:
    waves = _STEEPNESS * torch.randn(3, _WAVES, generator=random)
    phases = 2 * torch.pi * torch.rand(_WAVES, generator=random)
    ways = torch.randn(_WAVES, 3, generator=random) * (2 / _WAVES) ** 0.5
    moved = solid.vertices + flaws.dents * (solid.vertices @ waves + phases).sin() @ ways
    added = flaws.stain * torch.randn(3, generator=random)
    return solid._replace(vertices=moved, paint=_stained(solid.paint, added))


def _stained(paint: dict[str, Tensor | None], added: Tensor) -> dict[str, Tensor | None]:
    shapes = {"vertex_colors": (1, 1, 3), "texture": (1, 3, 1, 1)}
    return {
        name: (value + added.view(shapes[name])).clamp(0, 1) if name in shapes and value is not None else value
        for name, value in paint.items()
    }


def as_bad_as(distance: Sequence[float], solids: Sequence[Solid], seed: int = 0) -> Flaws:
    """Flaws that bring the median distances of objects from what they were, in shape and colour, to these.

    There is no stain where the dents alone, by their shadows, change the colours as much.
    """
    few = solids[:_CALIBRATED_ON]
    before = seen(few)

    def moved(dents: float, stain: float) -> Apart:
        after = apart(seen(worsened(few, Flaws(dents, stain), seed)), before)
        return Apart(*(part.diagonal().median() for part in after))

    dents = _solved(lambda amount: float(moved(amount, 0.0).shape), distance[0])
    return Flaws(dents, _solved(lambda amount: float(moved(dents, amount).colour), distance[1]))


def _solved(function: Callable[[float], float], wanted: float) -> float:
    """Where a rising function has this value, in 0..0.5."""
    low, high = 0.0, 0.5
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return (low + high) / 2


class Report(NamedTuple):
    """What :func:`compare` finds."""

    groups: dict[str, dict[str, Preference]]
    """Measure -> whose objects -> what they prefer; the generator's come first, copies of training objects last."""
    coverage: dict[str, tuple[Tensor, ...]]
    """Measure -> distances [M] of new objects to the nearest training object and to the nearest of as many samples."""
    flaws: Flaws
    """Of the worsened groups."""
    nearest: tuple[Tensor, ...]
    """Which training object [N] and which new one [N] is nearest to each sample in both measures."""
    covering: int
    """How many training objects, and how many samples, new objects are held against in ``coverage``."""

    def memorises(self) -> bool | None:
        """None where not even copies would be found out: the samples are too bad, or the objects too few."""
        made, copied = (self._found_out(name) for name in (SAMPLES, COPIES))
        return True if made else (False if copied else None)

    def verdict(self) -> str:
        """:meth:`memorises` as a sentence."""
        return {
            True: "It repeats training objects: its samples prefer them to new objects more than chance allows.",
            False: "No repeating was found, but copies as bad as its samples would be.",
            None: "This check cannot tell: copies as bad as its samples would not be found out either.",
        }[self.memorises()]

    def table(self) -> list[tuple[str, ...]]:
        """Head and a row per measure and group."""
        near = "nearest training object"
        head = ("", f"{near}, 5 %", "50 %", "95 %", "nearest new object, 50 %", "prefer training", "by chance", "p")
        return [head, *(_row(measure, *group) for measure, one in self.groups.items() for group in one.items())]

    def coverage_table(self) -> list[tuple[str, ...]]:
        """Head and two rows per measure."""
        names = f"{self.covering} training objects", f"{self.covering} samples"
        rows = [
            (f"{measure}: to the nearest of {name}", *_quantiles(distance))
            for measure, pair in self.coverage.items()
            for name, distance in zip(names, pair, strict=True)
        ]
        return [("new objects", "5 %", "50 %", "95 %"), *rows]

    def _found_out(self, name: str) -> bool:
        return any(one[name].chance < CHANCE / len(MEASURES) for one in self.groups.values())


def _row(measure: str, name: str, found: Preference) -> tuple[str, ...]:
    shares = f"{100 * found.share:.0f} %", f"{100 * found.expected:.0f} %"
    return (
        f"{measure}: {name}",
        *_quantiles(found.to_training),
        *_quantiles(found.to_new, 0.5),
        *shares,
        f"{found.chance:.4f}",
    )


def _quantiles(distance: Tensor, *parts: float) -> list[str]:
    wanted = torch.tensor(parts or (0.05, 0.5, 0.95), dtype=distance.dtype)
    return [f"{value:.3f}" for value in distance.quantile(wanted, interpolation="nearest").tolist()]


def compare(made: Sequence[Solid], training: Sequence[Solid], new: Sequence[Solid], *, seed: int = 0) -> Report:
    """Whether objects repeat those that their maker was trained on.

    Half of the new objects are what samples may prefer to the training objects. The other half stands for a maker that
    does not repeat: as they are, and made as bad as the samples. Training objects made as bad stand for one that does,
    and a mixture of both for one that repeats in a quarter of what it makes.

    Args:
        made: samples. training: what the maker was trained on. new: drawn as those were, but never trained on; best
            twice as many.
        seed: of the worsening and of the names dealt anew.

    Raises:
        DibrError: there are no samples or training objects, or less than two new objects.
    """
    if not made or not training or len(new) < 2:
        raise DibrError(
            f"compare: needs samples, training objects and 2 new ones, got {len(made)}, {len(training)} and {len(new)}"
        )
    samples, known, reference = (seen(solids) for solids in (made, training, _reference(new)))
    scale = [_to_nearest(*pair) for pair in zip(apart(samples, known), apart(samples, reference), strict=True)]
    flaws = as_bad_as(scale, training, seed)
    groups = {SAMPLES: samples, **_stand_ins(training, new[1::2], flaws, seed)}
    to_training, to_new = (
        {name: _distances(group, real, scale) for name, group in groups.items()} for real in (known, reference)
    )
    preferences = {
        measure: {name: preference(to_training[name][place], to_new[name][place], seed=seed) for name in groups}
        for place, measure in enumerate(MEASURES)
    }
    count = min(len(made), len(training))
    to_some = (_distances(groups[NEW], some.first(count), scale) for some in (known, samples))
    coverage = {measure: _nearest(*pair) for measure, *pair in zip(MEASURES, *to_some, strict=True)}
    nearest = tuple(distance[SAMPLES][-1].argmin(dim=1) for distance in (to_training, to_new))
    return Report(preferences, coverage, flaws, nearest, count)


def _nearest(*distances: Tensor) -> tuple[Tensor, ...]:
    return tuple(distance.amin(dim=1) for distance in distances)


def _reference(new: Sequence[Solid]) -> Sequence[Solid]:
    """What samples may prefer to training objects."""
    return new[::2]


def _to_nearest(to_training: Tensor, to_new: Tensor) -> float:
    """Median distance of samples to the nearest real object; that of exact copies is not divided by."""
    return max(float(torch.cat([to_training, to_new], dim=1).amin(dim=1).median()), _LEAST_DISTANCE)


def _stand_ins(training: Sequence[Solid], control: Sequence[Solid], flaws: Flaws, seed: int) -> dict[str, Seen]:
    """Makers of which is known whether they repeat; none draws the same flaws as another."""
    honest, copies = seen(worsened(control, flaws, seed)), seen(worsened(training, flaws, seed + 1))
    some = min(len(honest.masks) // 3, len(copies.masks))
    mixed = Seen(*(torch.cat([part, copied[:some]]) for part, copied in zip(honest, copies, strict=True)))
    quarter = f"the same, {some} of {len(mixed.masks)} copies"
    return {NEW: seen(control), "new objects, made as bad": honest, quarter: mixed, COPIES: copies}


def _distances(found: Seen, others: Seen, scale: Sequence[float]) -> list[Tensor]:
    """[N, M] for each of MEASURES; what is ``scale`` in shape and in colour is 2 in both."""
    shape, colour = apart(found, others)
    return [shape, colour, shape / scale[0] + colour / scale[1]]


def beside(made: Sequence[Solid], training: Sequence[Solid], new: Sequence[Solid], report: Report, size: int) -> Tensor:
    """Samples, and below each the training object and the new one that are nearest in shape and colour together.

    Args:
        made: the first of those that the report is of. training, new: as they were given to :func:`compare`.
        size: of the pictures, pixels.

    Returns:
        [3 * N, 3, size, size], all from the first camera of the ring.
    """
    rows = [list(made)]
    for solids, places in zip((training, _reference(new)), report.nearest, strict=True):
        rows.append([solids[place] for place in places[: len(made)].tolist()])
    shown = seen([solid for row in rows for solid in row], views=1, size=size)
    pictures = shown.colours[:, 0] + (1 - shown.masks[:, 0]).unsqueeze(2)
    return pictures.mT.unflatten(2, (size, size))
