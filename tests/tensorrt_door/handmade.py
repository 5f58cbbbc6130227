"""ONNX graphs of all ops, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PLUGIN = {"domain": "ai.dibr", "plugin_version": "1", "plugin_namespace": "ai.dibr"}
VERTICES, FACES = 24, 40


def _value(name: str, dtype: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _constant(name: str, values: Any, dtype: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def _defaults() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """face_ranges and face_valid that leave all faces in every image."""
    nodes = [
        helper.make_node("Shape", ["positions"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "two"], ["ranges_shape"], axis=0),
        helper.make_node("Expand", ["all_faces", "ranges_shape"], ["face_ranges"]),
        helper.make_node("Concat", ["batch", "face_count"], ["valid_shape"], axis=0),
        helper.make_node("Expand", ["one", "valid_shape"], ["face_valid"]),
    ]
    constants = [
        _constant("two", [2], np.int64),
        _constant("all_faces", [[0, FACES]], np.int32),
        _constant("face_count", [FACES], np.int64),
        _constant("one", [1], np.int32),
    ]
    return nodes, constants


def textured_mesh(
    path: Path,
    batch: int | str,
    size: tuple[int, int] | None,
    *,
    texture: tuple[int | str, int | str] = (8, 8),
    texture_type: int = TensorProto.FLOAT,
    depth: bool = True,
    changes: dict[str, Any] | None = None,
) -> Path:
    """positions and texture to face_index, image and mask.

    size: height and width, or None for the shape input image_size. A word is a dynamic axis.
    changes: to the attributes of Rasterize.
    """
    random = np.random.default_rng(0)
    constants = [
        _constant("faces", random.integers(0, VERTICES, (FACES, 3)), np.int32),
        _constant("uvs", random.random((1, VERTICES, 2)), np.float32),
    ]
    inputs = [
        _value("positions", TensorProto.FLOAT, [batch, VERTICES, 4]),
        _value("texture", texture_type, [batch, 3, *texture]),
    ]
    nodes: list[onnx.NodeProto] = []
    raster_inputs = ["positions", "faces"]
    attributes: dict[str, Any] = {"perspective_correct": 1, "cull": "back", "depth_clip": 1, **PLUGIN}
    if size is None:
        nodes, more = _defaults()
        constants += more
        inputs.append(_value("image_size", TensorProto.INT64, [2]))
        raster_inputs += ["face_ranges", "face_valid", "image_size"]
        attributes["tensorrt_plugin_shape_input_indices"] = [4]
    else:
        attributes |= {"height": size[0], "width": size[1]}
    attributes |= changes or {}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    raster_outputs = ["face_index", "barycentrics", *(["depth"] if depth else [])]
    nodes += [
        helper.make_node("Rasterize", raster_inputs, raster_outputs, **attributes),
        helper.make_node("Interpolate", ["uvs", "faces", "face_index", "barycentrics"], ["uv"], **PLUGIN),
        helper.make_node("Texture", ["texture", "uv"], ["texels"], filter="bilinear", wrap="repeat", **PLUGIN),
        helper.make_node(
            "Antialias", ["texels", "positions", "faces", "face_index", "barycentrics"], ["image"], **PLUGIN
        ),
        helper.make_node("SoftMask", ["positions", "faces", "face_index"], ["mask"], knum=20, sigmainv=500.0, **PLUGIN),
    ]
    pixels = [batch, *(size or ("H", "W"))]
    outputs = [
        _value("face_index", TensorProto.INT32, pixels),
        _value("image", texture_type, [*pixels, 3]),
        _value("mask", TensorProto.FLOAT, pixels),
    ]
    graph = helper.make_graph(nodes, "textured_mesh", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path
