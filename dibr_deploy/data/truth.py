"""What a dataset's images were made of: meshes, lights and classes. For evaluation alone; training never opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from ..errors import DibrError
from ..mesh import Mesh, read_mesh, write_mesh

TRUTH_NAME = "truth.json"
_FOLDER = "truth"


Light = Annotated[list[float], Field(min_length=4, max_length=4)]
"""Ambient, then the vector towards the source, as in ``dibr_deploy.lighting``."""


class TrueObject(BaseModel):
    """One object."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    mesh: str
    """File, relative to the dataset folder, in the dataset's world space."""
    lights: Annotated[list[Light], Field(min_length=1)] | None = None
    """Of each of the object's views, in their order, or one for all of them; None where they are not known."""
    class_name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _with_one_light(cls, values: Any) -> Any:
        """Folders that were made when all views had one light have it as ``light``."""
        if isinstance(values, dict) and "light" in values:
            one = values["light"]
            return {**{name: value for name, value in values.items() if name != "light"}, "lights": one and [one]}
        return values


_OBJECTS = TypeAdapter(dict[str, TrueObject])


def write_object(folder: Path, object_id: str, mesh: Mesh, lights: Tensor, class_name: str) -> TrueObject:
    """Writes an object's mesh below ``folder`` and returns its entry for :func:`write_truth`. lights: [1 or N, 4]."""
    (folder / _FOLDER).mkdir(exist_ok=True)
    file = f"{_FOLDER}/{object_id}.glb"
    write_mesh(mesh, folder / file)
    return TrueObject(mesh=file, lights=lights.tolist(), class_name=class_name)


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


def lights_of(entry: TrueObject, views: int) -> Tensor | None:
    """[views, 4], of all of an object's views; None where they are not known.

    Raises:
        DibrError: there is more than one, but not as many as views.
    """
    if entry.lights is None:
        return None
    lights = torch.tensor(entry.lights)
    if len(lights) not in (1, views):
        raise DibrError(f"truth of {entry.mesh} has {len(lights)} lights, but its object {views} views")
    return lights.expand(views, 4)
