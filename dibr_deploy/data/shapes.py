"""Four classes of objects, each drawn from a few random numbers: a training set with held-out objects in a second.

Every part is closed, so that the solids can be voxelised; parts may overlap. Objects stand upright on the xz plane, y
upwards, their front towards +z.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh

from ..errors import DibrError
from ..mesh import Mesh, write_mesh

_SEGMENTS = 24
_BOTTLE_RINGS = 24


def write_shapes(
    output: str | Path, *, classes: Sequence[str] | None = None, count: int = 30, first: int = 0, seed: int = 0
) -> Path:
    """Writes ``output/CLASS/CLASS_NNN.ply`` for every class and number.

    Args:
        output: folder for the files, made where it is missing.
        classes: names out of ``CLASSES``; None takes all.
        count: objects per class, >= 1.
        first: their first number, >= 0: numbers that training did not have are held-out objects.
        seed: another one draws other objects.

    Returns:
        ``output`` as a Path.

    Raises:
        DibrError: an unknown class, a count below 1 or a first number below 0.
    """
    names = sorted(CLASSES) if classes is None else list(classes)
    unknown = sorted(set(names) - set(CLASSES))
    if unknown:
        raise DibrError(f"classes must be among {', '.join(sorted(CLASSES))}, got {unknown[0]}")
    if count < 1 or first < 0:
        raise DibrError(f"count must be at least 1 and first at least 0, got {count} and {first}")
    for name in names:
        folder = Path(output) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            write_mesh(make_shape(name, number, seed), folder / f"{name}_{number:03d}.ply")
    return Path(output)


def make_shape(name: str, number: int, seed: int = 0) -> Mesh:
    """Object ``number`` of a class out of ``CLASSES``, with vertex colours; the same arguments give the same object."""
    random = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    parts = CLASSES[name](random)
    vertices, faces, colors, start = [], [], [], 0
    for solid, color in parts:
        vertices.append(np.asarray(solid.vertices))
        faces.append(np.asarray(solid.faces) + start)
        colors.append(np.broadcast_to(color, solid.vertices.shape))
        start += len(solid.vertices)
    return Mesh(
        torch.from_numpy(np.concatenate(vertices)).float(),
        torch.from_numpy(np.concatenate(faces)).long(),
        vertex_colors=torch.from_numpy(np.concatenate(colors)).float(),
    )


Part = tuple[trimesh.Trimesh, np.ndarray]


def _airplane(random: np.random.Generator) -> list[Part]:
    length, radius = random.uniform(1.6, 2.2), random.uniform(0.12, 0.22)
    span, chord = random.uniform(1.4, 2.4), random.uniform(0.3, 0.55)
    sweep = random.uniform(0.0, 0.5)
    body, wing = _color(random), _color(random)
    hull = trimesh.creation.icosphere(subdivisions=2)
    hull.apply_scale([radius, radius, length / 2])
    parts = [(hull, body)]
    for side in (-1, 1):
        parts.append((_slab([0, 0, 0.1], [side * span / 2, 0, -sweep], chord, 0.6 * chord, 0.08), wing))
        tail = [side * 0.2 * span, 0, -0.45 * length - 0.3 * sweep]
        parts.append((_slab([0, 0, -0.42 * length], tail, 0.5 * chord, 0.3 * chord, 0.05), wing))
    fin = _slab([0, 0, -0.4 * length], [0, random.uniform(0.3, 0.5), -0.5 * length], 0.5 * chord, 0.3 * chord, 0.05)
    return [*parts, (fin, wing)]


def _bottle(random: np.random.Generator) -> list[Part]:
    height, belly = random.uniform(1.2, 2.2), random.uniform(0.25, 0.6)
    neck, shoulder = belly * random.uniform(0.25, 0.6), random.uniform(0.45, 0.75)
    at = np.linspace(0, 1, _BOTTLE_RINGS)
    blend = 1 / (1 + np.exp(-(at - shoulder) / random.uniform(0.03, 0.08)))
    profile = np.c_[belly + (neck - belly) * blend, height * at]
    profile = np.concatenate([[[0, 0]], profile, [[0, height]]])
    solid = trimesh.creation.revolve(profile, sections=_SEGMENTS)
    solid.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    return [(solid, _color(random))]


def _chair(random: np.random.Generator) -> list[Part]:
    width, depth = random.uniform(0.8, 1.1), random.uniform(0.8, 1.1)
    seat, back = random.uniform(0.5, 0.9), random.uniform(0.6, 1.2)
    thick, leg = random.uniform(0.1, 0.2), random.uniform(0.1, 0.18)
    frame, cushion = _color(random), _color(random)
    parts = [(_box([width, thick, depth], [0, seat, 0]), cushion)]
    parts.append((_box([width, back, thick], [0, seat + back / 2, -(depth - thick) / 2]), frame))
    return [*parts, *_legs(width, depth, seat, leg, frame)]


def _table(random: np.random.Generator) -> list[Part]:
    width, depth = random.uniform(1.2, 2.2), random.uniform(0.8, 1.4)
    height, thick = random.uniform(0.6, 1.2), random.uniform(0.1, 0.22)
    top, frame = _color(random), _color(random)
    plate = [(_box([width, thick, depth], [0, height, 0]), top)]
    if random.random() < 0.3:
        foot = trimesh.creation.cylinder(radius=random.uniform(0.12, 0.25), height=height, sections=_SEGMENTS)
        foot.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
        foot.apply_translation([0, height / 2, 0])
        return [*plate, (foot, frame), (_box([0.5 * width, 0.1, 0.5 * depth], [0, 0.05, 0]), frame)]
    return [*plate, *_legs(width, depth, height, random.uniform(0.1, 0.2), frame)]


CLASSES: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "airplane": _airplane,
    "bottle": _bottle,
    "chair": _chair,
    "table": _table,
}


def _color(random: np.random.Generator) -> np.ndarray:
    return random.uniform(0.15, 0.95, 3)


def _box(size: Sequence[float], center: Sequence[float]) -> trimesh.Trimesh:
    solid = trimesh.creation.box(size)
    solid.apply_translation(center)
    return solid


def _legs(width: float, depth: float, height: float, thickness: float, color: np.ndarray) -> list[Part]:
    x, z = (width - thickness) / 2, (depth - thickness) / 2
    size = [thickness, height, thickness]
    return [(_box(size, [i * x, height / 2, j * z]), color) for i in (-1, 1) for j in (-1, 1)]


def _slab(
    root: Sequence[float], tip: Sequence[float], root_chord: float, tip_chord: float, thick: float
) -> trimesh.Trimesh:
    """A tapered plate from root to tip whose chord lies along z."""
    along = np.subtract(tip, root)
    across = np.cross(along, [0, 0, 1.0])
    across *= thick / 2 / np.linalg.norm(across)
    corners = []
    for end, chord in ((np.asarray(root), root_chord), (np.asarray(tip), tip_chord)):
        corners += [end + i * across + [0, 0, j * chord / 2] for i in (-1, 1) for j in (-1, 1)]
    return trimesh.Trimesh(corners).convex_hull
