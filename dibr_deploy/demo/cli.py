"""`dibr demo`: the arguments. The work is imported when the command runs, and torch never is."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `demo`."""
    demo = subparsers.add_parser("demo", help="turn a picture into a mesh with the network that comes with the package")
    picture = demo.add_mutually_exclusive_group()
    picture.add_argument("--image", type=Path, metavar="FILE", help="a picture of one of these objects on white")
    picture.add_argument(
        "--sample",
        default="duck",
        metavar="NAME",
        help="bunny, cone, duck, soccerball, teddy or wheel (default %(default)s)",
    )
    demo.add_argument("--output", type=Path, default=Path("dibr_demo"), metavar="FOLDER", help="(default %(default)s)")
    demo.add_argument("--frames", type=int, default=36, help="views of the turntable (default %(default)s)")
    demo.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    from ..runtime.render import render_photo
    from ..runtime.session import Session
    from . import MODEL, sample

    image = arguments.image or sample(arguments.sample)
    written = render_photo(Session(MODEL), image, arguments.output, frames=arguments.frames)
    for name, path in written._asdict().items():
        print(f"{name}: {path}")
