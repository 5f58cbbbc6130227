"""The native libraries that a model needs, and whether they know its ops."""

from __future__ import annotations

import ctypes
from pathlib import Path

from dibr_deploy import _native
from dibr_deploy.errors import DibrError

from . import schema


def library_for(path: Path, name: str) -> Path:
    """A library of this installation; FileNotFoundError says that the model at ``path`` needs it."""
    try:
        return _native.library_path(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"model {path} needs the {schema.OP_DOMAIN} custom ops, but {error}") from None


def check_schema_version(path: Path, wanted: int) -> None:
    """Refuse a model whose ops may mean something else than this library's."""
    known = ctypes.CDLL(str(library_for(path, "libdibr.so"))).dibr_schema_version()
    if wanted > known:
        raise DibrError(
            f"model {path} uses version {wanted} of the {schema.OP_DOMAIN} ops, but this dibr_deploy knows versions "
            f"up to {known}: update dibr_deploy, or export the model again with this one"
        )
