"""Birds in the layout of CUB-200-2011, written by tests/data/layouts.py, and cameras from keypoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.layouts import BIRD, COUNT, HEIGHT, PARTS, WIDTH, random_views, write_cub
from PIL import Image
from scipy.spatial.transform import Rotation

from dibr_deploy.data.cub import CubBirds
from dibr_deploy.data.factorization import factorize
from dibr_deploy.data.opening import open_dataset
from dibr_deploy.errors import DibrError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cub(tmp_path_factory.mktemp("cub"))


def test_the_cameras_see_the_mean_shape_where_the_keypoints_are(folder: Path) -> None:
    birds = CubBirds(folder, split="all", size=32)
    assert birds.keypoint_names == [*PARTS]
    shape = np.c_[birds.keypoint_positions.double().numpy(), np.ones(len(PARTS))]
    assert np.linalg.norm(shape[:, :3], axis=1).max() == pytest.approx(0.5)
    for index in range(COUNT):
        clip = shape @ birds.world_to_clip[index].double().numpy().T
        assert (clip[:, 3] == 1).all()
        assert (np.abs(clip[:, 2]) < 1).all()
        seen = birds.keypoint_visible[index].numpy()
        np.testing.assert_allclose(clip[seen, :2], birds.keypoints[index].numpy()[seen], atol=1e-3)


def test_world_space_has_the_back_up_and_the_beak_in_front(folder: Path) -> None:
    """Up to a scale and the place of the origin the mean shape is the bird itself, its left at +x: not its mirror."""
    positions = CubBirds(folder, size=16).keypoint_positions.double().numpy()
    wanted = BIRD - BIRD.mean(axis=0)
    wanted *= 0.5 / np.linalg.norm(wanted, axis=1).max()
    turn, distance = Rotation.align_vectors(positions, wanted)
    assert distance < 1e-2
    up = turn.apply(BIRD[0] - BIRD[2])
    assert up[0] == pytest.approx(0, abs=0.02) and up[2] == pytest.approx(0, abs=0.02) and up[1] > 0


def test_crops_are_square_and_follow_the_box(folder: Path) -> None:
    birds = CubBirds(folder, size=40)
    assert (len(birds), birds.height, birds.width) == (10, 40, 40)
    view = birds[3]
    inside = view.mask > 0.99
    assert view.image[:, inside].mean(dim=1).tolist() == pytest.approx([10 / 255, 20 / 255, 34 / 255], abs=0.01)
    rows, columns = inside.any(dim=1).nonzero(), inside.any(dim=0).nonzero()
    longest = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    assert longest == pytest.approx(40 / 1.2, abs=1.5)
    assert view.mask[0].max() == 0


def test_a_keypoint_is_the_centre_of_its_pixel_and_the_majority_is_the_mask(tmp_path: Path) -> None:
    """Three of five annotators mark a square of 5 x 5 pixels around a keypoint, two of five the rest of the image: the
    mask's centre is the keypoint, its area that of the square."""
    copied = write_cub(tmp_path)
    x, y = 104, 71
    locations = (copied / "parts/part_locs.txt").read_text().splitlines()
    locations[0] = f"1 1 {x} {y} 1"
    (copied / "parts/part_locs.txt").write_text("\n".join(locations))
    mask = np.full((HEIGHT, WIDTH), 102, dtype=np.uint8)
    mask[y - 2 : y + 3, x - 2 : x + 3] = 153
    Image.fromarray(mask).save(next(copied.parent.glob("segmentations/*/*_0001_*.png")))
    size = 200
    birds = CubBirds(copied, size=size)
    found = birds[0].mask.double().numpy()
    box = np.array((copied / "bounding_boxes.txt").read_text().split()[1:5], dtype=float)
    pixel = size / (box[2:].max() * 1.2)
    assert found.sum() == pytest.approx(25 * pixel**2, rel=0.02)
    centers = (2 * np.arange(size) + 1) / size - 1
    middle = np.array([(found.sum(axis=0) * centers).sum(), -(found.sum(axis=1) * centers).sum()]) / found.sum()
    np.testing.assert_allclose(birds.keypoints[0, 0].numpy(), middle, atol=0.1 * pixel * 2 / size)


def edit(file: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text("\n".join(change((folder / file).read_text().splitlines())))


LOCATIONS = "parts/part_locs.txt"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edit(LOCATIONS, lambda lines: lines[:-1]), r"part_locs.txt must have a row .*, 15, for image 12, but has 14"),
        (edit(LOCATIONS, lambda lines: [lines[1], *lines[1:]]), r"for image 1, but has 15, of the parts 2, 2, 3"),
        (edit("parts/parts.txt", lambda lines: lines[:10]), r"parts.txt, 10, for image 1, but has 15"),
        (
            edit(LOCATIONS, lambda lines: [line[:-1] + "0" for line in lines]),
            "CUB_200_2011 has no birds with 6 visible keypoints in split train",
        ),
        (edit("train_test_split.txt", lambda lines: [line[:-1] + "0" for line in lines]), "no birds .* split train"),
        (
            edit("bounding_boxes.txt", lambda lines: ["1 2.0 3.0 0.0 0.0", *lines[1:]]),
            r"bounding_boxes.txt has a line that is not of this file's kind: '1 2.0 3.0 0.0 0.0'",
        ),
        (lambda folder: (folder / "images.txt").write_bytes(b"1 \xe9.jpg\n"), "images.txt is not a text file in UTF-8"),
    ],
)
def test_broken_files_are_named(damage: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    copied = write_cub(tmp_path)
    damage(copied)
    with pytest.raises(DibrError, match=says):
        CubBirds(copied, size=8)


def test_splits_and_opening(folder: Path) -> None:
    assert len(CubBirds(folder, split="all", size=8)) == COUNT
    birds = open_dataset(folder)
    assert len(birds) == 10
    assert isinstance(birds, CubBirds)
    assert next(iter(birds.views_of)).startswith("001.Black_footed_Albatross/Black_Footed_Albatross_0001")


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DibrError, match="split must be train, test or all, got 'valid'"):
        CubBirds(folder, split="valid")
    with pytest.raises(DibrError, match="need at least 3 views and 4 points, got 2 and 15"):
        CubBirds(folder, split="test")
    copied = write_cub(tmp_path)
    (copied / "bounding_boxes.txt").write_text("1 2 3\n")
    with pytest.raises(DibrError, match=r"bounding_boxes.txt has a line .*'1 2 3'"):
        CubBirds(copied)
    (copied / "bounding_boxes.txt").write_text("1 2 3 4 5\n")
    with pytest.raises(DibrError, match=r"image 2 of .*images.txt has no box"):
        CubBirds(copied)
    (copied / "bounding_boxes.txt").unlink()
    with pytest.raises(DibrError, match=r"bounding_boxes.txt is missing"):
        CubBirds(copied)


@pytest.mark.parametrize("hidden", [0.0, 0.3])
def test_factorization_finds_shape_and_cameras(hidden: float) -> None:
    """Without noise it finds them exactly, up to one rotation, one scale and the reflection in depth."""
    rotation, scale, center = random_views(40)
    points = scale[:, None, None] * (rotation @ BIRD.T).transpose(0, 2, 1)[..., :2] + center[:, None]
    visible = np.random.default_rng(2).random(points.shape[:2]) >= hidden
    found = factorize(np.where(visible[..., None], points, np.nan), visible)
    again = found.scale[:, None, None] * (found.rotation @ found.points.T).transpose(0, 2, 1)[..., :2]
    np.testing.assert_allclose(again + found.translation[:, None], points, atol=0.05)
    np.testing.assert_allclose(np.linalg.det(found.rotation), 1)
    ratio = found.scale / scale
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=2e-3)
    relative = rotation.transpose(0, 2, 1) @ found.rotation
    mirror = np.diag([1.0, 1.0, -1.0])
    mirrored = rotation.transpose(0, 2, 1) @ mirror @ found.rotation
    spread = min(np.abs(turns - turns[:1]).max() for turns in (relative, mirrored))
    assert spread < 5e-3
