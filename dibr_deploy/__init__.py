"""dibr_deploy: the DIB-R differentiable renderer, from training in torch to serving in ONNX Runtime.

Importing this package imports no framework: each name below loads its module on first use, and a service that only
runs exported models (``dibr_deploy.runtime``) never loads torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = (
    "cameras",
    "data",
    "errors",
    "export",
    "kaolin",
    "lighting",
    "losses",
    "mesh",
    "metrics",
    "models",
    "ops",
    "packing",
    "points",
    "renderer",
    "runtime",
    "shading",
    "training",
    "voxels",
)
_MODULE_OF = {
    "DibrError": "errors",
    "DirectionalLight": "lighting",
    "Mesh": "mesh",
    "MeshRenderer": "renderer",
    "Phong": "lighting",
    "Raster": "ops",
    "antialias": "ops",
    "icosphere": "mesh",
    "interpolate": "ops",
    "pack": "packing",
    "rasterize": "ops",
    "read_mesh": "mesh",
    "soft_mask": "ops",
    "texture": "ops",
    "uv_sphere": "mesh",
    "voxelize": "voxels",
    "write_mesh": "mesh",
}

__all__ = ["__version__", *_MODULES, *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dibr_deploy")
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
