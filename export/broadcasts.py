"""Broadcasts inside of short rows, in a form that ONNX Runtime's CPU kernels compute in long stretches.

Such a kernel calls its inner loop once for every stretch in which each input has either one number for every result or
one for all of them. A colour [B, H, W, 3] times a light [B, H, W, 1] or [B, 1, 1, 3] has stretches of three, and takes
twenty times as long as the product of two colours. So what is narrow is repeated along its last axis first, and what is
the same at every pixel is laid out for a row of pixels. A number of shape [] or [1] beside [B, H, W, 1] makes stretches
of one, a number of shape [1, 1] does not. Each result is computed from the same numbers as before.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

_ELEMENTWISE = frozenset(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub Where Xor".split()
)
_FEWEST_AXES = 3
"""Of vertices [B, V, C] or pixels; what has fewer axes is small."""
_LONGEST_ROW = 8
"""Copies of rows of sixteen cost more than they save."""


def lay_out_broadcasts(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with no elementwise node or Expand that broadcasts inside of short rows, as far as shapes tell.

    Args:
        model: a model with types and shapes inferred. It is left as it is.

    Returns:
        The model with the same inputs, outputs and results; shapes of some values in it are missing.
    """
    graph_model = ir.from_proto(model)
    layouts = _Layouts(graph_model.graph)
    for node in list(graph_model.graph):
        length = _row_length(node.outputs[0]) if node.domain == "" and node.outputs else 0
        if length and node.op_type in _ELEMENTWISE and all(value and value.shape is not None for value in node.inputs):
            layouts.change_inputs(node, length)
        elif length > 1 and node.op_type == "Expand" and _only_repeats_numbers(node):
            node.op_type = "Concat"
            node.attributes["axis"] = ir.AttrInt64("axis", -1)
            node.resize_inputs(length)
            for index in range(1, length):
                node.replace_input_with(index, node.inputs[0])
    return ir.to_proto(graph_model)


class _Layouts:
    """Values of a graph in other layouts, each made once, before the first node that reads it."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[str, tuple[ir.Value, ...]], ir.Value] = {}

    def change_inputs(self, node: ir.Node, length: int) -> None:
        """Give an elementwise node, whose rows have this length, inputs that it need not broadcast inside of them."""
        values = [value for value in node.inputs if value is not None]
        if length == 1:
            values = [self._of_two_axes(value, node) if len(_sizes(value)) < 2 else value for value in values]
        else:
            values = [self._repeated(value, length, node) if _is_narrow(value) else value for value in values]
            whole = next((value for value in values if _ending(value)[0] != 1), None)
            if whole is not None:
                row = [1, length]
                values = [self._laid_out(value, whole, node) if _ending(value) == row else value for value in values]
        for index, value in enumerate(values):
            node.replace_input_with(index, value)

    def _of_two_axes(self, number: ir.Value, reader: ir.Node) -> ir.Value:
        """[] or [1] as [1, 1]."""
        return self._insert("Reshape", [number, self._constant([1, 1])], reader)

    def _repeated(self, narrow: ir.Value, length: int, reader: ir.Node) -> ir.Value:
        """[..., 1] as [..., length]."""
        repeated = self._insert("Concat", [narrow] * length, reader, axis=-1)
        repeated.type, repeated.shape = narrow.type, ir.Shape([*_sizes(narrow)[:-1], length])
        return repeated

    def _laid_out(self, row: ir.Value, whole: ir.Value, reader: ir.Node) -> ir.Value:
        """[..., 1, C] as [..., W, C], where whole is [..., W, C]."""
        sizes = [size for size in _ending(whole) if isinstance(size, int)]
        shape = self._constant(sizes) if len(sizes) == 2 else self._insert("Shape", [whole], reader, start=-2)
        return self._insert("Expand", [row, shape], reader)

    def _constant(self, numbers: list[int]) -> ir.Value:
        name = f"shape/{'x'.join(map(str, numbers))}"
        if name not in self._graph.initializers:
            tensor = ir.tensor(numbers, dtype=ir.DataType.INT64, name=name)
            value = ir.Value(name=name, shape=ir.Shape([2]), type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._graph.register_initializer(value)
        return self._graph.initializers[name]

    def _insert(self, op_type: str, inputs: list[ir.Value], reader: ir.Node, **attributes: int) -> ir.Value:
        key = op_type, tuple(inputs)
        if key not in self._made:
            name = f"{reader.name}/{op_type}_{len(self._made)}"
            node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), name=name)
            node.outputs[0].name = name
            self._graph.insert_before(reader, node)
            self._made[key] = node.outputs[0]
        return self._made[key]


def _sizes(value: ir.Value) -> list[int | ir.SymbolicDim]:
    assert value.shape is not None, f"{value.name} has no shape"
    return list(value.shape)


def _ending(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """The last two sizes, with ones before them where there are fewer."""
    return [1, 1, *_sizes(value)][-2:]


def _is_narrow(value: ir.Value) -> bool:
    places, length = _ending(value)
    return length == 1 and places != 1


def _row_length(value: ir.Value) -> int:
    """C of a value [..., W, C] of short rows, 0 of others."""
    if value.shape is None or len(value.shape) < _FEWEST_AXES:
        return 0
    places, length = _ending(value)
    return length if isinstance(length, int) and length <= _LONGEST_ROW and places != 1 else 0


def _only_repeats_numbers(expand: ir.Node) -> bool:
    """Whether it makes [..., C] of [..., 1] and does no more."""
    value = expand.inputs[0]
    if value is None or value.shape is None or value.shape.has_unknown_dim():
        return False
    return _is_narrow(value) and _sizes(value)[:-1] == _sizes(expand.outputs[0])[:-1]
