"""Variants of given meshes, stretched, tilted and tinted at random: many objects of a class from one real mesh."""

from __future__ import annotations

import dataclasses
import math
import zlib
from pathlib import Path

import numpy as np
import torch

from ..errors import DibrError
from ..mesh import Mesh, read_mesh, write_mesh
from .make import mesh_paths

STRETCH = (0.75, 1.3)
"""Factors along each axis."""
TILT = 15.0
"""Largest turn about each axis, after stretching, degrees."""
TINT = (0.55, 1.0)
"""Factors on red, green and blue."""


def write_variants(
    meshes: str | Path, output: str | Path, *, count: int = 30, first: int = 0, seed: int = 0, tilt: float = TILT
) -> Path:
    """Writes ``output/NAME/NAME_NNN.glb`` for every mesh and number.

    Args:
        meshes: as ``make_dataset`` takes them; NAME is the path below it without its suffix.
        output: folder for the files, made where it is missing.
        count: variants of each mesh, >= 1.
        first: their first number, >= 0: numbers that training did not have are held-out objects.
        seed: another one draws other variants.
        tilt: largest turn about each axis, degrees, in 0..180. With 0 all variants of a mesh stand as it does, as a
            network wants it that is to tell a shape from one image: a turned object looks like a turned camera.

    Returns:
        ``output`` as a Path.

    Raises:
        DibrError: a count below 1, a first number below 0, a tilt out of range, no meshes, or one that cannot be read.
    """
    if not 0 <= tilt <= 180:
        raise DibrError(f"tilt must lie between 0 and 180 degrees, got {tilt}")
    if count < 1 or first < 0:
        raise DibrError(f"count must be at least 1 and first at least 0, got {count} and {first}")
    for name, path in mesh_paths(Path(meshes)).items():
        mesh = read_mesh(path)
        folder = Path(output) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            write_mesh(make_variant(mesh, name, number, seed, tilt), folder / f"{name}_{number:03d}.glb")
    return Path(output)


def make_variant(mesh: Mesh, name: str, number: int, seed: int = 0, tilt: float = TILT) -> Mesh:
    """Variant ``number`` of a mesh, turned by at most ``tilt`` degrees about each axis.

    The same arguments give the same one, and another tilt changes its turns alone. A closed mesh stays closed.
    """
    random = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    stretch = torch.from_numpy(np.exp(random.uniform(math.log(STRETCH[0]), math.log(STRETCH[1]), 3))).float()
    turn = _rotation(math.radians(tilt) * random.uniform(-1, 1, 3))
    tint = torch.from_numpy(random.uniform(*TINT, 3)).float()
    return dataclasses.replace(
        mesh,
        vertices=(mesh.vertices * stretch) @ turn.mT,
        texture=None if mesh.texture is None else mesh.texture * tint.view(3, 1, 1),
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors * tint,
    )


def _rotation(angles: np.ndarray) -> torch.Tensor:
    """[3, 3]: about x, then y, then z."""
    result = torch.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[second, first], turn[first, second] = math.sin(angle), -math.sin(angle)
        result = turn @ result
    return result
