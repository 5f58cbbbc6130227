"""Triton batches a model whose every input and output begins with the batch axis: which models can have that, and the
graph in which constant outputs, such as the faces of a template, are repeated for every item of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dibr_deploy.runtime.manifest import Tensor

if TYPE_CHECKING:
    import onnx


class Batched(NamedTuple):
    """A model that Triton may batch."""

    model: bytes
    outputs: tuple[Tensor, ...]


def batch_axis(tensors: Sequence[Tensor]) -> str | None:
    """Name of axis 0, where it is dynamic and the same axis in all of the tensors."""
    first = {tensor.shape[0] if tensor.shape else None for tensor in tensors}
    axis = first.pop() if len(first) == 1 else None
    return axis if isinstance(axis, str) else None


def batched(model: bytes, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Batched | None:
    """The model with a batch axis in every output, or None where it cannot have that.

    It cannot where an input has no batch axis, or an output without one depends on the inputs, as a mean over the batch
    does: that would mix what different clients sent.
    """
    axis = batch_axis(inputs)
    if axis is None:
        return None
    without = [tensor for tensor in outputs if tensor.shape[:1] != (axis,)]
    if not without:
        return Batched(model, tuple(outputs))
    import onnx

    parsed = onnx.load_model_from_string(model)
    if _depend_on_inputs(parsed.graph, [tensor.name for tensor in without]):
        return None
    for tensor in without:
        _repeat(parsed.graph, tensor, inputs[0].name, axis)
    repeated = {tensor.name: tensor.model_copy(update={"shape": (axis, *tensor.shape)}) for tensor in without}
    return Batched(parsed.SerializeToString(), tuple(repeated.get(tensor.name, tensor) for tensor in outputs))


def _depend_on_inputs(graph: onnx.GraphProto, names: Iterable[str]) -> bool:
    """Whether any of the outputs is computed from an input, if only from its shape."""
    weights = {weight.name for weight in graph.initializer}
    reached = {value.name for value in graph.input} - weights
    for node in graph.node:  # in topological order, as ONNX demands
        has_subgraph = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if has_subgraph or reached.intersection(node.input):
            reached.update(node.output)
    return bool(reached.intersection(names))


def _repeat(graph: onnx.GraphProto, tensor: Tensor, like: str, axis: str) -> None:
    """Put the batch axis of the input ``like`` before those of an output."""
    from onnx import TensorProto, helper

    once, batch, ones, shape = (f"{tensor.name}/{part}" for part in ("once", "batch", "ones", "shape"))
    _rename(graph, tensor.name, once)
    graph.initializer.append(helper.make_tensor(ones, TensorProto.INT64, [len(tensor.shape)], [1] * len(tensor.shape)))
    graph.node.append(helper.make_node("Shape", [like], [batch], start=0, end=1))
    graph.node.append(helper.make_node("Concat", [batch, ones], [shape], axis=0))
    graph.node.append(helper.make_node("Expand", [once, shape], [tensor.name]))
    [output] = [value for value in graph.output if value.name == tensor.name]
    dimensions = output.type.tensor_type.shape.dim
    sizes: list[int | str] = [axis, *tensor.shape]
    del dimensions[:]
    for size in sizes:
        dimensions.add(**{"dim_value" if isinstance(size, int) else "dim_param": size})


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value wherever nodes and weights of the graph, and of the graphs inside of its nodes, name it."""
    for weight in graph.initializer:
        if weight.name == old:
            weight.name = new
    for info in graph.value_info:
        if info.name == old:
            info.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _rename(inner, old, new)
