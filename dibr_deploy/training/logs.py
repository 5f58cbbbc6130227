"""What a run tells TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class TensorBoardLog:
    """Losses and pictures of a run as TensorBoard reads them. Without a folder it does nothing.

    Args:
        folder: for the event files, or None.
        step: how many steps are done; what an interrupted run logged beyond them is hidden.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer: Any = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def numbers(self, row: Mapping[str, Any], step: int) -> None:
        """Every number of a row of the log but its step, by its name."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "step" and value != "":
                    self._writer.add_scalar(name, float(value), step)

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """pixels: [H, W, 3] uint8."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
