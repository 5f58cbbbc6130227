"""Fits a sphere to pictures of one object: eight images with masks and cameras in, a textured mesh out.

    python examples/fit_mesh.py --object teddy
    python examples/fit_mesh.py --object duck --output duck.glb --picture duck.png

The views are rendered from a real mesh (docs/data.md names its source); the fit sees their pixels and cameras alone.
It ends with the mask IoU on eight views that it never saw, beside that of the untouched sphere.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from dibr_deploy.data import PosedImages, fetch_meshes, make_dataset
from dibr_deploy.data.views import View
from dibr_deploy.fitting import Fit, FitSettings
from dibr_deploy.mesh import icosphere, write_mesh
from dibr_deploy.runtime.images import write_png

VIEWS = 8
BAR = 0.95


class Views(NamedTuple):
    """What the fit sees, and what it is judged by."""

    training: View
    held_out: View


def load_views(name: str, size: int) -> Views:
    """Sixteen views of a fetched mesh: the even ones to fit, the odd ones to judge."""
    with tempfile.TemporaryDirectory() as folder:
        (mesh,) = fetch_meshes(Path(folder) / "meshes", objects=[name])
        images = PosedImages(make_dataset(mesh, Path(folder) / "views", views=2 * VIEWS, size=size))
    return Views(images.views(list(range(0, 2 * VIEWS, 2))), images.views(list(range(1, 2 * VIEWS, 2))))


@torch.no_grad()
def write_picture(fit: Fit, views: View, path: Path) -> None:
    """Held-out views above, the fit from the same cameras below."""
    rows = [views.image.permute(0, 2, 3, 1), fit.render(views.world_to_clip).image]
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in rows])
    write_png(path, sheet.numpy())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--object", default="teddy", help="a mesh that `dibr data fetch` knows (default %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (default %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of the optimiser (default %(default)s)")
    parser.add_argument("--subdivisions", type=int, default=3, help="of the sphere: 3 is 642 vertices, 4 is 2562")
    parser.add_argument("--output", type=Path, help="write the mesh there (.glb keeps the texture)")
    parser.add_argument("--picture", type=Path, help="write a comparison there (.png)")
    arguments = parser.parse_args()

    views = load_views(arguments.object, arguments.size)
    sphere = icosphere(arguments.subdivisions, radius=0.5)
    fit = Fit(views.training, sphere, FitSettings(steps=arguments.steps))
    untouched = fit.iou(views.held_out)
    for _ in tqdm(fit.optimize(), total=arguments.steps, desc="fitting", unit="step"):
        pass
    fitted = fit.iou(views.held_out)
    for label, iou in (("untouched sphere", untouched), ("fitted mesh", fitted)):
        verdict = "above" if float(iou.mean()) > BAR else "below"
        print(f"{label:>16}: mask IoU {iou.mean():.4f} on held-out views, worst {iou.min():.4f}, {verdict} {BAR}")
    if arguments.output:
        write_mesh(fit.mesh(), arguments.output)
    if arguments.picture:
        write_picture(fit, views.held_out, arguments.picture)
    return 0 if float(fitted.mean()) > BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
