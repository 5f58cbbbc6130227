"""Evaluation of predictions whose scores are known: spheres in a colour, under a light."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data.layouts import write_rendering, write_voxels
from torch import Tensor

from dibr_deploy.cameras import view_axes
from dibr_deploy.cli import main
from dibr_deploy.data import PosedImages, make_dataset
from dibr_deploy.data.shapes import CLASSES, make_shape, write_shapes
from dibr_deploy.data.truth import read_truth
from dibr_deploy.errors import DibrError
from dibr_deploy.evaluation import (
    Scores,
    best_fixed_direction,
    bootstrap_interval,
    class_means,
    evaluate,
    fixed_shape_iou,
    fixed_shape_of_class_iou,
    true_solids,
)
from dibr_deploy.export import to_onnx
from dibr_deploy.fixed_paint import true_colours
from dibr_deploy.mesh import Mesh, icosphere, write_mesh
from dibr_deploy.metrics import light_angle
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.runtime import Session
from dibr_deploy.training import TrainingConfig
from dibr_deploy.training.checkpoint import save_checkpoint
from dibr_deploy.voxels import voxelize

COLOR = (0.8, 0.4, 0.2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of radius 1."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "meshes/round").mkdir(parents=True)
    sphere = icosphere(3)
    colors = torch.tensor(COLOR).expand(len(sphere.vertices), 3)
    write_mesh(Mesh(sphere.vertices, sphere.faces, vertex_colors=colors), folder / "meshes/round/ball.ply")
    return make_dataset(folder / "meshes", folder / "dataset", views=3, size=32, with_truth=True)


def predicting(radius: float, color: tuple[float, ...], light: list[float]) -> ImageToMeshRenderer:
    """A model that predicts this ball for every image, and this light in the axes of its camera."""
    network = ImageToMesh(ModelConfig(image_size=32, texture_size=32))
    offset = network.template * (radius / 0.5 - 1) / network.config.max_offset
    # As strong as what ambient leaves: the textures of weaker lights are darkened.
    source = 1e3 * torch.nn.functional.normalize(torch.tensor(light[1:]), dim=0)
    constants = {
        network.vertex_head[-1]: torch.atanh(offset).flatten(),
        network.texture_head.colour: torch.logit(torch.tensor(color)),
        network.light_head: torch.cat([torch.logit(torch.tensor([light[0]])), source]),
    }
    with torch.no_grad():
        for layer, bias in constants.items():
            layer.weight.zero_()
            layer.bias.copy_(bias)
    return ImageToMeshRenderer(network, 32, 32)


def seen_from(camera: Tensor, light: list[float]) -> list[float]:
    """A light of the world in the axes of a camera."""
    return [light[0], *(view_axes(camera) @ torch.tensor(light[1:])).tolist()]


def test_the_true_prediction_has_the_best_scores(dataset: Path) -> None:
    lights = read_truth(dataset)["round_ball"].lights
    assert lights is not None
    light = seen_from(PosedImages(dataset).world_to_clip[0], lights[0])
    (score,) = evaluate(predicting(1.0, COLOR, light), dataset, views=1)
    assert (score.object_id, score.class_name) == ("round_ball", "round")
    assert score.iou == pytest.approx(1, abs=0.002)
    assert score.f_score == pytest.approx(1, abs=1e-3)
    assert score.texture_l1 == pytest.approx(0, abs=0.003)  # colours are kept in bytes
    assert score.light_angle == pytest.approx(0, abs=0.1)


def test_known_mistakes_have_their_scores(dataset: Path) -> None:
    """A ball of radius 0.8 fills 0.8^3 of the true one, lies 0.2 below its surface, and is 0.1 too bright."""
    lights = read_truth(dataset)["round_ball"].lights
    assert lights is not None
    light = seen_from(PosedImages(dataset).world_to_clip[0], lights[0])
    opposite = [light[0], *(-value for value in light[1:])]
    model = predicting(0.8, tuple(value + 0.1 for value in COLOR), opposite)
    (score,) = evaluate(model, dataset, views=1, resolution=48)
    assert score.iou == pytest.approx(0.8**3, abs=0.02)
    assert score.f_score == 0
    assert score.texture_l1 == pytest.approx(0.1, abs=0.003)
    assert score.light_angle == pytest.approx(180, abs=0.1)
    (near,) = evaluate(model, dataset, threshold=0.25)
    assert near.f_score == 1


def test_each_view_is_judged_by_its_own_light(dataset: Path, tmp_path: Path) -> None:
    """And by its own camera: a light that stands as in the third view is right there and nowhere else."""
    lit = make_dataset(dataset.parent / "meshes", tmp_path / "lit", views=4, size=32, lights="view", with_truth=True)
    true = read_truth(lit)["round_ball"].lights
    assert true is not None and len(true) == 4
    seen = [seen_from(*pair) for pair in zip(PosedImages(lit).world_to_clip, true, strict=True)]
    directions = torch.tensor(seen)[:, 1:] / 0.4
    angles = torch.rad2deg((directions @ directions[2]).clamp(-1, 1).acos())
    assert angles[:2].min() > 5
    model = predicting(1.0, COLOR, seen[2])
    (score,) = evaluate(model, lit, views=3)
    assert score.light_angle == pytest.approx(float(angles[:3].mean()), abs=0.1)
    file = to_onnx(model, (torch.zeros(1, 3, 32, 32), torch.eye(4)[None]), tmp_path / "model.onnx")
    (exported,) = evaluate(Session(file, "cpu"), lit, views=3)
    assert exported.light_angle == pytest.approx(score.light_angle, abs=1e-2)


def test_the_best_fixed_direction_is_the_best() -> None:
    """Lights around one direction have it; of lights all over a half sphere it is the pole, a radian from them."""
    pole = torch.tensor([0.6, 0.0, 0.8])
    towards = torch.randn(5000, 3)
    towards *= (towards @ pole).sign().unsqueeze(1)
    direction = best_fixed_direction(towards)
    assert float(light_angle(direction[None], pole[None])) < 5
    angles = light_angle(towards, direction.expand(5000, 3))
    assert float(angles.mean()) == pytest.approx(math.degrees(1), abs=1)


def ball_in_choys_layout(root: Path, radius: float) -> Path:
    """A ball of ShapeNet's size: renderings, voxels, and its surface."""
    write_rendering(root, "03001627", "ball", 200)
    cells = (np.arange(32) + 0.5) / 32 - 0.5
    x, y, z = np.meshgrid(cells, cells, cells, indexing="ij")
    write_voxels(root, "03001627", "ball", (x - 0.1) ** 2 + y**2 + z**2 < radius**2)
    surface = icosphere(3, radius)
    shifted = Mesh(surface.vertices + torch.tensor([0.1, 0.0, 0.0]), surface.faces)
    (root / "ShapeNetCore.v1/03001627/ball").mkdir(parents=True)
    write_mesh(shifted, root / "ShapeNetCore.v1/03001627/ball/model.obj")
    return root


def test_choys_layout_is_judged_by_its_voxels_and_models(tmp_path: Path) -> None:
    """Balls of radius 0.3, the true one 0.1 aside: what both fill is known."""
    data = ball_in_choys_layout(tmp_path, 0.3)
    model = predicting(0.3, COLOR, [0.5, 0.1, 0.2, 0.3])
    model.renderer.height = model.renderer.width = 137
    (score,) = evaluate(model, data, views=2, threshold=0.11)
    assert (score.object_id, score.class_name) == ("chair/ball", "chair")
    common = 1 - 3 / 4 * (0.1 / 0.3) + (0.1 / 0.3) ** 3 / 16  # two caps, of the volume of one ball
    assert score.iou == pytest.approx(common / (2 - common), abs=0.02)
    assert score.f_score == pytest.approx(1, abs=1e-3)
    assert math.isnan(score.texture_l1) and math.isnan(score.light_angle)
    solid = true_solids(data)[0]["chair/ball"][None]
    assert float(fixed_shape_iou(solid, solid)) == 1
    shutil.rmtree(data / "ShapeNetCore.v1")
    (again,) = evaluate(model, data / "ShapeNetRendering", views=1)
    assert again.iou == pytest.approx(score.iou)
    assert math.isnan(again.f_score)
    with pytest.raises(DibrError, match="voxels of chair/ball have resolution 32, got 64"):
        evaluate(model, data, resolution=64)


def test_the_best_fixed_shape_is_the_best_of_its_kind() -> None:
    """Ten boxes of lengths 1 to 10: whichever length is taken for all, none has a better mean."""
    boxes = torch.zeros(10, 10, 10, 10, dtype=torch.bool)
    for length in range(1, 11):
        boxes[length - 1, :length] = True
    lengths = np.arange(1, 11)
    best = max(np.mean(np.minimum(lengths, fixed) / np.maximum(lengths, fixed)) for fixed in lengths)
    assert float(fixed_shape_iou(boxes, boxes).mean()) == pytest.approx(best)
    assert fixed_shape_iou(boxes[:1], boxes[6:7]).tolist() == pytest.approx([1 / 7])


def test_solids_of_two_grids_are_refused(dataset: Path, tmp_path: Path) -> None:
    """Voxels of a cube of side 1 say nothing about those of one of side 2."""
    data = ball_in_choys_layout(tmp_path, 0.3)
    pattern = r"one grid, that of round_ball \(centre 0, 0, 0, side 2\), got chair/ball \(centre 0, 0, 0, side 1\)"
    with pytest.raises(DibrError, match=pattern):
        true_solids(dataset, data)


def test_a_shape_for_each_class_is_the_best_of_the_class() -> None:
    """Two classes of boxes: each is judged by its own, and one without training objects is refused."""
    boxes = torch.zeros(10, 10, 10, 10, dtype=torch.bool)
    for length in range(1, 11):
        boxes[length - 1, :length] = True
    solids, training = {"a": boxes[1], "b": boxes[8]}, {"c": boxes[3], "d": boxes[9]}
    class_of = {"a": "short", "c": "short", "b": "long", "d": "long"}
    assert fixed_shape_of_class_iou(solids, training, class_of) == pytest.approx({"a": 2 / 4, "b": 9 / 10})
    with pytest.raises(DibrError, match="no training object has the class 'long' of b"):
        fixed_shape_of_class_iou(solids, {"c": boxes[3]}, class_of)


def test_an_exported_model_has_the_scores_of_the_network(dataset: Path, tmp_path: Path) -> None:
    model = predicting(0.8, COLOR, [0.5, 0.1, 0.2, 0.3])
    (expected,) = evaluate(model, dataset, views=2)
    save_checkpoint(tmp_path / "checkpoint.pt", model)
    for name in ("model.onnx", "bundle.zip"):  # one takes floats, the other bytes
        assert main(["export", "--checkpoint", str(tmp_path), "--output", str(tmp_path / name)]) == 0
        (actual,) = evaluate(Session(tmp_path / name, "cpu"), dataset, views=2)
        assert actual[:2] == expected[:2]
        assert actual[2:] == pytest.approx(expected[2:], abs=1e-4)


def test_what_was_not_learned_is_not_judged(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run without colours: dashes in the table, null in the file."""
    model = predicting(1.0, COLOR, [0.5, 0.1, 0.2, 0.3])
    save_checkpoint(tmp_path / "checkpoint.pt", model, {"config": {"color_weight": 0.0}})
    command = ["evaluate", "--checkpoint", str(tmp_path), "--data", str(dataset), "--views=1"]
    assert main([*command, "--output", str(tmp_path / "scores.json")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["round", "1", "1.000", "1.000", "-", "-"]
    (row,) = json.loads((tmp_path / "scores.json").read_text())
    assert (row["texture_l1"], row["light_angle"]) == (None, None)


def test_the_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_random_shapes_are_solids_and_numbers_tell_them_apart(tmp_path: Path) -> None:
    for name in CLASSES:
        shapes = [make_shape(name, number) for number in range(3)]
        volumes = [float(voxelize(shape, 16, side=3.0).float().mean()) for shape in shapes]
        assert min(volumes) > 0
        assert len({tuple(shape.vertices.flatten().tolist()) for shape in shapes}) == 3
        again = make_shape(name, 1)
        assert torch.equal(again.vertices, shapes[1].vertices)
        assert not torch.equal(make_shape(name, 1, seed=1).vertices[:, 0], again.vertices[:, 0])
    written = write_shapes(tmp_path, classes=["chair"], count=2, first=5)
    assert sorted(path.name for path in written.rglob("*.ply")) == ["chair_005.ply", "chair_006.ply"]
    with pytest.raises(DibrError, match=r"classes must be among airplane, bottle, chair, table, got lamp"):
        write_shapes(tmp_path, classes=["lamp"])


def test_the_command_prints_a_row_per_class_and_the_gain(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "shapes", "--output", str(tmp_path / "shapes"), "--count", "1"]) == 0
    made = ["--output", str(tmp_path / "test"), "--views=2", "--size=32", "--truth"]
    assert main(["data", "make", "--meshes", str(tmp_path / "shapes"), *made]) == 0
    save_checkpoint(tmp_path / "checkpoint.pt", predicting(0.8, COLOR, [0.5, 0.1, 0.2, 0.3]))
    command = ["evaluate", "--checkpoint", str(tmp_path / "checkpoint.pt"), "--data", str(tmp_path / "test")]
    capsys.readouterr()
    assert main([*command, "--training-data", str(dataset), "--output", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in printed.splitlines()[1:6]}
    assert list(rows) == ["airplane", "bottle", "chair", "table", "all"]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert float(rows["all"][2]) == pytest.approx(np.mean([row["iou"] for row in scores]), abs=6e-4)
    balls, solids = true_solids(dataset, tmp_path / "test")
    ball = balls["round_ball"]
    fixed = np.mean([float(fixed_shape_iou(solids[row["object_id"]][None], ball[None])) for row in scores])
    assert f"best fixed shape of the training objects: {fixed:.3f}" in printed
    gain = float(rows["all"][2]) - fixed
    assert float(printed.split("gain over it: ")[1].split(",")[0]) == pytest.approx(gain, abs=2e-3)
    # The one training object has one colour, so that is the best single one.
    (painted,) = true_colours(dataset).values()
    fixed = np.mean(
        [float((seen - painted.mean(dim=0)).abs().mean()) for seen in true_colours(tmp_path / "test").values()]
    )
    assert f"best single colour of the training objects: {fixed:.3f}" in printed
    gain = fixed - float(rows["all"][4])
    assert float(printed.split("undercut by: ")[1].split(",")[0]) == pytest.approx(gain, abs=2e-3)


def test_colours_are_not_compared_where_none_was_learned(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"config": TrainingConfig(color_weight=0.0).model_dump()}
    save_checkpoint(tmp_path / "checkpoint.pt", predicting(0.8, COLOR, [0.5, 0.1, 0.2, 0.3]), training)
    command = ["evaluate", "--checkpoint", str(tmp_path), "--data", str(dataset), "--views=1"]
    assert main([*command, "--training-data", str(dataset)]) == 0
    printed = capsys.readouterr().out
    assert "best fixed shape" in printed
    assert "single colour" not in printed


def test_class_means_are_means(dataset: Path) -> None:
    model = predicting(0.8, COLOR, [0.5, 0.1, 0.2, 0.3])
    (score,) = evaluate(model, dataset, views=1)
    other = score._replace(class_name="other", iou=0.0)
    means = {row.class_name: row for row in class_means([score, score, other])}
    assert means["all"].iou == pytest.approx(2 / 3 * score.iou)
    assert (means["round"].object_id, means["other"].iou) == ("2", 0)


def test_class_means_are_over_what_is_known() -> None:
    known, unknown = (
        Scores(name, "chair", 0.5, f_score, math.nan, 10.0) for name, f_score in (("a", 0.8), ("b", math.nan))
    )
    (mean,) = class_means([known, unknown])
    assert mean[:4] == ("2", "chair", 0.5, 0.8)
    assert math.isnan(mean.texture_l1)


def test_the_command_says_how_many_objects_have_a_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two objects of ShapeNet's layout, the model of one of them missing."""
    data = ball_in_choys_layout(tmp_path / "data", 0.3)
    for part in ("ShapeNetRendering", "ShapeNetVox32"):
        shutil.copytree(data / part / "03001627/ball", data / part / "03001627/other")
    save_checkpoint(tmp_path / "checkpoint.pt", predicting(0.3, COLOR, [0.5, 0.1, 0.2, 0.3]))
    assert main(["evaluate", "--checkpoint", str(tmp_path), "--data", str(data), "--views=1", "--threshold=0.11"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split()[:2] == ["chair", "2"]
    assert float(printed.splitlines()[1].split()[3]) == pytest.approx(1, abs=1e-3)
    assert "F-score at 0.11: known of 1 of 2 objects" in printed


def test_what_is_missing_is_named(dataset: Path, tmp_path: Path) -> None:
    model = predicting(0.8, COLOR, [0.5, 0.1, 0.2, 0.3])
    with pytest.raises(DibrError, match="views and resolution must be at least 1, got 0 and 32"):
        evaluate(model, dataset, views=0)
    (tmp_path / "meshes").mkdir()
    write_mesh(icosphere(1), tmp_path / "meshes/ball.ply")
    plain = make_dataset(tmp_path / "meshes", tmp_path / "plain", views=1, size=16)
    assert sorted(path.name for path in plain.iterdir()) == ["images", "masks", "transforms.json"]
    with pytest.raises(DibrError, match=r"truth.json is missing: `dibr data make --truth` writes it"):
        evaluate(model, plain)
    (plain / "truth.json").write_text('{"ball": {"mesh": 3}}')
    with pytest.raises(DibrError, match=r"truth.json: ball.mesh: Input should be a valid string"):
        evaluate(model, plain)
    (plain / "truth.json").write_text("{}")
    with pytest.raises(DibrError, match=r"truth of .*plain has no object ball"):
        evaluate(model, plain)
