"""What every trainer does: a run in a folder, how it is taken up again, and where its rows and pictures go."""

from __future__ import annotations

import abc
import contextlib
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from ..errors import DibrError
from ..files import write_atomically
from ..interrupts import collected_interrupts
from ..models import ImageToMeshRenderer, MeshGeneratorRenderer
from .checkpoint import FILE_NAME, read_checkpoint, save_checkpoint
from .config import RunConfig
from .distributed import Processes
from .logs import TensorBoardLog

LOG_NAME = "losses.csv"

Config = TypeVar("Config", bound=RunConfig)

_LAST_LEARNING_RATE = 0.05
_MAY_CHANGE = ("steps", "device", "tensorboard")
"""Settings that a resumed run may have otherwise than before."""
_BEFORE = {"precision": "float32", "colour_features": 0, "shading_weight": 0.0}
"""What runs did before they had these settings."""


class TrainingRun(abc.ABC, Generic[Config]):
    """One run in one folder: ``checkpoint.pt``, ``losses.csv`` and ``samples/step_NNNNNN.png``.

    A run that was stopped and resumed ends with the same weights, bit for bit, as one that was not, on the same machine
    with the same number of threads and processes. Several processes share each step's batch and average their
    gradients, so that the losses are those of one process with the whole batch but for rounding. The first one writes
    the files.

    Attributes:
        model: what is being trained.
        step: how many steps are done.
    """

    log_columns: Sequence[str]
    model: ImageToMeshRenderer | MeshGeneratorRenderer

    def __init__(self, output: str | Path, config: Config, resume: bool, processes: Processes | None) -> None:
        """Raises DibrError where the folder, its checkpoint or the device does not fit; writes nothing."""
        self.config, self.output, self.step = config, Path(output), 0
        self.processes = processes or Processes()
        self.processes.check_precision(config.precision)
        self._kept = kept_content(self.output, config.model_dump(), resume=resume, may_change=_MAY_CHANGE)
        if self._kept is not None:
            self.step = self._kept["training"]["step"]

    def run(self) -> None:
        """Trains to the last step.

        Raises:
            KeyboardInterrupt: Ctrl-C, in any of the processes, once the step is whole and its checkpoint written.
            DibrError: a loss is no longer finite.
        """
        self.processes.wait()  # until all have seen that the folder is empty
        with contextlib.ExitStack() as stack:
            config, log = self.config, None
            interrupted = stack.enter_context(collected_interrupts())
            if self.processes.first:
                log = stack.enter_context(
                    RunLog(self.output, self.log_columns, self.step, config.steps, config.tensorboard)
                )
                if self.step == 0:
                    self._save()  # so that a run that is killed before its first checkpoint can go on too
            stopping = False
            while self.step < config.steps and not stopping:
                row = self._train_step()
                if log is not None:
                    self._record(row, log)
                stopping = self.processes.any(interrupted.is_set())
            if stopping and log is not None:
                self._save()
        if stopping or interrupted.is_set():
            raise KeyboardInterrupt

    def summary(self) -> list[str]:
        """What there is to say about the run when it has ended, line by line."""
        return [f"checkpoint written to {self.output}"]

    @abc.abstractmethod
    def _train_step(self) -> dict[str, Any]:
        """One step; returns its row of the log."""

    @abc.abstractmethod
    def _state(self) -> dict[str, Any]:
        """What a checkpoint needs besides the model, the step and the settings: tensors and plain values."""

    @abc.abstractmethod
    def _samples(self) -> np.ndarray:
        """Pictures of what the model has learnt so far, [H, W, 3] uint8."""

    def _record(self, row: dict[str, Any], log: RunLog) -> None:
        """Takes a step's row into the log and, now and then, pictures and a checkpoint."""
        pause = self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps
        if pause:
            self._look(row, log)
        log.row(row)
        if pause:
            self._save()

    def _look(self, row: dict[str, Any], log: RunLog) -> None:
        """At what has been learnt, before a checkpoint."""
        log.sheet(self._samples(), self.step)

    def _save(self) -> None:
        training = {"step": self.step, "config": self.config.model_dump(), **self._state()}
        save_checkpoint(self.output / FILE_NAME, self.model, training)

    def _through(self, network: nn.Module, *inputs: torch.Tensor) -> Any:
        """What a network makes of its inputs, a named tuple, with its layers at the precision of the run."""
        with self.processes.layers_at(self.config.precision):
            parts = network(*inputs)
        return type(parts)(*(part.float() for part in parts))

    def _follow_schedule(self, *optimizers: torch.optim.Optimizer) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * (_LAST_LEARNING_RATE + (1 - _LAST_LEARNING_RATE) * cosine)


def kept_content(
    output: Path, settings: dict[str, Any], *, resume: bool, may_change: Sequence[str]
) -> dict[str, Any] | None:
    """The checkpoint that a run in ``output`` goes on from; None for a new run.

    Args:
        settings: of this run, as plain values. may_change: those that a resumed run may have otherwise than before.
            One that a checkpoint lacks is younger than it: what it was then, ``_BEFORE`` says or nobody knows.

    Raises:
        DibrError: the folder holds files but ``resume`` is False; or ``resume`` is True but there is no checkpoint, or
            its settings are others or fewer.
    """
    if not resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DibrError(f"output {output} exists already; give another folder, or resume the run there")
        return None
    content = read_checkpoint(output / FILE_NAME)
    kept = {**_BEFORE, **content["training"].get("config", {})}
    for name in [name for name in settings if name not in may_change]:
        if name not in kept:
            raise DibrError(f"the run in {output} was begun before there was the setting {name}: begin it anew")
        if kept[name] != settings[name]:
            raise DibrError(f"the run in {output} has {name} = {kept[name]}, got {settings[name]}")
    return content


def read_settings(output: str | Path) -> dict[str, Any]:
    """The settings of the run in ``output``, from its checkpoint. Raises DibrError where there is none."""
    return dict(read_checkpoint(Path(output) / FILE_NAME)["training"].get("config", {}))


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """``losses.csv``, ``samples/``, a progress bar, and TensorBoard where asked for.

    Args:
        output: folder of the run, made where it is missing.
        columns: of the log, ``step``, ``loss`` and others.
        step, steps: how many are done, and of the whole run. Rows beyond ``step``, of a run that was killed, go away.
        tensorboard: whether to write ``tensorboard/`` too.
    """

    def __init__(self, output: Path, columns: Sequence[str], step: int, steps: int, tensorboard: bool) -> None:
        output.mkdir(parents=True, exist_ok=True)
        _keep_rows(output / LOG_NAME, columns, step)
        self._samples = output / "samples"
        self._stack = contextlib.ExitStack()
        enter = self._stack.enter_context
        self._progress = enter(tqdm(total=steps, initial=step, desc="training", unit="step", disable=None))
        self._file = enter((output / LOG_NAME).open("a", newline=""))
        self._rows = csv.DictWriter(self._file, columns, lineterminator="\n")
        self._board = enter(TensorBoardLog(output / "tensorboard" if tensorboard else None, step))

    def row(self, row: dict[str, Any]) -> None:
        """A step's values by column."""
        self._rows.writerow(row)
        self._file.flush()
        self._board.numbers(row, row["step"])
        self._progress.update()
        self._progress.set_postfix_str(f"loss {row['loss']}", refresh=False)

    def sheet(self, pixels: np.ndarray, step: int) -> None:
        """Sample pictures [H, W, 3] uint8."""
        self._samples.mkdir(exist_ok=True)
        write_atomically(self._samples / f"step_{step:06d}.png", Image.fromarray(pixels).save)
        self._board.picture("samples", pixels, step)

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        self._progress.write(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _keep_rows(path: Path, columns: Sequence[str], step: int) -> None:
    """Leaves the header and the whole rows up to a step."""
    rows: list[list[str]] = []
    with contextlib.suppress(FileNotFoundError), path.open(newline="") as file:
        rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(columns)]
    kept = [list(columns), *(row for row in rows if int(row[0]) <= step)]
    write_atomically(path, "".join(",".join(row) + "\n" for row in kept))
