"""What a session knows of a node's outputs before it runs."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper

from onnxruntime_door import graphs
from onnxruntime_door.test_errors import ANTIALIAS, INTERPOLATE, RASTERIZE, SOFT_MASK, TEXTURE

RELEASE = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
needs_safe_inference = pytest.mark.skipif(
    RELEASE < (1, 28), reason="older ONNX Runtimes cannot infer shapes of custom ops with optional arguments"
)


def inferred(op: str, inputs: dict, shapes: dict, **attributes) -> dict[str, list]:
    session = graphs.open_session(graphs.one_node(op, inputs, shapes=shapes, **attributes))
    return {output.name: output.shape for output in session.get_outputs()}


def test_interpolate() -> None:
    shapes = {"attributes": ["A", 3, "D"], "face_index": ["B", "H", 4], "barycentrics": ["B", "H", 4, 3]}
    assert inferred("Interpolate", INTERPOLATE, shapes) == {"output": ["B", "H", 4, "D"]}


def test_texture() -> None:
    shapes = {"texture": [1, 3, "Ht", "Wt"], "uv": ["B", 4, "W", 2]}
    assert inferred("Texture", TEXTURE, shapes) == {"output": ["B", 4, "W", 3]}


@needs_safe_inference
def test_soft_mask() -> None:
    shapes = {"positions": ["B", "V", 4], "face_index": ["B", 4, 4]}
    assert inferred("SoftMask", SOFT_MASK, shapes) == {"mask": ["B", 4, 4]}


@needs_safe_inference
def test_antialias() -> None:
    shapes = {"image": ["B", "H", 4, "C"], "face_index": ["B", "H", 4]}
    assert inferred("Antialias", ANTIALIAS, shapes) == {"output": ["B", "H", 4, "C"]}


@needs_safe_inference
def test_rasterize_with_a_fixed_size() -> None:
    inputs = {**RASTERIZE, "image_size": None}
    actual = inferred("Rasterize", inputs, {"positions": ["B", "V", 4]}, height=5, width=6)
    assert actual == {"face_index": ["B", 5, 6], "barycentrics": ["B", 5, 6, 3], "depth": ["B", 5, 6]}


@needs_safe_inference
def test_rasterize_with_a_size_that_is_an_input() -> None:
    """Height and width get names of their own, the same in every output; the attributes say nothing here."""
    actual = inferred("Rasterize", RASTERIZE, {"positions": [2, "V", 4]}, height=5, width=6)
    _, height, width = actual["face_index"]
    assert isinstance(height, str)
    assert isinstance(width, str)
    assert height != width
    assert actual == {
        "face_index": [2, height, width],
        "barycentrics": [2, height, width, 3],
        "depth": [2, height, width],
    }


@needs_safe_inference
def test_unknown_shapes_stay_open_and_run() -> None:
    actual = inferred("Rasterize", RASTERIZE, dict.fromkeys(RASTERIZE))
    assert len(actual["barycentrics"]) == 4
    assert actual["barycentrics"][3] == 3
    session = graphs.open_session(graphs.one_node("Rasterize", RASTERIZE, shapes=dict.fromkeys(RASTERIZE)))
    assert session.run(None, RASTERIZE)[0].shape == (1, 4, 4)


def test_two_unknown_sizes_are_not_taken_for_one() -> None:
    """Two sizes that only the run tells, one rasterised after the other: were both known by one name, ONNX Runtime
    would plan to put the second picture into the memory of the first."""
    inputs = [
        helper.make_tensor_value_info("positions", TensorProto.FLOAT, ["B", "V", 4]),
        helper.make_tensor_value_info("faces", TensorProto.INT32, ["F", 3]),
        helper.make_tensor_value_info("small", TensorProto.INT64, [2]),
        helper.make_tensor_value_info("large", TensorProto.INT64, [2]),
    ]
    nodes = [
        rasterize("positions", "small"),
        helper.make_node("Exp", ["small_barycentrics"], ["exp"]),
        helper.make_node("ReduceMin", ["exp"], ["one"], keepdims=0),
        helper.make_node("Mul", ["positions", "one"], ["positions_again"]),
        rasterize("positions_again", "large"),
        helper.make_node("Neg", ["large_barycentrics"], ["output"]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(graphs.DOMAIN, 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=imports, ir_version=8)
    feed = {name: RASTERIZE[name] for name in ("positions", "faces")}
    [picture] = graphs.open_session(model).run(None, {**feed, "small": np.array([3, 2]), "large": np.array([64, 96])})
    assert picture.shape == (1, 64, 96, 3)
    totals = picture.sum(axis=-1)
    assert set(np.unique(np.rint(totals))) == {-1.0, 0.0}
    assert np.allclose(totals, np.rint(totals), atol=1e-5)


def rasterize(positions: str, size: str) -> NodeProto:
    outputs = [f"{size}_face_index", f"{size}_barycentrics"]
    return helper.make_node("Rasterize", [positions, "faces", "", "", size], outputs, domain=graphs.DOMAIN)
