"""`dibr export`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tensorrt import Progress

_ONNX_SUFFIX = ".onnx"
_OPSET = 18
_OF_CHECKPOINTS = ("opset", "fp16", "float_photos", "unfused")
_OF_ENGINES = (
    "size", "version_compatible", "hardware_compatible", "compute_capability", "carry_plugin", "timing_cache",
    "optimization_level", "workspace",
)  # fmt: skip
_OF_TRITON = ("triton_name", "triton_path", "max_batch", "instances")
_SAMPLE_VIEWS = 2
_MIB = 1 << 20
_MEANINGS_OF_A_GENERATOR = {"code": "[B, Z] latent code, standard normal"}


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export`."""
    export = subparsers.add_parser(
        "export",
        help="write a trained model as ONNX, bundle or Triton repository, and TensorRT engines into bundles",
    )
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, metavar="PATH", help="a run folder or a checkpoint")
    source.add_argument("--model", type=Path, metavar="FILE", help="an ONNX file, to make a bundle of")
    source.add_argument("--bundle", type=Path, metavar="BUNDLE", help="a bundle, for an engine or a Triton repository")
    export.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="to write: an .onnx file, or a bundle, which is a .zip file or a folder (default: the --bundle itself)",
    )
    export.add_argument("--opset", type=int, help=f"of standard ONNX ops, >= {_OPSET} (default {_OPSET})")
    export.add_argument(
        "--fp16", action="store_true", help="compute in float16 where that is good enough; geometry stays in float32"
    )
    export.add_argument(
        "--float-photos",
        action="store_true",
        help="let a bundle's model take photos as float32 [B, 3, S, S] in 0..1, as an .onnx file does, instead of as "
        "uint8 [B, S, S, 3]",
    )
    export.add_argument(
        "--unfused", action="store_true", help="keep a node for each op of the renderer instead of one for all"
    )
    export.add_argument(
        "--tensorrt",
        nargs="?",
        const="auto",
        metavar="FLAVOUR",
        help="build an engine into the bundle, by tensorrt or tensorrt_rtx (default: the first that is installed)",
    )
    export.add_argument(
        "--triton", type=Path, metavar="REPOSITORY", help="write a model repository of the Triton Inference Server"
    )
    _add_engine_options(export.add_argument_group("of the engine"))
    _add_triton_options(export.add_argument_group("of the Triton repository"))
    export.set_defaults(run=_export)


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size",
        action="append",
        metavar="NAME=MIN:OPT:MAX",
        help="smallest, usual and largest size of a dynamic axis (default of the axis batch: 1:8:32), or shape of an "
        "input, like image_size=1x1:64x64:512x512; further ranges behind commas make further optimization profiles",
    )
    group.add_argument("--version-compatible", action="store_true", help="later versions of the major may load it")
    group.add_argument(
        "--hardware-compatible",
        default="none",
        metavar="KIND",
        help="which other devices may run it: none, ampere_plus or same_compute_capability",
    )
    group.add_argument(
        "--compute-capability", action="append", metavar="X.Y", help="of the devices to build for, with TensorRT-RTX"
    )
    group.add_argument("--carry-plugin", action="store_true", help="put the plugin library into the engine")
    group.add_argument("--timing-cache", type=Path, metavar="FILE", help="of TensorRT, read and written")
    group.add_argument("--optimization-level", type=int, metavar="N", help="of TensorRT, 0 to 5")
    group.add_argument("--workspace", type=int, metavar="MIB", help="largest scratch memory of a layer")


def _add_triton_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--triton-name", metavar="NAME", help="of the models (default: the source's file name)")
    group.add_argument(
        "--triton-path",
        metavar="PATH",
        help="of the repository where Triton runs, like /models (default: as it is here)",
    )
    group.add_argument("--max-batch", type=int, metavar="N", help="of requests that Triton runs together (default 8)")
    group.add_argument("--instances", type=int, metavar="N", help="of the model on every device (default 1)")


def _export(arguments: argparse.Namespace) -> None:
    with _plain_warnings(), contextlib.ExitStack() as stack:
        engine = _engine_options(arguments)
        _check(arguments, engine)
        source: Path = arguments.bundle or arguments.model or arguments.checkpoint
        kept = arguments.bundle is not None or arguments.output is not None
        if not kept:
            arguments.output = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bundle.zip"
        if arguments.model is not None:
            _from_model(arguments, engine)
        elif arguments.checkpoint is not None:
            _from_checkpoint(arguments, engine)
        elif engine is not None:
            _into_bundle(arguments, engine)
        written: Path = arguments.output or arguments.bundle
        if kept and (arguments.bundle is None or engine is not None):
            _report(written)
        if arguments.triton is not None:
            _to_triton(arguments, written, source.resolve().stem)


def _check(arguments: argparse.Namespace, engine: dict[str, Any] | None) -> None:
    """Refuse combinations that mean nothing."""
    from dibr_deploy.errors import DibrError

    if arguments.checkpoint is None:
        for name in _OF_CHECKPOINTS:
            if _is_given(arguments, name):
                raise DibrError(f"{_flag(name)} needs --checkpoint: a model that is written already stays as it is")
    if arguments.bundle is not None:
        if engine is None and arguments.triton is None:
            raise DibrError("--bundle needs --tensorrt or --triton: there is nothing else to do with a bundle")
        if engine is None and arguments.output is not None:
            raise DibrError("--output needs --tensorrt: without an engine the bundle stays as it is")
    elif arguments.output is None and arguments.triton is None:
        raise DibrError("--output is missing: it says where to write the model")
    if arguments.triton is None:
        given = [name for name in _OF_TRITON if _is_given(arguments, name)]
        if given:
            raise DibrError(f"{_flag(given[0])} needs --triton, which writes a model repository")
    if arguments.output is not None and arguments.output.suffix == _ONNX_SUFFIX:
        if arguments.triton is not None:
            raise DibrError(
                f"--triton needs a bundle, which is a .zip file or a folder, as --output, got {arguments.output}"
            )
        if engine is not None:
            raise DibrError(
                f"--tensorrt needs a bundle, which is a .zip file or a folder, as --output, got {arguments.output}"
            )
        if arguments.model is not None:
            raise DibrError(f"--model needs a bundle, a .zip file or a folder, as --output, got {arguments.output}")


def _engine_options(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Arguments of ``build_engine``; None where no engine is asked for."""
    from dibr_deploy.errors import DibrError

    given = [name for name in _OF_ENGINES if _is_given(arguments, name)]
    if arguments.tensorrt is None:
        if given:
            raise DibrError(f"{_flag(given[0])} needs --tensorrt, which builds an engine")
        return None
    options = {
        "version_compatible": arguments.version_compatible,
        "hardware_compatible": arguments.hardware_compatible,
        "compute_capabilities": arguments.compute_capability or (),
        "carry_plugin": arguments.carry_plugin,
        "timing_cache": arguments.timing_cache,
        "optimization_level": arguments.optimization_level,
        "workspace": None if arguments.workspace is None else arguments.workspace * _MIB,
    }
    return {"flavour": arguments.tensorrt, "sizes": _sizes(arguments.size or []), **options}


def _is_given(arguments: argparse.Namespace, name: str) -> bool:
    value = getattr(arguments, name)
    return value is not None and value is not False and value != "none"


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sizes(texts: list[str]) -> list[dict[str, Any]]:
    """For each optimization profile: ranges by name. A name with one range has it in all of them."""
    from dibr_deploy.errors import DibrError

    by_name: dict[str, list[Any]] = {}
    for text in texts:
        name, _, ranges = text.rpartition("=")
        if name in by_name:
            raise DibrError(f"--size {name} is given twice")
        by_name[name] = [_range(text, part) for part in ranges.split(",")]
    count = max((len(ranges) for ranges in by_name.values()), default=1)
    for name, found in by_name.items():
        if len(found) not in (1, count):
            raise DibrError(f"--size {name} has {len(found)} ranges, but another one has {count}")
    return [{name: found[index % len(found)] for name, found in by_name.items()} for index in range(count)]


def _range(text: str, part: str) -> tuple[Any, Any, Any]:
    """Three sizes or shapes; one alone stands for all three."""
    from dibr_deploy.errors import DibrError

    try:
        numbers = [[int(size) for size in shape.split("x")] for shape in part.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or text.startswith("=") or "=" not in text:
        raise DibrError(f"--size must be NAME=MIN:OPT:MAX, for example batch=1:8:32, got {text}")
    smallest, usual, largest = [shape if "x" in part else shape[0] for shape in numbers] * (3 // len(numbers))
    return smallest, usual, largest


def _from_checkpoint(arguments: argparse.Namespace, engine: dict[str, Any] | None) -> None:
    import torch

    from dibr_deploy.errors import DibrError
    from dibr_deploy.models import ImageToMeshRenderer
    from dibr_deploy.training.checkpoint import load_any

    from .exporter import to_onnx
    from .views import cameras, sources

    model = load_any(arguments.checkpoint)
    takes_photos = isinstance(model, ImageToMeshRenderer)
    if arguments.float_photos and not takes_photos:
        raise DibrError(f"--float-photos needs a model of photos; checkpoint {arguments.checkpoint} is of a generator")
    example = (torch.zeros_like(sources(model, 1)), torch.eye(4).unsqueeze(0))
    options = {"opset": _OPSET if arguments.opset is None else arguments.opset, "fp16": arguments.fp16}
    options["fused"] = not arguments.unfused
    if arguments.output.suffix == _ONNX_SUFFIX:
        to_onnx(model, example, arguments.output, **options)
        return

    from .bundles import to_bundle
    from .stages import renderer_of

    given = sources(model, _sample_views(engine))
    sample = (given, cameras(model, given))
    with _progress_bar() as progress:
        to_bundle(
            model,
            example,
            arguments.output,
            sample_args=sample,
            tensorrt=engine,
            progress=progress,
            photo_input="image" if takes_photos and not arguments.float_photos else None,
            meanings={} if takes_photos else _MEANINGS_OF_A_GENERATOR,
            renderer=renderer_of(model),
            **options,
        )


def _sample_views(engine: dict[str, Any] | None) -> int:
    """As many as the engine can take."""
    smallest, _, largest = (engine["sizes"][0].get("batch") if engine else None) or (1, 1, _SAMPLE_VIEWS)
    return max(smallest, min(largest, _SAMPLE_VIEWS))


def _from_model(arguments: argparse.Namespace, engine: dict[str, Any] | None) -> None:
    from .bundles import bundle_model

    with _progress_bar() as progress:
        bundle_model(arguments.model, arguments.output, tensorrt=engine, progress=progress)


def _into_bundle(arguments: argparse.Namespace, engine: dict[str, Any]) -> None:
    from .bundles import add_engine

    with _progress_bar() as progress:
        add_engine(arguments.bundle, engine, output=arguments.output, progress=progress)


def _to_triton(arguments: argparse.Namespace, bundle: Path, name: str) -> None:
    from .triton import INSTANCES, MAX_BATCH, to_triton

    written = to_triton(
        bundle,
        arguments.triton,
        name=arguments.triton_name or name,
        seen_at=arguments.triton_path,
        max_batch=MAX_BATCH if arguments.max_batch is None else arguments.max_batch,
        instances=INSTANCES if arguments.instances is None else arguments.instances,
    )
    print(f"Triton models written to {arguments.triton}:")
    for model in written:
        batch = (
            f"batches of up to {model.max_batch}" if model.max_batch else "no batching: not all tensors have the axis"
        )
        print(f"  {model.name} version {model.version}: {batch}{model.note and '; '}{model.note}")


def _report(path: Path) -> None:
    if path.suffix == _ONNX_SUFFIX:
        print(f"model written to {path}")
        return
    from dibr_deploy.runtime.bundle import Bundle

    manifest = Bundle(path).manifest
    print(f"bundle written to {path}: {', '.join(manifest.files)}")


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[Progress], object] | None]:
    """Shows how far a build is, on a terminal and where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield None
        return
    form = "{desc:<40.40} {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=1.0, desc="building the engine", bar_format=form, leave=False, disable=None) as bar:

        def show(event: Progress) -> None:
            bar.set_description(event.phase, refresh=False)
            bar.update(event.fraction - bar.n)

        yield show


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the lines of code that they come from."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"dibr: {message}", file=sys.stderr)
        yield
