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


POINTS = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]], dtype=torch.float64)


def pixels_of(camera_to_world: torch.Tensor, f_x: float, f_y: float, c_x: float, c_y: float) -> torch.Tensor:
    """Columns and rows of POINTS from the image's corner, as nerfstudio's rays say: a camera along -z, rows down."""
    x, y, z = ((POINTS - camera_to_world[:3, 3]) @ camera_to_world[:3, :3]).unbind(dim=-1)
    return torch.stack([f_x * x / -z + c_x, f_y * -y / -z + c_y], dim=-1)


def seen_pixels(world_to_clip: torch.Tensor, height: int, width: int) -> torch.Tensor:
    clip = torch.cat([POINTS, torch.ones(3, 1, dtype=torch.float64)], dim=1) @ world_to_clip.double().mT
    x, y = (clip[:, :2] / clip[:, 3:]).unbind(dim=-1)
    return torch.stack([width * (x + 1) / 2, height * (1 - y) / 2], dim=-1)


LENS = {"fl_x": 7.5, "fl_y": 8.25, "cx": 2.75, "cy": 2.5, "w": 6, "h": 4}
UNDISTORTED = {"k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}


def test_what_nerfstudio_writes_is_read(tmp_path: Path) -> None:
    """Of several cameras: each frame has its own, off its centre; what is not used is written there too."""
    content = write_dataset(tmp_path)
    lenses = [LENS, {**LENS, "fl_x": 9.0, "fl_y": 6.5, "cx": 3.5, "cy": 1.25}]
    frames = [
        {
            "file_path": f"./images/{number}.png",
            "transform_matrix": content["frames"][number]["transform_matrix"],
            "colmap_im_id": number + 1,
            "mask_path": f"masks/{number}.png",
            "depth_file_path": f"depth/{number}.png",
            **lens,
            **UNDISTORTED,
            "camera_model": "OPENCV",
        }
        for number, lens in enumerate(lenses)
    ]
    applied = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]]
    write_transforms(tmp_path, {"frames": frames, "applied_transform": applied, "ply_file_path": "sparse_pc.ply"})
    data = PosedImages(tmp_path)
    for number, lens in enumerate(lenses):
        matrix = torch.tensor(frames[number]["transform_matrix"], dtype=torch.float64)
        expected = pixels_of(matrix, lens["fl_x"], lens["fl_y"], lens["cx"], lens["cy"])
        torch.testing.assert_close(seen_pixels(data[number].world_to_clip, 4, 6), expected, rtol=0, atol=1e-4)


def test_what_instant_ngp_writes_is_read(tmp_path: Path) -> None:
    """One camera for all, sizes as floats; focal lengths come before the angles, which say the same but for cx, cy."""
    content = write_dataset(tmp_path)
    frames = [
        {"file_path": f"./images/{number}.png", "sharpness": 51.2, "transform_matrix": frame["transform_matrix"]}
        for number, frame in enumerate(content["frames"])
    ]
    for number in range(2):  # masks in the alpha channel
        with Image.open(tmp_path / f"images/{number}.png") as image:
            image.convert("RGBA").save(tmp_path / f"images/{number}.png")
    angles = {"camera_angle_x": 2 * math.atan(3 / 7.5), "camera_angle_y": 2 * math.atan(2 / 8.25)}
    camera = {**angles, **LENS, **UNDISTORTED, "w": 6.0, "h": 4.0, "is_fisheye": False, "aabb_scale": 16}
    write_transforms(tmp_path, {**camera, "frames": frames})
    matrix = torch.tensor(frames[1]["transform_matrix"], dtype=torch.float64)
    actual = seen_pixels(PosedImages(tmp_path)[1].world_to_clip, 4, 6)
    torch.testing.assert_close(actual, pixels_of(matrix, 7.5, 8.25, 2.75, 2.5), rtol=0, atol=1e-4)
    write_transforms(tmp_path, {**angles, "frames": frames})
    actual = seen_pixels(PosedImages(tmp_path)[1].world_to_clip, 4, 6)
    torch.testing.assert_close(actual, pixels_of(matrix, 7.5, 8.25, 3, 2), rtol=0, atol=1e-4)


def test_a_frame_may_have_a_lens_of_its_own(tmp_path: Path) -> None:
    """Its focal length alone means square pixels; what it does not say is that of the file."""
    content = write_dataset(tmp_path)
    content["frames"][1].update(fl_x=11.0)
    write_transforms(tmp_path, {**content, "fl_y": 5.0, "cx": 2.0})
    data = PosedImages(tmp_path)
    focal = 3 / math.tan(0.4)
    for number, lens in enumerate([(focal, 5.0, 2.0, 2.0), (11.0, 11.0, 2.0, 2.0)]):
        matrix = torch.tensor(content["frames"][number]["transform_matrix"], dtype=torch.float64)
        actual = seen_pixels(data[number].world_to_clip, 4, 6)
        torch.testing.assert_close(actual, pixels_of(matrix, *lens), rtol=0, atol=1e-4)


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
    "unknown key": (edit(lambda c: c.update(k9=0.1)), "unknown key k9; known keys are fl_x, fl_y, .* camera_angle_x"),
    "distorted": (edit(lambda c: c.update(k1=0.1)), r"k1: input should be 0, but is 0\.1; take lens distortion out"),
    "fisheye": (edit(lambda c: c["frames"][1].update(camera_model="OPENCV_FISHEYE")), "frames.1.camera_model: .* out"),
    "no focal length": (edit(lambda c: c.update(fl_x=0)), "fl_x: input should be greater than 0, but is 0"),
    "another size in a frame": (
        edit(lambda c: c["frames"][1].update(w=7)),
        r"1\.png is 6 x 4 pixels, but .* are 7 x 4",
    ),
    "unknown key in a frame": (edit(lambda c: c["frames"][1].update(K=3)), r"unknown key frames\.1\.K; .*mask_"),
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
    "another size and no suffix": (
        edit(lambda c: c["frames"][1].update(w=7, file_path="images/1")),
        r"images/1\.png is 6 x 4 pixels, but .* are 7 x 4",
    ),
    "a list": (lambda folder, content: (folder / "transforms.json").write_text("[]"), r"\.json: input should be"),
    "another size than announced": (edit(lambda c: c.update(w=7)), "is 6 x 4 pixels, but this dataset's .* 7 x 4"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_what_is_wrong_is_named(damage, says: str, tmp_path: Path) -> None:
    damage(tmp_path, write_dataset(tmp_path))
    with pytest.raises(DibrError, match=says) as error:
        PosedImages(tmp_path)
    assert "\n" not in str(error.value)


def write_picture(path: Path, value: int, dtype: type, inside: int = 2) -> None:
    """``value`` in the first rows, 0 below."""
    pixels = np.zeros((4, 6), dtype=dtype)
    pixels[:inside] = value
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_sixteen_bits_are_scaled(kind: str, tmp_path: Path) -> None:
    """65535 is white; 40000 / 65535 of it is 155.6 of 255."""
    write_dataset(tmp_path)
    for view, value in enumerate((65535, 40000)):
        write_picture(tmp_path / f"{kind}/{view}.png", value, np.uint16)
    data = PosedImages(tmp_path)
    for view, value in enumerate((255, 156)):
        seen = data[view].mask if kind == "masks" else data[view].image[0]
        assert (seen * 255).round()[:, 0].tolist() == [value, value, 0, 0]


@pytest.mark.parametrize("value", [1, 38, 127])
def test_masks_of_labels_are_refused(value: int, tmp_path: Path) -> None:
    write_dataset(tmp_path)
    write_picture(tmp_path / "masks/0.png", 0, np.uint8)
    write_picture(tmp_path / "masks/1.png", value, np.uint8)
    with pytest.raises(DibrError, match=rf"masks/1\.png must be 255 inside .* largest value is {value}, and"):
        PosedImages(tmp_path)
    write_picture(tmp_path / "masks/1.png", value, np.uint16)
    with pytest.raises(DibrError, match=rf"masks/1\.png is not of 8 bits .*I;16.* 65535 .* from 0 to {value}"):
        PosedImages(tmp_path)


def test_empty_masks_and_thin_views_are_read(tmp_path: Path) -> None:
    """No mask marks anything; or one of several views sees an object that fills no pixel by half."""
    write_dataset(tmp_path)
    for view in range(2):
        write_picture(tmp_path / f"masks/{view}.png", 0, np.uint8)
    assert float(PosedImages(tmp_path).views([0, 1]).mask.max()) == 0
    write_picture(tmp_path / "masks/0.png", 60, np.uint8)
    write_picture(tmp_path / "masks/1.png", 255, np.uint8)
    assert float(PosedImages(tmp_path)[0].mask.max()) == pytest.approx(60 / 255)


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
