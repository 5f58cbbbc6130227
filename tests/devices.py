"""Finds what the package makes on the CPU although its arguments lie elsewhere, on a machine without another device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FACTORIES = {
    torch.arange,
    torch.as_tensor,
    torch.empty,
    torch.eye,
    torch.full,
    torch.linspace,
    torch.ones,
    torch.rand,
    torch.randint,
    torch.randn,
    torch.tensor,
    torch.zeros,
}


class MadeElsewhere(TorchFunctionMode):
    """Within it the CPU stands for the device of the arguments.

    What the package's own code makes without saying where it shall lie is on "meta" instead, where it cannot meet them.
    Random numbers of a generator are left alone: a generator has a device.

    Args:
        but: modules that may make what others then move, such as the parts of a network.
    """

    def __init__(self, but: Sequence[str] = ()) -> None:
        super().__init__()
        self._but = tuple(f"dibr_deploy.{module}" for module in but)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if (
            func in _FACTORIES
            and kwargs.get("device") is None
            and kwargs.get("generator") is None
            and not (args and isinstance(args[0], Tensor))
            and caller.startswith("dibr_deploy.")
            and not caller.startswith(self._but)
        ):
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
