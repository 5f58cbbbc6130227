"""`dibr optimize`: the arguments. The work is imported when the command runs."""

from __future__ import annotations

import argparse
import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data.views import View
    from .fitting import Fit, FitLoss


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `optimize`."""
    command = subparsers.add_parser("optimize", help="fit a mesh, its colours, light and cameras to images")
    command.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="images, masks and first cameras")
    command.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="to be made")
    command.add_argument("--object", metavar="ID", help="which of the dataset's objects (default its first)")
    command.add_argument("--mesh", type=Path, metavar="FILE", help="mesh to start from (default a sphere)")
    command.add_argument(
        "--fit", nargs="+", metavar="PART", help="shape, texture, light, camera (default the first three)"
    )
    command.add_argument("--light", type=float, nargs=4, metavar="N", help="to start from: ambient, x, y, z")
    command.add_argument("--steps", type=int, default=300, help="of the optimiser (default %(default)s)")
    command.add_argument("--texture-size", type=int, default=64, help="side of a new texture (default %(default)s)")
    command.add_argument("--held-out", type=int, default=0, metavar="N", help="views to judge by alone (default 0)")
    command.set_defaults(run=_optimize)


def _optimize(arguments: argparse.Namespace) -> None:
    import torch
    from tqdm import tqdm

    from .data.opening import open_dataset
    from .errors import DibrError
    from .files import check_new_output, write_folder_atomically
    from .fitting import Fit, FitSettings, split_for_judging
    from .mesh import read_mesh

    check_new_output(arguments.output)
    data = open_dataset(arguments.data)
    name = arguments.object or next(iter(data.views_of))
    if name not in data.views_of:
        raise DibrError(f"--object must be one of {', '.join(data.views_of)}, got {name}")
    parts = FitSettings.parts if arguments.fit is None else tuple(arguments.fit)
    settings = FitSettings(parts=parts, steps=arguments.steps, texture_size=arguments.texture_size)
    used, judging = split_for_judging(data.views_of[name], arguments.held_out)
    mesh = None if arguments.mesh is None else read_mesh(arguments.mesh)
    light = None if arguments.light is None else torch.tensor([arguments.light])
    fit = Fit(data.views(used), mesh, settings, light=light)
    held_out = data.views(judging) if judging else None
    before = float(fit.iou(held_out).mean())
    losses = list(tqdm(fit.optimize(), total=settings.steps, desc="fitting", unit="step", disable=None))
    after = float(fit.iou(held_out).mean())
    write_folder_atomically(arguments.output, lambda folder: _write(folder, fit, used, losses, held_out or fit.views))
    which = "held-out views" if judging else "the views"
    print(f"mask IoU on {which}: {after:.3f} (before: {before:.3f})")
    print(f"mesh.glb, fit.json, losses.csv and comparison.png written to {arguments.output}")


def _write(folder: Path, fit: Fit, used: list[int], losses: list[FitLoss], shown: View) -> None:
    import torch
    from PIL import Image

    from .mesh import write_mesh
    from .pictures import to_bytes

    write_mesh(fit.mesh(), folder / "mesh.glb")
    values = {
        "light": None if fit.light is None else fit.light[0].tolist(),
        "views": used,
        "world_to_clip": fit.cameras().tolist(),
    }
    (folder / "fit.json").write_text(json.dumps(values, indent=1) + "\n")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["step", "loss", "mask", "color"])
    table.writerows([step, *(f"{value:.6g}" for value in row)] for step, row in enumerate(losses, start=1))
    (folder / "losses.csv").write_text(text.getvalue())
    with torch.no_grad():
        cameras = fit.cameras() if shown is fit.views else shown.world_to_clip
        rows = [shown.image.permute(0, 2, 3, 1), fit.render(cameras).image]
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows])
    Image.fromarray(to_bytes(sheet)).save(folder / "comparison.png")
