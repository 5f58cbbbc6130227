"""What a trained generator is used for: samples, ways between codes, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dibr_deploy.cli import main
from dibr_deploy.errors import DibrError
from dibr_deploy.generation import random_codes, turntable, way_through
from dibr_deploy.mesh import read_mesh
from dibr_deploy.models import (
    GeneratorConfig,
    ImageToMesh,
    ImageToMeshRenderer,
    MeshGenerator,
    MeshGeneratorRenderer,
    ModelConfig,
)
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.render import Predictor
from dibr_deploy.training.checkpoint import load_generator, save_checkpoint

SIZE = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a generator whose objects differ, and beside it its export as a bundle."""
    torch.manual_seed(0)
    network = MeshGenerator(GeneratorConfig(latent=5, subdivisions=2, channels=8, features=32))
    with torch.no_grad():
        for layer in (network.offsets, network.texture_head.colour, network.light_head):
            layer.weight.mul_(10)
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "checkpoint.pt", MeshGeneratorRenderer(network, SIZE, SIZE))
    assert main(["export", "--checkpoint", str(folder), "--output", str(folder / "bundle.zip")]) == 0
    return folder


def test_a_way_passes_its_codes_at_an_even_pace_and_comes_back() -> None:
    codes = torch.randn(3, 32, dtype=torch.float64)
    way = way_through(codes, 8)
    assert way.shape == (24, 32)
    torch.testing.assert_close(way[::8], codes)
    for leg, (start, end) in enumerate(zip(codes, codes.roll(-1, dims=0), strict=True)):
        points = torch.cat([way[8 * leg : 8 * leg + 8], end[None]])
        angles = torch.arccos(torch.cosine_similarity(points[:-1], points[1:], dim=1))
        torch.testing.assert_close(angles, torch.full_like(angles, float(angles.mean())))
        assert angles.sum() == pytest.approx(float(torch.arccos(torch.cosine_similarity(start, end, dim=0))))
        lengths = points.norm(dim=1).diff()
        torch.testing.assert_close(lengths, torch.full_like(lengths, float(lengths.mean())))


def test_a_way_between_equal_and_opposite_codes_is_finite() -> None:
    code = torch.randn(1, 32)
    for other in (code, -code, 2 * code):
        assert bool(torch.isfinite(way_through(torch.cat([code, other]), 5)).all())
    with pytest.raises(DibrError, match="needs two codes and one step between them, got 1 and 5"):
        way_through(code, 5)


def test_samples_are_pictures_and_meshes_of_the_codes(run: Path, tmp_path: Path) -> None:
    command = ["generate", "sample", "--checkpoint", str(run), "--output", str(tmp_path / "samples")]
    assert main([*command, "--count=3", "--views=2", "--seed=4"]) == 0
    model = load_generator(run)
    codes = random_codes(model, 3, seed=4)
    with torch.no_grad():
        vertices, textures, _ = model.network(codes)
        shown = model(codes, turntable(2)[1:].expand(3, 4, 4)).image
    with Image.open(tmp_path / "samples/samples.png") as picture:
        assert picture.size == (2 * SIZE, 3 * SIZE)
        second_column = np.asarray(picture)[:, SIZE:].reshape(3, SIZE, SIZE, 3) / 255
    np.testing.assert_allclose(second_column, shown.clamp(0, 1), atol=0.003)
    for number in range(3):
        mesh = read_mesh(tmp_path / f"samples/sample_{number:03d}.glb")
        assert mesh.texture is not None
        torch.testing.assert_close(mesh.vertices.amax(dim=0), vertices[number].amax(dim=0))
        torch.testing.assert_close(mesh.texture, textures[number], rtol=0, atol=0.003)


def test_an_interpolation_has_every_frame(run: Path, tmp_path: Path) -> None:
    command = ["generate", "interpolate", "--checkpoint", str(run), "--output", str(tmp_path / "way.gif")]
    assert main([*command, "--codes=3", "--frames=4"]) == 0
    with Image.open(tmp_path / "way.gif") as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (12, (SIZE, SIZE), 0)


def test_it_exports_and_runs_with_any_number_of_codes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torch, ONNX Runtime and the bundle's sample agree; tests/conftest.py builds TensorRT engines of it."""
    model = ["verify", "--model", str(run / "bundle.zip"), "--doors=cpu"]
    assert main([*model, "--checkpoint", str(run), "--count=5"]) == 0
    assert main(model) == 0
    assert capsys.readouterr().out.count(" ok\n") == 2 * 9
    with Session(run / "bundle.zip") as session:
        assert [(info.name, info.shape[1:]) for info in session.inputs] == [("code", (5,)), ("world_to_clip", (4, 4))]
        outputs = session.run(np.zeros((3, 5), np.float32), turntable(3).numpy())
        assert {name: outputs[name].shape[0] for name in ("image", "mask", "vertices", "texture", "light")} == {
            "image": 3, "mask": 3, "vertices": 3, "texture": 3, "light": 3
        }  # fmt: skip
        with pytest.raises(DibrError, match="is no image-to-mesh model: its inputs must be an image"):
            Predictor(session)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("generate sample --checkpoint {run} --output {run}", "exists already"),
        ("generate sample --checkpoint {run} --output {tmp}/new --count 0", "count must be at least 1, got 0"),
        ("generate sample --checkpoint {run} --output {tmp}/new --views 0", "views must be at least 1, got 0"),
        ("generate sample --checkpoint {predictor} --output {tmp}/new", "not of a mesh generator"),
        ("generate interpolate --checkpoint {run} --output {tmp}/way.mp4", "must be a .gif file"),
        ("generate interpolate --checkpoint {run} --output {tmp}/way.gif --codes 1", "two codes"),
        ("generate interpolate --checkpoint {run} --output {tmp}/no/way.gif --frames 1", "/no/way.gif: No such file"),
        ("generate sample --checkpoint {run} --output {tmp}/no/new", "output must lie in a folder that exists"),
        (
            "generate compare --checkpoint {run} --data {run} --held-out {run}",
            "truth.json is missing: `dibr data make --truth` writes it",
        ),
        ("export --checkpoint {run} --output {tmp}/b.zip --float-photos", "--float-photos needs a model of photos"),
        ("verify --checkpoint {run} --model {run}/bundle.zip --images {tmp}", "--images needs a model"),
        ("evaluate --checkpoint {run} --data {tmp}", "is of a mesh generator, which takes no image"),
    ],
)
def test_what_is_refused(run: Path, tmp_path: Path, arguments: str, says: str, capsys: pytest.CaptureFixture) -> None:
    """In one sentence, and nothing is written."""
    config = ModelConfig(image_size=16, subdivisions=1, texture_size=32, channels=8, features=16)
    predictor = tmp_path / "predictor.pt"
    save_checkpoint(predictor, ImageToMeshRenderer(ImageToMesh(config), 16, 16))
    assert main(arguments.format(run=run, tmp=tmp_path, predictor=predictor).split()) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [predictor]
