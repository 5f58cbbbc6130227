"""Training ImageToMeshRenderer from posed images and masks, and loading what training wrote.

Importing this package imports no framework; each public name loads its module on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"Trainer": "trainer", "TrainingConfig": "config", "load_checkpoint": "checkpoint"}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
