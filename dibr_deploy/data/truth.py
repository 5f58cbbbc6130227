"""What a dataset's images were made of: meshes, lights and classes. For evaluation alone; training never opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from ..errors import DibrError
from ..mesh import Mesh, read_mesh, write_mesh

TRUTH_NAME = "truth.json"
_FOLDER = "truth"


class TrueObject(BaseModel):
    """One object."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    mesh: str
    """File, relative to the dataset folder, in the dataset's world space."""
    light: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    """Ambient, then the vector towards the source, as in ``dibr_deploy.lighting``; None where it is not known."""
    class_name: str = ""


_OBJECTS = TypeAdapter(dict[str, TrueObject])


def write_object(folder: Path, object_id: str, mesh: Mesh, light: Tensor, class_name: str) -> TrueObject:
    """Writes an object's mesh below ``folder`` and returns its entry for :func:`write_truth`. light: [1, 4]."""
    (folder / _FOLDER).mkdir(exist_ok=True)
    file = f"{_FOLDER}/{object_id}.glb"
    write_mesh(mesh, folder / file)
    return TrueObject(mesh=file, light=light[0].tolist(), class_name=class_name)


def write_truth(folder: Path, objects: dict[str, TrueObject]) -> None:
    """Writes ``truth.json``."""
    (folder / TRUTH_NAME).write_bytes(_OBJECTS.dump_json(objects, indent=1))


def read_truth(folder: str | Path) -> dict[str, TrueObject]:
    """The objects of ``folder/truth.json`` by id. Raises DibrError where it is missing or not of this form."""
    path = Path(folder) / TRUTH_NAME
    if not path.is_file():
        raise DibrError(f"{path} is missing: `dibr data make --truth` writes it")
    try:
        return _OBJECTS.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DibrError(f"{path}: {name}: {first['msg']}") from error


def read_true_mesh(folder: str | Path, entry: TrueObject) -> Mesh:
    """The mesh of an object. Raises DibrError where its file is missing or damaged."""
    return read_mesh(Path(folder) / entry.mesh)


def light_of(entry: TrueObject) -> Tensor | None:
    """[4], or None."""
    return None if entry.light is None else torch.tensor(entry.light)
