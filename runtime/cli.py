"""`dibr render` and `dibr doctor`: the arguments. The work is imported when the command runs, and torch never is."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from .probes import TIMEOUT


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `render` and `doctor`."""
    render = subparsers.add_parser("render", help="show what an exported model makes of a photo")
    render.add_argument("--model", type=Path, required=True, metavar="FILE", help="written by `dibr export`")
    render.add_argument("--image", type=Path, required=True, metavar="FILE", help="a photo of any size")
    render.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for PNG, GIF and GLB")
    render.add_argument("--frames", type=int, default=36, help="views of the turntable (default %(default)s)")
    render.add_argument("--elevation", type=float, default=20.0, help="of the camera, degrees (default %(default)s)")
    render.add_argument("--provider", default="auto", help="see Session (default %(default)s)")
    render.add_argument("--threads", type=int, default=None, help="of one operator (default: one per core)")
    render.set_defaults(run=_render)

    doctor = subparsers.add_parser("doctor", help="say which ways to run the renderer work on this machine")
    doctor.add_argument("model", type=Path, nargs="?", metavar="BUNDLE", help="say which of them can open this model")
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="that one way may take (default %(default)g)"
    )
    doctor.set_defaults(run=_doctor)


def _render(arguments: argparse.Namespace) -> None:
    from .render import render_photo
    from .session import Session

    if not -90 <= arguments.elevation <= 90:
        raise ValueError(f"--elevation must be from -90 to 90 degrees, got {arguments.elevation:g}")
    session = Session(arguments.model, arguments.provider, threads=arguments.threads)
    elevation = math.radians(arguments.elevation)
    written = render_photo(session, arguments.image, arguments.output, frames=arguments.frames, elevation=elevation)
    for name, path in written._asdict().items():
        print(f"{name}: {path}")


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    report = examine(arguments.model, timeout=arguments.timeout)
    print(report.to_json() if arguments.json else report)
    return 0 if report.healthy else 1
