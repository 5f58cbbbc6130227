"""A small network that comes with the package, so that there is something to see right after installing it.

It turns a picture of an airplane, bottle, chair or table into a textured mesh, with ONNX Runtime and without torch.
docs/single_image.md is about networks of its kind; ``scores.json`` says how this one was trained and how good it is. It
is that of commit e18401e: of 4,000 steps, on data with one light for all views of an object, as the page then had it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DibrError

_FOLDER = Path(__file__).parent
MODEL = _FOLDER / "model.zip"
"""The network and the renderer behind it, a bundle with float16 weights."""


def samples() -> dict[str, Path]:
    """Pictures of objects that training never saw, by the name of their class."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.png"))}


def sample(name: str) -> Path:
    """One of ``samples``. Raises DibrError where there is none of this name."""
    found = samples()
    if name not in found:
        raise DibrError(f"sample must be one of {', '.join(found)}, got {name}")
    return found[name]


def scores() -> dict[str, Any]:
    """How the model was trained, and what ``dibr evaluate --model`` gave for it: means per class, and every object."""
    return json.loads((_FOLDER / "scores.json").read_text(encoding="utf-8"))
