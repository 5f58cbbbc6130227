"""A C++ user gets the arrays that a Python user gets, bit by bit: model outputs, images read, meshes written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from runtime_bundles import write_model_bundle

from dibr_deploy import ops
from dibr_deploy.runtime import Session, images, mesh_file
from dibr_deploy.runtime.render import Predictor, turntable
from runtime_cpp import sdk


def assert_identical(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype
        assert ours[name].shape == expected.shape
        assert ours[name].tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("kind", ["folder", "zip", "onnx"])
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs(
    kind: str, threads: int, model: Path, arrays: dict[str, np.ndarray], programs: Path, tmp_path: Path
) -> None:
    path = model
    if kind != "onnx":
        path = write_model_bundle(tmp_path / {"folder": "bundle", "zip": "bundle.zip"}[kind], model)
    expected = Session(path, "cpu", threads=threads).run(**arrays)
    assert (expected["face_index"] >= 0).mean() > 0.1
    assert_identical(sdk.run_bundle(programs, path, arrays, tmp_path / "out", threads), expected)


def test_outputs_of_an_image_to_mesh_model(image_bundle: Path, programs: Path, tmp_path: Path) -> None:
    session = Session(image_bundle, "cpu", threads=2)
    photos = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    vertices = session.run(photos, np.stack([np.eye(4, dtype=np.float32)] * 2))["vertices"]
    arrays = {"input_image": photos, "world_to_clip": turntable(vertices[0], (48, 64), 2, 0.0, 0.3, 0.7)}
    assert list(arrays) == [info.name for info in session.inputs]
    assert_identical(sdk.run_bundle(programs, image_bundle, arrays, tmp_path / "out"), session.run(**arrays))


def test_the_renderer_of_a_bundle(photo_bundle: Path, programs: Path, tmp_path: Path) -> None:
    """Alone, on a prediction that is changed: other light, two views."""
    with Session(photo_bundle, "cpu", threads=2) as session, session.open_renderer() as renderer:
        photo = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
        prediction = session.run(photo, np.eye(4, dtype=np.float32)[None])
        cameras = turntable(prediction["vertices"][0], (48, 64), 2, 0.0, 0.3, 0.7)
        light = np.array([[0.9, 0.1, 0.2, 0.3]], np.float32)
        given = {"vertices": prediction["vertices"], "texture": prediction["texture"], "light": light}
        arrays = {**{name: array.repeat(2, 0) for name, array in given.items()}, "world_to_clip": cameras}
        expected = renderer.run(**arrays)
    assert (expected["face_index"] >= 0).mean() > 0.1
    assert_identical(sdk.run_bundle(programs, f"renderer:{photo_bundle}", arrays, tmp_path / "out"), expected)


def test_a_trilinear_texture(programs: Path, tmp_path: Path) -> None:
    """Textures, places and levels of all kinds, levels below and above the chain among them, as torch samples them."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 3, 21, 34, generator=generator)
    uv = torch.rand(2, 13, 17, 2, generator=generator) * 3 - 1
    mip_level = torch.rand(2, 13, 17, generator=generator) * 9 - 1
    for name, tensor in {"texture": texture, "uv": uv, "mip_level": mip_level}.items():
        tensor.numpy().tofile(tmp_path / name)
    sizes = map(str, (3, 21, 34, 2, 13, 17))
    sdk.run([programs / "sample_texture", tmp_path, *sizes])
    expected = ops.texture(texture, uv, mip_level=mip_level, filter="trilinear", wrap="repeat").numpy()
    assert (tmp_path / "output").read_bytes() == expected.tobytes()


def test_an_empty_batch(model: Path, programs: Path, tmp_path: Path) -> None:
    arrays = {"offsets": np.zeros((0, 1, 3), np.float32), "world_to_clip": np.zeros((0, 4, 4), np.float32)}
    expected = Session(model, "cpu", threads=2).run(**arrays)
    assert_identical(sdk.run_bundle(programs, model, arrays, tmp_path / "out"), expected)


def test_a_deflated_bundle(bundle: Path, arrays: dict[str, np.ndarray], programs: Path, tmp_path: Path) -> None:
    """As other zip programs pack it."""
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", bundle))
    expected = Session(packed, "cpu", threads=2).run(**arrays)
    assert_identical(sdk.run_bundle(programs, packed, arrays, tmp_path / "out"), expected)


def pictures(folder: Path) -> list[Path]:
    """Images of many kinds and shapes, all different."""
    random = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return random.integers(0, 256, shape, np.uint8)

    def smooth(height: int, width: int, channels: int) -> np.ndarray:
        y, x, c = np.mgrid[:height, :width, :channels]
        return (127 + 120 * np.sin(0.05 * x * (c + 1) + 0.03 * y)).astype(np.uint8)

    made = {
        "rgb.png": Image.fromarray(noise(91, 40, 3)),
        "same_size.png": Image.fromarray(noise(48, 48, 3)),
        "rgba.png": Image.fromarray(noise(64, 100, 4)),
        "rgba_small.png": Image.fromarray(noise(7, 5, 4)),
        "rgba_same_size.png": Image.fromarray(noise(48, 30, 4)),
        "grey.png": Image.fromarray(noise(50, 51)),
        "grey_alpha.png": Image.fromarray(noise(33, 60, 2), "LA"),
        "palette.png": Image.fromarray(smooth(60, 80, 3)).quantize(17),
        "one_bit.png": Image.fromarray(noise(40, 70)).convert("1"),
        "one_pixel.png": Image.fromarray(noise(1, 1, 3)),
        "line.png": Image.fromarray(noise(1, 200, 3)),
        "tall.png": Image.fromarray(noise(300, 47, 3)),
        "tall_twice.png": Image.fromarray(noise(96, 48, 3)),
        "almost_square.png": Image.fromarray(noise(60, 59, 4)),
        "smooth.jpg": Image.fromarray(smooth(120, 200, 3)),
        "noise.jpg": Image.fromarray(noise(63, 65, 3)),
        "grey.jpg": Image.fromarray(smooth(90, 77, 1)[..., 0]),
    }
    for name, picture in made.items():
        picture.save(folder / name)
    made["rgb.png"].save(folder / "interlaced.png", interlace=1)
    made["smooth.jpg"].save(folder / "progressive.jpg", progressive=True, quality=60)
    made["smooth.jpg"].save(folder / "full_colour.jpg", subsampling=0)
    transparent = made["palette.png"].copy()
    transparent.save(folder / "transparent_palette.png", transparency=3)
    made["rgb.png"].save(folder / "transparent_colour.png", transparency=tuple(map(int, noise(3))))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made["rgb.png"].save(folder / f"turned_{orientation}.jpg", exif=exif)
        made["rgb.png"].save(folder / f"turned_{orientation}.png", exif=exif)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("size", [48, 17, 224])
def test_images(size: int, programs: Path, tmp_path: Path) -> None:
    """What a network is given of a file is the same number by number, whatever kind of file it is."""
    paths = pictures(tmp_path)
    sdk.run([programs / "read_image", str(size), *paths])
    different = []
    for path in paths:
        ours = np.fromfile(path.with_name(path.name + ".raw"), np.uint8).reshape(size, size, 3)
        theirs = np.rint(images.load_square(path, size).transpose(1, 2, 0) * 255).astype(np.uint8)
        if not np.array_equal(ours, theirs):
            different.append((path.name, int(np.abs(ours.astype(int) - theirs).max())))
    assert not different


@pytest.mark.parametrize("name", ["rgb.png", "rgba.png", "grey.png", "transparent_palette.png", "turned_6.jpg"])
def test_preprocessing(name: str, photo_bundle: Path, programs: Path, tmp_path: Path) -> None:
    """The bundle's own graph makes the same input of an image file here and there."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    [path] = [path for path in pictures(folder) if path.name == name]
    printed = sdk.run([programs / "preprocess", photo_bundle, path, tmp_path / "out"], sdk.with_onnxruntime())
    with Session(photo_bundle, "cpu") as session:
        [(input_name, expected)] = session.preprocess(images.read_pixels(path)).items()
    assert printed.split() == ["1", input_name, str(expected.dtype), *map(str, expected.shape)]
    assert (tmp_path / "out").read_bytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["image_bundle", "photo_bundle"])
def test_render_image(kind: str, request: pytest.FixtureRequest, examples: Path, tmp_path: Path) -> None:
    """The example writes what `dibr render` writes of the same photo and model."""
    image_bundle = request.getfixturevalue(kind)
    photo = tmp_path / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (91, 40, 3), np.uint8)).save(photo)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    sdk.run([examples / "render_image", image_bundle, photo, ours, "cpu"], sdk.with_onnxruntime())
    assert sorted(path.name for path in ours.iterdir()) == ["input.png", "mask.png", "mesh.glb", "prediction.png"]

    predictor = Predictor(Session(image_bundle, "cpu"))
    image = predictor.photo(images.read_pixels(photo))
    prediction = predictor.session.run(**predictor.feed(image, np.eye(4)))
    [view] = turntable(prediction["vertices"][0], (48, 64), 1, 0.0, 0.35, 0.7)
    seen = predictor.session.run(**predictor.feed(image, view))
    images.write_png(theirs / "input.png", predictor.shown(image))
    images.write_png(theirs / "prediction.png", seen["image"][0])
    images.write_png(theirs / "mask.png", seen["mask"][0])
    assert np.array_equal(pixels(ours / "input.png"), pixels(theirs / "input.png"))
    # The camera is computed in C++ and in numpy, whose products round differently in the last bit.
    for name in ("prediction.png", "mask.png"):
        difference = np.abs(pixels(ours / name).astype(int) - pixels(theirs / name))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    assert pixels(ours / "mask.png").max() == 255

    names = ("faces", "uvs", "uv_faces")
    mesh = [prediction["vertices"][0], *(prediction[name] for name in names), prediction["texture"][0]]
    mesh_file.write_glb(theirs / "mesh.glb", *mesh)
    our_mesh, their_mesh = (trimesh.load(folder / "mesh.glb", force="mesh", process=False) for folder in (ours, theirs))
    assert np.array_equal(our_mesh.vertices, their_mesh.vertices)
    assert np.array_equal(our_mesh.faces, their_mesh.faces)
    assert np.abs(our_mesh.visual.uv - their_mesh.visual.uv).max() < 1e-7
    textures = [np.asarray(mesh.visual.material.baseColorTexture) for mesh in (our_mesh, their_mesh)]
    assert np.array_equal(*textures)
    materials = [mesh.visual.material for mesh in (our_mesh, their_mesh)]
    assert [(m.metallicFactor, m.roughnessFactor) for m in materials] == [(0.0, 1.0)] * 2


def test_render_mesh(examples: Path, tmp_path: Path) -> None:
    """A cube from an OBJ file with faces of four corners: grey-orange in the middle, white around, and no hole."""
    obj = tmp_path / "cube.obj"
    corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    faces = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2/1 6/2 8/3 4/4"]
    obj.write_text("".join(f"v {x} {y} {z}\n" for x, y, z in corners) + "".join(f"f {face}\n" for face in faces))
    sdk.run([examples / "render_mesh", tmp_path / "cube.png", obj])
    image = pixels(tmp_path / "cube.png")
    assert image.shape == (512, 512, 3)
    covered = (image < 255).any(axis=-1)
    assert not covered[[0, -1]].any()
    assert not covered[:, [0, -1]].any()
    for row in covered[np.flatnonzero(covered.any(axis=1))]:
        [first, *_, last] = np.flatnonzero(row) if row.sum() > 1 else (0, 0)
        assert row[first : last + 1].all() or row.sum() <= 1
    assert 0.2 < covered.mean() < 0.7
    sdk.run([examples / "render_mesh", tmp_path / "torus.png"])
    torus = (pixels(tmp_path / "torus.png") < 255).any(axis=-1)
    assert torus.any()
    assert not torus[254, 256]  # its hole


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))
