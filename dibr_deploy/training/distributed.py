"""Several processes that train one model, as `torchrun` starts them; alone, everything here is the identity."""

from __future__ import annotations

import dataclasses
import importlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import _native
from ..errors import DibrError

Batch = TypeVar("Batch", list[int], Tensor)


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among those of a run."""

    rank: int = 0
    count: int = 1
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def check_share(self, name: str, count: int) -> None:
        """Raises DibrError where so many cannot be shared evenly; ``name`` is that of the setting."""
        if count % self.count:
            raise DibrError(f"{name} must be a multiple of the {self.count} processes, got {count}")

    def share(self, batch: Batch) -> Batch:
        """This process's part of a step's views or draws; all parts have the same length."""
        part = len(batch) // self.count
        return batch[self.rank * part : (self.rank + 1) * part]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes, without gradient."""
        value = value.detach().clone()
        if self.count > 1:
            dist.all_reduce(value)
            value /= self.count
        return value

    def any(self, condition: bool) -> bool:
        """Whether it holds in one of the processes; all get the same answer."""
        return bool(self.mean(torch.tensor(float(condition), device=self.device)) > 0)

    def together(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients from now on are means over the processes."""
        return module if self.count == 1 else DistributedDataParallel(module)

    def check_precision(self, precision: str) -> None:
        """Raises DibrError where this process's device has no arithmetic of the precision."""
        if precision == "bfloat16" and self.device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
            name = torch.cuda.get_device_name(self.device)
            raise DibrError(f"precision bfloat16 needs a GPU of compute capability 8.0 or newer, got {name}")

    def layers_at(self, precision: str) -> torch.autocast:
        """The context in which layers run at a precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Joins the processes that `torchrun` started; a process that was started alone stays alone.

    They talk through NCCL where they train on GPUs, each on its own, and through gloo on the CPU. What was made in the
    context and holds on to their group, as :meth:`Processes.together` does, must be gone when the context ends: else
    gloo's threads outlive it, and can abort or hang the process when Python ends. What only the frames of an error hold
    is let go.

    Args:
        device: "cpu", "cuda", or "auto": a GPU where torch sees one and this package was built with CUDA kernels.

    Raises:
        DibrError: "cuda" without CUDA kernels, or where torch sees no GPU, or fewer than this machine's processes.
    """
    count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local)
    if count == 1:
        yield Processes(device=place)
        return
    # Its functions' default group is the one that there is when it is imported, kept until Python ends: none, if it is
    # imported now, and the one made here if DistributedDataParallel imports it.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, place)
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        dist.destroy_process_group()


def _let_go(error: BaseException) -> None:
    """Empties the frames that have ended, a run among them, of an error and of those that it came from."""
    errors = [error]
    for one in errors:
        traceback.clear_frames(one.__traceback__)
        errors += [other for other in (one.__cause__, one.__context__) if other is not None and other not in errors]


def _device(name: str, local_rank: int) -> torch.device:
    if name == "cpu" or (name == "auto" and not (torch.cuda.is_available() and _native.has_cuda_kernels())):
        return torch.device("cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local_rank >= gpus:
        raise DibrError(f"device is cuda, but process {local_rank} of this machine has no GPU: torch sees {gpus}")
    if not _native.has_cuda_kernels():
        raise DibrError("device is cuda, but this dibr_deploy was built without CUDA kernels; build with DIBR_CUDA=ON")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
