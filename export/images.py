"""Photos as a network's input: bytes instead of numbers in 0..1, and pictures of any size made to fit.

A model exported with ``photo_input`` takes uint8 [B, S, S, 3]. What makes such a picture of one of any size is a small
graph of standard ONNX ops beside it, ``preprocess.onnx``: Python, C++ and whoever else runs ONNX Runtime get the very
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from dibr_deploy.errors import DibrError

PIXELS = "pixels"
"""Input of the graph that makes pictures fit: uint8 [height, width, channels]."""
BACKGROUND = 255
"""What stands behind transparent pixels and beside a picture that is not square, of 255."""
TO_BYTES_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}
"""Where an axis of [B, 3, H, W] is in [B, H, W, 3]."""

_IR_VERSION = 8
_CONSTANTS = {
    "zero": [0], "two": [2], "three": [3], "four": [4], "zeros": [0, 0], "ones": [1, 1], "twos": [2, 2],
    "one_picture": [1, 3],
}  # fmt: skip


class FromBytes(nn.Module):
    """A module whose input number ``index`` is uint8 [B, H, W, 3] instead of [B, 3, H, W] in 0..1."""

    def __init__(self, module: nn.Module, index: int) -> None:
        super().__init__()
        self.module = module
        self.index = index

    def forward(self, *args: Tensor) -> object:
        numbers = args[self.index].to(torch.float32) / 255
        photo = numbers.permute(0, 3, 1, 2)
        return self.module(*args[: self.index], photo, *args[self.index + 1 :])


def to_bytes(photos: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 to uint8 [B, H, W, 3], rounded."""
    return (photos.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def photo_index(names: Sequence[str], args: Sequence[Tensor], photo_input: str) -> int:
    """Which of a module's inputs takes photos. Raises DibrError where it cannot be one."""
    if photo_input not in names:
        raise DibrError(f"photo_input must be one of the module's inputs {', '.join(names)}, got {photo_input}")
    index = list(names).index(photo_input)
    if args[index].dim() != 4 or args[index].shape[1] != 3 or not args[index].is_floating_point():
        raise DibrError(
            f"photo_input {photo_input} must take floating-point photos [B, 3, H, W], got {args[index].dtype} "
            f"{list(args[index].shape)}"
        )
    return index


def preprocessing(name: str, height: int, width: int) -> onnx.ModelProto:
    """The graph that makes a picture fit.

    Its input ``pixels`` is uint8 [height, width, channels] of any size, with 3 channels (RGB) or 4 (RGBA, not
    premultiplied). Its output ``name`` is uint8 [1, H, W, 3]. Transparent pixels are blended over white. The longer
    side, relative to the output's, is scaled to fit and the other one with it, both rounded half up to at least one
    pixel, by ONNX's linear Resize with antialias; the rest is white, divided evenly, the odd row or column below or at
    the right.
    """
    graph = helper.make_graph(
        [*_blend(), *_fit(), *_place(name)],
        "preprocess",
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["height", "width", "channels"])],
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, height, width, 3])],
        [
            *(_constant(name, values) for name, values in _CONSTANTS.items()),
            _constant("target", [height, width]),
            _constant("swapped_target", [width, height]),
            _constant("twice_area", [2 * height * width]),
            numpy_helper.from_array(np.array(BACKGROUND, np.uint8), "white"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return model


def _constant(name: str, values: Sequence[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _blend() -> list[onnx.NodeProto]:
    """pixels -> rgb, uint8 [height, width, 3]. Only pictures with transparency pay for it."""
    blended = helper.make_graph(
        [
            helper.make_node("Slice", [PIXELS, "zero", "three", "two"], ["bytes"]),
            helper.make_node("Slice", [PIXELS, "three", "four", "two"], ["alpha_bytes"]),
            helper.make_node("Cast", ["bytes"], ["colour"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["alpha_bytes"], ["alpha_255"], to=TensorProto.FLOAT),
            helper.make_node("Constant", [], ["of_255"], value_float=255.0),
            helper.make_node("Div", ["alpha_255", "of_255"], ["alpha"]),
            helper.make_node("Sub", ["colour", "of_255"], ["darker"]),
            helper.make_node("Mul", ["darker", "alpha"], ["shown"]),
            helper.make_node("Add", ["shown", "of_255"], ["over_white"]),
            helper.make_node("Round", ["over_white"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], ["blended"], to=TensorProto.UINT8),
        ],
        "blended",
        [],
        [helper.make_tensor_value_info("blended", TensorProto.UINT8, ["height", "width", 3])],
    )
    opaque = helper.make_graph(
        [helper.make_node("Identity", [PIXELS], ["opaque"])],
        "opaque",
        [],
        [helper.make_tensor_value_info("opaque", TensorProto.UINT8, ["height", "width", "channels"])],
    )
    return [
        helper.make_node("Shape", [PIXELS], ["channels_now"], start=2, end=3),
        helper.make_node("Equal", ["channels_now", "four"], ["has_alpha"]),
        helper.make_node("Squeeze", ["has_alpha"], ["transparent"]),
        helper.make_node("If", ["transparent"], ["rgb"], then_branch=blended, else_branch=opaque),
    ]


def _fit() -> list[onnx.NodeProto]:
    """rgb -> fitted, uint8 [1, 3, h, w] with h <= height, w <= width and one of them equal; size = [h, w]."""
    return [
        # The side that limits the scale: height * width_now against width * height_now.
        helper.make_node("Shape", [PIXELS], ["now"], start=0, end=2),
        helper.make_node("Mul", ["now", "swapped_target"], ["reach"]),
        helper.make_node("ReduceMax", ["reach", "zero"], ["longer"], keepdims=1),
        helper.make_node("Mul", ["longer", "twos"], ["denominator"]),
        helper.make_node("Mul", ["now", "twice_area"], ["numerator_even"]),
        helper.make_node("Add", ["numerator_even", "longer"], ["numerator"]),
        helper.make_node("Div", ["numerator", "denominator"], ["rounded_size"]),
        helper.make_node("Max", ["rounded_size", "ones"], ["size"]),
        helper.make_node("Transpose", ["rgb"], ["planes"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["planes", "zero"], ["batched"]),
        helper.make_node("Concat", ["one_picture", "size"], ["size_of_all"], axis=0),
        helper.make_node(
            "Resize", ["batched", "", "", "size_of_all"], ["fitted"], mode="linear", antialias=1, exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
    ]  # fmt: skip


def _place(name: str) -> list[onnx.NodeProto]:
    """fitted -> the output, in the middle of a white picture."""
    return [
        helper.make_node("Sub", ["target", "size"], ["free"]),
        helper.make_node("Div", ["free", "twos"], ["before"]),
        helper.make_node("Sub", ["free", "before"], ["after"]),
        helper.make_node("Concat", ["zeros", "before", "zeros", "after"], ["pads"], axis=0),
        helper.make_node("Pad", ["fitted", "pads", "white"], ["placed"]),
        helper.make_node("Transpose", ["placed"], [name], perm=[0, 2, 3, 1]),
    ]


def as_the_model_takes(
    module: nn.Module, args: tuple[Tensor, ...], dtypes: Sequence[str]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A module and its arguments, changed to those of the model that it was exported to.

    dtypes: of the model's inputs. Where one is uint8 and the argument is not, the argument's photos become bytes, and
    the module takes these.
    """
    for index, (tensor, dtype) in enumerate(zip(args, dtypes, strict=False)):
        if dtype == "uint8" and tensor.is_floating_point():
            module = FromBytes(module, index)
            args = (*args[:index], to_bytes(tensor), *args[index + 1 :])
    return module, args
