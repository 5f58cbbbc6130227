"""Each attribute is recovered from images, from a start that is far off."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import recover

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "recovery.md"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Images this small gain nothing from more, and lose much where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", recover.EXPERIMENTS)
def test_an_attribute_is_recovered_from_images(name: str) -> None:
    recovery = recover.EXPERIMENTS[name]()
    print(recover.table({name: recovery}))
    for measure in recovery.measures:
        assert measure.reached, measure
        if measure.bound is not None:
            assert not measure._replace(result=measure.start).reached, f"the start is no start: {measure}"
    assert (recovery.result - recovery.target).abs().mean() < 0.3 * (recovery.start - recovery.target).abs().mean()
    assert torch.isfinite(recovery.result).all()


def test_the_page_shows_every_experiment_and_what_it_must_reach() -> None:
    rows = re.findall(r"^\| (\w+) \| .+? \| \S+ \| (\S+) \| ([<>]) (\S+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {name for name, *_ in rows} == set(recover.EXPERIMENTS)
    for name, result, sign, bound in rows:
        assert float(result) < float(bound) if sign == "<" else float(result) > float(bound), name
        assert (ROOT / "docs" / "images" / f"recover_{name}.png").is_file()
