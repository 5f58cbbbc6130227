"""The `dibr` command.

Each command's arguments are declared in a small module that imports no framework; the work is imported when the
command runs. What a user did wrong ends in one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from .errors import one_line

COMMAND_MODULES = (
    "dibr_deploy.data.cli",
    "dibr_deploy.training.cli",
    "dibr_deploy.evaluation_cli",
    "dibr_deploy.fitting_cli",
    "dibr_deploy.generation_cli",
    "dibr_deploy.export.cli",
    "dibr_deploy.export.verify_cli",
    "dibr_deploy.demo.cli",
    "dibr_deploy.runtime.cli",
    "dibr_deploy.runtime.server.cli",
)

_EXTRAS = {
    **dict.fromkeys(("google", "grpc", "multipart", "prometheus_client", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("onnx", "onnxscript"), "onnx"),
    **dict.fromkeys(("torch", "tqdm", "yaml"), "train"),
    "onnxruntime": "onnxruntime",
    "tensorboard": "tensorboard",
}
"""By Python package: the extra of this project that brings it."""

_USER_ERRORS = (ValueError, OSError)
_BAD_INPUT, _INTERRUPTED = 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command of ``COMMAND_MODULES``."""
    parser = argparse.ArgumentParser(
        prog="dibr", description="Train, export and serve networks with the DIB-R differentiable renderer inside."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMAND_MODULES:
        importlib.import_module(name).add_commands(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 130 for an interrupt."""
    parsed = build_parser().parse_args(arguments)
    # Read when torch is imported: threads that spin while they wait make busy cores several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        result = parsed.run(parsed)
    except _USER_ERRORS as error:
        print(f"dibr: {_sentence(error)}", file=sys.stderr)
        return _BAD_INPUT
    except ModuleNotFoundError as error:
        print(f"dibr: {_missing(error)}", file=sys.stderr)
        return _BAD_INPUT
    except KeyboardInterrupt:
        print("dibr: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return int(result or 0)


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    remedy = f": pip install 'dibr_deploy[{_EXTRAS[package]}]'" if package in _EXTRAS else ""
    return f"this command needs the Python package {error.name}, which is not installed{remedy}"


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return one_line(error)


if __name__ == "__main__":
    sys.exit(main())
