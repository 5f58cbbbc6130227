"""What a check needs and this machine does not have."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test; fail it in CI, where checks must be made and not merely possible."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
