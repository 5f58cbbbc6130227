"""examples/kaolin_swap.py fits a mesh through kaolin's interface on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path

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
