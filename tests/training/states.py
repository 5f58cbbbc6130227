"""What the tests of training compare runs by."""

from __future__ import annotations

from typing import Any

import torch


def assert_same(first: Any, second: Any) -> None:
    """Two nested states with equal values, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second
