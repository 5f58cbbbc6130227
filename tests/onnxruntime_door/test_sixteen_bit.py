"""Attributes and textures stored in 16 bits: computed in float32, rounded once; onnx's type inference knows them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from dibr_deploy.errors import DibrError
from dibr_deploy.export import schemas
from dibr_deploy.runtime import Session
from onnxruntime_door.graphs import one_node, run, run_in_16_bits


def arguments(op: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if op == "Texture":
        return {
            "texture": rng.standard_normal((1, 3, 5, 4)).astype(np.float16),
            "uv": rng.uniform(-0.5, 1.5, (2, 6, 7, 2)).astype(np.float32),
        }
    faces = rng.integers(0, 9, (4, 3)).astype(np.int32)
    if op == "Antialias":
        positions = rng.uniform(-1.0, 1.0, (2, 9, 4)).astype(np.float32)
        positions[..., 3] = 1.0
        raster = run("Rasterize", {"positions": positions, "faces": faces}, height=12, width=14)
        image = rng.standard_normal((2, 12, 14, 3)).astype(np.float16)
        shown = {name: raster[name] for name in ("face_index", "barycentrics")}
        return {"image": image, "positions": positions, "faces": faces, **shown}
    return {
        "attributes": rng.standard_normal((2, 9, 3)).astype(np.float16),
        "faces": faces,
        "face_index": rng.integers(-1, 4, (2, 6, 7)).astype(np.int32),
        "barycentrics": rng.dirichlet((1, 1, 1), (2, 6, 7)).astype(np.float32),
    }


@pytest.mark.parametrize("op", ["Interpolate", "Texture", "Antialias"])
def test_float16_is_the_float32_result_rounded_once(op: str) -> None:
    inputs = arguments(op)
    name = next(iter(inputs))
    result = run(op, inputs)["output"]
    exact = run(op, {**inputs, name: inputs[name].astype(np.float32)})["output"]
    assert result.dtype == np.float16
    assert np.array_equal(result, exact.astype(np.float16))


@pytest.mark.parametrize("op", ["Interpolate", "Texture", "Antialias"])
def test_bfloat16_is_the_float32_result_rounded_once(op: str) -> None:
    inputs = arguments(op)
    name = next(iter(inputs))
    inputs[name] = inputs[name].astype(ml_dtypes.bfloat16)
    result = run_in_16_bits(op, inputs)
    exact = run(op, {**inputs, name: inputs[name].astype(np.float32)})["output"]
    assert np.any(result != exact)
    assert np.array_equal(result, exact.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_runtime_session_refuses_bfloat16_inputs(tmp_path: Path) -> None:
    inputs = arguments("Texture")
    inputs["texture"] = inputs["texture"].astype(ml_dtypes.bfloat16)
    path = tmp_path / "texture.onnx"
    onnx.save(one_node("Texture", inputs), path)
    with pytest.raises(DibrError, match=r"texture has type tensor\(bfloat16\), which numpy has no dtype for"):
        Session(path, "cpu")


@pytest.mark.parametrize("kind", [onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16])
@pytest.mark.parametrize("op", ["Interpolate", "Texture", "Antialias"])
def test_the_schema_knows_16_bit_storage(op: str, kind: int) -> None:
    schemas.register()
    model = one_node(op, arguments(op))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = kind
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
