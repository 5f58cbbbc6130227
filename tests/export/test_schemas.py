"""Our ops as the onnx package knows them: what its checker and shape inference make of hand-written graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dibr_deploy.export import schemas

OPS = ("Rasterize", "Interpolate", "SoftMask", "Texture", "Antialias")


@pytest.fixture(autouse=True)
def registered() -> None:
    schemas.register()


def infer(
    op: str,
    inputs: dict[str, tuple[int, list | None]],
    outputs: list[str],
    *,
    constants: dict[str, np.ndarray] | None = None,
    **attributes,
) -> dict[str, tuple[int, list]]:
    """Element type and dimensions of each output of one node."""
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), outputs, domain="ai.dibr", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items() if name and info is not None],
        [],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)])
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    tensors = {info.name: info.type.tensor_type for info in inferred.graph.value_info}
    return {
        name: (tensors[name].elem_type, [d.dim_param or d.dim_value for d in tensors[name].shape.dim])
        for name in outputs
        if name
    }


F32, F64, I32, I64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64
POSITIONS = (F32, ["B", 9, 4])
FACES = (I32, ["F", 3])
RANGES = (I32, ["B", 2])
VALID = (I32, ["B", "F"])


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_registered_with_its_inference(op: str) -> None:
    schema = onnx.defs.get_schema(op, domain="ai.dibr")
    assert schema.since_version == 1
    assert schema.has_type_and_shape_inference_function
    assert {"plugin_version", "plugin_namespace"} <= set(schema.attributes)


def test_rasterize_with_a_fixed_size() -> None:
    actual = infer("Rasterize", {"p": (F64, ["B", 9, 4]), "f": FACES}, ["i", "b", "d"], height=5, width=6)
    assert actual == {"i": (I32, ["B", 5, 6]), "b": (F64, ["B", 5, 6, 3]), "d": (F64, ["B", 5, 6])}


def test_rasterize_with_a_constant_size() -> None:
    inputs = {"p": POSITIONS, "f": FACES, "r": RANGES, "v": VALID, "s": None}
    actual = infer("Rasterize", inputs, ["i", "b"], constants={"s": np.array([7, 8])}, height=5, width=6)
    assert actual == {"i": (I32, ["B", 7, 8]), "b": (F32, ["B", 7, 8, 3])}


def test_rasterize_with_a_size_taken_from_a_shape() -> None:
    """Names of dimensions pass through Shape into the outputs, also where the optional inputs before are absent."""
    inputs = {"p": POSITIONS, "f": FACES, "": None, "picture": (F32, ["B", 3, "H", "W"])}
    graph = helper.make_graph(
        [
            helper.make_node("Shape", ["picture"], ["s"], start=2, end=4),
            helper.make_node("Rasterize", ["p", "f", "", "", "s"], ["i", "b"], domain="ai.dibr"),
        ],
        "g",
        [helper.make_tensor_value_info(name, *info) for name, info in inputs.items() if info is not None],
        [helper.make_tensor_value_info("i", I32, ["b", "h", "w"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)])
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    [barycentrics] = [info for info in inferred.graph.value_info if info.name == "b"]
    assert [d.dim_param or d.dim_value for d in barycentrics.type.tensor_type.shape.dim] == ["B", "H", "W", 3]


def test_the_other_ops() -> None:
    index = (I32, ["B", "H", 4])
    mask = infer("SoftMask", {"p": POSITIONS, "f": FACES, "i": index, "r": RANGES}, ["m"])
    assert mask == {"m": (F32, ["B", "H", 4])}
    barycentrics = (F32, ["B", "H", 4, 3])
    values = infer("Interpolate", {"a": (F32, [1, 9, "D"]), "f": FACES, "i": index, "b": barycentrics}, ["o"])
    assert values == {"o": (F32, ["B", "H", 4, "D"])}
    sampled = infer("Texture", {"t": (F64, [1, "C", 2, 2]), "uv": (F64, ["B", 5, "W", 2])}, ["o"], wrap="repeat")
    assert sampled == {"o": (F64, ["B", 5, "W", "C"])}
    image = (TensorProto.FLOAT16, ["B", "H", 4, "C"])
    inputs = {"p": POSITIONS, "f": FACES, "i": index, "b": barycentrics, "r": RANGES}
    assert infer("Antialias", {"image": image, **inputs}, ["o"]) == {"o": image}


@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        ((F32, ["B", 9, 3]), r"positions must have shape \[B, V, 4\], got \[B, 9, 3\]"),
        ((F32, [9, 4]), r"positions must have shape \[B, V, 4\], got \[9, 4\]"),
    ],
)
def test_shapes_that_do_not_fit(positions: tuple, sentence: str) -> None:
    with pytest.raises(onnx.shape_inference.InferenceError, match=f"Rasterize: {sentence}"):
        infer("Rasterize", {"p": positions, "f": FACES}, ["i", "b"], height=2, width=2)


def test_types_and_attributes_that_do_not_exist() -> None:
    with pytest.raises(Exception, match=r"unsupported type: tensor\(int64\)"):
        infer("Rasterize", {"p": POSITIONS, "f": (I64, ["F", 3])}, ["i", "b"], height=2, width=2)
    node = helper.make_node("Texture", ["t", "uv"], ["o"], domain="ai.dibr", mipmaps=1)
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = 8, {"": 18, "ai.dibr": 1}
    with pytest.raises(onnx.checker.ValidationError, match="Unrecognized attribute: mipmaps"):
        onnx.checker.check_node(node, context)
