"""scripts/single_image.py: what its page says follows from the scores, and what is finished is not done again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import programs
import pytest
import torch
from PIL import Image

from dibr_deploy.cameras import perspective
from dibr_deploy.data import PosedImages, make_dataset
from dibr_deploy.data.make import FIELD_OF_VIEW
from dibr_deploy.data.shapes import write_shapes
from dibr_deploy.evaluation import Scores

NAN = float("nan")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return programs.script("single_image")


def cells(text: str) -> list[list[str]]:
    """The rows of a table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


@pytest.fixture
def results(script: ModuleType) -> list:
    """Two runs on the same two objects, the second without colours."""
    first, second = script.RUNS[0], script.RUNS[2]
    assert (first.textured, second.textured) == (True, False)
    seen = [Scores("a", "chair", 0.5, 0.8, 0.1, 20.0), Scores("b", "table", 0.7, 0.6, 0.3, 40.0)]
    blind = [row._replace(iou=row.iou - 0.38, texture_l1=NAN, light_angle=NAN) for row in seen]
    return [script.Result(first, seen, {}), script.Result(second, blind, {})]


def test_gains_are_over_the_same_objects(script: ModuleType, results: list) -> None:
    base = script.Baselines(
        {"a": 0.2, "b": 0.1},
        {"a": 0.4, "b": 0.5},
        {"a": 0.3, "b": 0.4},
        {"a": 0.2, "b": 0.25},
        {"a": 50.0, "b": 60.0},
        {"a": 45.0, "b": 56.0},
    )
    assert "F-score at 0.05" in cells(script.results_table(results, base))[0]
    rows = cells(script.results_table(results, base))[2:]
    assert rows[0] == [
        "`textured_0`",
        "0.600",
        "+0.450 [+0.300, +0.600]",
        "+0.150 [+0.100, +0.200]",
        "0.700",
        "0.200",
        "30.0°",
    ]
    assert rows[1][:3] == ["`silhouette_0`", "0.220", "+0.070 [-0.080, +0.220]"]
    assert rows[1][5:] == ["-", "-"]
    assert [row[1] for row in rows[2:]] == ["0.150", "0.450", "-", "-", "-", "-"]
    assert [row[-2] for row in rows[4:6]] == ["0.350", "0.225"]
    assert [row[-1] for row in rows[6:]] == ["55.0°", "50.5°"]
    chair = cells(script.class_table(results, base))[2]
    assert chair[4:] == ["0.400", "0.800", "0.100", "0.200", "20.0°", "50.0°"]
    assert cells(script.object_table(results, base))[2:] == [
        ["a", "0.500", "0.120", "0.200", "0.400"],
        ["b", "0.700", "0.320", "0.100", "0.500"],
    ]


def test_the_verdict_follows_the_numbers(script: ModuleType, results: list) -> None:
    """The second run gains 0.07, but its interval reaches below zero."""
    base = script.Baselines(
        {"a": 0.2, "b": 0.1},
        {"a": 0.4, "b": 0.75},
        {"a": 0.3, "b": 0.4},
        {"a": 0.2, "b": 0.35},
        {"a": 50.0, "b": 60.0},
        {"a": 35.0, "b": 75.0},
    )
    learned = script.verdict(results[:1], base)
    assert "all runs have it.\nTextures are learned: those of `textured_0` are nearer" in learned
    assert "\nLights are learned: those of `textured_0` are nearer" in learned
    bullets = [line for line in learned.splitlines() if line.startswith("- ")]
    of_class = "+0.025 [-0.050, +0.100] (not in table -0.050 [-0.050, -0.050])"
    assert bullets[0] == f"- 3D IoU, over the fixed shape of its class: `textured_0` {of_class}"
    assert bullets[1].endswith("under that of one colour: `textured_0` +0.150 [+0.100, +0.200]")
    assert bullets[3].endswith("nearer to the light than the fixed one: `textured_0` +25.0 [+20.0, +30.0]")
    assert bullets[4].endswith("the fixed one of the world: `textured_0` +25.0 [+15.0, +35.0]")
    worse = base._replace(light_angle={"a": 50.0, "b": 35.0}, colour_of_class={"a": 0.2, "b": 0.25})
    assert "Lights are not learned: those of `textured_0` are not" in script.verdict(results[:1], worse)
    assert "Textures are not learned: those of `textured_0` are not" in script.verdict(results[:1], worse)
    assert "(not in table -0.050" in script.verdict(results[:1], worse)
    assert "`silhouette_0` did not reach it" in script.verdict(results, base)


def test_a_finished_run_is_not_trained_again(script: ModuleType, tmp_path: Path) -> None:
    script.make_data(tmp_path, script.SMOKE)
    names = [{line.split("_")[-2] for line in _images(tmp_path / part)} for part in ("train", "test")]
    assert not names[0] & names[1]
    run = script.RUNS[0]
    for steps, commit in ((1, "one"), (1, "other"), (2, "two")):
        script.train(tmp_path, run, script.config_of(run, {"steps": steps}), commit)
    sessions = json.loads((tmp_path / f"{run.name}.json").read_text())
    assert [session["steps"] for session in sessions] == [[0, 1], [1, 2]]
    assert script.joined(sessions)["commits"] == ["one", "two"]


def test_scores_are_kept_for_as_long_as_the_weights(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged again when the training went on, and not before."""
    judged: list[int] = []

    def evaluate(model: object, data: Path, **_: object) -> list[Scores]:
        judged.append(len(judged))
        return [Scores("a", "chair", float(len(judged)), 0.8, 0.1, 20.0)]

    monkeypatch.setattr(script.evaluation, "evaluate", evaluate)
    script.make_data(tmp_path, script.SMOKE)
    run = script.RUNS[0]
    for steps, count in ((1, 1), (1, 1), (2, 2), (2, 2)):
        script.train(tmp_path, run, script.config_of(run, {"steps": steps}), "one")
        assert script.judge(tmp_path, run, script.SMOKE).scores[0].iou == count
        assert len(judged) == count


def test_all_of_it_runs_at_its_smallest(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, four trainings, evaluation, page and picture."""
    monkeypatch.setattr(sys, "argv", ["single_image.py", "--smoke", "--output", str(tmp_path / "out")])
    assert script.main() == 0
    page = (tmp_path / "out/single_image.md").read_text()
    for run in script.RUNS:
        assert page.count(f"| `{run.name}` |") >= 2 + 4
        assert f"| {script.current_commit()} |" in page.split("trained at commit |")[1]
    assert len(cells(page.split("## Every held-out object")[1].split("## ")[0].split("\n\n")[2])) == 2 + 4
    with Image.open(tmp_path / "out/single_image.png") as picture:
        assert picture.size == (4 * 64, 5 * 64)


def test_fixed_lights_are_judged_in_the_axes_of_the_cameras_and_in_the_world(
    script: ModuleType, tmp_path: Path
) -> None:
    """Of a direction that clip space has as (x, y, _, w), view space has (x / s, y / s, -w), s of the projection."""
    folder = make_dataset(
        write_shapes(tmp_path / "meshes", classes=["chair"], count=1),
        tmp_path / "data",
        views=5,
        size=16,
        with_truth=True,
    )
    data = PosedImages(folder)
    ((name, in_world),) = script.directions(data).items()
    (to_cameras,) = script.directions_to_cameras(data).values()
    for towards, seen, camera in zip(in_world, to_cameras, data.world_to_clip, strict=True):
        moved = camera @ torch.cat([towards, torch.zeros(1)])
        torch.testing.assert_close(seen[:2] * perspective(FIELD_OF_VIEW)[0, 0], moved[:2], rtol=0, atol=1e-5)
        assert float(seen[2]) == pytest.approx(-float(moved[3]), abs=1e-5)
    moving = {name: torch.tensor([[0.0, 1.0, 0.0]]).expand(5, 3)}
    assert script.fixed_light_angle(moving, moving, 3)[name] < 3
    assert script.fixed_light_angle(moving, {name: -moving[name]}, 3)[name] > 177


def _images(dataset: Path) -> list[str]:
    return [path.name for path in (dataset / "images").iterdir()]
