"""When two pictures count as the same: by closed forms on scenes whose edges and depths are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import agreement, scenes
from benchmarks.scenes import Scene
from dibr_deploy import ops

SIZE = 8


def _scene(*triangles: list[list[float]]) -> Scene:
    """Triangles in NDC."""
    corners = np.array(triangles, np.float32).reshape(-1, 3)
    positions = np.concatenate([corners, np.ones_like(corners[:, :1])], -1)[None]
    return Scene("made", SIZE, positions, np.arange(len(corners), dtype=np.int32).reshape(-1, 3))


def _left_half(x: float, depth: float = 0.0) -> list[list[float]]:
    """Covers everything to the left of ``x`` at a depth."""
    return [[x, -9, depth], [x, 9, depth], [-20, 0, depth]]


def _picture(face: int) -> np.ndarray:
    return np.full((1, SIZE, SIZE), face, np.int32)


def test_equal_pictures_do_not_differ() -> None:
    scene = _scene(_left_half(5.0))
    assert agreement.differing(scene, _picture(0), _picture(0)) == (0.0, 0)


@pytest.mark.parametrize(("pixels", "unexplained"), [(0.5, 1), (0.01, 0), (0.0, 0), (-0.01, 0), (-0.5, 1)])
def test_coverage_may_differ_next_to_an_edge_alone(pixels: float, unexplained: int) -> None:
    """The face ends ``pixels`` to the right of the centres of column 3; one picture lacks one of its pixels there."""
    centre = (2 * 3 + 1 - SIZE) / SIZE
    scene = _scene(_left_half(centre + pixels * 2 / SIZE))
    ours, theirs = _picture(0), _picture(0)
    theirs[0, 4, 3] = -1
    assert agreement.differing(scene, ours, theirs) == (1 / SIZE**2, unexplained)


@pytest.mark.parametrize(("gap", "unexplained"), [(0.0, 0), (5e-5, 0), (1e-2, SIZE * SIZE)])
def test_faces_may_differ_where_depths_tie(gap: float, unexplained: int) -> None:
    scene = _scene(_left_half(5.0, 0.1), _left_half(6.0, 0.1 + gap))
    assert agreement.differing(scene, _picture(0), _picture(1)) == (1.0, unexplained)


def test_a_face_that_is_elsewhere_is_never_excused() -> None:
    scene = _scene(_left_half(5.0), _left_half(-3.0))
    assert agreement.differing(scene, _picture(0), _picture(1)) == (1.0, SIZE * SIZE)


@pytest.mark.parametrize("spec", [scenes.sphere(80, 32, batch=2), scenes.soup(20, 32), scenes.slivers(20, 32)])
def test_a_picture_moved_by_a_pixel_is_another(spec: scenes.SceneSpec) -> None:
    import torch

    scene = spec.scene()
    raster = ops.rasterize(torch.from_numpy(scene.positions), torch.from_numpy(scene.faces), 32, 32, cull="back")
    picture = raster.face_index.numpy()
    assert (picture >= 0).any()
    assert agreement.differing(scene, picture, picture) == (0.0, 0)
    differing, unexplained = agreement.differing(scene, picture, np.roll(picture, 1, axis=2))
    assert differing > 0.0
    assert unexplained > 0


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="face_index must have shape"):
        agreement.differing(_scene(_left_half(5.0)), _picture(0), _picture(0)[:, 1:])
