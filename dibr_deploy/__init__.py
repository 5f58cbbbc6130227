"""dibr_deploy: the DIB-R differentiable renderer, from training in torch to serving in ONNX Runtime.

Importing this package imports no framework; each public name below loads its module on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "DibrError": "errors",
    "Raster": "ops",
    "interpolate": "ops",
    "rasterize": "ops",
    "soft_mask": "ops",
    "texture": "ops",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dibr_deploy")
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"dibr_deploy.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'dibr_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
