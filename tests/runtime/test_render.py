"""Pictures, turntable and mesh of an exported image-to-mesh model, made without torch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import EXAMPLE, SIZE, fine

from dibr_deploy import cameras as torch_cameras
from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_onnx
from dibr_deploy.runtime import Session, cameras, images, mesh_file
from dibr_deploy.runtime.render import render_photo, turntable


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """An untrained network: its prediction is a nearly grey sphere of radius 0.5 around the origin."""
    return Session(to_onnx(fine(), EXAMPLE, tmp_path_factory.mktemp("model") / "model.onnx"), "cpu", threads=2)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (91, 40, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("azimuth", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("elevation", [-1.2, 0.0, 0.7])
def test_cameras_are_those_of_torch(azimuth: float, elevation: float) -> None:
    target = np.array([0.3, -1.0, 2.0])
    expected = torch_cameras.orbit(*(torch.tensor(v, dtype=torch.float64) for v in (azimuth, elevation, 3.0)), target)
    assert np.allclose(cameras.orbit(azimuth, elevation, 3.0, target), expected.numpy(), atol=1e-12)
    lens = torch_cameras.perspective(torch.tensor(0.8, dtype=torch.float64), 1.5, 0.2, 9.0)
    assert np.allclose(cameras.perspective(0.8, 1.5, 0.2, 9.0), lens.numpy(), atol=1e-12)


@pytest.mark.parametrize("image_size", [(64, 64), (30, 90), (90, 30)])
def test_the_turntable_shows_all_of_the_mesh(image_size: tuple[int, int]) -> None:
    """Every vertex is inside of the image and between the clipping planes in every view, and a ball fills it."""
    directions = np.random.default_rng(0).normal(size=(200, 3))
    vertices = 3 * directions / np.linalg.norm(directions, axis=1, keepdims=True) + [5.0, -3.0, 1.0]
    views = turntable(vertices, image_size, 12, 0.1, 0.4, 0.7)
    clip = np.concatenate([vertices, np.ones((200, 1))], axis=1) @ views.transpose(0, 2, 1)
    ndc = clip[..., :3] / clip[..., 3:]
    assert (clip[..., 3] > 0).all()
    assert np.abs(ndc).max() < 1
    assert np.abs(ndc[..., :2]).max() > 0.8


def test_one_turn_around_the_vertical_axis() -> None:
    vertices = np.array([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
    views = turntable(vertices, (10, 10), 4, 0.0, 0.0, 0.7)
    front = np.array([0.0, 0, 1, 1])
    depths = [(view @ front)[2] / (view @ front)[3] for view in views]
    assert np.argmin(depths) == 0
    assert np.argmax(depths) == 2
    assert depths[1] == pytest.approx(depths[3])


def test_a_mesh_that_is_not_finite_still_has_views() -> None:
    assert np.isfinite(turntable(np.full((4, 3), np.nan), (8, 8), 3, 0.0, 0.3, 0.7)).all()


def test_files(session: Session, photo: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    written = render_photo(session, photo, output, frames=5)
    assert sorted(output.iterdir()) == sorted(written)
    assert Image.open(written.input).size == (SIZE, SIZE)
    prediction = np.asarray(Image.open(written.prediction).convert("RGB"), dtype=float)
    mask = np.asarray(Image.open(written.mask), dtype=float)
    assert prediction.shape == (48, 64, 3)
    assert 0.2 < (mask == 255).mean() < 0.8
    assert (prediction[mask == 0] == 255).all()
    assert (prediction[24, 32] < 200).all()
    with Image.open(written.turntable) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (5, (64, 48), 0)


def test_the_mesh_is_the_prediction(session: Session, photo: Path, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    written = render_photo(session, photo, tmp_path / "out", frames=1)
    image = images.load_square(photo, SIZE)[None]
    prediction = session.run(image, np.eye(4, dtype=np.float32)[None])
    loaded = trimesh.load(written.mesh, force="mesh", process=False)
    corners = np.asarray(loaded.vertices)[loaded.faces]
    assert np.allclose(corners, prediction["vertices"][0][prediction["faces"]], atol=1e-6)
    uvs = np.asarray(loaded.visual.uv)[loaded.faces]
    expected = prediction["uvs"][prediction["uv_faces"]]
    assert np.allclose(uvs[..., 0], expected[..., 0], atol=1e-6)
    assert np.allclose(1 - uvs[..., 1], expected[..., 1], atol=1e-6)
    texture = np.asarray(loaded.visual.material.baseColorTexture.convert("RGB"), dtype=float) / 255
    assert np.allclose(texture, prediction["texture"][0].transpose(1, 2, 0), atol=0.5 / 255 + 1e-6)


def test_uvs_in_the_file_start_at_the_top(tmp_path: Path) -> None:
    """glTF too has v = 0 at the top row: the file holds our numbers unchanged."""
    uvs = np.array([[0.125, 0.25], [0.875, 0.375], [0.5, 0.8125]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    path = tmp_path / "triangle.glb"
    mesh_file.write_glb(path, np.eye(3, dtype=np.float32), faces, uvs, faces, np.zeros((3, 2, 2), np.float32))
    assert all(value.tobytes() in path.read_bytes() for value in uvs.ravel())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (200, 30), (31, 32)])
def test_any_picture_becomes_a_square(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    path = tmp_path / "picture.png"
    Image.new(mode, size).save(path)
    square = images.load_square(path, 32)
    assert (square.shape, square.dtype) == ((3, 32, 32), np.float32)
    assert square.min() >= 0
    assert square.max() <= 1


def test_padding_and_transparency_are_background(tmp_path: Path) -> None:
    wide = Image.new("RGBA", (64, 32), (255, 0, 0, 255))
    wide.paste((0, 0, 255, 0), (0, 0, 32, 32))
    wide.save(tmp_path / "wide.png")
    square = images.load_square(tmp_path / "wide.png", 64)
    assert (square[:, :16] == 1).all()
    assert (square[:, 48:] == 1).all()
    assert (square[:, 16:48, :30] == 1).all()
    assert (square[:, 20:44, 36:] == np.array([1, 0, 0]).reshape(3, 1, 1)).all()


def test_written_pictures_survive_the_round_trip(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((5, 6, 3))
    image[0, 0] = [np.nan, -3, 7]
    images.write_png(tmp_path / "picture.png", image)
    read = np.asarray(Image.open(tmp_path / "picture.png"), dtype=float) / 255
    expected = image.copy()
    expected[0, 0] = [0, 0, 1]
    assert np.abs(read - expected).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (None, FileNotFoundError, "image .*photo.png does not exist"),
        (b"no picture", DibrError, "image .*photo.png cannot be read, it is cut off or no image"),
        ("cut", DibrError, "image .*photo.png cannot be read, it is cut off or no image"),
    ],
)
def test_bad_photos(session: Session, tmp_path: Path, content, error: type, sentence: str) -> None:
    path = tmp_path / "photo.png"
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        content = path.read_bytes()[:3000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=sentence):
        render_photo(session, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"frames": 0}, "frames must be at least 1, got 0"), ({"fov_y": math.pi}, "fov_y must lie between 0 and pi")],
)
def test_bad_arguments(session: Session, photo: Path, tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(DibrError, match=sentence):
        render_photo(session, photo, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_kind(photo: Path, tmp_path: Path) -> None:
    from onnxruntime_door import modules

    other = Session(to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx"))
    with pytest.raises(DibrError, match="is no image-to-mesh model: it has no output vertices"):
        render_photo(other, photo, tmp_path / "out")
