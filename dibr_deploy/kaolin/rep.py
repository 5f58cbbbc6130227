"""As ``kaolin.rep``: a mesh with its attributes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..errors import DibrError
from .ops.mesh import index_vertices_by_faces


@dataclasses.dataclass
class SurfaceMesh:
    """One mesh, or after :meth:`to_batched` a batch of one. Its parts may be assigned."""

    vertices: Tensor
    """[V, 3] or [1, V, 3]."""
    faces: Tensor
    """[F, 3] int64, also in a batch."""
    uvs: Tensor | None = None
    """[Vt, 2] or [1, Vt, 2], v = 0 at the bottom of the texture."""
    face_uvs_idx: Tensor | None = None
    """[F, 3] or [1, F, 3] int64."""

    @property
    def face_uvs(self) -> Tensor:
        """Texture coordinates of the faces' corners, [F, 3, 2] or [1, F, 3, 2]. Raises DibrError without uvs."""
        if self.uvs is None or self.face_uvs_idx is None:
            raise DibrError("face_uvs: the mesh has no texture coordinates")
        if self.uvs.dim() == 2:
            return self.uvs[self.face_uvs_idx]
        return index_vertices_by_faces(self.uvs, self.face_uvs_idx[0])

    def to_batched(self) -> SurfaceMesh:
        """The same mesh with a batch dimension; a mesh that has one is returned as it is."""
        if self.vertices.dim() == 3:
            return self
        uvs, index = self.uvs, self.face_uvs_idx
        return SurfaceMesh(
            self.vertices.unsqueeze(0),
            self.faces,
            None if uvs is None else uvs.unsqueeze(0),
            None if index is None else index.unsqueeze(0),
        )

    def to(self, device: torch.device | str) -> SurfaceMesh:
        """The same mesh on another device."""
        parts = (self.vertices, self.faces, self.uvs, self.face_uvs_idx)
        vertices, faces, uvs, index = (None if part is None else part.to(device) for part in parts)
        assert vertices is not None
        assert faces is not None
        return SurfaceMesh(vertices, faces, uvs, index)

    def cuda(self) -> SurfaceMesh:
        return self.to("cuda")

    def cpu(self) -> SurfaceMesh:
        return self.to("cpu")
