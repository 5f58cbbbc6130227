"""Variants of a mesh: others, and yet of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_meshes import egg, write_small_meshes

from dibr_deploy.data.variants import STRETCH, TINT, make_variant, write_variants
from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import read_mesh
from dibr_deploy.voxels import voxelize


def test_a_variant_is_stretched_turned_and_tinted_within_its_limits() -> None:
    mesh = egg()
    colors = mesh.vertex_colors
    assert colors is not None
    for number in range(5):
        variant = make_variant(mesh, "egg", number)
        linear = torch.linalg.lstsq(mesh.vertices, variant.vertices).solution.mT
        torch.testing.assert_close(mesh.vertices @ linear.mT, variant.vertices, rtol=0, atol=1e-5)
        factors = torch.linalg.svdvals(linear)
        assert STRETCH[0] - 1e-4 < factors.min() < factors.max() < STRETCH[1] + 1e-4
        assert torch.linalg.det(linear) > 0  # no mirror image
        assert variant.vertex_colors is not None
        tint = (variant.vertex_colors / colors)[:, colors[0] > 0]
        assert TINT[0] <= tint.min() and tint.max() <= TINT[1] + 1e-6
        volume = float(voxelize(variant, 48, side=4.0).sum() / voxelize(mesh, 48, side=4.0).sum())
        assert volume == pytest.approx(float(torch.linalg.det(linear)), rel=0.05)


def test_without_a_tilt_a_variant_stands_as_its_mesh_does() -> None:
    mesh = egg()
    tilted, upright = (make_variant(mesh, "egg", 0, tilt=tilt) for tilt in (15.0, 0.0))
    stretch = torch.linalg.lstsq(mesh.vertices, upright.vertices).solution
    torch.testing.assert_close(stretch, torch.diag(stretch.diagonal()), rtol=0, atol=1e-5)
    linear = torch.linalg.lstsq(mesh.vertices, tilted.vertices).solution
    assert float((linear - torch.diag(linear.diagonal())).abs().max()) > 0.01
    torch.testing.assert_close(torch.linalg.svdvals(linear), torch.linalg.svdvals(stretch))
    assert torch.equal(tilted.vertex_colors, upright.vertex_colors)


def test_numbers_and_seeds_tell_variants_apart(tmp_path: Path) -> None:
    meshes = write_small_meshes(tmp_path / "meshes")
    write_variants(meshes, tmp_path / "some", count=2, first=3)
    files = sorted(path.relative_to(tmp_path / "some") for path in (tmp_path / "some").rglob("*.glb"))
    assert [str(path) for path in files] == [
        "box/box_003.glb", "box/box_004.glb", "egg/egg_003.glb", "egg/egg_004.glb",
    ]  # fmt: skip
    read = read_mesh(tmp_path / "some/egg/egg_003.glb")
    expected = make_variant(read_mesh(meshes / "egg.ply"), "egg", 3)
    torch.testing.assert_close(read.vertices[read.faces], expected.vertices[expected.faces])
    for number, seed in ((4, 0), (3, 1)):
        assert not torch.equal(
            make_variant(egg(), "egg", number, seed).vertices, make_variant(egg(), "egg", 3).vertices
        )
    with pytest.raises(DibrError, match="count must be at least 1 and first at least 0, got 0 and 0"):
        write_variants(meshes, tmp_path / "none", count=0)
    with pytest.raises(DibrError, match="tilt must lie between 0 and 180 degrees, got -1"):
        write_variants(meshes, tmp_path / "none", tilt=-1.0)
