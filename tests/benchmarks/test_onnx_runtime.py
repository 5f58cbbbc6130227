"""What the peer that runs exported graphs measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from benchmarks import scenes
from benchmarks.peers import peer_class


def test_the_chain_is_measured_as_four_nodes_and_as_one() -> None:
    peer = peer_class("ONNX Runtime")(1)
    peer.load(scenes.sphere(1280, 32).scene())
    outputs, nodes = {}, {}
    for form in ("chain", "fused_chain"):
        before = set(Path(peer.folder.name).glob("*.onnx"))
        outputs[form] = peer.prepare(form)()
        (written,) = set(Path(peer.folder.name).glob("*.onnx")) - before
        graph = onnx.load(written, load_external_data=False).graph
        nodes[form] = sorted(node.op_type for node in graph.node if node.domain == "ai.dibr")
    assert nodes == {"chain": ["Interpolate", "Rasterize", "SoftMask", "Texture"], "fused_chain": ["Render"]}
    assert outputs["chain"].keys() == outputs["fused_chain"].keys() == {"image", "mask"}
    for name, output in outputs["chain"].items():
        assert output.any()
        assert np.array_equal(output, outputs["fused_chain"][name])
