"""As ``kaolin.visualize``: how a mesh changes while it is optimised. GLB files, where kaolin writes USD."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from ..errors import DibrError
from ..mesh import Mesh, write_mesh
from .io.materials import PBRMaterial


@dataclasses.dataclass
class _State:
    """What has been said of one mesh so far."""

    vertices: Tensor | None = None
    faces: Tensor | None = None
    uvs: Tensor | None = None
    face_uvs_idx: Tensor | None = None
    texture: Tensor | None = None


class Timelapse:
    """Writes meshes into a folder: ``CATEGORY/mesh_INDEX_ITERATION.glb``.

    Args:
        log_dir: the folder; it is made.
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = Path(log_dir)
        self._states: dict[tuple[str, int], _State] = {}

    def add_mesh_batch(
        self,
        iteration: int = 0,
        category: str = "",
        vertices_list: list[Tensor] | None = None,
        faces_list: list[Tensor] | None = None,
        uvs_list: list[Tensor] | None = None,
        face_uvs_idx_list: list[Tensor] | None = None,
        materials_list: list[dict[str, PBRMaterial]] | None = None,
    ) -> None:
        """Adds the state of some meshes. What is left out stays as it was, so topology need be given only once.

        Args:
            iteration: number that the files are named by.
            category: folder within log_dir.
            vertices_list, faces_list: [V, 3] and [F, 3] of each mesh.
            uvs_list, face_uvs_idx_list: [Vt, 2], v = 0 at the bottom, and [F, 3] of each mesh.
            materials_list: materials of each mesh by name; the first one's diffuse texture is written.

        Raises:
            DibrError: lists of different lengths, or none.
        """
        textures = None if materials_list is None else [_texture(materials) for materials in materials_list]
        lists = {
            "vertices": vertices_list,
            "faces": faces_list,
            "uvs": uvs_list,
            "face_uvs_idx": face_uvs_idx_list,
            "texture": textures,
        }
        given = {name: values for name, values in lists.items() if values is not None}
        lengths = {len(values) for values in given.values()}
        if len(lengths) != 1:
            raise DibrError(f"add_mesh_batch expects lists of one length, but got lengths {sorted(lengths) or 'none'}")
        folder = self.log_dir / category
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(lengths.pop()):
            state = self._states.setdefault((category, index), _State())
            for name, values in given.items():
                setattr(state, name, values[index])
            if state.vertices is not None and state.faces is not None:
                write_mesh(_mesh(state), folder / f"mesh_{index}_{iteration}.glb")


def _texture(materials: dict[str, PBRMaterial]) -> Tensor | None:
    return next(iter(materials.values())).diffuse_texture if materials else None


def _mesh(state: _State) -> Mesh:
    """The state in this package's convention, v = 0 at the top."""
    assert state.vertices is not None
    assert state.faces is not None
    uvs = (
        None if state.uvs is None else state.uvs * state.uvs.new_tensor([1.0, -1.0]) + state.uvs.new_tensor([0.0, 1.0])
    )
    return Mesh(state.vertices, state.faces, uvs, state.face_uvs_idx, state.texture)
