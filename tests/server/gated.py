"""A session that a test holds and lets go: what reaches a model, and when, is the test's to say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.backend import TensorInfo
from dibr_deploy.runtime.server import repository

POISON = -54321.0
"""A value in the input at which the model fails."""


class GatedSession:
    """y = 2 x, for x float32 [batch, 2], and a constant; runs wait while the gate is closed."""

    latest: GatedSession

    def __init__(self, path: Path | str = "gated", provider: str = "cpu", **_: Any) -> None:
        self.path, self.provider = Path(path), provider
        float32 = np.dtype(np.float32)
        self.inputs = [TensorInfo("x", float32, ("batch", 2))]
        self.outputs = [TensorInfo("y", float32, ("batch", 2)), TensorInfo("constant", float32, (3,))]
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)
        """Released when a run has reached the gate."""
        self.batches: list[int] = []
        self.can_preprocess = self.has_sample = False
        self.closed = False
        GatedSession.latest = self

    def warm_up(self) -> None:
        pass

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        self.begun.release()
        assert self.gate.wait(60)
        self.batches.append(len(x))
        if (x == POISON).any():
            raise DibrError("the model could not be run: poison")
        return {"y": 2 * x, "constant": np.arange(3, dtype=np.float32)}

    def close(self) -> None:
        self.closed = True


def gated_model(patch: pytest.MonkeyPatch, folder: Path) -> str:
    """A model to serve, as on the command line, whose session is a GatedSession."""
    patch.setattr(repository, "Session", GatedSession)
    patch.setattr(repository, "_predictor", lambda session: None)
    (folder / "gated.onnx").touch()
    return f"gated={folder / 'gated.onnx'}"
