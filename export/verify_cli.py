"""`dibr verify`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dibr_deploy.runtime.session import PROVIDERS

if TYPE_CHECKING:
    from torch import Tensor

    from dibr_deploy.runtime.comparison import Report

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `verify`."""
    verify = subparsers.add_parser("verify", help="compare what torch and every other door make of a model")
    verify.add_argument("--model", type=Path, required=True, metavar="PATH", help="a bundle or an ONNX file")
    verify.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="the run folder or checkpoint it was exported from (default: the sample in the bundle, without torch)",
    )
    verify.add_argument(
        "--doors",
        metavar="NAME,NAME",
        help=f"of {', '.join(PROVIDERS)}: an error where one of these is absent (default: all that open here)",
    )
    verify.add_argument("--tolerance", type=float, help="of real numbers (default: 1e-4, with float16 weights 2e-2)")
    verify.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures for the checkpoint (default: noise, or codes)"
    )
    verify.add_argument("--count", type=int, default=8, help="how many of these at most (default %(default)s)")
    verify.add_argument("--threads", type=int, default=None, help="of one operator (default: one per core)")
    verify.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> None:
    from dibr_deploy.errors import DibrError

    if arguments.count < 1:
        raise DibrError(f"count must be at least 1, got {arguments.count}")
    options = {
        "doors": arguments.doors.split(",") if arguments.doors else None,
        "tolerance": arguments.tolerance,
        "threads": arguments.threads,
    }
    report = _against_sample(arguments, options) if arguments.checkpoint is None else _against_torch(arguments, options)
    print(report)
    if not report.passed:
        raise DibrError(f"model {arguments.model}: {'; '.join(report.shortcomings)}")


def _against_sample(arguments: argparse.Namespace, options: dict[str, Any]) -> Report:
    from dibr_deploy.errors import DibrError
    from dibr_deploy.runtime.comparison import compare_sample

    if arguments.images is not None:
        raise DibrError("--images needs --checkpoint: a bundle's sample has its own inputs")
    return compare_sample(arguments.model, **options)


def _against_torch(arguments: argparse.Namespace, options: dict[str, Any]) -> Report:
    from dibr_deploy.errors import DibrError
    from dibr_deploy.models import ImageToMeshRenderer
    from dibr_deploy.training.checkpoint import load_any

    from .verification import verify
    from .views import cameras, sources

    model = load_any(arguments.checkpoint)
    if arguments.images is None:
        given = sources(model, arguments.count)
    elif isinstance(model, ImageToMeshRenderer):
        given = _images(arguments.images, arguments.count, model.network.config.image_size)
    else:
        raise DibrError(
            f"--images needs a model that takes images; checkpoint {arguments.checkpoint} is of a generator"
        )
    return verify(model, arguments.model, (given, cameras(model, given)), **options)


def _images(folder: Path, count: int, size: int) -> Tensor:
    """The first pictures of a folder in the order of their names: [B, 3, size, size]."""
    import numpy as np
    import torch

    from dibr_deploy.errors import DibrError
    from dibr_deploy.runtime.images import load_square

    if not folder.is_dir():
        raise FileNotFoundError(f"images folder {folder} does not exist")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)[:count]
    if not files:
        raise DibrError(f"images folder {folder} has no picture ({', '.join(_IMAGE_SUFFIXES)})")
    return torch.from_numpy(np.stack([load_square(path, size) for path in files]))
