"""Torch ops to nodes: how ``torch.onnx`` writes each op of namespace dibr as an op of domain ai.dibr.

In these functions a tensor is a value of the graph under construction, an integer that depends on a shape is a scalar
int64 value of that graph, and an absent tensor is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset18 as op
from onnxscript.values import Opset

from dibr_deploy import ops
from dibr_deploy.runtime.schema import OP_DOMAIN

from .schemas import (
    IMAGE_SIZE_INPUT,
    OP_SCHEMA_VERSION,
    RENDER_INPUTS,
    RENDER_OUTPUTS,
    SHAPE_INPUTS_ATTRIBUTE,
    STAND_IN_SHAPES,
    register,
)

register()
_dibr = Opset(OP_DOMAIN, OP_SCHEMA_VERSION)
_ONNX_INT32 = 6
_PLUGIN = {"plugin_version": str(OP_SCHEMA_VERSION), "plugin_namespace": OP_DOMAIN}


def translation_table() -> dict[Callable, Callable]:
    """For ``torch.onnx.export(custom_translation_table=...)``."""
    dibr = torch.ops.dibr
    return {
        dibr.rasterize.default: _rasterize,
        dibr.interpolate.default: _interpolate,
        dibr.soft_mask.default: _soft_mask,
        dibr.texture.default: _texture,
        dibr.antialias.default: _antialias,
        dibr.render.default: _render,
    }


def _rasterize(
    positions: Any,
    faces: Any,
    face_ranges: Any | None,
    face_valid: Any | None,
    height: Any,
    width: Any,
    perspective_correct: bool,
    cull: int,
    depth_clip: bool,
) -> Any:
    attributes: dict[str, Any] = {
        "perspective_correct": int(perspective_correct),
        "cull": _name(ops.CULL, cull),
        "depth_clip": int(depth_clip),
        **_PLUGIN,
    }
    image_size = None
    if isinstance(height, int) and isinstance(width, int):
        attributes |= {"height": height, "width": width}
    else:
        image_size = op.Concat(_vector(height), _vector(width), axis=0)
        attributes[SHAPE_INPUTS_ATTRIBUTE] = [IMAGE_SIZE_INPUT]
    # TensorRT's parser passes a null pointer for an input that is left out before one that is not.
    if face_valid is None and image_size is not None:
        face_valid = _all_faces_valid(positions, faces)
    if face_ranges is None and face_valid is not None:
        face_ranges = _all_faces(positions, faces)
    return _dibr.Rasterize(positions, faces, face_ranges, face_valid, image_size, **attributes)


def _interpolate(attributes: Any, faces: Any, face_index: Any, barycentrics: Any) -> Any:
    return _dibr.Interpolate(attributes, faces, face_index, barycentrics, **_PLUGIN)


def _soft_mask(
    positions: Any, faces: Any, face_index: Any, face_ranges: Any | None, sigmainv: float, boxlen: float, knum: int
) -> Any:
    return _dibr.SoftMask(
        positions, faces, face_index, face_ranges, sigmainv=sigmainv, boxlen=boxlen, knum=knum, **_PLUGIN
    )


def _texture(texture: Any, uv: Any, mip_level: Any | None, filter: int, wrap: int) -> Any:
    names = {"filter": _name(ops.FILTER, filter), "wrap": _name(ops.WRAP, wrap)}
    return _dibr.Texture(texture, uv, mip_level, **names, **_PLUGIN)


def _antialias(
    image: Any, positions: Any, faces: Any, face_index: Any, barycentrics: Any, face_ranges: Any | None
) -> Any:
    return _dibr.Antialias(image, positions, faces, face_index, barycentrics, face_ranges, **_PLUGIN)


def _render(
    positions: Any,
    faces: Any,
    face_ranges: Any | None,
    face_valid: Any | None,
    uvs: Any | None,
    uv_faces: Any | None,
    texture: Any | None,
    attributes: Sequence[Any],
    attribute_faces: Sequence[Any],
    height: Any,
    width: Any,
    perspective_correct: bool,
    cull: int,
    depth_clip: bool,
    sigmainv: float,
    boxlen: float,
    knum: int,
    filter: int,
    wrap: int,
    outputs: int,
) -> Any:
    written = [name for bit, name in enumerate(RENDER_OUTPUTS) if outputs >> bit & 1]
    settings: dict[str, Any] = {
        "outputs": ",".join(written),
        "perspective_correct": int(perspective_correct),
        "cull": _name(ops.CULL, cull),
        "depth_clip": int(depth_clip),
        "sigmainv": sigmainv,
        "boxlen": boxlen,
        "knum": knum,
        "filter": _name(ops.FILTER, filter),
        "wrap": _name(ops.WRAP, wrap),
        **_PLUGIN,
    }
    inputs = {
        "positions": positions,
        "faces": faces,
        "uvs": uvs,
        "uv_faces": uv_faces,
        "texture": texture,
        **{f"attributes_{k}": values for k, values in enumerate(attributes)},
        **{f"attribute_faces_{k}": corners for k, corners in enumerate(attribute_faces)},
        "face_ranges": face_ranges,
        "face_valid": face_valid,
    }
    if isinstance(height, int) and isinstance(width, int):
        settings |= {"height": height, "width": width}
    else:
        inputs["image_size"] = op.Concat(_vector(height), _vector(width), axis=0)
        settings[SHAPE_INPUTS_ATTRIBUTE] = [RENDER_INPUTS.index("image_size")]
        inputs["face_valid"] = _all_faces_valid(positions, faces) if face_valid is None else face_valid
    if inputs["face_valid"] is not None and face_ranges is None:
        inputs["face_ranges"] = _all_faces(positions, faces)
    values = _dibr.Render(*_without_gaps(inputs), **settings)
    return [value for name, value in zip(RENDER_OUTPUTS, values, strict=True) if name in written]


def _without_gaps(inputs: dict[str, Any]) -> list[Any]:
    """Render's inputs up to the last that is there; what no output needs has a stand-in, as fusion.py says."""
    values = [inputs.get(name) for name in RENDER_INPUTS]
    while values[-1] is None:
        values.pop()
    for index, name in enumerate(RENDER_INPUTS[: len(values)]):
        if values[index] is None and name in STAND_IN_SHAPES:
            like = inputs.get("attributes_0") if name.startswith("attributes_") else None
            dtype = (inputs["positions"] if like is None else like).dtype
            zeros: Any = ir.tensor(np.zeros(STAND_IN_SHAPES[name]).astype(dtype.numpy()), dtype)
            values[index] = op.Constant(value=zeros)
        elif values[index] is None and name.endswith(("faces", "faces_0", "faces_1", "faces_2")):
            values[index] = inputs["faces"]
    return values


def _name(choices: dict[str, int], value: int) -> str:
    return next(name for name, number in choices.items() if number == value)


def _int64(*values: int) -> Any:
    """A constant of shape [number of values]."""
    return op.Constant(value_ints=list(values))


def _int32(value: Any) -> Any:
    return op.Cast(value, to=_ONNX_INT32)


def _vector(size: Any) -> Any:
    """An integer or a scalar int64 value as a value of shape [1]."""
    return _int64(size) if isinstance(size, int) else op.Reshape(size, _int64(1))


def _leading_size(tensor: Any) -> Any:
    """Size of a tensor's first dimension, int64 [1]."""
    return op.Shape(tensor, start=0, end=1)


def _all_faces(positions: Any, faces: Any) -> Any:
    """face_ranges that give every image all faces: (0, F) in int32 [B, 2]."""
    one_range = _int32(op.Concat(_int64(0), _leading_size(faces), axis=0))
    return op.Expand(one_range, op.Concat(_leading_size(positions), _int64(2), axis=0))


def _all_faces_valid(positions: Any, faces: Any) -> Any:
    """face_valid with every face present: ones in int32 [B, F]."""
    return op.Expand(_int32(_int64(1)), op.Concat(_leading_size(positions), _leading_size(faces), axis=0))
