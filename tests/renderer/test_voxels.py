"""Solids on a grid, against the inequality that says which points they hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from small_meshes import cube
from torch import Tensor

from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import Mesh, icosphere, uv_sphere
from dibr_deploy.metrics import voxel_iou
from dibr_deploy.voxels import voxelize


def centres(resolution: int, side: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
    """Of all cells, [R, R, R, 3] float64."""
    line = ((torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution - 0.5) * side
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1) + torch.tensor(center)


def moved(mesh: Mesh, transform: Callable[[Tensor], Tensor]) -> Mesh:
    return dataclasses.replace(mesh, vertices=transform(mesh.vertices.double()))


def both(*meshes: Mesh) -> Mesh:
    offset = [0]
    for mesh in meshes:
        offset.append(offset[-1] + len(mesh.vertices))
    return Mesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        torch.cat([mesh.faces + start for mesh, start in zip(meshes, offset, strict=False)]),
    )


@pytest.mark.parametrize("resolution", [1, 7, 16, 31])
def test_a_box_that_is_not_aligned_with_the_grid(resolution: int) -> None:
    """Inside is where all three coordinates of the turned frame are within the half sides."""
    torch.manual_seed(3)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    half, shift = torch.tensor([0.9, 0.5, 0.7], dtype=torch.float64), torch.tensor([0.1, 0.0, -0.05])
    box = moved(cube(), lambda v: (v * half) @ turn.T + shift)
    local = (centres(resolution, 2.6) - shift) @ turn
    assert torch.equal(voxelize(box, resolution, side=2.6), (local.abs() < half).all(dim=-1))


@pytest.mark.parametrize("mesh", [icosphere(4), uv_sphere(24, 48)], ids=["icosphere", "uv sphere"])
@pytest.mark.parametrize("resolution", [20, 21])
def test_a_sphere(mesh: Mesh, resolution: int) -> None:
    """Vertices and edges lie exactly on the rays of an odd grid. Between the inner radius and 1 all is right."""
    distance = torch.linalg.vector_norm(centres(resolution, 2.1), dim=-1)
    inner = 0.99
    solid = voxelize(mesh, resolution, side=2.1)
    assert bool(solid[distance < inner].all())
    assert not bool(solid[distance > 1 + 1e-6].any())


def test_a_box_whose_sides_lie_on_cell_centres_counts_one_of_each_pair() -> None:
    """Of two opposite sides through centres one is inside; so boxes that tile space tile the cells."""
    side = 5.0
    left = moved(cube(), lambda v: v * torch.tensor([0.5, 1.0, 1.0]) + torch.tensor([-0.5, 0.0, 0.0]))
    right = moved(cube(), lambda v: v * torch.tensor([0.5, 1.0, 1.0]) + torch.tensor([0.5, 0.0, 0.0]))
    parts = [voxelize(mesh, 5, side=side) for mesh in (left, right)]
    assert [int(part.sum()) for part in parts] == [4, 4]
    assert torch.equal(parts[0] | parts[1], voxelize(cube(), 5, side=side))
    assert not bool((parts[0] & parts[1]).any())


def test_parts_that_overlap_count_once_and_orientation_does_not_matter() -> None:
    boxes = [moved(cube(), lambda v, s=shift: v * 0.5 + s) for shift in (-0.2, 0.2)]
    union = voxelize(boxes[0], 17, side=2.2) | voxelize(boxes[1], 17, side=2.2)
    assert torch.equal(voxelize(both(*boxes), 17, side=2.2), union)
    inside_out = dataclasses.replace(boxes[0], faces=boxes[0].faces.flip(1))
    assert torch.equal(voxelize(inside_out, 17, side=2.2), voxelize(boxes[0], 17, side=2.2))


def test_a_hollow_is_outside() -> None:
    """A sphere with a smaller one inside that is turned inside out."""
    core = moved(icosphere(3), lambda v: v * 0.5)
    shell = voxelize(both(icosphere(3), dataclasses.replace(core, faces=core.faces.flip(1))), 24, side=2.2)
    assert torch.equal(shell, voxelize(icosphere(3), 24, side=2.2) & ~voxelize(core, 24, side=2.2))


def test_axes_center_and_side() -> None:
    """A long box along x, off the centre: index 0 is x."""
    box = moved(cube(), lambda v: v * torch.tensor([2.0, 0.4, 0.6]) + torch.tensor([3.0, 1.0, -1.0]))
    solid = voxelize(box, 10, center=(3.0, 1.0, -1.0), side=5.0)
    assert [int(solid.any(dim=axis).any(dim=other).sum()) for axis, other in ((2, 1), (2, 0), (0, 0))] == [8, 2, 2]
    assert not bool(voxelize(box, 10, side=1.0).any())


def test_the_intersection_over_union_of_two_boxes() -> None:
    """Of 1.0 wide boxes shifted by 0.5: 0.5 / 1.5."""
    boxes = [moved(cube(), lambda v, s=shift: v * 0.5 + torch.tensor([s, 0, 0])) for shift in (-0.25, 0.25)]
    solids = [voxelize(mesh, 40, side=2.0)[None] for mesh in boxes]
    assert float(voxel_iou(*solids)) == pytest.approx(1 / 3)


def test_the_volume_of_a_torus() -> None:
    """2 pi^2 R r^2, up to the facets."""
    around, across = torch.meshgrid(torch.arange(64), torch.arange(32), indexing="ij")
    a, b = 2 * math.pi * around / 64, 2 * math.pi * across / 32
    ring = 0.7 + 0.25 * b.cos()
    vertices = torch.stack([ring * a.cos(), ring * a.sin(), 0.25 * b.sin()], dim=-1).reshape(-1, 3)
    index = (around * 32 + across, (around + 1) % 64 * 32 + across)
    index = (*index, (around + 1) % 64 * 32 + (across + 1) % 32, around * 32 + (across + 1) % 32)
    one, two, three, four = (corner.reshape(-1) for corner in index)
    faces = torch.cat([torch.stack([one, two, three], dim=-1), torch.stack([one, three, four], dim=-1)])
    share = voxelize(Mesh(vertices, faces), 48, side=2.0).double().mean() * 8
    assert float(share) == pytest.approx(2 * math.pi**2 * 0.7 * 0.25**2, rel=0.02)


@pytest.mark.parametrize(
    ("mesh", "options", "says"),
    [
        (Mesh(cube().vertices, cube().faces[1:]), {}, "must be closed and consistently oriented, but 3 of 18 edges"),
        (Mesh(cube().vertices, torch.cat([cube().faces[:1].flip(1), cube().faces[1:]])), {}, "3 of 18 edges"),
        (Mesh(cube().vertices * torch.nan, cube().faces), {}, "vertices must be finite"),
        (cube(), {"resolution": 0}, "resolution and side must be positive, but are 0 and 2.0"),
        (cube(), {"side": -1.0}, "resolution and side must be positive, but are 8 and -1.0"),
    ],
)
def test_what_is_refused(mesh: Mesh, options: dict, says: str) -> None:
    with pytest.raises(DibrError, match=f"^voxelize: .*{says}"):
        voxelize(mesh, **{"resolution": 8, "side": 2.0, **options})
