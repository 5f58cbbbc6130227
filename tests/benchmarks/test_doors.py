"""One bundle through every door: what each answers is torch's within DESIGN's tolerances, and the table says so."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_networks import EXAMPLE, SIZE, fine

from benchmarks import doors
from dibr_deploy.export import to_bundle
from dibr_deploy.export.views import cameras, noise
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample


def small_bundle(path: Path) -> Path:
    """An image-to-mesh model, with torch's outputs for two pictures and two cameras."""
    model = fine()
    pictures = noise(2, SIZE)
    return to_bundle(model, EXAMPLE, path, sample_args=(pictures, cameras(model, pictures)), photo_input="image")


def test_every_door(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """One test, since all is asked once. A door that is absent is skipped by name; none is where all is set up."""
    bundle = small_bundle(tmp_path / "shape.zip")
    feed, expected = read_sample(Bundle(bundle))
    assert (expected["face_index"] >= 0).mean() > 0.1, "there is something to see"
    assert not np.array_equal(*expected["image"]), "and two different things"

    answers = doors.ask_all(bundle, feed, expected, tmp_path)
    assert sorted([*answers.outputs, *answers.absent]) == sorted(doors.NAMES)
    absent = list(answers.absent) if os.environ.get("CI") else []
    assert absent == []
    for door in doors.NAMES:
        with subtests.test(door):
            if door in answers.absent:
                pytest.skip(f"{door} is absent: it needs {answers.absent[door]}")
            assert_within_tolerances(answers.outputs[door], expected)
            if door in (doors.CPP, *doors.SERVICE):  # one runtime, one library of ops, one thread
                assert_identical(answers.outputs[door], answers.outputs[doors.SESSION])

    lines, passed = doors.table(expected, answers)
    assert passed
    rows = lines[2 : 2 + len(doors.NAMES)]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in (*answers.outputs, *answers.absent)]
    ends = ["| ok |"] * len(answers.outputs) + [f"needs {needed} |" for needed in answers.absent.values()]
    assert all(row.endswith(end) for row, end in zip(rows, ends, strict=True))


def assert_within_tolerances(outputs: doors.Arrays, expected: doors.Arrays) -> None:
    """DESIGN.md, section 3, for whole networks: face_index differs on 0.1 % of the pixels at most, and images by 1e-4
    where it agrees. The mask jumps at the border of a face's box, so that as many of its pixels are free."""
    agree = outputs["face_index"] == expected["face_index"]
    assert (~agree).mean() <= 1e-3
    for name, array in expected.items():
        assert (outputs[name].shape, outputs[name].dtype) == (array.shape, array.dtype)
        if name == "face_index":
            continue
        if np.issubdtype(array.dtype, np.integer):
            assert np.array_equal(outputs[name], array), name
            continue
        close = np.abs(outputs[name].astype(np.float64) - array) <= 1e-4
        if array.shape[:3] == agree.shape:
            close = close.reshape(*agree.shape, -1).all(-1) | ~agree
        assert (~close).mean() <= (1e-3 if name == "mask" else 0.0), name


def assert_identical(outputs: doors.Arrays, expected: doors.Arrays) -> None:
    for name, array in expected.items():
        assert outputs[name].tobytes() == array.tobytes(), name


@pytest.fixture
def expected() -> dict[str, np.ndarray]:
    """Outputs of no model."""
    rng = np.random.default_rng(0)
    shapes = {
        "image": (2, 48, 40, 3), "mask": (2, 48, 40), "vertices": (2, 7, 3), "texture": (2, 3, 8, 8),
        "light": (2, 4),
    }  # fmt: skip
    integers = {"face_index": (2, 48, 40), "faces": (9, 3)}
    return {
        **{name: rng.random(shape, np.float32) for name, shape in shapes.items()},
        **{name: rng.integers(0, 7, shape, np.int32) for name, shape in integers.items()},
    }


@pytest.mark.parametrize(
    ("output", "change", "passes"),
    [("image", 2e-4, False), ("image", 5e-5, True), ("vertices", 2e-4, False), ("faces", 1, False)],
)
def test_the_table_tells_a_difference(
    output: str, change: float, passes: bool, expected: dict[str, np.ndarray]
) -> None:
    """Of one element of one output of one door; a door that is not there is named."""
    damaged = expected[output].copy()
    damaged.flat[0] += change
    outputs = {doors.SESSION: expected, doors.CPP: {**expected, output: damaged}}
    lines, passed = doors.table(expected, doors.Answers(outputs, {doors.TRITON[0]: "a server"}))
    assert passed == passes
    assert lines[2].endswith("| 0 of 3,840 | yes | ok |")
    assert lines[3].endswith(f"| no | {'ok' if passes else 'FAILED'} |")
    assert lines[4].startswith("| tritonserver, HTTP |") and lines[4].endswith("| absent: needs a server |")
    assert {line.count("|") for line in lines[:5]} == {10}
    assert lines[-1].startswith("Absent doors were not compared.")


@pytest.mark.parametrize(("count", "passes"), [(3, True), (4, False)])
def test_the_table_counts_other_faces(count: int, passes: bool, expected: dict[str, np.ndarray]) -> None:
    """0.1 % of 3,840 pixels are three."""
    damaged = expected["face_index"].copy()
    damaged.flat[:count] += 1
    outputs = {**expected, "face_index": damaged}
    lines, passed = doors.table(expected, doors.Answers({doors.SESSION: outputs}, {}))
    assert passed == passes
    assert f"| {count} of 3,840 |" in lines[2]
