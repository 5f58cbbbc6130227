"""Meshes of different topologies in one batch: their faces in one list, their vertices padded to one length.

``MeshRenderer``, ``ops.rasterize`` and ``ops.soft_mask`` take ``face_ranges`` beside such a list: image b shows the
``face_ranges[b, 1]`` faces from ``face_ranges[b, 0]`` on, and their vertex indices address ``vertices[b]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DibrError
from .mesh import Mesh


class PackedMeshes(NamedTuple):
    """B meshes. Optional parts are None; padding is 0 and belongs to no face."""

    vertices: Tensor
    """[B, V, 3], V the largest number of vertices."""
    faces: Tensor
    """[F, 3] int64, the meshes' faces one after another; indices into the mesh's own vertices."""
    face_ranges: Tensor
    """[B, 2] int64, (start, count) of each mesh's faces."""
    vertex_counts: Tensor
    """[B] int64."""
    uvs: Tensor | None = None
    """[B, Vt, 2]."""
    uv_faces: Tensor | None = None
    """[F, 3] int64."""
    vertex_colors: Tensor | None = None
    """[B, V, 3]."""
    texture: Tensor | None = None
    """[B, 3, Ht, Wt]."""


def pack(meshes: Sequence[Mesh]) -> PackedMeshes:
    """Puts meshes into one batch, in order.

    Uvs, colours and textures come along where every mesh has them; textures must be of one size.

    Raises:
        DibrError: no mesh, some meshes have a part that others lack, or textures of different sizes.
    """
    if not meshes:
        raise DibrError("pack: meshes must hold at least one mesh, but is empty")
    counts = torch.tensor([len(mesh.faces) for mesh in meshes], device=meshes[0].faces.device)
    uvs, uv_faces, colors, textures = (
        _of_all(meshes, name) for name in ("uvs", "uv_faces", "vertex_colors", "texture")
    )
    if textures is not None and len({texture.shape for texture in textures}) > 1:
        sizes = ", ".join(str(list(texture.shape)) for texture in textures)
        raise DibrError(f"pack: textures must be of one size, but are {sizes}")
    return PackedMeshes(
        vertices=_padded([mesh.vertices for mesh in meshes]),
        faces=torch.cat([mesh.faces for mesh in meshes]),
        face_ranges=torch.stack([counts.cumsum(0) - counts, counts], dim=1),
        vertex_counts=torch.tensor([len(mesh.vertices) for mesh in meshes], device=counts.device),
        uvs=None if uvs is None else _padded(uvs),
        uv_faces=None if uv_faces is None else torch.cat(uv_faces),
        vertex_colors=None if colors is None else _padded(colors),
        texture=None if textures is None else torch.stack(textures),
    )


def faces_of_images(face_ranges: Tensor, face_count: int) -> Tensor:
    """Which faces each image has, [B, F] bool: the ``face_valid`` that says the same as ``face_ranges`` [B, 2]."""
    index = torch.arange(face_count, device=face_ranges.device)
    start, count = face_ranges[:, :1], face_ranges[:, 1:]
    return (index >= start) & (index < start + count)


def _of_all(meshes: Sequence[Mesh], name: str) -> list[Tensor] | None:
    parts = [getattr(mesh, name) for mesh in meshes]
    given = [part for part in parts if part is not None]
    if given and len(given) != len(parts):
        raise DibrError(f"pack: all meshes or none must have {name}, but {len(given)} of {len(parts)} have")
    return given or None


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """[N_b, D] each to [B, max N_b, D]."""
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
