"""`dibr generate`: the arguments. The work is imported when a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .training.cli import add_run_options, train_as_asked

if TYPE_CHECKING:
    from torch import Tensor

    from .models import MeshGeneratorRenderer

_SHOWN = 12
"""Samples in the picture of `generate compare`."""
_SHOWN_SIZE = 96
"""Of each, pixels."""


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `generate train`, `generate sample`, `generate interpolate` and `generate compare`."""
    generate = subparsers.add_parser("generate", help="train a generator of textured meshes, and sample it")
    commands = generate.add_subparsers(dest="generate_command", required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train it against a critic, from images, masks and cameras"))

    sample = commands.add_parser("sample", help="write pictures and meshes of random codes")
    _add_source(sample)
    sample.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="to be made")
    sample.add_argument("--count", type=int, default=8, help="of objects (default %(default)s)")
    sample.add_argument("--views", type=int, default=4, help="pictures of each (default %(default)s)")
    sample.set_defaults(run=_sample)

    interpolate = commands.add_parser("interpolate", help="write an animation of the way between random codes")
    _add_source(interpolate)
    interpolate.add_argument("--output", type=Path, required=True, metavar="FILE", help="a .gif file")
    interpolate.add_argument("--codes", type=int, default=5, help="on the way (default %(default)s)")
    interpolate.add_argument("--frames", type=int, default=16, help="from each to the next (default %(default)s)")
    interpolate.set_defaults(run=_interpolate)

    compare = commands.add_parser("compare", help="ask whether samples repeat training objects")
    _add_source(compare)
    compare.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="what it was trained on, with its truth"
    )
    compare.add_argument("--held-out", type=Path, required=True, metavar="FOLDER", help="other objects, with truth")
    compare.add_argument("--count", type=int, default=256, help="of samples (default %(default)s)")
    compare.add_argument("--picture", type=Path, metavar="FILE", help="samples over their nearest objects, as PNG")
    compare.set_defaults(run=_compare)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="run folder or checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="of the codes (default %(default)s)")


def _add_train(train: argparse.ArgumentParser) -> None:
    add_run_options(train)
    train.add_argument("--steps", type=int, help="updates of the generator in the whole run (default 5000)")
    train.add_argument("--objects", type=int, help="generated per update (default 8)")
    train.add_argument("--views", type=int, help="of each, from random training cameras (default 2)")
    train.add_argument("--critic-steps", type=int, help="updates of the critic per step (default 2)")
    train.add_argument("--latent", type=int, help="length of the code (default 32)")
    train.add_argument("--texture-size", type=int, help="side of the texture (default 32)")
    train.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="steps between checkpoints (default 500)")
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from .training.adversarial import AdversarialTrainer
    from .training.adversarial_config import AdversarialConfig

    return train_as_asked(arguments, AdversarialConfig, AdversarialTrainer)


def _sample(arguments: argparse.Namespace) -> None:
    from .errors import DibrError
    from .files import check_new_output, write_folder_atomically
    from .generation import random_codes
    from .training.checkpoint import load_generator

    check_new_output(arguments.output)
    if arguments.views < 1:
        raise DibrError(f"views must be at least 1, got {arguments.views}")
    model = load_generator(arguments.checkpoint)
    codes = random_codes(model, arguments.count, arguments.seed)
    write_folder_atomically(arguments.output, lambda folder: _write_samples(folder, model, codes, arguments.views))
    print(f"samples.png and {arguments.count} meshes written to {arguments.output}")


def _write_samples(folder: Path, model: MeshGeneratorRenderer, codes: Tensor, views: int) -> None:
    from .generation import meshes, pictures, rows_of, turntable
    from .mesh import write_mesh
    from .runtime.images import write_png

    shown = pictures(model, codes.repeat_interleave(views, dim=0), turntable(views).repeat(len(codes), 1, 1))
    write_png(folder / "samples.png", rows_of(shown, views).numpy())
    for number, mesh in enumerate(meshes(model, codes)):
        write_mesh(mesh, folder / f"sample_{number:03d}.glb")


def _interpolate(arguments: argparse.Namespace) -> None:
    from .errors import DibrError
    from .generation import pictures, random_codes, turntable, way_through
    from .runtime.images import write_gif
    from .training.checkpoint import load_generator

    if arguments.output.suffix.lower() != ".gif":
        raise DibrError(f"output must be a .gif file, got {arguments.output}")
    model = load_generator(arguments.checkpoint)
    way = way_through(random_codes(model, arguments.codes, arguments.seed), arguments.frames)
    frames = pictures(model, way, turntable(len(way)))
    write_gif(arguments.output, list(frames[:, :3].permute(0, 2, 3, 1).numpy()))
    print(f"{len(frames)} frames written to {arguments.output}")


def _compare(arguments: argparse.Namespace) -> None:
    from .generation import random_codes, rows_of
    from .memorising import beside, compare, solids_of, true_solids_of
    from .runtime.images import write_png
    from .runtime.tables import aligned
    from .training.checkpoint import load_generator

    training, new = (true_solids_of(folder) for folder in (arguments.data, arguments.held_out))
    model = load_generator(arguments.checkpoint)
    made = solids_of(model, random_codes(model, arguments.count, arguments.seed))
    report = compare(made, training, new, seed=arguments.seed)
    print("\n".join([*aligned(report.table(), left=1), "", *aligned(report.coverage_table(), left=1), ""]))
    print(report.verdict())
    if arguments.picture is not None:
        shown = made[:_SHOWN]
        pictures = beside(shown, training, new, report, _SHOWN_SIZE)
        write_png(arguments.picture, rows_of(pictures, len(shown)).numpy())
