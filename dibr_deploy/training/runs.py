"""The folder of a run: how it is taken up again, and where its rows and pictures go."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..errors import DibrError
from ..files import write_atomically
from .checkpoint import FILE_NAME, read_checkpoint
from .logs import TensorBoardLog

LOG_NAME = "losses.csv"


def kept_content(
    output: Path, settings: dict[str, Any], *, resume: bool, may_change: Sequence[str]
) -> dict[str, Any] | None:
    """The checkpoint that a run in ``output`` goes on from; None for a new run.

    Args:
        settings: of this run, as plain values. may_change: those that a resumed run may have otherwise than before.
            A checkpoint that lacks any other was written when there was no such setting, and trained something else.

    Raises:
        DibrError: the folder holds files but ``resume`` is False; or ``resume`` is True but there is no checkpoint, or
            its settings are others or fewer.
    """
    if not resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DibrError(f"output {output} exists already; give another folder, or resume the run there")
        return None
    content = read_checkpoint(output / FILE_NAME)
    kept = content["training"].get("config", {})
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
