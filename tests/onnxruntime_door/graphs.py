"""Graphs of one node, built by hand with ``onnx.helper``, and their sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper

from dibr_deploy import _native

DOMAIN = "ai.dibr"
OUTPUTS = {
    "Rasterize": ("face_index", "barycentrics", "depth"),
    "Interpolate": ("output",),
    "SoftMask": ("mask",),
    "Texture": ("output",),
    "Antialias": ("output",),
}
FATAL = 4
CPU = "CPUExecutionProvider"


def one_node(
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    *,
    outputs: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int | str | None] | None] | None = None,
    opset: int = 1,
    **attributes: Any,
) -> ModelProto:
    """A model of one node.

    inputs: in the op's order, None for an absent one; names and dtypes of the graph's inputs are taken from here.
    shapes: declared shape of an input; by default every dimension is left open.
    """
    outputs = OUTPUTS[op] if outputs is None else outputs
    present = {name: array for name, array in inputs.items() if array is not None}
    graph_inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), (shapes or {}).get(name, [None] * array.ndim)
        )
        for name, array in present.items()
    ]
    real = helper.np_dtype_to_tensor_dtype(next(iter(present.values())).dtype)
    int32 = helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
    graph_outputs = [
        helper.make_tensor_value_info(name, int32 if name == "face_index" else real, None) for name in outputs if name
    ]
    node = helper.make_node(op, [name if name in present else "" for name in inputs], outputs, domain=DOMAIN, name="n")
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, opset)]
    return helper.make_model(
        helper.make_graph([node], "g", graph_inputs, graph_outputs), opset_imports=imports, ir_version=8
    )


def open_session(
    model: ModelProto,
    threads: int = 1,
    provider: str = CPU,
    provider_options: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> onnxruntime.InferenceSession:
    """A session on one provider alone: what it has no kernel for is an error, not left to the CPU.

    profile: how the name of the profile that the session writes begins."""
    options = onnxruntime.SessionOptions()
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    options.log_severity_level = FATAL
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(_native.library_path("libdibr_onnxruntime.so")))
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=[(provider, dict(provider_options or {}))]
    )


def run(
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    *,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
    provider: str = CPU,
    **attributes: Any,
) -> dict[str, np.ndarray]:
    """Outputs by name of one node on these inputs."""
    session = open_session(one_node(op, inputs, outputs=outputs, **attributes), threads, provider)
    feed = {name: array for name, array in inputs.items() if array is not None}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def run_in_16_bits(op: str, inputs: Mapping[str, np.ndarray], provider: str = CPU) -> np.ndarray:
    """Output of an op whose first input is float16 or bfloat16, as the float32 that holds it exactly.

    ONNX Runtime's Python takes bfloat16 as an OrtValue made from its bits, and hands none out: hence the Cast."""
    stored, *others = inputs
    model = one_node(op, inputs)
    model.graph.node.append(helper.make_node("Cast", ["output"], ["widened"], to=TensorProto.FLOAT))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("widened", TensorProto.FLOAT, None))
    feed = {name: onnxruntime.OrtValue.ortvalue_from_numpy(inputs[name]) for name in others}
    feed[stored] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
        inputs[stored].view(np.uint16), helper.np_dtype_to_tensor_dtype(inputs[stored].dtype)
    )
    (result,) = open_session(model, provider=provider).run_with_ort_values(["widened"], feed)
    return result.numpy()
