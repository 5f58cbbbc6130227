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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a CUDA device is reported as skipped, by name, where there is none."""
    of_a_device = [item for item in items if item.get_closest_marker("gpu")]
    if not of_a_device:
        return
    from gpu.driver import has_device

    if not has_device():
        for item in of_a_device:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
