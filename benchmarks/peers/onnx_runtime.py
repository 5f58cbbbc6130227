"""Exported graphs in ONNX Runtime: the whole network, the predictor in it, and the renderer's ops as a chain."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from ..scenes import Scene
from . import Peer, Task

OUR_NODES = ("Rasterize", "Interpolate", "SoftMask", "Texture", "Render")
PROFILED_RUNS = 20


class OnnxRuntime(Peer):
    """Tasks of its own: ``model``, ``predictor`` (the same without the renderer), ``chain`` and ``fused_chain``."""

    threaded = True

    def __init__(self, threads: int) -> None:
        from dibr_deploy import export, runtime

        from .. import network

        self.threads, self.network = threads, network
        self.export, self.runtime = export, runtime
        self.folder = tempfile.TemporaryDirectory()

    def version(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def load(self, scene: Scene) -> None:
        """The chains draw the scene, which is a sphere; the model has one of its own."""
        self.scene, self.drew_model = scene, False
        size = self.network.INPUT_SIZE
        self.photo = np.random.default_rng(0).random((1, 3, size, size), np.float32)
        self.camera = self.network.camera().numpy()

    def face_index(self) -> np.ndarray:
        return self._chain().run(*self._chain_inputs())["face_index"]

    def facts(self) -> dict[str, float]:
        """``node_share``: our nodes' part of the model's time, as ONNX Runtime's profiler sees it, where the model was
        asked for."""
        if not self.drew_model:
            return {}
        import onnxruntime

        from dibr_deploy import _native

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(self.folder.name) / "profile")
        options.register_custom_ops_library(str(_native.library_path("libdibr_onnxruntime.so")))
        session = onnxruntime.InferenceSession(self._model_file(), options, providers=["CPUExecutionProvider"])
        inputs = {value.name: value.shape for value in session.get_inputs()}
        feed = dict(zip(inputs, (self.photo, self.camera), strict=True))
        for _ in range(PROFILED_RUNS):
            session.run(None, feed)
        spent: dict[bool, float] = defaultdict(float)
        for event in json.loads(Path(session.end_profiling()).read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                spent[event["args"]["op_name"] in OUR_NODES] += event["dur"]
        return {"node_share": spent[True] / (spent[True] + spent[False])}

    def prepare_model(self) -> Task:
        self.drew_model = True
        session = self.runtime.Session(self._model_file(), "cpu", threads=self.threads)
        return lambda: session.run(self.photo, self.camera)

    def prepare_predictor(self) -> Task:
        path = self._exported("predictor.onnx", self.network.predictor(), self.photo)
        session = self.runtime.Session(path, "cpu", threads=self.threads)
        return lambda: session.run(self.photo)

    def prepare_chain(self) -> Task:
        session, inputs = self._chain(), self._chain_inputs()
        return lambda: session.run(*inputs)

    def prepare_fused_chain(self) -> Task:
        session, inputs = self._chain(fused=True), self._chain_inputs()
        return lambda: session.run(*inputs)

    def _model_file(self) -> str:
        return str(self._exported("model.onnx", self.network.whole_model(), self.photo, self.camera))

    def _chain_inputs(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scene.positions, self.scene.texels

    def _chain(self, fused: bool = False):
        scene = self.scene
        chain = self.network.Chain(round(math.log(len(scene.faces) / 20, 4)), scene.size)
        name = f"chain_{len(scene.faces)}_{scene.size}_{fused}.onnx"
        path = self._exported(name, chain, *self._chain_inputs(), fused=fused)
        return self.runtime.Session(path, "cpu", threads=self.threads)

    def _exported(self, name: str, module, *inputs: np.ndarray, fused: bool = True) -> Path:
        import torch

        path = Path(self.folder.name) / name
        if not path.exists():
            self.export.to_onnx(module, tuple(map(torch.from_numpy, inputs)), path, fused=fused)
        return path
