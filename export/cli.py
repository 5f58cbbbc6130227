"""`dibr export` and `dibr verify`: the arguments. The work is imported when a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export` and `verify`."""
    export = subparsers.add_parser("export", help="write a trained model as ONNX, renderer included")
    export.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help="a run folder or a checkpoint")
    export.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .onnx file to write")
    export.add_argument("--opset", type=int, default=18, help="of standard ONNX ops, >= 18 (default %(default)s)")
    export.set_defaults(run=_export)

    verify = subparsers.add_parser("verify", help="compare an exported model with its checkpoint")
    verify.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help="a run folder or a checkpoint")
    verify.add_argument("--model", type=Path, required=True, metavar="FILE", help="written by `dibr export`")
    verify.add_argument("--images", type=Path, metavar="FOLDER", help="pictures to compare on (default: noise)")
    verify.add_argument("--count", type=int, default=8, help="how many views at most (default %(default)s)")
    verify.add_argument("--threads", type=int, default=None, help="of one operator (default: one per core)")
    verify.set_defaults(run=_verify)


def _export(arguments: argparse.Namespace) -> None:
    import torch

    from dibr_deploy.training import load_checkpoint

    from .exporter import to_onnx

    model = load_checkpoint(arguments.checkpoint)
    size = model.network.config.image_size
    example = (torch.zeros(1, 3, size, size), torch.eye(4).unsqueeze(0))
    to_onnx(model, example, arguments.output, opset=arguments.opset)
    print(f"model written to {arguments.output}")


def _verify(arguments: argparse.Namespace) -> None:
    from dibr_deploy.errors import DibrError
    from dibr_deploy.training import load_checkpoint

    from .verification import verify

    if arguments.count < 1:
        raise DibrError(f"count must be at least 1, got {arguments.count}")
    model = load_checkpoint(arguments.checkpoint)
    images = _images(arguments.images, arguments.count, model.network.config.image_size)
    report = verify(model, arguments.model, (images, _cameras(model, images)), threads=arguments.threads)
    print(report)
    failed = [difference.output for difference in report.differences if not difference.passed]
    if failed:
        raise DibrError(f"model {arguments.model} differs from {arguments.checkpoint} in {', '.join(failed)}")


def _images(folder: Path | None, count: int, size: int) -> Tensor:
    """The first pictures of a folder in the order of their names, or noise: [B, 3, size, size]."""
    import numpy as np
    import torch

    from dibr_deploy.errors import DibrError
    from dibr_deploy.runtime.images import load_square

    if folder is None:
        return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    if not folder.is_dir():
        raise FileNotFoundError(f"images folder {folder} does not exist")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)[:count]
    if not files:
        raise DibrError(f"images folder {folder} has no picture ({', '.join(_IMAGE_SUFFIXES)})")
    return torch.from_numpy(np.stack([load_square(path, size) for path in files]))


def _cameras(model, images: Tensor) -> Tensor:
    """A camera per image that sees the whole predicted mesh, each from another side: [B, 4, 4]."""
    import torch

    from dibr_deploy.runtime.render import turntable

    with torch.no_grad():
        vertices = model.eval().network(images).vertices
    image_size = (model.renderer.height, model.renderer.width)
    return torch.from_numpy(turntable(vertices[0].numpy(), image_size, len(images), 0.0, 0.35, 0.7))
