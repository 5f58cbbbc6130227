"""Dataset folders: what is read, and what is refused with which sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dibr_deploy.cameras import invert_rigid, orbit, perspective
from dibr_deploy.data import PosedImages
from dibr_deploy.errors import DibrError


def write_dataset(folder: Path) -> dict[str, Any]:
    """Two frames of 6 x 4 pixels with masks; returns the camera file's content."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    frames = []
    for view in range(2):
        pixels = np.full((4, 6, 3), 40 * (view + 1), dtype=np.uint8)
        mask = np.zeros((4, 6), dtype=np.uint8)
        mask[:2] = 255
        Image.fromarray(pixels).save(folder / f"images/{view}.png")
        Image.fromarray(mask).save(folder / f"masks/{view}.png")
        frames.append(
            {
                "file_path": f"images/{view}.png",
                "mask_path": f"masks/{view}.png",
                "object_id": "thing",
                "transform_matrix": invert_rigid(orbit(float(view), 0.2, 3.0)).tolist(),
            }
        )
    content = {"camera_angle_x": 0.8, "w": 6, "h": 4, "frames": frames}
    write_transforms(folder, content)
    return content


def write_transforms(folder: Path, content: dict[str, Any]) -> None:
    (folder / "transforms.json").write_text(json.dumps(content))


def test_images_masks_and_objects_are_read(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    data = PosedImages(tmp_path)
    assert (len(data), data.height, data.width) == (2, 4, 6)
    assert data.views_of == {"thing": [0, 1]}
    view = data[1]
    torch.testing.assert_close(view.image, torch.full((3, 4, 6), 80 / 255))
    assert view.mask.tolist() == [[1.0] * 6] * 2 + [[0.0] * 6] * 2
    batch = data.views([1, 0, 1])
    assert [tuple(part.shape) for part in batch] == [(3, 3, 4, 6), (3, 4, 6), (3, 4, 4)]


def test_the_camera_is_the_one_of_the_file(tmp_path: Path) -> None:
    """camera_angle_x is horizontal, pixels are square: tan(fov_y / 2) = tan(fov_x / 2) * 4 / 6."""
    write_dataset(tmp_path)
    fov_y = 2 * math.atan(math.tan(0.4) * 4 / 6)
    expected = perspective(fov_y, 6 / 4) @ orbit(1.0, 0.2, 3.0)
    torch.testing.assert_close(PosedImages(tmp_path)[1].world_to_clip, expected, rtol=0, atol=1e-5)


def test_nerf_synthetic_scenes_are_read(tmp_path: Path) -> None:
    """No suffix, no mask but an alpha channel, no object, a key that is not used."""
    content = write_dataset(tmp_path)
    pixels = np.zeros((4, 6, 4), dtype=np.uint8)
    pixels[:, :3, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "r_0.png")
    frame = {
        "file_path": "./r_0",
        "rotation": 0.01,
        "transform_matrix": content["frames"][0]["transform_matrix"],
    }
    write_transforms(tmp_path, {"camera_angle_x": 0.8, "frames": [frame]})
    data = PosedImages(tmp_path)
    assert data.views_of == {"object": [0]}
    assert data[0].mask.mean() == 0.5


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, dict[str, Any]], None]:
    def damage(folder: Path, content: dict[str, Any]) -> None:
        change(content)
        write_transforms(folder, content)

    return damage


def cut_off(name: str) -> Callable[[Path, dict[str, Any]], None]:
    def damage(folder: Path, content: dict[str, Any]) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return damage


def resized(name: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda folder, content: Image.open(folder / name).resize((8, 8)).save(folder / name)


MIRRORED = [[-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]
DAMAGE = {
    "no camera file": (lambda folder, content: (folder / "transforms.json").unlink(), "has no transforms.json"),
    "camera file cut off": (cut_off("transforms.json"), r"transforms\.json: is cut off or not JSON"),
    "no frames": (edit(lambda c: c.update(frames=[])), "frames: list should have at least 1 item"),
    "no angle": (edit(lambda c: c.pop("camera_angle_x")), "key camera_angle_x is missing"),
    "angle in degrees": (edit(lambda c: c.update(camera_angle_x=45.8)), "camera_angle_x: .* less than 3.14159.* 45.8"),
    "unknown key": (edit(lambda c: c.update(k1=0.1)), "unknown key k1; known keys are camera_angle_x, w, h, frames"),
    "unknown key in a frame": (edit(lambda c: c["frames"][1].update(fl_x=3)), r"unknown key frames\.1\.fl_x; .*mask_"),
    "matrix of 3 rows": (edit(lambda c: c["frames"][0]["transform_matrix"].pop()), r"frames\.0\.transform_matrix"),
    "mirrored camera": (edit(lambda c: c["frames"][1].update(transform_matrix=MIRRORED)), "images/1.png must be a rot"),
    "scaled camera": (
        edit(lambda c: c["frames"][0]["transform_matrix"].__setitem__(0, [2, 0, 0, 0])),
        "images/0.png must be a rotation and a translation",
    ),
    "image missing": (lambda folder, content: (folder / "images/1.png").unlink(), r"images/1\.png is missing"),
    "mask missing": (lambda folder, content: (folder / "masks/0.png").unlink(), r"masks/0\.png is missing"),
    "image cut off": (cut_off("images/1.png"), r"images/1\.png is cut off or not an image"),
    "mask of another size": (resized("masks/0.png"), r"masks/0\.png is 8 x 8 pixels, but its image is 6 x 4"),
    "no mask and no alpha": (edit(lambda c: c["frames"][0].pop("mask_path")), r"images/0\.png has no alpha channel"),
    "another size than announced": (edit(lambda c: c.update(w=7)), "is 6 x 4 pixels, but this dataset's .* 7 x 4"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_wrong_is_named(damage, says: str, tmp_path: Path) -> None:
    damage(tmp_path, write_dataset(tmp_path))
    with pytest.raises(DibrError, match=says) as error:
        PosedImages(tmp_path)
    assert "\n" not in str(error.value)


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    content = write_dataset(tmp_path)
    del content["w"], content["h"]
    write_transforms(tmp_path, content)
    for kind in ("images", "masks"):
        resized(f"{kind}/1.png")(tmp_path, content)
    with pytest.raises(DibrError, match=r"images/1\.png is 8 x 8 pixels, but this dataset's images are 6 x 4"):
        PosedImages(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"dataset folder .*nowhere does not exist"):
        PosedImages(tmp_path / "nowhere")
