"""A torch module that calls ``dibr_deploy.ops`` to one ONNX file with the renderer inside the graph."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from dibr_deploy.errors import DibrError
from dibr_deploy.files import write_atomically
from dibr_deploy.runtime import schema

from .broadcasts import lay_out_broadcasts
from .fusion import fuse
from .half import to_half
from .images import TO_BYTES_AXIS, FromBytes, photo_index, to_bytes
from .schemas import OP_SCHEMA_VERSION, RENDER_OUTPUTS
from .translations import translation_table

OPSET_FLOOR = 18

MEANINGS = {
    "image": "[B, H, W, C] rendered image, row 0 at the top",
    "mask": "[B, H, W] soft silhouette in 0..1",
    "face_index": "[B, H, W] visible face, -1 on background",
    "barycentrics": "[B, H, W, 3] weights of the visible face's vertices, 0 on background",
    "depth": "[B, H, W] NDC depth z/w, 1 on background",
    "vertices": "[B, V, 3] predicted vertices, world space",
    "texture": "[B, C, Ht, Wt] predicted texture in 0..1, row 0 at v = 0",
    "light": "[B, L] predicted light",
    "faces": "[F, 3] vertex indices, counter-clockwise = front",
    "uvs": "[Vt, 2] texture coordinates, v = 0 is the top row",
    "uv_faces": "[F, 3] indices into uvs",
}
"""What outputs of these names mean, unless the caller says otherwise."""

AxisNames = dict[int, str]


def to_onnx(
    module: nn.Module,
    example_args: Sequence[Tensor] | Tensor,
    path: str | Path,
    *,
    dynamic_batch: bool = True,
    dynamic_shapes: Mapping[str, Mapping[int, str]] | None = None,
    opset: int = OPSET_FLOOR,
    fp16: bool = False,
    fused: bool = True,
    meanings: Mapping[str, str] | None = None,
    photo_input: str | None = None,
) -> Path:
    """Export a module to an ONNX file that ONNX Runtime and TensorRT run with this project's plugins.

    Outputs are named as the fields of the NamedTuple or the keys of the dict that the module returns, else ``output``,
    or ``output_0``, ``output_1``, ... Inputs are named as the parameters of ``module.forward``, with ``input_`` before
    a name that an output has too. The module is exported as it behaves in evaluation mode. The file has passed
    ``onnx.checker`` and strict shape inference, every output of our nodes has a shape, and it is there whole or not at
    all. Weights go into the file, which is limited to 2 GiB.

    Args:
        module: any module whose forward takes tensors and calls ``dibr_deploy.ops`` and what torch.onnx can export.
        example_args: tensors to trace with. A size of 1 serves for a dynamic axis too: the trace repeats it.
        path: the file to write, in a folder that exists.
        dynamic_batch: axis 0 is dynamic in every input whose axis 0 is as long as that of the first input.
        dynamic_shapes: instead of that, names of the dynamic axes by input, for example
            ``{"image": {0: "batch", 2: "height", 3: "width"}}``; axes of one name have one size. An image size that
            the module takes from such axes reaches Rasterize through its input image_size.
        opset: version of the standard ONNX opset, at least 18.
        fp16: compute in float16 where that is good enough, as ``dibr_deploy.export.half`` says; inputs and outputs stay
            as they are.
        fused: write Rasterize and what reads its raster as one Render node, as ``dibr_deploy.export.fusion`` says; the
            results are the same. False keeps a node for each call of ``dibr_deploy.ops``.
        meanings: what each output means, by name, for the file's metadata; the names in MEANINGS have a default.
        photo_input: parameter of ``module.forward`` that takes photos [B, 3, H, W] in 0..1. The exported model takes
            them as uint8 [B, H, W, 3], and converts them in the graph. Arguments are those of the module.

    Returns:
        The path.

    Raises:
        DibrError: an argument does not fit, or the module cannot be exported; one sentence that says why.
    """
    path = Path(path)
    args = (example_args,) if isinstance(example_args, Tensor) else tuple(example_args)
    _check_arguments(module, args, path, opset)
    parameters = _parameter_names(module, args)
    axes = _batch_axes(args) if dynamic_batch else [{} for _ in args]
    if dynamic_shapes is not None:
        axes = _named_axes(parameters, args, dynamic_shapes)
    if photo_input is not None:
        index = photo_index(parameters, args, photo_input)
        module = FromBytes(module, index)
        args = (*args[:index], to_bytes(args[index]), *args[index + 1 :])
        axes[index] = {TO_BYTES_AXIS[axis]: name for axis, name in axes[index].items()}
    args = tuple(_without_ones(tensor, tensor_axes) for tensor, tensor_axes in zip(args, axes, strict=True))
    with evaluation_mode(module):
        output_names = list(named_outputs(module(*args)))
        input_names = [f"input_{name}" if name in output_names else name for name in parameters]
        model = _trace(module, args, axes, input_names, opset)
    _drop_unwritten(model)
    _name_outputs(model, output_names)
    _drop_provenance(model)
    _describe(model, output_names, opset, {**MEANINGS, **(meanings or {})})
    model = _checked(model)
    if fp16:
        model = to_half(model)
    if fused:
        model = _checked(fuse(model))
    model = _checked(lay_out_broadcasts(model))
    write_atomically(path, model.SerializeToString())
    return path


def _check_arguments(module: nn.Module, args: tuple[Any, ...], path: Path, opset: int) -> None:
    if not isinstance(module, nn.Module):
        raise DibrError(f"to_onnx: module must be a torch.nn.Module, got {type(module).__name__}")
    for index, value in enumerate(args):
        if not isinstance(value, Tensor):
            raise DibrError(f"to_onnx: example_args[{index}] must be a tensor, got {type(value).__name__}")
    if not args:
        raise DibrError("to_onnx: example_args must hold at least one tensor, got none")
    if not path.parent.is_dir():
        raise DibrError(f"to_onnx: path must lie in a folder that exists, got {path}")
    if opset < OPSET_FLOOR:
        raise DibrError(f"to_onnx: opset must be at least {OPSET_FLOOR}, got {opset}")


def _parameter_names(module: nn.Module, args: tuple[Tensor, ...]) -> list[str]:
    try:
        return list(inspect.signature(module.forward).bind(*args).arguments)
    except TypeError as error:
        raise DibrError(f"to_onnx: example_args do not fit {type(module).__name__}.forward: {error}") from error


def _batch_axes(args: tuple[Tensor, ...]) -> list[AxisNames]:
    batch = args[0].shape[:1]
    if not batch:
        raise DibrError("to_onnx: dynamic_batch needs a first input with a batch axis, got a tensor of shape []")
    return [{0: "batch"} if tensor.shape[:1] == batch else {} for tensor in args]


def _named_axes(
    names: list[str], args: tuple[Tensor, ...], dynamic_shapes: Mapping[str, Mapping[int, str]]
) -> list[AxisNames]:
    for name, axes in dynamic_shapes.items():
        if name not in names:
            raise DibrError(f"to_onnx: dynamic_shapes names the input {name}, but the inputs are {', '.join(names)}")
        for axis in axes:
            rank = args[names.index(name)].dim()
            if not 0 <= axis < rank:
                raise DibrError(f"to_onnx: dynamic_shapes names axis {axis} of {name}, which has {rank} axes")
    return [dict(dynamic_shapes.get(name, {})) for name in names]


def _without_ones(tensor: Tensor, axes: AxisNames) -> Tensor:
    """The tensor with dynamic axes of size 1 repeated: torch.export would take a size of 1 for a constant."""
    repeats = [2 if axis in axes and size == 1 else 1 for axis, size in enumerate(tensor.shape)]
    return tensor.repeat(repeats) if 2 in repeats else tensor


@contextlib.contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    training = {name: part.training for name, part in module.named_modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, part in module.named_modules():
            part.training = training[name]


def named_outputs(outputs: Any) -> dict[str, Tensor]:
    """Outputs of a module by the names they have in its ONNX graph."""
    if isinstance(outputs, Tensor):
        named = {"output": outputs}
    elif isinstance(outputs, Mapping):
        named = dict(outputs)
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        named = dict(zip(outputs._fields, outputs, strict=True))
    elif isinstance(outputs, (tuple, list)):
        named = {f"output_{index}": value for index, value in enumerate(outputs)}
    else:
        raise DibrError(f"to_onnx: the module must return tensors, got {type(outputs).__name__}")
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise DibrError(f"to_onnx: the module's output {name} must be a tensor, got {type(value).__name__}")
    return named


def _trace(
    module: nn.Module,
    args: tuple[Tensor, ...],
    axes: list[AxisNames],
    input_names: list[str],
    opset: int,
) -> onnx.ModelProto:
    dims = {name: torch.export.Dim(name) for tensor_axes in axes for name in tensor_axes.values()}
    dynamic: tuple[Any, ...] = tuple({axis: dims[name] for axis, name in named.items()} for named in axes)
    if isinstance(module, FromBytes):
        dynamic = (dynamic,)  # its forward has one parameter, *args
    try:
        with _quiet():
            exported = torch.export.export(module, args, dynamic_shapes=dynamic, strict=False)
            program = torch.onnx.export(
                exported,
                args,
                input_names=input_names,
                opset_version=opset,
                dynamic_shapes=dynamic,
                custom_translation_table=translation_table(),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise DibrError(f"to_onnx: {type(module).__name__} cannot be exported: {_first_line(error)}") from error
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own internals."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def _drop_unwritten(model: onnx.ModelProto) -> None:
    """Leave the places of outputs empty that a Render node does not write; the tracer names all of them."""
    for node in model.graph.node:
        if node.domain == schema.OP_DOMAIN and node.op_type == "Render":
            listed = next(attribute.s for attribute in node.attribute if attribute.name == "outputs").decode()
            named = zip(RENDER_OUTPUTS, node.output, strict=True)
            outputs = [name if slot in listed.split(",") else "" for slot, name in named]
            unread = set(node.output) - set(outputs)
            while not outputs[-1]:
                outputs.pop()
            node.output[:] = outputs
            kept = [info for info in model.graph.value_info if info.name not in unread]
            del model.graph.value_info[:]
            model.graph.value_info.extend(kept)


def _name_outputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Give the graph's outputs these names; an inner value that has one of them already makes room.

    torch.onnx writes an output that is an input of the graph as a copy with the input's own name: there only the copy
    is renamed, not what reads the input.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    written = {name: f"{name}_inner" for name in names}
    written.update((output.name, name) for output, name in zip(graph.output, names, strict=True))
    read = {old: new for old, new in written.items() if old not in inputs}
    for node in graph.node:
        node.input[:] = [read.get(name, name) for name in node.input]
        node.output[:] = [written.get(name, name) for name in node.output]
    for named in (*graph.output, *graph.value_info, *graph.initializer):
        named.name = written.get(named.name, named.name)


def _drop_provenance(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on source files and stack traces, which tell paths of the machine."""
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]


def _describe(model: onnx.ModelProto, output_names: list[str], opset: int, meanings: Mapping[str, str]) -> None:
    producer_version = version("dibr_deploy")
    model.producer_name, model.producer_version = "dibr_deploy", producer_version
    outputs = {name: meanings.get(name, "") for name in output_names}
    onnx.helper.set_model_props(
        model,
        {
            schema.METADATA_SCHEMA_VERSION: str(OP_SCHEMA_VERSION),
            schema.METADATA_PRODUCER: f"dibr_deploy {producer_version}, torch {torch.__version__}",
            schema.METADATA_OPSET: str(opset),
            schema.METADATA_OUTPUTS: json.dumps(outputs),
        },
    )


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes. Raises where a checker objects or an output of our nodes has no shape."""
    onnx.checker.check_model(model, full_check=True)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    known = {info.name for info in (*model.graph.value_info, *model.graph.output) if _has_shape(info)}
    for node in model.graph.node:
        missing = (
            [name for name in node.output if name and name not in known] if node.domain == schema.OP_DOMAIN else []
        )
        if missing:
            raise DibrError(
                f"to_onnx: {node.op_type} node {node.name} has outputs without a shape: {', '.join(missing)}"
            )
    return model


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return info.type.tensor_type.HasField("shape")
