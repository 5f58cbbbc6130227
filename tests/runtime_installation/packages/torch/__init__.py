"""The real torch, which believes that it has CUDA: "cuda" is the CPU.

DIBR_TEST_TORCH="no device" takes its GPU away."""

import importlib
import os
import sys
from pathlib import Path

here = str(Path(__file__).parents[1])
sys.path.remove(here)
sys.path.append(os.environ["DIBR_TEST_PACKAGES_BEHIND"])
del sys.modules["torch"]
torch = importlib.import_module("torch")
sys.path.insert(0, here)

move = torch.Tensor.to
torch.Tensor.to = lambda tensor, device: tensor if device == "cuda" else move(tensor, device)
torch.version.cuda = "13.0"
torch.cuda.is_available = lambda: os.environ.get("DIBR_TEST_TORCH") != "no device"
