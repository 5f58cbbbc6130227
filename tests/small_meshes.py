"""Two small coloured meshes, for tests that need a dataset but no particular object."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from dibr_deploy.mesh import Mesh, icosphere, write_mesh


def write_small_meshes(folder: Path) -> Path:
    """A red egg and a blue box in ``folder``, which is made."""
    folder.mkdir(parents=True)
    write_mesh(egg(), folder / "egg.ply")
    write_mesh(box(), folder / "box.glb")
    return folder


def egg() -> Mesh:
    sphere = icosphere(2)
    stretched = sphere.vertices * torch.tensor([0.6, 1.0, 0.6])
    return Mesh(stretched, sphere.faces, vertex_colors=torch.tensor([0.9, 0.2, 0.1]).expand(len(stretched), 3))


def box() -> Mesh:
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-0.5, 0.5) for z in (-0.7, 0.7)])
    return dataclasses.replace(cube(), vertices=corners, vertex_colors=torch.tensor([0.1, 0.2, 0.9]).expand(8, 3))


def cube() -> Mesh:
    """The cube of side 2; vertex 4 x + 2 y + z, two triangles a side, seen counter-clockwise from outside."""
    corners = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    sides = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = [[side[0], side[i], side[i + 1]] for side in sides for i in (1, 2)]
    return Mesh(corners, torch.tensor(faces))
