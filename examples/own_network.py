"""Trains a network of your own through the renderer, from pictures alone, and exports it with the renderer inside.

    python examples/own_network.py --output build/own_network

The network is an ordinary torch module: it turns a picture into a coloured mesh and renders that from the camera it is
given. Bottles are drawn at random, pictures of them are what it learns from, and ONNX Runtime is held against torch.
examples/run_bundle.py runs the bundle that is written, without torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dibr_deploy.data import PosedImages, make_dataset
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.export import to_bundle, to_onnx, verify
from dibr_deploy.losses import laplacian_loss, mask_iou_loss, masked_l1_loss
from dibr_deploy.mesh import icosphere, unique_edges
from dibr_deploy.renderer import MeshRenderer
from dibr_deploy.runtime.comparison import Report

SIZE, VIEWS, BATCH = 32, 8, 8


class Picture(NamedTuple):
    """What the network returns: the names become those of the exported model's outputs."""

    image: Tensor
    """[B, H, W, 3]."""
    mask: Tensor
    """[B, H, W]."""
    vertices: Tensor
    """[B, V, 3], world space."""


class BottleNetwork(nn.Module):
    """A picture to a mesh with a colour at each vertex, rendered."""

    template: Tensor
    faces: Tensor

    def __init__(self) -> None:
        super().__init__()
        sphere = icosphere(2, radius=0.5)
        self.register_buffer("template", sphere.vertices)
        self.register_buffer("faces", sphere.faces.int())
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=4), nn.ReLU(), nn.Flatten()
        )
        self.offsets = nn.Linear(32 * (SIZE // 16) ** 2, sphere.vertices.numel())
        self.colors = nn.Linear(32 * (SIZE // 16) ** 2, sphere.vertices.numel())
        nn.init.normal_(self.offsets.weight, std=1e-3)
        self.renderer = MeshRenderer(SIZE, SIZE, background=(1.0, 1.0, 1.0))

    def forward(self, photo: Tensor, world_to_clip: Tensor) -> Picture:
        """photo: [B, 3, SIZE, SIZE] in 0..1; world_to_clip: [B, 4, 4]."""
        features = self.encoder(photo)
        vertices = self.template + 0.6 * torch.tanh(self.offsets(features)).unflatten(1, (-1, 3))
        colors = torch.sigmoid(self.colors(features)).unflatten(1, (-1, 3))
        rendered = self.renderer(vertices, self.faces, world_to_clip, vertex_colors=colors)
        return Picture(rendered.image, rendered.mask, vertices)


def make_data(folder: Path, objects: int) -> PosedImages:
    meshes = write_shapes(folder / "meshes", classes=["bottle"], count=objects)
    return PosedImages(make_dataset(meshes, folder / "dataset", views=VIEWS, size=SIZE))


def train(network: BottleNetwork, data: PosedImages, steps: int) -> Iterator[float]:
    """Each step predicts from one view of some objects and is judged by another one. Yields the losses."""
    edges = unique_edges(network.faces)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    views_of = torch.tensor(list(data.views_of.values()))
    for _ in range(steps):
        objects = views_of[torch.randint(len(views_of), (BATCH,))]
        seen, wanted = (data.views(objects[:, column].tolist()) for column in torch.randperm(VIEWS)[:2].tolist())
        made = network(seen.image, wanted.world_to_clip)
        loss = mask_iou_loss(made.mask, wanted.mask)
        loss += masked_l1_loss(made.image, wanted.image.permute(0, 2, 3, 1), wanted.mask)
        loss += 10 * laplacian_loss(made.vertices, edges)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


def export(network: BottleNetwork, data: PosedImages, folder: Path) -> Report:
    """Writes bottles.onnx and bottles.zip; returns how far ONNX Runtime is from torch on pictures of the data."""
    views = data.views(list(range(4)))
    to_onnx(network, (views.image[:1], views.world_to_clip[:1]), folder / "bottles.onnx")
    to_bundle(
        network,
        (views.image, views.world_to_clip),
        folder / "bottles.zip",
        meanings={"photo": f"[B, 3, {SIZE}, {SIZE}] picture in 0..1"},
    )
    return verify(network, folder / "bottles.onnx", (views.image, views.world_to_clip), doors=["cpu"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="to be made")
    parser.add_argument("--objects", type=int, default=40, help="to train on (default %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="of the optimiser (default %(default)s)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    data = make_data(arguments.output, arguments.objects)
    network = BottleNetwork()
    losses = list(tqdm(train(network, data, arguments.steps), total=arguments.steps, desc="training", unit="step"))
    print(f"loss {losses[0]:.3f} at the first step, {losses[-1]:.3f} at the last")
    report = export(network, data, arguments.output)
    print(report)
    return 0 if report.passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
