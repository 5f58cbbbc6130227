"""As ``kaolin.io.obj``: OBJ files with their own order of vertices and texture coordinates."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ...errors import DibrError
from ..rep import SurfaceMesh


def import_mesh(path: str | Path, with_materials: bool = False) -> SurfaceMesh:
    """Reads the vertices, triangles and texture coordinates of an OBJ file, in the file's order.

    Args:
        path: of the file.
        with_materials: taken for kaolin's sake; materials are not read, ``dibr_deploy.read_mesh`` reads textures.

    Raises:
        FileNotFoundError: no such file.
        DibrError: a line that is not OBJ, a face that is not a triangle, or an index that names nothing.
    """
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    corners: list[list[list[str]]] = []
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"mesh file {path} does not exist")
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = line.split("#")[0].split()
        try:
            if words[:1] == ["v"]:
                vertices.append([float(word) for word in words[1:4]])
            elif words[:1] == ["vt"]:
                uvs.append([float(word) for word in words[1:3]])
            elif words[:1] == ["f"]:
                corners.append([[*word.split("/"), ""][:2] for word in words[1:]])
        except ValueError as error:
            raise DibrError(f"mesh file {path}, line {number}: {error}") from error
        if words[:1] == ["f"] and len(words) != 4:
            raise DibrError(f"mesh file {path}, line {number}: faces must be triangles, but this has {len(words) - 1}")
    textured = bool(uvs) and all(uv for face in corners for _, uv in face)
    return SurfaceMesh(
        vertices=torch.tensor(vertices, dtype=torch.float32).reshape(-1, 3),
        faces=_indices(path, [[vertex for vertex, _ in face] for face in corners], len(vertices)),
        uvs=torch.tensor(uvs, dtype=torch.float32).reshape(-1, 2) if uvs and textured else None,
        face_uvs_idx=_indices(path, [[uv for _, uv in face] for face in corners], len(uvs))
        if uvs and textured
        else None,
    )


def _indices(path: Path, words: list[list[str]], count: int) -> Tensor:
    """OBJ counts from 1, and from the end where negative: [F, 3] int64."""
    try:
        given = torch.tensor([[int(word) for word in face] for face in words], dtype=torch.int64).reshape(-1, 3)
    except ValueError as error:
        raise DibrError(f"mesh file {path}: {error}") from error
    indices = torch.where(given < 0, given + count, given - 1)
    if bool(((indices < 0) | (indices >= count) | (given == 0)).any()):
        raise DibrError(f"mesh file {path} has faces of vertices or texture coordinates that are not there")
    return indices
