"""From torch to ONNX, bundles and TensorRT engines, and the proof that all give the same pictures.

Each name loads its module on first use: engines are built without torch and onnx.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Difference": "verification",
    "Report": "verification",
    "add_engine": "bundles",
    "build_engine": "tensorrt",
    "bundle_model": "bundles",
    "to_bundle": "bundles",
    "to_half": "half",
    "to_onnx": "exporter",
    "verify": "verification",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
