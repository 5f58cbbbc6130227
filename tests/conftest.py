"""What all tests share: the path that test helpers are imported from, and a fixed seed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# Appended, so that no folder of tests can hide an installed package.
TESTS = str(Path(__file__).parent)
if TESTS not in sys.path:
    sys.path.append(TESTS)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
