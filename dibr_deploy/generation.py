"""What a trained generator makes: objects of random codes, ways between codes, and whether it only repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .cameras import orbit, perspective
from .data.make import DISTANCE, FIELD_OF_VIEW
from .data.views import PosedViews
from .errors import DibrError
from .mesh import Mesh
from .models import MeshGeneratorRenderer

_CHUNK = 64


def random_codes(model: MeshGeneratorRenderer, count: int, seed: int) -> Tensor:
    """[count, latent], standard normal; the same for the same seed.

    Raises:
        DibrError: count is below 1.
    """
    if count < 1:
        raise DibrError(f"count must be at least 1, got {count}")
    return torch.randn(count, model.network.config.latent, generator=torch.Generator().manual_seed(seed))


def way_through(codes: Tensor, steps: int) -> Tensor:
    """Codes on the way through these and back to the first, along great circles (Shoemake 1985): no jump, no end.

    Codes of a normal distribution lie near a sphere around the origin; a straight way would leave it for shorter codes,
    which the generator has seldom seen.

    Args:
        codes: [K, latent], K >= 2.
        steps: >= 1, from each to the next.

    Returns:
        [K * steps, latent]; every ``steps``-th is a code itself.

    Raises:
        DibrError: fewer than two codes or one step.
    """
    if len(codes) < 2 or steps < 1:
        raise DibrError(f"an interpolation needs two codes and one step between them, got {len(codes)} and {steps}")
    part = (torch.arange(steps, dtype=codes.dtype) / steps).view(-1, 1)
    return torch.cat([_great_circle(a, b, part) for a, b in zip(codes, codes.roll(-1, dims=0), strict=True)])


def _great_circle(start: Tensor, end: Tensor, part: Tensor) -> Tensor:
    """[latent], [latent], [N, 1] -> [N, latent]; the length changes evenly."""
    lengths = torch.linalg.vector_norm(start), torch.linalg.vector_norm(end)
    cosine = (start @ end / (lengths[0] * lengths[1])).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if angle.sin() < 1e-4:
        return (1 - part) * start + part * end
    direction = (
        ((1 - part) * angle).sin() * start / lengths[0] + (part * angle).sin() * end / lengths[1]
    ) / angle.sin()
    return direction * ((1 - part) * lengths[0] + part * lengths[1])


def turntable(count: int, *, elevation: float = 0.35, turns: float = 1.0) -> Tensor:
    """Cameras around the origin as those of ``dibr data make``, which see the unit sphere: [count, 4, 4]."""
    azimuth = 2 * torch.pi * turns * torch.arange(count) / count
    return perspective(FIELD_OF_VIEW) @ orbit(azimuth, elevation, DISTANCE)


@torch.no_grad()
def pictures(model: MeshGeneratorRenderer, codes: Tensor, world_to_clip: Tensor) -> Tensor:
    """Image and mask of objects, each from its camera: [B, latent], [B, 4, 4] -> [B, 4, H, W]."""
    parts = []
    for code, camera in zip(codes.split(_CHUNK), world_to_clip.split(_CHUNK), strict=True):
        rendered = model(code, camera)
        parts.append(torch.cat([rendered.image, rendered.mask.unsqueeze(-1)], dim=-1).permute(0, 3, 1, 2))
    return torch.cat(parts)


@torch.no_grad()
def meshes(model: MeshGeneratorRenderer, codes: Tensor) -> list[Mesh]:
    """An object per code, with its texture."""
    network = model.network
    vertices, textures, _ = network(codes)
    faces, uv_faces = network.faces.long(), network.uv_faces.long()
    return [
        Mesh(one, faces, uvs=network.uvs, uv_faces=uv_faces, texture=texture)
        for one, texture in zip(vertices, textures, strict=True)
    ]


class Nearest(NamedTuple):
    """For each of N pictures the nearest of others."""

    distance: Tensor
    """[N], root mean square difference of image and mask, in units of their range."""
    place: Tensor
    """[N], which of the others."""


def nearest(found: Tensor, others: Tensor) -> Nearest:
    """The nearest of ``others`` [M, 4, H, W] to each of ``found`` [N, 4, H, W].

    Raises:
        DibrError: their sizes differ, or there are no others.
    """
    if found.shape[1:] != others.shape[1:] or len(others) == 0:
        raise DibrError(f"nearest: pictures must have one size, got {list(found.shape)} and {list(others.shape)}")
    wanted = others.flatten(1)
    parts = [torch.cdist(part.flatten(1), wanted).min(dim=1) for part in found.split(_CHUNK)]
    distance = torch.cat([part.values for part in parts]) / wanted.shape[1] ** 0.5
    return Nearest(distance, torch.cat([part.indices for part in parts]))


class Comparison(NamedTuple):
    """Whether a generator repeats its training pictures, and whether it makes all kinds of them."""

    samples: Tensor
    """[N], distance of each generated picture to the nearest training picture."""
    held_out: Tensor
    """[M], the same of pictures of real objects that training never saw."""
    covered: Tensor
    """[M], distance of each of these to the nearest generated picture."""
    codes: Tensor
    """[N, latent], of the generated pictures."""
    shown: Tensor
    """[N, 4, H, W], the generated pictures."""
    nearest_view: Tensor
    """[N], the training view that is nearest to each."""

    def table(self) -> list[tuple[str, ...]]:
        """Head and rows: the distances at several quantiles."""
        rows = [
            ("generated to nearest training picture", self.samples),
            ("held-out to nearest training picture", self.held_out),
            ("held-out to nearest generated picture", self.covered),
        ]
        quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
        head = ("RMS difference", *(f"{100 * part:.0f} %" for part in quantiles.tolist()))
        return [head, *((name, *(f"{part:.4f}" for part in row.quantile(quantiles).tolist())) for name, row in rows)]


def compare(
    model: MeshGeneratorRenderer, training: PosedViews, held_out: PosedViews, *, count: int = 256, seed: int = 0
) -> Comparison:
    """Compares generated pictures with those of training, and both with pictures of objects kept from training.

    A generator that repeats its training objects is nearer to them than new objects are. One that leaves some kinds of
    objects out is farther from the new ones than the training pictures are.

    Args:
        training: what the model was trained on. held_out: other objects, seen by cameras like those.
        count: of generated pictures, each of an object of its own, from training cameras drawn at random.
        seed: of codes and cameras.

    Raises:
        DibrError: the pictures' sizes differ.
    """
    codes = random_codes(model, count, seed)
    drawn = torch.randint(len(training), (count,), generator=torch.Generator().manual_seed(seed))
    shown = pictures(model, codes, training.world_to_clip[drawn])
    new = torch.cat(list(_pictures_of(held_out)))
    samples, held_out_nearest = (_nearest_view(found, training) for found in (shown, new))
    covered = nearest(new, shown).distance
    return Comparison(samples.distance, held_out_nearest.distance, covered, codes, shown, samples.place)


def _nearest_view(found: Tensor, data: PosedViews) -> Nearest:
    """Among all pictures of a dataset, of which a part at a time is in memory."""
    best, start = Nearest(torch.full((len(found),), torch.inf), torch.zeros(len(found), dtype=torch.long)), 0
    for part in _pictures_of(data):
        here = nearest(found, part)
        nearer = here.distance < best.distance
        best = Nearest(
            torch.where(nearer, here.distance, best.distance), torch.where(nearer, here.place + start, best.place)
        )
        start += len(part)
    return best


def _pictures_of(data: PosedViews) -> Iterator[Tensor]:
    """Image and mask of all views, in parts of [N, 4, H, W]."""
    for indices in torch.arange(len(data)).split(_CHUNK):
        yield data.pixels(indices.tolist()).permute(0, 3, 1, 2).float() / 255


def rows_of(pictures: Tensor, columns: int) -> Tensor:
    """Pictures [N, 3 or more, H, W] side by side, row by row, white where none is left: [rows * H, columns * W, 3]."""
    images = pictures[:, :3]
    missing = -len(images) % columns
    images = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    return torch.cat([torch.cat(list(row.permute(0, 2, 3, 1)), dim=1) for row in images.split(columns)])
