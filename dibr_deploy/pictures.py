"""Pictures as files hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_bytes(values: Tensor) -> np.ndarray:
    """Values in 0..1, of any shape, as uint8 in 0..255; what lies outside is clamped."""
    return (values.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
