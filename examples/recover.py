"""Recovers one thing at a time from images: light, normals, material, colours, texture, uvs, camera, shape.

    python examples/recover.py
    python examples/recover.py camera shape --pictures recovered

Each experiment renders images of a known scene, starts from a wrong guess of one attribute, and lets Adam find it from
the images alone, everything else being known. docs/recovery.md shows what comes out and how near it is to the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dibr_deploy.cameras import invert_rigid, orbit, perspective
from dibr_deploy.lighting import DirectionalLight, Phong
from dibr_deploy.losses import l1_loss, laplacian_loss, mask_iou_loss
from dibr_deploy.mesh import Mesh, icosphere, unique_edges, vertex_normals
from dibr_deploy.metrics import chamfer_distance, light_angle, mask_iou, texture_l1
from dibr_deploy.pictures import to_bytes
from dibr_deploy.points import sample_surface
from dibr_deploy.renderer import MeshRenderer

SIZE = 64
LENS = perspective(0.7)
DISTANCE = 4.0


class Measure(NamedTuple):
    """How far an attribute is from the truth, before and after."""

    name: str
    start: float
    result: float
    bound: float | None = None
    """What ``result`` must not exceed, or must exceed where it is a score; None: only told."""
    is_score: bool = False

    @property
    def reached(self) -> bool:
        if self.bound is None:
            return True
        return self.result > self.bound if self.is_score else self.result < self.bound


class Recovery(NamedTuple):
    measures: list[Measure]
    start: Tensor
    """[H, W, 3], a view of the start; those of result and target are the same view."""
    result: Tensor
    target: Tensor


def views(count: int, distance: float = DISTANCE, first: float = 0.0) -> Tensor:
    """Cameras around the origin, above and below in turn, ``first`` steps further round: [count, 4, 4]."""
    turn = (torch.arange(count) + first) * (2 * math.pi / count)
    return LENS @ orbit(turn, 0.5 * (-1.0) ** torch.arange(count), distance)


def bumpy(sphere: Mesh) -> Tensor:
    """The vertices of a sphere, pushed in and out: no symmetry that a camera could be mistaken about. [V, 3]"""
    x, y, z = sphere.vertices.unbind(dim=-1)
    return sphere.vertices * (1 + 0.2 * torch.sin(3 * x + 1) * torch.cos(2 * y) + 0.1 * torch.sin(5 * z)).unsqueeze(-1)


def patterned(points: Tensor) -> Tensor:
    """Colours in 0..1 that vary smoothly in space, [..., 3]."""
    waves = torch.tensor([[3.0, 1.0, 0.5], [-1.0, 2.5, 1.0], [0.5, -1.0, 3.0]])
    return 0.5 + 0.4 * torch.sin(points @ waves + torch.tensor([0.3, 1.0, 2.0]))


def smooth_texture(rows: int, columns: int) -> Tensor:
    """[1, 3, rows, columns], smooth, and the same at both ends of a row."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, rows // 4, columns // 4, generator=generator)
    around = F.interpolate(torch.cat([coarse] * 3, dim=3), (rows, 3 * columns), mode="bicubic")
    return around[..., columns : 2 * columns].clamp(0, 1)


def fit(
    parameters: Sequence[Tensor], loss: Callable[[float], Tensor], *, steps: int, rate: float, last: float = 0.02
) -> None:
    """Adam, its rate falling to ``last`` of itself. loss(progress) is told how far it is, 0 to 1."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, rate * last)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step / steps).backward()
        optimizer.step()
        schedule.step()


def guess(value: Sequence[float] | float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def recover(
    parameters: Sequence[Tensor],
    draw: Callable[[], Tensor],
    target: Tensor,
    measure: Callable[[], dict[str, float]],
    bounds: dict[str, float],
    **options: float,
) -> Recovery:
    """Fits the images [B, H, W, 3] that draw() gives to those of the target, by their mean absolute difference."""
    start, before = draw().detach(), measure()
    fit(parameters, lambda progress: l1_loss(draw(), target), **options)
    after = measure()
    measures = [Measure(name, before[name], after[name], bounds[name]) for name in bounds]
    return Recovery(measures, start[0], draw().detach()[0], target[0])


def light_direction() -> Recovery:
    """A red sphere under one light; the first guess is a right angle away from it."""
    sphere = icosphere(3)
    truth = torch.tensor([[1.0, 2.0, 2.0]]) / 3
    direction = guess([[0.9, -0.45, 0.0]])

    def draw(towards: Tensor) -> Tensor:
        light = DirectionalLight(towards, torch.tensor([[0.8]]), torch.tensor([[0.2]]))
        return MeshRenderer(SIZE, SIZE)(
            sphere.vertices[None],
            sphere.faces,
            views(2),
            vertex_colors=torch.tensor([0.9, 0.4, 0.3]).expand(1, len(sphere.vertices), 3),
            light=light,
            outputs=("image",),
        )["image"]

    return recover(
        [direction],
        lambda: draw(direction),
        draw(truth),
        lambda: {"light direction, degrees": float(light_angle(direction.detach(), truth))},
        {"light direction, degrees": 2.0},
        steps=80,
        rate=0.1,
    )


def normals() -> Recovery:
    """A sphere that is shaded as a bumpy one, seen from six sides under six lights each (photometric stereo)."""
    sphere = icosphere(3)
    truth = vertex_normals(bumpy(sphere)[None], sphere.faces)
    free = F.normalize(sphere.vertices, dim=-1)[None].clone().requires_grad_()
    cameras = views(6).repeat(6, 1, 1)
    sources = torch.cat([torch.eye(3), -torch.eye(3)]).repeat_interleave(6, dim=0)
    lights = DirectionalLight(sources, torch.ones(36, 1), torch.tensor([[0.1]]))

    def draw(at_vertices: Tensor) -> Tensor:
        return MeshRenderer(SIZE, SIZE)(
            sphere.vertices[None],
            sphere.faces,
            cameras,
            vertex_colors=torch.full((1, len(sphere.vertices), 3), 0.8),
            normals=at_vertices,
            light=lights,
            outputs=("image",),
        )["image"]

    def measure() -> dict[str, float]:
        return {"normals, degrees in the mean": float(light_angle(free.detach()[0], truth[0]).mean())}

    return recover(
        [free], lambda: draw(free), draw(truth), measure, {"normals, degrees in the mean": 3.0}, steps=120, rate=0.05
    )


def material() -> Recovery:
    """Phong's specular factor and exponent, from a broad dull highlight to a small bright one."""
    sphere = icosphere(4)
    specular, log_shininess = guess(0.2), guess(math.log(5.0))

    def draw(k_s: Tensor, alpha: Tensor) -> Tensor:
        light = DirectionalLight(torch.tensor([[0.5, 0.7, 1.0]]), torch.tensor([[0.7]]), torch.tensor([[0.1]]))
        return MeshRenderer(SIZE, SIZE)(
            sphere.vertices[None],
            sphere.faces,
            views(8)[:2],
            vertex_colors=torch.tensor([0.2, 0.4, 0.6]).expand(1, len(sphere.vertices), 3),
            light=light,
            material=Phong(k_s, alpha),
            outputs=("image",),
        )["image"]

    def measure() -> dict[str, float]:
        return {
            "specular, relative": abs(float(specular.detach()) / 0.7 - 1),
            "shininess, relative": abs(float(log_shininess.detach().exp()) / 30.0 - 1),
        }

    return recover(
        [specular, log_shininess],
        lambda: draw(specular, log_shininess.exp()),
        draw(torch.tensor(0.7), torch.tensor(30.0)),
        measure,
        {"specular, relative": 0.05, "shininess, relative": 0.05},
        steps=150,
        rate=0.1,
    )


def colors() -> Recovery:
    """The colours of all vertices, from grey."""
    sphere = icosphere(3)
    vertices = bumpy(sphere)[None]
    truth = patterned(vertices)
    free = torch.full_like(truth, 0.5).requires_grad_()

    def draw(at_vertices: Tensor) -> Tensor:
        return MeshRenderer(SIZE, SIZE)(
            vertices, sphere.faces, views(6, 5.0), vertex_colors=at_vertices, outputs=("image",)
        )["image"]

    return recover(
        [free],
        lambda: draw(free),
        draw(truth),
        lambda: {"colours, L1": float(l1_loss(free.detach(), truth))},
        {"colours, L1": 0.01},
        steps=100,
        rate=0.05,
    )


def textured(sphere: Mesh, texture: Tensor, uvs: Tensor, cameras: Tensor) -> Tensor:
    return MeshRenderer(SIZE, SIZE, filter="trilinear")(
        sphere.vertices[None],
        sphere.faces,
        cameras,
        texture=texture,
        uvs=uvs,
        uv_faces=sphere.uv_faces,
        outputs=("image",),
    )["image"]


def texture() -> Recovery:
    """All texels of a sphere's texture, from grey, through mip levels."""
    sphere = icosphere(3)
    assert sphere.uvs is not None
    uvs, cameras = sphere.uvs, views(6)
    truth = smooth_texture(24, 48)
    free = torch.full_like(truth, 0.5).requires_grad_()
    return recover(
        [free],
        lambda: textured(sphere, free, uvs, cameras),
        textured(sphere, truth, uvs, cameras),
        lambda: {"texture, L1": float(texture_l1(free.detach(), truth))},
        {"texture, L1": 0.02},
        steps=150,
        rate=0.05,
    )


def uv_offset() -> Recovery:
    """By how much a known texture is shifted on the surface, from four texels away."""
    sphere = icosphere(3)
    assert sphere.uvs is not None
    uvs, cameras, picture = sphere.uvs, views(2), smooth_texture(24, 48)
    texels = torch.tensor([48.0, 24.0])
    truth, free = torch.tensor([0.06, -0.04]), guess([0.0, 0.0])
    free.data = truth + torch.tensor([4.0, -2.0]) / texels

    def measure() -> dict[str, float]:
        return {"uv offset, texels": float(((free.detach() - truth) * texels).norm())}

    return recover(
        [free],
        lambda: textured(sphere, picture, uvs + free, cameras),
        textured(sphere, picture, uvs + truth, cameras),
        measure,
        {"uv offset, texels": 0.5},
        steps=100,
        rate=0.01,
    )


def camera() -> Recovery:
    """Azimuth, elevation and distance, from 30 degrees and a tenth of the distance away, by colours and outline."""
    sphere = icosphere(3)
    vertices = bumpy(sphere)[None]
    truth = torch.tensor([0.6, 0.3, 4.0])
    free = guess([1.1, 0.1, 4.4])

    def towards(pose: Tensor) -> Tensor:
        return orbit(pose[0], pose[1], pose[2])[None]

    def draw(pose: Tensor) -> Tensor:
        return MeshRenderer(SIZE, SIZE, antialias=True)(
            vertices, sphere.faces, LENS @ towards(pose), vertex_colors=patterned(vertices), outputs=("image",)
        )["image"]

    def measure() -> dict[str, float]:
        eyes = [invert_rigid(towards(pose))[:, :3, 3] for pose in (free.detach(), truth)]
        return {
            "camera, degrees": float(light_angle(*eyes)),
            "distance, relative": abs(float(free.detach()[2] / truth[2]) - 1),
        }

    return recover(
        [free],
        lambda: draw(free),
        draw(truth),
        measure,
        {"camera, degrees": 1.0, "distance, relative": 0.02},
        steps=120,
        rate=0.03,
    )


def shape() -> Recovery:
    """The vertices of a sphere become a bumpy body, from twelve masks; judged by twelve views that it never saw."""
    sphere = icosphere(3)
    body = bumpy(sphere) * torch.tensor([0.7, 1.0, 0.7])
    edges = unique_edges(sphere.faces)
    free = sphere.vertices.clone().requires_grad_()
    seen, unseen = views(12, 4.5), views(12, 4.5, first=0.5)
    renderer = MeshRenderer(SIZE, SIZE)

    def masks(vertices: Tensor, cameras: Tensor, soft: bool) -> Tensor:
        outputs = ("mask", "face_index")
        shown = renderer(vertices[None], sphere.faces, cameras, outputs=outputs)
        return shown["mask"] if soft else (shown["face_index"] >= 0).float()

    target = masks(body, seen, soft=False)

    def loss(progress: float) -> Tensor:
        # A soft mask reaches beyond the outline, so it grows sharper, else the mesh would shrink.
        renderer.sigmainv = 7000.0 * 32.0 ** min(1.0, progress / 0.6)
        return mask_iou_loss(masks(free, seen, soft=True), target) + 20.0 * laplacian_loss(free[None], edges)

    def iou() -> float:
        return float(mask_iou(masks(free, unseen, soft=False), masks(body, unseen, soft=False)).mean())

    def chamfer() -> float:
        generator = torch.Generator().manual_seed(0)
        points = (sample_surface(v.detach()[None], sphere.faces, 2000, generator) for v in (free, body))
        return float(chamfer_distance(*points, squared=False))

    def shown(vertices: Tensor) -> Tensor:
        light = torch.tensor([[0.2, 0.4, 0.4, 0.5]])
        albedo = torch.full((1, len(vertices), 3), 0.8)
        return renderer(vertices[None], sphere.faces, unseen[:1], vertex_colors=albedo, light=light).image[0]

    start, before = shown(free).detach(), (iou(), chamfer())
    fit([free], loss, steps=150, rate=0.02)
    return Recovery(
        [
            Measure("mask IoU of unseen views", before[0], iou(), 0.97, is_score=True),
            Measure("Chamfer, not squared", before[1], chamfer()),
        ],
        start,
        shown(free).detach(),
        shown(body),
    )


EXPERIMENTS: dict[str, Callable[[], Recovery]] = {
    "light_direction": light_direction,
    "normals": normals,
    "material": material,
    "colors": colors,
    "texture": texture,
    "uv_offset": uv_offset,
    "camera": camera,
    "shape": shape,
}


def table(recoveries: dict[str, Recovery]) -> str:
    """Markdown: what each experiment started from and came to."""
    lines = ["| experiment | measure | start | result | bound |", "|---|---|---:|---:|---:|"]
    for name, recovery in recoveries.items():
        for measure in recovery.measures:
            bound = "-" if measure.bound is None else f"{'>' if measure.is_score else '<'} {measure.bound:g}"
            lines.append(f"| {name} | {measure.name} | {measure.start:.3g} | {measure.result:.3g} | {bound} |")
    return "\n".join(lines)


def picture(recovery: Recovery) -> Image.Image:
    """Start, result and target, side by side."""
    strip = torch.cat([recovery.start, recovery.result, recovery.target], dim=1)
    image = Image.fromarray(to_bytes(strip))
    return image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument("--pictures", type=Path, help="write recover_NAME.png into this folder")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"there is no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    recoveries = {}
    for name in arguments.names or EXPERIMENTS:
        recoveries[name] = EXPERIMENTS[name]()
        if arguments.pictures:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            picture(recoveries[name]).save(arguments.pictures / f"recover_{name}.png", optimize=True)
    print(table(recoveries))
    return 0 if all(m.reached for recovery in recoveries.values() for m in recovery.measures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
