"""The virtual environment that holds the real TensorRT libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cuda_backend.host_build import ROOT

PYTHON = ROOT / ".venv-trt" / "bin" / "python"
VERSIONS = ROOT / ".venv-trt" / "TENSORRT"
"""What scripts/setup_tensorrt.py has installed there."""
_MISSING = "the TensorRT libraries are not installed: `make setup-trt`"


def is_there() -> bool:
    """Fails the test in CI, where checks must be made and not merely possible."""
    if not PYTHON.exists() and os.environ.get("CI"):
        pytest.fail(_MISSING)
    return PYTHON.exists()


def python() -> Path:
    """Its interpreter; skips the test where there is none."""
    if not is_there():
        pytest.skip(_MISSING)
    return PYTHON
