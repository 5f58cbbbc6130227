"""The replica of examples/ray_serve.py, with a double in Ray's place: what it does with a batch that Ray has collected.

Ray itself is not among the tests' packages, with its 600 MB; docs/serving.md has the command that runs it.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dibr_deploy.runtime import Session

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_serve.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's names. The double leaves the class as it is, and the method takes the list that Ray would make."""
    ray, serve = ModuleType("ray"), ModuleType("ray.serve")
    serve.deployment = serve.batch = lambda **_: lambda decorated: decorated  # type: ignore[attr-defined]
    ray.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", serve)
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("count", [1, 3])
def test_everyone_in_a_batch_gets_their_own(
    example: dict[str, Any], bundle: Path, session: Session, arrays: dict[str, np.ndarray], count: int
) -> None:
    replica = example["Model"](str(bundle))
    feeds = [{name: array[number : number + 1] for name, array in arrays.items()} for number in range(count)]
    answers = asyncio.run(replica(feeds))
    assert len(answers) == count
    for feed, answer in zip(feeds, answers, strict=True):
        for name, array in session.run(**feed).items():
            assert array.shape == answer[name].shape and array.tobytes() == answer[name].tobytes(), name


def test_the_example_request_fits_the_model(example: dict[str, Any], bundle: Path, session: Session) -> None:
    feed = example["example"](bundle)
    assert {name: array.shape for name, array in feed.items()} == {"offsets": (1, 1, 3), "world_to_clip": (1, 4, 4)}
    assert (session.run(**feed)["face_index"] >= 0).any(), "an empty picture would measure no renderer"
