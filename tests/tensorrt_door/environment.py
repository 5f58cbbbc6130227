"""The virtual environment that holds the real TensorRT libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_backend.host_build import ROOT

PYTHON = ROOT / ".venv-trt" / "bin" / "python"


def python() -> Path:
    """Its interpreter; skips the test where there is none."""
    if not PYTHON.exists():
        pytest.skip("the TensorRT libraries are not installed: `make setup-trt`")
    return PYTHON
