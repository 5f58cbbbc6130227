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
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dibr_deploy.data import PosedImages, fetch_meshes, make_dataset
from dibr_deploy.data.views import View
from dibr_deploy.losses import flattening_loss, laplacian_loss, mask_iou_loss, masked_l1_loss
from dibr_deploy.mesh import Mesh, edge_faces, icosphere, unique_edges, vertex_face_table, write_mesh
from dibr_deploy.metrics import mask_iou
from dibr_deploy.pictures import to_bytes
from dibr_deploy.renderer import MeshRenderer, Rendering

VIEWS = 8
BAR = 0.95
TEXTURE_SIZE = 64


class Views(NamedTuple):
    """What the fit sees, and what it is judged by."""

    training: View
    held_out: View


class Fit:
    """A sphere whose vertices, texture and light are free, and the renderer that shows it."""

    def __init__(self, size: int, subdivisions: int = 3) -> None:
        self.sphere = icosphere(subdivisions, radius=0.5)
        self.vertices = self.sphere.vertices.clone().requires_grad_()
        self.texture_logits = torch.zeros(1, 3, TEXTURE_SIZE, TEXTURE_SIZE, requires_grad=True)
        self.light = torch.tensor([[0.7, 0.0, 0.1, 0.0]], requires_grad=True)
        self.renderer = MeshRenderer(size, size, background=(1.0, 1.0, 1.0))
        self.edges, self.edge_faces = unique_edges(self.sphere.faces), edge_faces(self.sphere.faces)
        self.vertex_faces = vertex_face_table(self.sphere.faces, len(self.vertices))

    def render(self, world_to_clip: Tensor) -> Rendering:
        return self.renderer(
            self.vertices.unsqueeze(0),
            self.sphere.faces,
            world_to_clip,
            texture=self.texture_logits.sigmoid(),
            uvs=self.sphere.uvs,
            uv_faces=self.sphere.uv_faces,
            light=self.light,
            vertex_faces=self.vertex_faces,
        )

    def loss(self, views: View) -> Tensor:
        rendering = self.render(views.world_to_clip)
        vertices = self.vertices.unsqueeze(0)
        return (
            mask_iou_loss(rendering.mask, views.mask)
            + masked_l1_loss(rendering.image, views.image.permute(0, 2, 3, 1), views.mask)
            + 3.0 * laplacian_loss(vertices, self.edges)
            + 0.03 * flattening_loss(vertices, self.sphere.faces, self.edge_faces)
        )

    def optimize(self, views: View, steps: int) -> None:
        """Adam; the mask grows sharper, since a soft one reaches beyond the outline and the mesh would shrink."""
        optimizer = torch.optim.Adam(
            [
                {"params": [self.vertices], "lr": 0.01},
                {"params": [self.texture_logits], "lr": 0.05},
                {"params": [self.light], "lr": 0.02},
            ]
        )
        for step in tqdm(range(steps), desc="fitting", unit="step"):
            self.renderer.sigmainv = 7000.0 * 8.0 ** min(1.0, step / (0.6 * steps))
            optimizer.zero_grad()
            self.loss(views).backward()
            optimizer.step()

    @torch.no_grad()
    def iou(self, views: View) -> Tensor:
        """IoU of the covered pixels with every view's mask, [B]."""
        covered = self.render(views.world_to_clip).face_index >= 0
        return mask_iou(covered.float(), views.mask)

    def mesh(self) -> Mesh:
        texture = self.texture_logits[0].sigmoid()
        sphere = self.sphere
        return Mesh(self.vertices.detach(), sphere.faces, sphere.uvs, sphere.uv_faces, texture.detach())


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
    Image.fromarray(to_bytes(sheet)).save(path)


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
    fit = Fit(arguments.size, arguments.subdivisions)
    untouched = fit.iou(views.held_out)
    fit.optimize(views.training, arguments.steps)
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
