"""ShapeNet's renderings in the layout of Choy et al., written by tests/data/layouts.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.layouts import CHOY_SIZE, CHOY_VIEWS, write_rendering

from dibr_deploy.data.opening import open_dataset
from dibr_deploy.data.shapenet import ShapeNetRenderings
from dibr_deploy.errors import DibrError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_rendering(tmp_path, "02691156", "1a04e3eab45ca15dd86060f189eb133", 200)
    write_rendering(tmp_path, "02691156", "1a32f10b20170883663e90eaf6b4ca52", 100)
    write_rendering(tmp_path, "03001627", "1a6f615e8b1b5ae4dbbc9440457e303e", 50)
    return tmp_path


def blender_pixel(azimuth: float, elevation: float, distance: float, point: np.ndarray) -> np.ndarray:
    """Where the script that made the renderings sees a model's point, in pixels: x to the right, y downwards.

    The model's y is Blender's z. The camera hangs at (1.75 distance, 0, 0), looks to the origin with z up, has a lens
    of 35 mm before a sensor of 32 mm, and the object turns in front of it.
    """
    a, e = math.radians(-azimuth), math.radians(-elevation)
    blender = np.array([point[0], -point[2], point[1]])
    around = np.array([[math.cos(a), math.sin(a), 0], [-math.sin(a), math.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[math.cos(e), 0, -math.sin(e)], [0, 1, 0], [math.sin(e), 0, math.cos(e)]])
    seen = tilt @ np.linalg.inv(around).T @ blender
    right, up, ahead = seen[1], seen[2], 1.75 * distance - seen[0]
    focal = 35 / 32 * CHOY_SIZE
    return np.array([CHOY_SIZE / 2 + focal * right / ahead, CHOY_SIZE / 2 - focal * up / ahead])


def test_cameras_are_those_of_the_renderings(root: Path) -> None:
    data = ShapeNetRenderings(root)
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (10, 3))
    for view, parameters in enumerate(CHOY_VIEWS):
        clip = np.c_[points, np.ones(10)] @ data[view].world_to_clip.double().numpy().T
        ndc = clip[:, :2] / clip[:, 3:]
        pixels = np.stack([(ndc[:, 0] + 1) * CHOY_SIZE / 2, (1 - ndc[:, 1]) * CHOY_SIZE / 2], axis=1)
        wanted = [blender_pixel(*parameters, point) for point in points]
        np.testing.assert_allclose(pixels, wanted, atol=1e-3)


def test_images_masks_classes_and_voxels_are_read(root: Path) -> None:
    data = ShapeNetRenderings(root)
    assert list(data.views_of.values()) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert {name.partition("/")[0] for name in data.views_of} == {"airplane", "chair"}
    batch = data.views([4, 1])
    assert batch.image.shape == (2, 3, CHOY_SIZE, CHOY_SIZE)
    assert (batch.image[:, :, 60, 60] * 255).round().tolist() == [[100, 10, 0], [200, 10, 0]]
    assert batch.image[:, :, 0, 0].tolist() == [[1.0] * 3] * 2
    assert batch.mask[0, [0, 40, 60], 60].tolist() == pytest.approx([0, 0.2, 1])
    assert (batch.image[0, :, 40, 60] * 255).tolist() == pytest.approx([0.2 * 100 + 204, 0.2 * 10 + 204, 204], abs=0.51)
    voxels = data.voxels("chair/1a6f615e8b1b5ae4dbbc9440457e303e")
    filled = voxels.solid.nonzero()
    assert (filled.amin(dim=0).tolist(), filled.amax(dim=0).tolist()) == ([2, 10, 16], [4, 29, 16])
    assert len(filled) == 3 * 20
    assert (voxels.center, voxels.side) == ((0.0, 0.0, 0.0), 1.0)


def test_classes_and_models_can_be_chosen(root: Path) -> None:
    assert list(ShapeNetRenderings(root, classes=["chair"]).views_of) == ["chair/1a6f615e8b1b5ae4dbbc9440457e303e"]
    chosen = ShapeNetRenderings(root / "ShapeNetRendering", models=["1a32f10b20170883663e90eaf6b4ca52"])
    assert list(chosen.views_of) == ["airplane/1a32f10b20170883663e90eaf6b4ca52"]
    assert isinstance(open_dataset(root), ShapeNetRenderings)
    assert isinstance(open_dataset(root / "ShapeNetRendering"), ShapeNetRenderings)


MODEL = "ShapeNetRendering/03001627/1a6f615e8b1b5ae4dbbc9440457e303e"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / MODEL / "rendering/rendering_metadata.txt").unlink(), "metadata.txt is missing"),
        (lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_text("1 2 0 1 25"), "1 cameras, but"),
        (lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_text("1 2 0 x 25"), "five numbers"),
        (lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_text("1 2 3 1 25"), "turned in its"),
        (lambda root: (root / "ShapeNetRendering/0000").mkdir(), "is not one of the synsets"),
        (
            lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_bytes(b"\xff\xfe\0"),
            "metadata.txt is not a text file in UTF-8",
        ),
        (
            lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_text("1 2 0 0 25"),
            r"metadata.txt must have distances above 0 .* with 0.0 and 2.0",
        ),
        (
            lambda root: (root / MODEL / "rendering/rendering_metadata.txt").write_text("1 92 0 1 25"),
            r"metadata.txt must have .* elevations from -90 to 90 degrees, .* with 1.0 and 92.0",
        ),
    ],
)
def test_damage_is_named(root: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(root)
    with pytest.raises(DibrError, match=message):
        ShapeNetRenderings(root)


def test_a_damaged_image_or_solid_is_named_when_it_is_read(root: Path) -> None:
    data = ShapeNetRenderings(root)
    (root / MODEL / "rendering/01.png").write_bytes(b"\x89PNG")
    with pytest.raises(DibrError, match=r"01.png is cut off"):
        data.views([7])
    (root / "ShapeNetVox32/03001627/1a6f615e8b1b5ae4dbbc9440457e303e/model.binvox").write_bytes(b"#binvox 1\ndim 3")
    with pytest.raises(DibrError, match=r"model.binvox are cut off"):
        data.voxels("chair/1a6f615e8b1b5ae4dbbc9440457e303e")
    with pytest.raises(DibrError, match=r"classes must be among airplane, .*got dog"):
        ShapeNetRenderings(root, classes=["dog"])
    with pytest.raises(DibrError, match="holds no renderings"):
        ShapeNetRenderings(root, models=["nothing"])


def test_what_is_no_model_is_passed_over(root: Path) -> None:
    before = ShapeNetRenderings(root).views_of
    (root / "ShapeNetRendering/README.txt").write_text("about")
    (root / "ShapeNetRendering/03001627/README.txt").write_text("about")
    (root / "ShapeNetRendering/03001627/not_rendered/models").mkdir(parents=True)
    assert ShapeNetRenderings(root).views_of == before


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"dim 32 32 32", b"dim 16 64 32", r"must be a cube, but have the dimensions \[16, 64, 32\]"),
        (b"dim 32 32 32", b"dim 32 32", r"must be a cube, but have the dimensions \[32, 32\]"),
        (b"scale 1\n", b"scale nan\n", r"a scale above 0, but have .* and nan"),
        (b"scale 1\n", b"scale -1\n", r"a scale above 0, but have .* and -1"),
        (b"scale 1\n", b"scale\n", "are cut off or not a binvox file"),
        (b"translate -0.5 -0.5 -0.5", b"translate inf 0 0", r"a finite translation .* but have \[inf, 0.0, 0.0\]"),
        (b"data\n\0", b"data\n\7", "must have cells of 0 or 1, but have one of 7"),
        (b"data\n\0", b"data\n\0\1\0", "are cut off: they do not hold the 32768 cells"),
        (b"data\n\0", b"data\n", "are cut off: they do not hold the 32768 cells"),
    ],
)
def test_what_is_wrong_with_a_solid_is_named(root: Path, old: bytes, new: bytes, says: str) -> None:
    path = root / "ShapeNetVox32/03001627/1a6f615e8b1b5ae4dbbc9440457e303e/model.binvox"
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DibrError, match=rf"model\.binvox .*{says}"):
        ShapeNetRenderings(root).voxels("chair/1a6f615e8b1b5ae4dbbc9440457e303e")
