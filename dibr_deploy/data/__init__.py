"""Datasets of posed images: reading them, rendering one from meshes, and fetching meshes. See docs/data.md.

Importing this package imports no framework; each public name loads its module on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "CubBirds": "cub",
    "PosedImages": "dataset",
    "PosedViews": "views",
    "ShapeNetRenderings": "shapenet",
    "View": "views",
    "fetch_meshes": "fetch",
    "make_dataset": "make",
    "open_dataset": "opening",
    "read_transforms": "transforms",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
