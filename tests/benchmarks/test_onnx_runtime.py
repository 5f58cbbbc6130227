"""What the peer that runs exported graphs measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import scenes
from benchmarks.peers import peer_class


@pytest.mark.parametrize(("faces", "size"), [(1280, 32), (320, 48)])
def test_the_chain_is_measured_as_four_nodes_and_as_one(faces: int, size: int) -> None:
    peer = peer_class("ONNX Runtime")(1)
    peer.load(scenes.sphere(faces, size).scene())
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
        assert output.shape[:3] == (1, size, size)
        assert output.any()
        assert np.array_equal(output, outputs["fused_chain"][name])
