"""Birds in the layout of CUB-200-2011, written here file by file, and cameras from keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dibr_deploy.data.cub import CubBirds
from dibr_deploy.data.factorization import factorize
from dibr_deploy.data.opening import open_dataset
from dibr_deploy.errors import DibrError

PARTS = {
    "back": (0, 0.5, 0), "beak": (0, 0.3, 1), "belly": (0, -0.5, 0.1), "breast": (0, -0.2, 0.5),
    "crown": (0, 0.6, 0.7), "forehead": (0, 0.5, 0.8), "left eye": (0.15, 0.4, 0.8), "left leg": (0.2, -0.8, 0),
    "left wing": (0.5, 0.1, -0.1), "nape": (0, 0.5, 0.5), "right eye": (-0.15, 0.4, 0.8),
    "right leg": (-0.2, -0.8, 0), "right wing": (-0.5, 0.1, -0.1), "tail": (0, -0.1, -1), "throat": (0, 0.1, 0.7),
}  # fmt: skip
"""A bird that looks along +z, its back at +y, so that its left is +x."""
BIRD = np.array([*PARTS.values()])
COUNT = 12
WIDTH, HEIGHT = 200, 160


def random_views(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations [N, 3, 3], pixels per unit [N] and centres [N, 2] in pixels."""
    random = np.random.default_rng(5)
    turns = Rotation.from_euler(
        "yx", np.c_[random.uniform(0, 360, count), random.uniform(-30, 30, count)], degrees=True
    )
    center = np.c_[random.uniform(80, 120, count), random.uniform(70, 90, count)]
    return turns.as_matrix(), random.uniform(30, 50, count), center


def pixels_of(rotation: np.ndarray, scale: float, center: np.ndarray) -> np.ndarray:
    """[K, 2] of the bird's parts, y downwards, in the coordinates in which a pixel's centre is a whole number."""
    seen = BIRD @ rotation.T
    return center + scale * np.c_[seen[:, 0], -seen[:, 1]]


def write_cub(root: Path) -> Path:
    folder = root / "CUB_200_2011"
    (folder / "parts").mkdir(parents=True)
    lines: dict[str, list[str]] = {name: [] for name in ("images", "split", "labels", "boxes", "locations")}
    random = np.random.default_rng(1)
    for number, view in enumerate(zip(*random_views(COUNT), strict=True), start=1):
        name = f"001.Black_footed_Albatross/Black_Footed_Albatross_{number:04d}_796{number:03d}"
        points = pixels_of(*view)
        low, high = points.min(axis=0) - 3, points.max(axis=0) + 3
        box = [*low, *(high - low)]
        image = np.full((HEIGHT, WIDTH, 3), (10, 20, 30 + number), dtype=np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        left, top, right, bottom = np.rint([*low, *high]).astype(int).clip(0)
        mask[top:bottom, left:right] = 255
        mask[top, left:right] = 102  # two of five annotators
        for kind, pixels, suffix in (("images", image, ".jpg"), ("../segmentations", mask, ".png")):
            path = (folder / kind / name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        lines["images"].append(f"{number} {name}.jpg")
        lines["split"].append(f"{number} {int(number <= 10)}")
        lines["labels"].append(f"{number} 1")
        lines["boxes"].append(f"{number} {' '.join(f'{value:.4f}' for value in box)}")
        for part, point in enumerate(points, start=1):
            visible = random.random() < 0.7 or part in (1, 3, 14)
            x, y = point if visible else (0.0, 0.0)
            lines["locations"].append(f"{number} {part} {x:.4f} {y:.4f} {int(visible)}")
    files = {
        "images.txt": lines["images"],
        "train_test_split.txt": lines["split"],
        "image_class_labels.txt": lines["labels"],
        "bounding_boxes.txt": lines["boxes"],
        "classes.txt": ["1 001.Black_footed_Albatross"],
        "parts/parts.txt": [f"{number} {name}" for number, name in enumerate(PARTS, start=1)],
        "parts/part_locs.txt": lines["locations"],
    }
    for name, content in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in content))
    return folder


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
