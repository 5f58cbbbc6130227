"""A small network that comes with the package, so that there is something to see right after installing it.

It turns a picture of a bunny, traffic cone, rubber duck, soccer ball, teddy or wheel into a textured mesh, with ONNX
Runtime and without torch. docs/real_meshes.md shows what it makes of its samples; ``scores.json`` says how it was
trained and how good it is. The six meshes that it was trained on are those of ``dibr data fetch``: the data of pybullet
3.2.7 by Erwin Coumans, Yunfei Bai and contributors, under the zlib licence.
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
