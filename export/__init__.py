"""From torch to ONNX, and the proof that both give the same pictures. Needs torch, onnx and onnxscript."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {"to_onnx": "exporter", "verify": "verification", "Report": "verification", "Difference": "verification"}

__all__ = ["Difference", "Report", "to_onnx", "verify"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
