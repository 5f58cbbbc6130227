"""Datasets of others, written file by file in the formats that they are downloaded in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

CHOY_VIEWS = [(0.0, 0.0, 1.0), (326.12, 25.21, 0.79), (90.0, 29.9, 0.65)]
"""azimuth and elevation in degrees, distance."""
CHOY_SIZE = 137


def write_rendering(root: Path, synset: str, model: str, color: int) -> None:
    folder = root / "ShapeNetRendering" / synset / model / "rendering"
    folder.mkdir(parents=True)
    lines = [f"{azimuth:.14f} {elevation:.14f} 0 {distance:.14f} 25" for azimuth, elevation, distance in CHOY_VIEWS]
    (folder / "rendering_metadata.txt").write_text("\n".join(lines))
    (folder / "renderings.txt").write_text("".join(f"{view:02d}.png\n" for view in range(len(CHOY_VIEWS))))
    for view in range(len(CHOY_VIEWS)):
        pixels = np.zeros((CHOY_SIZE, CHOY_SIZE, 4), dtype=np.uint8)
        pixels[40:90, 30:100] = (color, 10 * view, 0, 255)
        pixels[40, 30:100, 3] = 51
        Image.fromarray(pixels).save(folder / f"{view:02d}.png")
    solid = np.zeros((32, 32, 32), dtype=bool)
    solid[2:5, 10:30, 16] = True
    write_voxels(root, synset, model, solid)


def write_voxels(root: Path, synset: str, model: str, solid: np.ndarray) -> None:
    """A solid [32, 32, 32] by x, y, z in the cube of side 1 around the origin: runs of equal cells, y the fastest."""
    cells = solid.transpose(0, 2, 1).ravel()
    starts = np.flatnonzero(np.r_[True, cells[1:] != cells[:-1]])
    runs = bytearray()
    for start, end in zip(starts, [*starts[1:], len(cells)], strict=True):
        for length in [255] * ((end - start) // 255) + [(end - start) % 255]:
            if length:
                runs += bytes([int(cells[start]), length])
    file = root / "ShapeNetVox32" / synset / model / "model.binvox"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"#binvox 1\ndim 32 32 32\ntranslate -0.5 -0.5 -0.5\nscale 1\ndata\n" + bytes(runs))


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
