"""A float32 ONNX model to one that computes in float16 where that is good enough: strongly typed, as TensorRT wants it.

What stays in float32 is geometry. Positions decide coverage, and float16 has 11 bits: whatever leads to the positions,
barycentrics or texture coordinates of our ops, back to the network's last layer, and what is computed from these values
(normals, for example) or from depth, up to the next layer or the next of our ops. Everything else whose ONNX schema
admits float16 becomes float16: the network, textures, attributes and shading. Inputs and outputs keep their types.

The converters of onnxruntime.transformers and onnxconverter-common choose by op type or node name and convert all
inputs of a node alike; ours need one input in float16 beside another in float32, by their schemas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.defs import OpSchema

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.schema import OP_DOMAIN

from . import schemas

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_FLOAT_NAME, _HALF_NAME = "tensor(float)", "tensor(float16)"
_LIMITS = np.finfo(np.float16)
_LARGEST = float(_LIMITS.max)

_LAYERS = frozenset(
    "BatchNormalization Conv ConvTranspose GroupNormalization InstanceNormalization LayerNormalization "
    "RMSNormalization".split()
)
_PRODUCTS = frozenset(("Gemm", "MatMul"))
"""Layers where a factor is a constant with a dimension beyond _LARGEST_TRANSFORM; else geometry, like a projection."""
_LARGEST_TRANSFORM = 4
_DEPTH_OUTPUTS = {"Rasterize": 2, "Render": 3}
"""Index of the output depth."""


def to_half(model: ModelProto) -> ModelProto:
    """The model with float16 inside and the same inputs and outputs. The model given is left as it is.

    Args:
        model: that ``to_onnx`` wrote, or another one that fits into 2 GiB.

    Raises:
        DibrError: a constant is too large for float16, or the model does not pass ONNX's strict inference.
    """
    schemas.register()
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise DibrError(f"to_half: the model is no valid ONNX: {error}") from error
    graph = _Graph(inferred)
    _Conversion(graph, _nodes_to_keep(graph)).run()
    onnx.checker.check_model(inferred, full_check=True)
    return onnx.shape_inference.infer_shapes(inferred, check_type=True, strict_mode=True, data_prop=True)


class _Graph:
    """A model's graph with what is asked of it: types, producers, consumers and schemas."""

    def __init__(self, model: ModelProto) -> None:
        self.proto: GraphProto = model.graph
        self._opsets = {entry.domain: entry.version for entry in model.opset_import}
        _constants_to_initializers(self.proto)
        self.constants = {tensor.name: tensor for tensor in self.proto.initializer}
        self.inputs = [value.name for value in self.proto.input if value.name not in self.constants]
        self.outputs = {value.name for value in self.proto.output}
        self.producer = {name: node for node in self.proto.node for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.proto.node:
            for name in filter(None, node.input):
                self.consumers[name].append(node)
        self.captured = set(_captured(self.proto))
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*self.proto.input, *self.proto.output, *self.proto.value_info)
            if value.type.HasField("tensor_type")
        }
        self._types.update((name, tensor.data_type) for name, tensor in self.constants.items())

    def is_float(self, name: str) -> bool:
        return self._types.get(name) == _FLOAT

    def is_tensor(self, name: str) -> bool:
        return name in self._types

    def schema(self, node: NodeProto) -> OpSchema | None:
        """None of an op that the onnx package does not know."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            return onnx.defs.get_schema(node.op_type, self._opsets.get(domain, 1), domain)
        except onnx.defs.SchemaError:
            return None

    def is_layer(self, node: NodeProto) -> bool:
        """Whether the node is one of a network, which learned its numbers and loses little with their last digits."""
        if node.domain not in ("", "ai.onnx"):
            return False
        factors = [self.constants[name] for name in node.input[:2] if name in self.constants]
        return node.op_type in _LAYERS or (
            node.op_type in _PRODUCTS and any(max(tensor.dims, default=0) > _LARGEST_TRANSFORM for tensor in factors)
        )

    def half_parameters(self, node: NodeProto) -> tuple[list[bool], list[bool]] | None:
        """Which float32 inputs and outputs may be float16, all of them together; None where none may.

        A schema names the type of each by a variable. The type of an output that no input determines (of Cast, of
        ConstantOfShape) is told by an attribute, and such a node is left as it is.
        """
        schema = self.schema(node)
        has_subgraph = any(attribute.g.node or attribute.graphs for attribute in node.attribute)
        names = [name for name in (*node.input, *node.output) if name]
        if schema is None or has_subgraph or not all(map(self.is_tensor, names)):
            return None
        admitted = {
            constraint.type_param_str
            for constraint in schema.type_constraints
            if {_FLOAT_NAME, _HALF_NAME} <= set(constraint.allowed_type_strs)
        }
        inputs = [_variable(schema.inputs, index) for index in range(len(node.input))]
        outputs = [_variable(schema.outputs, index) for index in range(len(node.output))]
        convertible = {
            variable
            for variable, name in zip(inputs, node.input, strict=True)
            if variable in admitted and self.is_float(name)
        }
        if not convertible:
            return None
        for variable, name in zip(outputs, node.output, strict=True):
            if self.is_float(name) and variable in admitted and variable not in convertible:
                return None
        return (
            [v in convertible and self.is_float(name) for v, name in zip(inputs, node.input, strict=True)],
            [v in convertible and self.is_float(name) for v, name in zip(outputs, node.output, strict=True)],
        )


def _variable(parameters: Sequence[OpSchema.FormalParameter], index: int) -> str:
    """Type variable of a parameter; the last one may stand for many."""
    return parameters[min(index, len(parameters) - 1)].type_str


def _constants_to_initializers(graph: GraphProto) -> None:
    """Constant nodes of float32 become initializers, which are converted where they are used."""
    for node in [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]:
        tensor = node.attribute[0].t
        if tensor.data_type == _FLOAT:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)


def _captured(graph: GraphProto) -> Iterator[str]:
    """Names that subgraphs read, of which some are values of the graph around them."""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
                yield from (value.name for value in inner.output)
                yield from (name for inner_node in inner.node for name in inner_node.input)
                yield from _captured(inner)


def _nodes_to_keep(graph: _Graph) -> set[int]:
    """Ids of the nodes that compute geometry."""
    keep: set[int] = set()
    values: set[str] = set()
    _walk_back(graph, keep, values)
    _walk_on(graph, keep, values)
    return keep


def _walk_back(graph: _Graph, keep: set[int], values: set[str]) -> None:
    """From the inputs of our ops that are float32 alone, back to the network's layers."""
    pending: list[str] = []
    for node in graph.proto.node:
        if node.domain == OP_DOMAIN:
            may_be_half = (graph.half_parameters(node) or ([False] * len(node.input), []))[0]
            pending += [
                name for name, may in zip(node.input, may_be_half, strict=True) if graph.is_float(name) and not may
            ]
    while pending:
        name = pending.pop()
        if name in values:
            continue
        node = graph.producer.get(name)
        if node is not None and graph.is_layer(node):
            continue
        if name not in graph.constants:
            values.add(name)
        if node is not None and id(node) not in keep:
            keep.add(id(node))
            pending += filter(graph.is_float, node.input)


def _walk_on(graph: _Graph, keep: set[int], values: set[str]) -> None:
    """From geometry and depth on to the next layer or the next of our ops."""
    depths = [
        node.output[_DEPTH_OUTPUTS[node.op_type]]
        for node in graph.proto.node
        if node.domain == OP_DOMAIN and len(node.output) > _DEPTH_OUTPUTS.get(node.op_type, len(node.output))
    ]
    pending = [*values, *filter(None, depths)]
    while pending:
        for node in graph.consumers[pending.pop()]:
            if node.domain != OP_DOMAIN and not graph.is_layer(node) and id(node) not in keep:
                keep.add(id(node))
                pending += filter(graph.is_float, node.output)


class _Conversion:
    """Writes a graph's nodes anew: each value once in the type it is computed in, and cast where another is needed."""

    def __init__(self, graph: _Graph, keep: set[int]) -> None:
        self._graph = graph
        self._keep = keep
        self._half: dict[str, str] = {}
        """Name of the float16 form of a float32 value."""
        self._computed_half: set[str] = set()
        self._float: dict[str, str] = {}
        """Name of the float32 form of a value that is computed in float16."""
        self._nodes: list[NodeProto] = []
        self._names = {name for node in graph.proto.node for name in (*node.input, *node.output)} | {
            value.name for value in (*graph.proto.input, *graph.proto.initializer)
        }

    def run(self) -> None:
        proto = self._graph.proto
        for node in list(proto.node):
            parameters = None if id(node) in self._keep else self._graph.half_parameters(node)
            if node.op_type == "Cast":
                self._write(node, [self._computed(name) for name in node.input])
            elif parameters is None or not self._worth_it(node):
                self._write(node, [self._as_float(name) for name in node.input])
            else:
                self._convert(node, *parameters)
        del proto.node[:]
        proto.node.extend(self._nodes)
        self._describe()
        _drop_unused(proto)

    def _worth_it(self, node: NodeProto) -> bool:
        """A node with no real output (a shape, a comparison) reads values as they are computed, or all as float32."""
        if any(map(self._graph.is_float, node.output)):
            return True
        read = [name for name in node.input if self._graph.is_float(name) and name not in self._graph.constants]
        return all(name in self._computed_half for name in read)

    def _write(self, node: NodeProto, inputs: Iterable[str]) -> None:
        del node.input[:]
        node.input.extend(inputs)
        self._nodes.append(node)

    def _convert(self, node: NodeProto, half_inputs: list[bool], half_outputs: list[bool]) -> None:
        originals = list(node.output)
        inputs = [
            self._as_half(name) if half else self._as_float(name)
            for name, half in zip(node.input, half_inputs, strict=True)
        ]
        # Names that others read stay those of float32 values: outputs of the graph, and what subgraphs capture.
        pinned = [
            half and (name in self._graph.outputs or name in self._graph.captured)
            for name, half in zip(originals, half_outputs, strict=True)
        ]
        for index, name in enumerate(originals):
            if half_outputs[index]:
                self._half[name] = self._new_name(name, "half") if pinned[index] else name
                self._computed_half.add(name)
                node.output[index] = self._half[name]
        self._write(node, inputs)
        for name, is_pinned in zip(originals, pinned, strict=True):
            if is_pinned:
                self._float[name] = name
                self._cast(self._half[name], name, _FLOAT)

    def _computed(self, name: str) -> str:
        """The value in the type it is computed in."""
        return self._half[name] if name in self._computed_half else name

    def _as_float(self, name: str) -> str:
        if name not in self._computed_half:
            return name
        if name not in self._float:
            self._float[name] = self._new_name(name, "float")
            self._cast(self._half[name], self._float[name], _FLOAT)
        return self._float[name]

    def _as_half(self, name: str) -> str:
        if name not in self._half:
            self._half[name] = self._new_name(name, "half")
            if name in self._graph.constants:
                self._graph.proto.initializer.append(_half_constant(self._graph.constants[name], self._half[name]))
            else:
                source = self._graph.producer.get(name)
                # The cast of a cast is one, from what the first one reads.
                is_cast = source is not None and source.op_type == "Cast"
                self._cast(source.input[0] if source is not None and is_cast else name, self._half[name], _HALF)
        return self._half[name]

    def _cast(self, name: str, output: str, to: int) -> None:
        self._nodes.append(helper.make_node("Cast", [name], [output], name=f"{output}_cast", to=to))

    def _new_name(self, name: str, suffix: str) -> str:
        new = f"{name}_{suffix}"
        while new in self._names:
            new += "_"
        self._names.add(new)
        return new

    def _describe(self) -> None:
        """Types and shapes of the values under their names."""
        infos = self._graph.proto.value_info
        known = {info.name: info for info in (*self._graph.proto.output, *infos)}
        for name in self._computed_half & set(known):
            info = known[name] if name not in self._graph.outputs else infos.add()
            shape = known[name].type.tensor_type.shape
            if info is not known[name]:
                info.type.tensor_type.shape.CopyFrom(shape)
            info.name = self._half[name]
            info.type.tensor_type.elem_type = _HALF


def _half_constant(tensor: TensorProto, name: str) -> TensorProto:
    """A constant in float16; what is not 0 stays so, since a bound that keeps a divisor from 0 must."""
    values = np.asarray(numpy_helper.to_array(tensor))
    with np.errstate(over="ignore"):
        halves = np.asarray(values.astype(np.float16))
    overflown = values[np.isinf(halves) & np.isfinite(values)]
    if overflown.size:
        raise DibrError(
            f"to_half: the constant {tensor.name} reaches {np.abs(overflown).max():g}, beyond {_LARGEST:g}, the "
            f"largest number of float16: scale it down in the module, or export without fp16"
        )
    # A single number may be such a bound, and devices may flush subnormal numbers to 0.
    smallest = _LIMITS.smallest_normal if values.size == 1 else _LIMITS.smallest_subnormal
    vanished = (halves == 0) & (values != 0)
    halves = np.where(vanished, np.copysign(smallest, halves), halves)
    return numpy_helper.from_array(np.asarray(halves, np.float16), name)


def _drop_unused(graph: GraphProto) -> None:
    """Nodes, weights and descriptions of values that nothing reads any more."""
    used = {value.name for value in graph.output} | set(_captured(graph))
    kept = []
    for node in reversed(graph.node):
        if any(name in used for name in node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    produced = {name for node in kept for name in node.output}
    for values, wanted in ((graph.initializer, used), (graph.value_info, produced)):
        remaining = [value for value in values if value.name in wanted]
        del values[:]
        values.extend(remaining)
