"""`dibr train`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import RunConfig
    from .distributed import Processes
    from .runs import TrainingRun

INTERRUPTED = 130


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `train`."""
    train = subparsers.add_parser("train", help="train an image-to-mesh network from images, masks and cameras")
    add_run_options(train)
    train.add_argument("--steps", type=int, help="optimiser steps of the whole run (default 2000)")
    train.add_argument("--batch", type=int, help="input images per step (default 8)")
    train.add_argument("--encoder", help="convolution, or resnet18 for images of 224 (default convolution)")
    train.add_argument("--pretrained", metavar="SOURCE", help="weights of resnet18: torchvision, timm or a file")
    train.add_argument("--image-size", type=int, help="side of the network's input (default 64)")
    train.add_argument("--texture-size", type=int, help="side of the predicted texture (default 64)")
    train.add_argument("--features", type=int, help="length of the code behind the encoder (default 256)")
    train.add_argument("--colour-features", type=int, help="length of the code for colours (default 64)")
    train.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="steps between checkpoints (default 250)")
    train.set_defaults(run=_train)


def add_run_options(train: argparse.ArgumentParser) -> None:
    """What every training takes, as :func:`train_as_asked` reads it."""
    train.add_argument("--config", type=Path, metavar="FILE", help="TOML or YAML; options given here come first")
    train.add_argument("--data", type=Path, metavar="FOLDER", help="dataset, see docs/data.md")
    train.add_argument("--output", type=Path, metavar="RUN", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on with the run in RUN; settings are taken from it")
    train.add_argument("--lr", type=float, help="peak learning rate (default 0.001)")
    train.add_argument("--seed", type=int, help="of weights and order (default 0)")
    train.add_argument("--device", help="auto, cpu or cuda (default auto)")
    train.add_argument("--precision", help="of the networks' layers, float32 or bfloat16 (default float32)")
    train.add_argument("--tensorboard", action="store_true", default=None, help="log for TensorBoard too")


def _train(arguments: argparse.Namespace) -> int:
    from .config import TrainingConfig
    from .trainer import Trainer

    return train_as_asked(arguments, TrainingConfig, Trainer)


def train_as_asked(
    arguments: argparse.Namespace, kind: type[RunConfig], trainer: Callable[..., TrainingRun[Any]]
) -> int:
    """Trains in the processes that `torchrun` started, or in this one alone; returns the exit code.

    Args:
        kind: of the settings: those that the command line has an option for come from there first, then from the file
            of --config, and from the run that is resumed.
        trainer: ``Trainer`` or ``AdversarialTrainer``.
    """
    from .config import parse_config
    from .distributed import join_processes
    from .runs import read_settings

    data, output, given = _given(arguments, kind)
    kept = read_settings(output) if arguments.resume else {}
    config = parse_config({**kept, **given}, kind)
    start = functools.partial(trainer, data, output, config, resume=arguments.resume)
    with join_processes(config.device) as processes:
        return _train_among(processes, start)


def _train_among(processes: Processes, start: Callable[..., TrainingRun[Any]]) -> int:
    """Trains and returns the exit code. The run is gone at the end, as ``join_processes`` asks for."""
    run = start(processes=processes)
    try:
        run.run()
    except KeyboardInterrupt:
        if processes.first:
            print(f"dibr: stopped at step {run.step}; go on with --resume", file=sys.stderr)
        return INTERRUPTED
    if processes.first:
        print("\n".join(run.summary()))
    return 0


def _given(arguments: argparse.Namespace, kind: type[RunConfig]) -> tuple[Path, Path, dict[str, Any]]:
    """Data, output and settings."""
    from ..errors import DibrError
    from .config import read_config_file

    values = {} if arguments.config is None else read_config_file(arguments.config)
    for name in ("data", "output", *kind.model_fields):
        if getattr(arguments, name, None) is not None:
            values[name] = getattr(arguments, name)
    for name in ("data", "output"):
        if not isinstance(values.get(name), str | Path):
            raise DibrError(f"--{name} is needed, here or as {name} in the file of --config")
    return Path(values.pop("data")), Path(values.pop("output")), values
