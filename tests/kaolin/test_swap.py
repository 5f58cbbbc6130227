"""examples/kaolin_swap.py fits a mesh through kaolin's interface on the CPU."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
import kaolin_swap


def test_the_example_fits_shape_and_texture() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = kaolin_swap.fit(kaolin_swap.load(use_kaolin=False), steps=40)
    torch.set_num_threads(before)
    assert losses["1 - mask IoU"][0] > 0.15
    assert losses["1 - mask IoU"][1] < 0.03
    assert losses["L1"][1] < 0.3 * losses["L1"][0]


def test_the_program_prints_what_it_reached(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["kaolin_swap.py", "--steps=8"])
    assert kaolin_swap.main() == 0
    printed = capsys.readouterr().out
    found = re.findall(r"(1 - mask IoU|L1): (\S+) at the start, (\S+) after 8 steps", printed)
    assert [name for name, *_ in found] == ["1 - mask IoU", "L1"], printed
    for _, before, after in found:
        assert float(after) < 0.9 * float(before)
