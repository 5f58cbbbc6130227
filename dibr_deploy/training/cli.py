"""`dibr train`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

INTERRUPTED = 130


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `train`."""
    train = subparsers.add_parser("train", help="train an image-to-mesh network from images, masks and cameras")
    train.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="dataset, see docs/data.md")
    train.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on with the run in RUN; settings are taken from it")
    train.add_argument("--steps", type=int, help="optimiser steps of the whole run (default 2000)")
    train.add_argument("--batch", type=int, help="input images per step (default 8)")
    train.add_argument("--lr", type=float, help="peak learning rate (default 0.001)")
    train.add_argument("--seed", type=int, help="of weights and order (default 0)")
    train.add_argument("--image-size", type=int, help="side of the network's input (default 64)")
    train.add_argument("--texture-size", type=int, help="side of the predicted texture (default 64)")
    train.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="steps between checkpoints (default 250)")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from .config import parse_config
    from .trainer import Trainer, read_config

    names = ("steps", "batch", "lr", "seed", "image_size", "texture_size", "checkpoint_every")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    kept = read_config(arguments.output) if arguments.resume else {}
    trainer = Trainer(arguments.data, arguments.output, parse_config({**kept, **given}), resume=arguments.resume)
    try:
        trainer.run()
    except KeyboardInterrupt:
        print(f"dibr: stopped at step {trainer.step}; go on with --resume", file=sys.stderr)
        return INTERRUPTED
    predicted, template = trainer.held_out_iou()
    print(f"mask IoU on held-out views: {predicted:.3f} (untouched sphere: {template:.3f})")
    print(f"checkpoint written to {arguments.output}")
    return 0
