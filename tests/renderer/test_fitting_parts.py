"""Each part of a fit alone leads from a wrong start to the truth, and leaves the others as they were."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dibr_deploy.cameras import orbit, perspective
from dibr_deploy.cli import main
from dibr_deploy.data import make_dataset
from dibr_deploy.data.opening import open_dataset
from dibr_deploy.data.views import View
from dibr_deploy.errors import DibrError
from dibr_deploy.fitting import Fit, FitSettings, rigid_motion, split_for_judging
from dibr_deploy.lighting import make_light
from dibr_deploy.mesh import Mesh, icosphere, read_mesh, write_mesh
from dibr_deploy.metrics import light_angle
from dibr_deploy.renderer import MeshRenderer

SIZE = 48
CAMERAS = perspective(0.7) @ orbit(torch.arange(6) * math.pi / 3, 0.4, 3.0)
LIGHT = make_light(0.4, torch.tensor([0.6, 0.5, 0.62]), 0.5)


def patchwork() -> Mesh:
    """An egg without symmetry, in colours that vary smoothly."""
    sphere = icosphere(3)
    vertices = sphere.vertices * torch.tensor([0.5, 0.7, 0.4])
    vertices = vertices + 0.15 * torch.sin(3 * vertices[:, [1, 2, 0]])
    colors = 0.5 + 0.4 * torch.sin(4 * sphere.vertices)
    return Mesh(vertices, sphere.faces, vertex_colors=colors)


def views_of(mesh: Mesh, world_to_clip: Tensor = CAMERAS) -> View:
    assert mesh.vertex_colors is not None
    renderer = MeshRenderer(SIZE, SIZE, background=(1.0, 1.0, 1.0))
    colors = mesh.vertex_colors[None]
    image, _, face_index, _ = renderer(
        mesh.vertices[None], mesh.faces, world_to_clip, vertex_colors=colors, light=LIGHT
    )
    return View(image.permute(0, 3, 1, 2), (face_index >= 0).float(), world_to_clip)


def fitted(views: View, mesh: Mesh, *parts: str, light: Tensor = LIGHT, steps: int = 120) -> Fit:
    fit = Fit(views, mesh, FitSettings(parts=parts, steps=steps), light=light)
    for _ in fit.optimize():
        pass
    return fit


def test_light_is_found() -> None:
    mesh = patchwork()
    wrong = make_light(0.6, torch.tensor([-0.5, 0.7, 0.1]), 0.2)
    fit = fitted(views_of(mesh), mesh, "light", light=wrong)
    assert fit.light is not None
    assert float(light_angle(wrong[:, 1:], LIGHT[:, 1:])) > 40
    assert float(light_angle(fit.light[:, 1:], LIGHT[:, 1:])) < 2
    assert torch.equal(fit.vertices, mesh.vertices)
    assert not fit.motion.any()


def test_colors_are_found() -> None:
    mesh = patchwork()
    fit = fitted(views_of(mesh), Mesh(mesh.vertices, mesh.faces), "texture", steps=200)
    assert mesh.vertex_colors is not None
    assert float((fit.mesh().vertex_colors - mesh.vertex_colors).abs().mean()) < 0.02
    assert torch.equal(fit.vertices, mesh.vertices)


def test_cameras_are_found() -> None:
    mesh = patchwork()
    wrong = CAMERAS @ rigid_motion(torch.tensor([[0.05, -0.08, 0.04, 0.03, -0.02, 0.02]]).expand(6, -1))
    views = views_of(mesh)._replace(world_to_clip=wrong)
    start = Fit(views, mesh, light=LIGHT).iou().mean()
    fit = fitted(views, mesh, "camera", steps=150)
    assert fit.iou().mean() > 0.97 > start
    turn = torch.linalg.solve(CAMERAS, fit.cameras())[:, :3, :3]
    degrees = torch.rad2deg(torch.acos(((turn.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2).clamp(-1, 1)))
    assert float(degrees.max()) < 1
    assert torch.equal(fit.vertices, mesh.vertices)


def test_a_motion_is_a_rotation_about_its_axis_then_a_shift() -> None:
    motion = torch.tensor([[0.0, math.pi / 2, 0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    moved = rigid_motion(motion)[0] @ torch.tensor([1.0, 5.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(moved, torch.tensor([1.0, 7.0, 2.0, 1.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(rigid_motion, torch.zeros(2, 6, dtype=torch.float64, requires_grad=True))


def test_held_out_views_are_spread_and_some_are_left() -> None:
    assert split_for_judging([3, 4, 5, 6, 7, 8], 2) == ([3, 5, 6, 8], [4, 7])
    assert split_for_judging([3, 4], 0) == ([3, 4], [])
    with pytest.raises(DibrError, match="fewer than the 2 views, and at least 0, got 2"):
        split_for_judging([3, 4], 2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitting")
    write_mesh(patchwork(), folder / "egg.ply")
    return make_dataset(folder / "egg.ply", folder / "dataset", views=8, size=32)


def test_the_command_writes_the_object_and_says_how_good_it_is(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "fit"
    command = ["optimize", "--data", str(dataset), "--output", str(output), "--steps=60", "--held-out=2"]
    assert main(command) == 0
    line = capsys.readouterr().out.splitlines()[0]
    after, before = (float(part) for part in line.replace("(before: ", "").rstrip(")").split(": ")[1].split())
    assert after > before + 0.2
    assert sorted(path.name for path in output.iterdir()) == ["comparison.png", "fit.json", "losses.csv", "mesh.glb"]
    mesh = read_mesh(output / "mesh.glb")
    assert mesh.texture is not None and mesh.texture.shape == (3, 64, 64)
    rows = (output / "losses.csv").read_text().splitlines()
    assert len(rows) == 61
    assert float(rows[-1].split(",")[1]) < float(rows[1].split(",")[1])
    values = json.loads((output / "fit.json").read_text())
    assert values["views"] == split_for_judging(range(8), 2)[0]
    assert np.allclose(values["world_to_clip"], open_dataset(dataset).world_to_clip[values["views"]])
    assert len(values["light"]) == 4
    with Image.open(output / "comparison.png") as picture:
        assert picture.size == (2 * 32, 2 * 32)
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fit", "shape", "colour"], "parts must be out of shape, texture, light, camera, got colour"),
        (["--object", "duck"], "--object must be one of egg, got duck"),
        (["--held-out", "8"], "held-out views must be fewer than the 8 views"),
        (["--steps", "-1"], "steps and texture_size must be positive"),
        (["--output", "none/fit"], "output must lie in a folder that exists, got none/fit"),
        (["--light", "0.5", "nan", "0", "0"], "light must be [1, 4] and finite, got [[0.5, nan, 0.0, 0.0]]"),
        (["--mesh", "nothing.glb"], "mesh file nothing.glb does not exist"),
    ],
)
def test_mistakes_are_told(
    options: list[str], message: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["optimize", "--data", str(dataset), "--output", str(tmp_path / "fit"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "fit").exists()


def test_a_loss_that_is_not_finite_stops_the_fit(dataset: Path) -> None:
    views = open_dataset(dataset).views([0, 1])
    views.image[0, 0, 16, 16] = torch.nan
    fit = Fit(views, settings=FitSettings(steps=3))
    before = fit.vertices.clone()
    with pytest.raises(DibrError, match="the loss is nan at step 0: mesh, images and cameras must be finite"):
        list(fit.optimize())
    assert torch.equal(fit.vertices, before)
