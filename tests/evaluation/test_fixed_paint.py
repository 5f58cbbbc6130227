"""Baselines of textures, against paints whose differences are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dibr_deploy.data import make_dataset
from dibr_deploy.errors import DibrError
from dibr_deploy.fixed_paint import fixed_colour_l1, fixed_colour_of_class_l1, mean_paint_of_class_l1, true_colours
from dibr_deploy.mesh import Mesh, icosphere, write_mesh


def plain(*colours: float, pixels: int = 5) -> Tensor:
    return torch.tensor(colours).view(-1, 1).expand(-1, 3).repeat_interleave(pixels, dim=0)


def test_the_one_colour_is_the_median_of_objects_however_many_pixels_they_have() -> None:
    training = [plain(0.2), plain(0.3), plain(0.9, pixels=500)]
    found = fixed_colour_l1({"a": plain(0.5), "b": plain(0.3, 0.1)}, training)
    assert found == pytest.approx({"a": 0.2, "b": 0.1})


def test_no_other_colour_is_better_for_the_training_objects() -> None:
    training = {str(number): torch.rand(20 + 30 * number, 3) for number in range(4)}
    best = sum(fixed_colour_l1(training, list(training.values())).values())
    for grey in torch.linspace(0, 1, 11):
        assert best <= sum(float((seen - grey).abs().mean()) for seen in training.values()) + 1e-6


def test_every_class_has_its_own_colour() -> None:
    colours, training = {"b": plain(0.8), "a": plain(0.1)}, {"c": plain(0.2), "d": plain(0.9)}
    class_of = {"a": "dark", "c": "dark", "b": "light", "d": "light"}
    found = fixed_colour_of_class_l1(colours, training, class_of)
    assert list(found) == ["b", "a"]
    assert found == pytest.approx({"a": 0.1, "b": 0.1})
    with pytest.raises(DibrError, match="no training object has the class 'light' of b"):
        fixed_colour_of_class_l1(colours, {"c": plain(0.2)}, class_of)


def balls(folder: Path, brightness: list[float], detail: int = 2) -> Path:
    """A dataset of balls, their upper halves of these brightnesses and the lower ones black."""
    (folder / "meshes/ball").mkdir(parents=True)
    sphere = icosphere(detail)
    for number, value in enumerate(brightness):
        colours = torch.where(sphere.vertices[:, 1:2] > 0, value, 0.0).expand(-1, 3)
        mesh = Mesh(sphere.vertices, sphere.faces, vertex_colors=colours)
        write_mesh(mesh, folder / f"meshes/ball/{number}.ply")
    return make_dataset(folder / "meshes", folder / "data", views=3, size=24, with_truth=True)


def test_the_mean_paint_is_put_where_it_belongs(tmp_path: Path) -> None:
    """It is as wrong as its brightness, in the upper halves alone; one colour is wrong in one half or the other."""
    test, train = balls(tmp_path / "test", [0.8]), balls(tmp_path / "train", [0.2, 0.6])
    class_of = {f"ball_{number}": "ball" for number in range(2)}
    (seen,) = true_colours(test).values()
    (painted,) = mean_paint_of_class_l1(test, train, class_of).values()
    assert painted == pytest.approx(float(seen.mean()) * (0.8 - 0.4) / 0.8, abs=0.005)
    (one,) = fixed_colour_l1({"ball": seen}, list(true_colours(train).values())).values()
    assert one > 1.2 * painted


def test_paint_of_another_mesh_is_refused(tmp_path: Path) -> None:
    test, train = balls(tmp_path / "test", [0.8]), balls(tmp_path / "train", [0.2], detail=1)
    with pytest.raises(DibrError, match="objects of the class 'ball' are not variants of one mesh"):
        mean_paint_of_class_l1(test, train, {"ball_0": "ball"})
