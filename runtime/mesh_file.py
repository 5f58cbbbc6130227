"""A textured mesh as a GLB file, through trimesh and without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dibr_deploy.errors import DibrError
from dibr_deploy.files import write_atomically

from .images import to_picture


def write_glb(
    path: str | Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    uvs: np.ndarray,
    uv_faces: np.ndarray,
    texture: np.ndarray,
) -> None:
    """Write one mesh with its texture; path ends in .glb, the rest is as in ``glb``."""
    write_atomically(path, glb(vertices, faces, uvs, uv_faces, texture))


def glb(vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray, uv_faces: np.ndarray, texture: np.ndarray) -> bytes:
    """One mesh with its texture, as the content of a GLB file.

    Args:
        vertices: [V, 3] float, world space.
        faces: [F, 3] integer, indices into vertices, counter-clockwise = front.
        uvs: [Vt, 2] float, v = 0 is the top row of the texture.
        uv_faces: [F, 3] integer, indices into uvs.
        texture: [3, Ht, Wt] float in 0..1.
    """
    try:
        import trimesh
    except ImportError as error:
        raise DibrError("trimesh is not installed: install it to write meshes") from error
    # A GLB vertex has one position and one uv; a vertex on a seam becomes several.
    corners = np.stack([faces.reshape(-1), uv_faces.reshape(-1)], axis=1)
    pairs, corner_of = np.unique(corners, axis=0, return_inverse=True)
    trimesh_uvs = uvs[pairs[:, 1]] * [1, -1] + [0, 1]  # v = 0 is the bottom row in trimesh
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=to_picture(texture.transpose(1, 2, 0)), metallicFactor=0.0, roughnessFactor=1.0
    )
    mesh = trimesh.Trimesh(
        vertices=vertices[pairs[:, 0]],
        faces=corner_of.reshape(faces.shape),
        visual=trimesh.visual.TextureVisuals(uv=trimesh_uvs, material=material),
        process=False,
    )
    content = mesh.export(file_type="glb")
    assert isinstance(content, bytes)
    return content
