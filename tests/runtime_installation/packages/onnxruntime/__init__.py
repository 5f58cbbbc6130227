"""The real onnxruntime, which believes that it has NVIDIA's providers and runs what they should on the CPU.

DIBR_TEST_LOADED: the providers that it can load, separated by commas; all without it."""

import importlib
import os
import sys
from pathlib import Path

here = str(Path(__file__).parents[1])
sys.path.remove(here)
sys.path.append(os.environ["DIBR_TEST_PACKAGES_BEHIND"])
del sys.modules["onnxruntime"]
onnxruntime = importlib.import_module("onnxruntime")
sys.path.insert(0, here)

OFFERED = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
LOADED = os.environ.get("DIBR_TEST_LOADED", ",".join(OFFERED)).split(",")


class InferenceSession(onnxruntime.InferenceSession):
    def __init__(self, content, options, providers, **others):
        super().__init__(content, options, providers=["CPUExecutionProvider"], **others)
        self.asked = [name if isinstance(name, str) else name[0] for name in providers]

    def get_providers(self):
        return [name for name in self.asked if name in LOADED]


onnxruntime.get_available_providers = lambda: OFFERED
onnxruntime.InferenceSession = InferenceSession
