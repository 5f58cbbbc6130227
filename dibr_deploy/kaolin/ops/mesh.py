"""As ``kaolin.ops.mesh``: what DIB-R's tutorial needs of it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import DibrError
from ...mesh import unique_edges


def index_vertices_by_faces(vertices_features: Tensor, faces: Tensor) -> Tensor:
    """Features of vertices [B, V, D] by the corners of faces [F, 3]: [B, F, 3, D]."""
    if vertices_features.dim() != 3 or faces.dim() != 2:
        raise DibrError(
            f"index_vertices_by_faces expects vertices_features [B, V, D] and faces [F, 3], "
            f"but got {list(vertices_features.shape)} and {list(faces.shape)}"
        )
    return vertices_features.index_select(1, faces.reshape(-1)).unflatten(1, tuple(faces.shape))


def face_normals(face_vertices: Tensor, unit: bool = False) -> Tensor:
    """Cross products of the edges of faces [B, F, 3, 3], counter-clockwise towards the viewer: [B, F, 3]."""
    a, b, c = face_vertices.unbind(dim=2)
    normals = torch.linalg.cross(b - a, c - a)
    if not unit:
        return normals
    return normals / (torch.linalg.vector_norm(normals, dim=-1, keepdim=True) + 1e-10)


def uniform_laplacian(num_vertices: int, faces: Tensor) -> Tensor:
    """The dense matrix [V, V] that takes each vertex to the mean of its neighbours minus itself."""
    start, end = unique_edges(faces).to(faces.device).unbind(dim=1)
    matrix = torch.zeros(num_vertices, num_vertices, device=faces.device)
    matrix[start, end] = 1
    matrix[end, start] = 1
    matrix = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    return matrix - torch.eye(num_vertices, device=faces.device)
