"""How far elementwise nodes over short rows get before they have to move on in one input and not in another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx

ELEMENTWISE = {"Add", "And", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min"}
ELEMENTWISE |= {"Mod", "Mul", "Or", "Pow", "Sub", "Where", "Xor"}
LONGEST_ROW = 8


def stretch(inputs: Sequence[Sequence[int]], output: Sequence[int]) -> int:
    """Results in a row for which each input has either one number each or one for all of them.

    ONNX Runtime 1.32 takes a number of shape [] or [1] beside [..., 1] for one that changes with each result.
    """
    if output[-1] == 1 and any(len(shape) < 2 for shape in inputs):
        return 1
    padded = [[1] * (len(output) - len(shape)) + list(shape) for shape in inputs]
    length, pattern = 1, None
    for axis in reversed(range(len(output))):
        if output[axis] != 1:
            current = [shape[axis] != 1 for shape in padded]
            if pattern not in (None, current):
                break
            length, pattern = length * output[axis], current
    return length


def stretches(model: onnx.ModelProto, results: int, batch: int = 2) -> dict[str, int]:
    """The stretch of every elementwise node with at least so many results, in short rows, by the node's name.

    Shapes must be known, but for an axis that is called batch.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [batch if dim.dim_param == "batch" else dim.dim_value for dim in dims]
    found = {}
    for node in inferred.node:
        if node.op_type in ELEMENTWISE and not node.domain:
            read = node.input[:1] if node.op_type == "Expand" else node.input
            output = shapes[node.output[0]]
            if node.op_type == "Expand" and shapes[node.input[0]][-1:] != [1]:
                continue  # rows are copied whole
            if output and output[-1] <= LONGEST_ROW and math.prod(output) >= results:
                found[node.name] = stretch([shapes[name] for name in read], output)
    return found
