"""scripts/single_image.py: what its page says follows from the scores, and what is finished is not done again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import programs
import pytest
from PIL import Image

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
    base = script.Baselines({"a": 0.2, "b": 0.1}, {"a": 0.4, "b": 0.5}, {"a": 50.0, "b": 60.0})
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
    assert [row[1] for row in rows[2:]] == ["0.150", "0.450", "-"]
    assert rows[4][-1] == "55.0°"
    assert cells(script.object_table(results, base))[2:] == [
        ["a", "0.500", "0.120", "0.200", "0.400"],
        ["b", "0.700", "0.320", "0.100", "0.500"],
    ]


def test_the_verdict_follows_the_numbers(script: ModuleType, results: list) -> None:
    """The second run gains 0.07, but its interval reaches below zero."""
    base = script.Baselines({"a": 0.2, "b": 0.1}, {}, {"a": 50.0, "b": 60.0})
    learned = script.verdict(results[:1], base)
    assert "all runs have it.\nThe light is learned" in learned
    assert "+25.0 [+20.0, +30.0]° (`textured_0`)" in learned
    assert "The light is not learned" in script.verdict(results[:1], base._replace(light_angle={"a": 50.0, "b": 35.0}))
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
    """Data, four trainings, evaluation, page, picture and the exported network."""
    monkeypatch.setattr(sys, "argv", ["single_image.py", "--smoke", "--output", str(tmp_path / "out")])
    assert script.main() == 0
    page = (tmp_path / "out/single_image.md").read_text()
    for run in script.RUNS:
        assert page.count(f"| `{run.name}` |") >= 2 + 4
    assert len(cells(page.split("## Every held-out object")[1].split("## ")[0].split("\n\n")[2])) == 2 + 4
    card = json.loads((tmp_path / "out/demo/scores.json").read_text())
    assert [row["class_name"] for row in card["objects"]] == ["airplane", "bottle", "chair", "table"]
    assert (tmp_path / "out/demo/model.zip").stat().st_size > 1e6
    with Image.open(tmp_path / "out/single_image.png") as picture:
        assert picture.size == (4 * 64, 5 * 64)


def _images(dataset: Path) -> list[str]:
    return [path.name for path in (dataset / "images").iterdir()]
