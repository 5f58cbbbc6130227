"""Bundles: a model with a sample, engines and a manifest that says what all of it needs.

Only ``to_bundle`` needs torch and onnx: a machine that builds engines for bundles has neither.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import schema
from dibr_deploy.runtime.bundle import Bundle, check_place, entries, write_bundle
from dibr_deploy.runtime.comparison import INPUT_PREFIX, OUTPUT_PREFIX
from dibr_deploy.runtime.manifest import MODEL_FILE, Engine, Manifest, Tensor
from dibr_deploy.runtime.onnx_file import OnnxHeader, ValueInfo, existing_file, parse_header, parse_interface

from .tensorrt import Progress, build_engine

if TYPE_CHECKING:
    import torch

SAMPLE_FILE = "sample.npz"
PREPROCESS_FILE = "preprocess.onnx"
RENDERER_FILE = "renderer.onnx"
_PHOTO_MEANING = "[B, H, W, 3] photo, uint8 sRGB, row 0 at the top"
INPUT_MEANINGS = {
    "input_image": "[B, 3, S, S] photo in 0..1, row 0 at the top",
    "world_to_clip": "[B, 4, 4] camera, world to clip space, for column vectors",
}
"""What inputs of these names mean, unless the caller says otherwise."""


def to_bundle(
    module: torch.nn.Module,
    example_args: Sequence[torch.Tensor] | torch.Tensor,
    path: str | Path,
    *,
    fp16: bool = False,
    sample_args: Sequence[torch.Tensor] | torch.Tensor | None = None,
    tensorrt: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], object] | None = None,
    meanings: Mapping[str, str] | None = None,
    photo_input: str | None = None,
    renderer: tuple[torch.nn.Module, Sequence[torch.Tensor]] | None = None,
    **options: Any,
) -> Path:
    """Export a module to a bundle: its ONNX graph, a sample of what torch makes of it, and an engine where asked for.

    Args:
        module, example_args: as ``to_onnx`` takes them.
        path: the bundle: a .zip file, or a folder. A bundle that is there is replaced.
        fp16: as in ``to_onnx``. The sample's outputs are torch's in float32.
        sample_args: inputs of the sample, which ``dibr verify`` compares on; by default the example.
        tensorrt: arguments of ``build_engine``, ``{}`` for its defaults; None builds no engine.
        progress: as in ``build_engine``.
        meanings: what inputs and outputs mean, by name.
        photo_input: as in ``to_onnx``; the bundle then also has the graph that makes pictures of any size fit.
        renderer: a module that renders what the model predicts, and example arguments: its inputs that are called as
            outputs of the model take these. It lets a viewer turn a mesh without predicting it again.
        options: of ``to_onnx``.

    Returns:
        The path.

    Raises:
        DibrError: as ``to_onnx`` and ``build_engine``; or the path is no place for a bundle. Nothing is written then.
    """
    from .exporter import to_onnx

    path = Path(path)
    check_place(path)
    meanings = meanings or {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODEL_FILE
        to_onnx(module, example_args, file, fp16=fp16, meanings=meanings, photo_input=photo_input, **options)
        model = file.read_bytes()
        parts = {} if photo_input is None else {PREPROCESS_FILE: _preprocessing(model, photo_input)}
        if renderer is not None:
            to_onnx(*renderer, file, **options)
            parts[RENDERER_FILE] = file.read_bytes()
    described = _described(model, meanings)
    sample = _sample(module, example_args if sample_args is None else sample_args, described["inputs"])
    return _write(path, model, described, sample, tensorrt, progress, parts)


def bundle_model(
    model: str | Path,
    path: str | Path,
    *,
    tensorrt: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Path:
    """Make a bundle of an ONNX file. It has no sample, since torch is not asked.

    Args:
        model: a file that ``to_onnx`` wrote.
        path, tensorrt, progress: as in ``to_bundle``.

    Raises:
        FileNotFoundError: there is no such model.
        DibrError: as ``build_engine``; or the model is no ONNX file, or the path is no place for a bundle.
    """
    path = Path(path)
    check_place(path)
    content = existing_file(model).read_bytes()
    return _write(path, content, _described(content, {}), None, tensorrt, progress)


def add_engine(
    bundle: str | Path,
    tensorrt: Mapping[str, Any] | None = None,
    *,
    output: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Engine:
    """Build an engine of a bundle's model and put it into the bundle, before the engines that are there.

    An engine of the same flavour, version and devices is replaced.

    Args:
        bundle: the bundle.
        tensorrt: arguments of ``build_engine``.
        output: where to write the bundle with the engine; by default it is replaced.
        progress: as in ``build_engine``.

    Returns:
        The engine's entry in the manifest.

    Raises:
        FileNotFoundError: there is no such bundle.
        DibrError: as ``build_engine``; or the bundle is damaged, or the output is no place for a bundle.
    """
    opened = Bundle(bundle)
    path = Path(bundle if output is None else output)
    check_place(path)
    files = {name: opened.read(name) for name in opened.manifest.files}
    content, engine = build_engine(files[opened.manifest.model], progress=progress, **(tensorrt or {}))
    engines = (engine, *(old for old in opened.manifest.engines if old.file != engine.file))
    files[engine.file] = content
    changes = {"files": entries(files), "engines": engines}
    write_bundle(path, Manifest(**{**dict(opened.manifest), **changes}), files)
    return engine


def _preprocessing(model: bytes, photo_input: str) -> bytes:
    """The graph that makes pictures fit the model's input for photos."""
    from .images import preprocessing

    names = (photo_input, f"input_{photo_input}")
    [info] = [info for info in parse_interface(model, MODEL_FILE).inputs if info.name in names]
    _, height, width, _ = info.shape
    if not isinstance(height, int) or not isinstance(width, int):
        raise DibrError(f"to_bundle: photos of {info.name} have sizes that are not fixed, so there is nothing to fit")
    return preprocessing(info.name, height, width).SerializeToString()


def _sample(module: torch.nn.Module, args: Sequence[torch.Tensor] | torch.Tensor, inputs: Sequence[Tensor]) -> bytes:
    """The .npz file of inputs and outputs by their names in the graph."""
    import torch

    from .exporter import evaluation_mode, named_outputs
    from .images import as_the_model_takes

    tensors = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    module, tensors = as_the_model_takes(module, tensors, [info.dtype for info in inputs])
    with evaluation_mode(module):
        outputs = named_outputs(module(*tensors))
    arrays = {f"{INPUT_PREFIX}{info.name}": tensor for info, tensor in zip(inputs, tensors, strict=True)}
    arrays |= {f"{OUTPUT_PREFIX}{name}": tensor for name, tensor in outputs.items()}
    for name, tensor in arrays.items():
        if tensor.dtype == torch.bfloat16:
            raise DibrError(f"to_bundle: {name} is bfloat16, which a sample cannot hold: numpy has no such dtype")
    content = io.BytesIO()
    values: dict[str, Any] = {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}
    np.savez_compressed(content, **values)
    return content.getvalue()


def _write(
    path: Path,
    model: bytes,
    described: Mapping[str, Any],
    sample: bytes | None,
    tensorrt: Mapping[str, Any] | None,
    progress: Callable[[Progress], object] | None,
    parts: Mapping[str, bytes] | None = None,
) -> Path:
    """parts: further files, PREPROCESS_FILE and RENDERER_FILE."""
    files = {MODEL_FILE: model, **(parts or {})} | ({SAMPLE_FILE: sample} if sample is not None else {})
    engines: tuple[Engine, ...] = ()
    if tensorrt is not None:
        content, engine = build_engine(model, progress=progress, **tensorrt)
        files[engine.file] = content
        engines = (engine,)
    manifest = Manifest(
        **described,
        files=entries(files),
        engines=engines,
        sample=SAMPLE_FILE if sample is not None else None,
        preprocess=PREPROCESS_FILE if PREPROCESS_FILE in files else None,
        renderer=RENDERER_FILE if RENDERER_FILE in files else None,
    )
    return write_bundle(path, manifest, files)


def _described(model: bytes, meanings: Mapping[str, str]) -> dict[str, Any]:
    """What the model says of itself, as fields of the manifest."""
    header = parse_header(io.BytesIO(model), len(model), MODEL_FILE)
    interface = parse_interface(model, MODEL_FILE)
    photos = {
        info.name: _PHOTO_MEANING
        for info in interface.inputs
        if info.dtype == "uint8" and len(info.shape) == 4 and info.shape[3] == 3
    }
    output_meanings = {**_stated_meanings(header), **meanings}
    return {
        "schema_version": header.opsets.get(schema.OP_DOMAIN, 1),
        "opset": header.opsets.get("", header.opsets.get("ai.onnx", 0)),
        "onnxruntime_api": schema.ONNXRUNTIME_API,
        "producer": header.metadata.get(schema.METADATA_PRODUCER, ""),
        "inputs": _tensors(interface.inputs, {**INPUT_MEANINGS, **photos, **meanings}),
        "outputs": _tensors(interface.outputs, output_meanings),
    }


def _stated_meanings(header: OnnxHeader) -> dict[str, str]:
    try:
        stated = json.loads(header.metadata.get(schema.METADATA_OUTPUTS, "{}"))
    except ValueError:
        return {}
    if not isinstance(stated, dict):
        return {}
    return {name: meaning for name, meaning in stated.items() if isinstance(meaning, str)}


def _tensors(values: Sequence[ValueInfo], meanings: Mapping[str, str]) -> tuple[Tensor, ...]:
    return tuple(Tensor.model_validate({**info._asdict(), "meaning": meanings.get(info.name, "")}) for info in values)
