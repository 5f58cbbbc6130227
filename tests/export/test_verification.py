"""The comparison itself: it must see every difference that matters, and count what it leaves out."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime_door import modules
from programs import dibr_without_torch
from runtime_bundles import sample

from dibr_deploy.cli import main
from dibr_deploy.errors import DibrError, DoorAbsent, EngineRefused
from dibr_deploy.export import to_onnx, verify
from dibr_deploy.export.bundles import to_bundle
from dibr_deploy.runtime import comparison
from dibr_deploy.runtime.bundle import Bundle, entries, write_bundle
from dibr_deploy.runtime.comparison import (
    DOORS,
    Agreement,
    Difference,
    compare,
    compare_doors,
    compare_sample,
    read_sample,
)
from dibr_deploy.runtime.session import PROVIDERS

SHAPE = (2, 40, 50)


@pytest.fixture
def outputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.random((*SHAPE, 3), np.float32),
        "mask": rng.random(SHAPE, np.float32),
        "face_index": rng.integers(-1, 7, SHAPE, np.int32),
        "vertices": rng.random((2, 9, 3), np.float32),
        "faces": rng.integers(0, 9, (7, 3), np.int32),
    }


def changed(outputs: dict[str, np.ndarray], name: str, where: tuple, by: float) -> dict[str, np.ndarray]:
    copy = {key: array.copy() for key, array in outputs.items()}
    copy[name][where] += np.asarray(by, copy[name].dtype)
    return copy


def of(report: Agreement, name: str) -> Difference:
    return next(difference for difference in report.differences if difference.output == name)


def test_equal_outputs_pass(outputs: dict[str, np.ndarray]) -> None:
    report = compare(outputs, outputs)
    assert report.passed
    assert all(difference.largest == difference.mean == difference.differing == 0 for difference in report.differences)
    assert report.covered == pytest.approx((outputs["face_index"] >= 0).mean())


@pytest.mark.parametrize("name", ["image", "vertices"])
@pytest.mark.parametrize("by", [2e-4, np.nan, np.inf])
def test_one_real_number_beyond_the_tolerance_fails(outputs: dict[str, np.ndarray], name: str, by: float) -> None:
    report = compare(outputs, changed(outputs, name, (1, 3, 2), by))
    assert not report.passed
    assert of(report, name).differing == 1
    assert "FAILED" in str(report)


def test_differences_within_the_tolerance_pass(outputs: dict[str, np.ndarray]) -> None:
    report = compare(outputs, changed(outputs, "image", (slice(None),), 5e-5))
    assert report.passed
    assert of(report, "image").largest == pytest.approx(5e-5, rel=1e-2)
    assert not compare(outputs, changed(outputs, "image", (slice(None),), 5e-5), tolerance=1e-5).passed


def test_one_unequal_integer_fails(outputs: dict[str, np.ndarray]) -> None:
    assert not compare(outputs, changed(outputs, "faces", (0, 0), 1)).passed


def test_where_faces_differ_images_are_not_compared(outputs: dict[str, np.ndarray]) -> None:
    """4,000 pixels: 4 of them may see another face, and their colours do not count; a fifth is too many."""
    pixels = (0, 0, slice(0, 4))
    report = compare(outputs, changed(changed(outputs, "face_index", pixels, 10), "image", pixels, 1.0))
    assert report.passed
    assert (of(report, "face_index").differing, of(report, "face_index").allowed) == (4, 4)
    assert (of(report, "image").compared, of(report, "image").differing) == (3996, 0)
    assert not compare(outputs, changed(outputs, "face_index", (0, 0, slice(0, 5)), 10)).passed


def test_the_soft_mask_may_jump_on_as_many_pixels(outputs: dict[str, np.ndarray]) -> None:
    report = compare(outputs, changed(outputs, "mask", (0, 0, slice(0, 4)), 0.05))
    assert report.passed
    assert of(report, "mask").differing == 4
    assert not compare(outputs, changed(outputs, "mask", (0, 0, slice(0, 5)), 0.05)).passed


def test_nan_on_both_sides_is_equal(outputs: dict[str, np.ndarray]) -> None:
    both = changed(outputs, "vertices", (0, 0, 0), np.nan)
    assert compare(both, both).passed


def test_another_shape_or_dtype_is_an_error(outputs: dict[str, np.ndarray]) -> None:
    with pytest.raises(
        DibrError, match=r"output vertices is float32 \[1, 9, 3\], but the reference's is float32 \[2, 9, 3\]"
    ):
        compare(outputs, {**outputs, "vertices": outputs["vertices"][:1]})


def test_weights_that_changed_are_found(tmp_path: Path) -> None:
    module = modules.SphereRenderer()
    path = to_onnx(module, modules.inputs(1), tmp_path / "model.onnx")
    module.texture.data += 0.01
    report = verify(module, path, modules.inputs(2))
    assert [difference.output for difference in report.differences if not difference.passed] == ["image"]


def test_a_file_of_another_module(tmp_path: Path) -> None:
    path = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx")

    class Other(modules.SphereRenderer):
        def forward(self, offsets, world_to_clip):
            return super().forward(offsets, world_to_clip).image

    with pytest.raises(DibrError, match="has outputs image, mask, face_index, depth, but the reference has output"):
        verify(Other(), path, modules.inputs(1))


class WhileRunning(NamedTuple):
    error: DibrError


class Doors:
    """Stands in for Session: every door gives the outputs, or raises the error, that it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, names: Iterable[str], **answers: Any) -> None:
        self.path, self.answers = path, answers
        self.outputs = [types.SimpleNamespace(name=name) for name in names]
        self.opened: list[str] = []
        self.closed = 0
        monkeypatch.setattr(comparison, "Session", self)

    def __call__(self, path: Path, provider: str, *, threads: int | None) -> Doors:
        self.opened.append(provider)
        self._answer = self.answers[provider.replace("-", "_")]
        if isinstance(self._answer, Exception):
            raise self._answer
        return self

    def __enter__(self) -> Doors:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def run(self, *arrays: np.ndarray) -> dict[str, np.ndarray]:
        if isinstance(self._answer, WhileRunning):
            raise self._answer.error
        return self._answer


NO_CUDA = DoorAbsent("provider cuda is not in this onnxruntime")
NO_TENSORRT = DoorAbsent("onnxruntime has no TensorRT")


@pytest.fixture
def onnx_file(tmp_path: Path) -> Path:
    node = helper.make_node("Identity", ["x"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", value[:1], value[1:])), path)
    return path


def test_every_door_is_in_one_table(outputs: dict, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed(outputs, "image", (0, 0, 0, 0), 0.5)
    doors = Doors(
        monkeypatch, onnx_file, outputs, cpu=outputs, cuda=NO_CUDA, onnxruntime_tensorrt=other, tensorrt=outputs
    )
    report = compare_doors(onnx_file, [], outputs, reference="torch")
    assert doors.opened == list(DOORS) and doors.closed == 3
    assert [(door.name, door.passed) for door in report.doors] == [
        ("cpu", True),
        ("cuda", False),
        ("onnxruntime-tensorrt", False),
        ("tensorrt", True),
    ]
    lines = str(report).splitlines()
    assert lines[0] == "reference: torch"
    assert [line.split()[0] for line in lines[2:17]] == ["cpu"] * 5 + ["onnxruntime-tensorrt"] * 5 + ["tensorrt"] * 5
    assert [line.split()[:2] for line in lines if line.endswith("FAILED")] == [["onnxruntime-tensorrt", "image"]]
    assert "cuda (ONNX Runtime, CUDA) is absent: provider cuda is not in this onnxruntime" in lines
    assert report.shortcomings == ["onnxruntime-tensorrt differs in image"]
    assert not report.passed


def test_an_absent_door_matters_where_it_is_named(outputs: dict, onnx_file: Path, monkeypatch) -> None:
    absent = {"cuda": NO_CUDA, "onnxruntime_tensorrt": NO_TENSORRT, "tensorrt": NO_TENSORRT}
    Doors(monkeypatch, onnx_file, outputs, cpu=outputs, **absent)
    assert compare_doors(onnx_file, [], outputs, reference="torch").passed
    assert compare_doors(onnx_file, [], outputs, reference="torch", doors=["cpu"]).passed
    named = compare_doors(onnx_file, [], outputs, reference="torch", doors=["cuda", "cpu"])
    assert not named.passed
    assert named.shortcomings == [f"cuda is absent: {NO_CUDA}"]


def test_no_door_at_all_is_no_pass(outputs: dict, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Doors(
        monkeypatch, onnx_file, outputs, **dict.fromkeys(["cpu", "cuda", "onnxruntime_tensorrt", "tensorrt"], NO_CUDA)
    )
    report = compare_doors(onnx_file, [], outputs, reference="torch")
    assert not report.passed and len(report.shortcomings) == 4 and report.covered is None


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (DibrError("engine x is damaged"), "engine x is damaged"),
        (EngineRefused("engine x was built for 8.9"), "engine x was built for 8.9"),
        (PermissionError("model.onnx: Permission denied"), "model.onnx: Permission denied"),
        (WhileRunning(DibrError("the model could not be run")), "the model could not be run"),
        ({"vertices": np.zeros(2)}, "output image is missing"),
    ],
    ids=["opening", "refused engine", "reading", "running", "comparing"],
)
def test_a_door_that_fails_is_not_absent(
    outputs: dict, onnx_file: Path, monkeypatch: pytest.MonkeyPatch, answer: object, sentence: str
) -> None:
    """The other doors are compared all the same."""
    Doors(monkeypatch, onnx_file, outputs, cpu=outputs, tensorrt=answer)
    report = compare_doors(onnx_file, [], outputs, reference="torch", doors=["tensorrt", "cpu"])
    failed, passed = report.doors
    assert (failed.failure, failed.absent, failed.passed) == (sentence, None, False)
    assert passed.passed
    assert f"tensorrt FAILED: {sentence}" in str(report)
    assert report.shortcomings == [f"tensorrt failed: {sentence}"]


def test_another_model_is_an_error(outputs: dict, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Doors(monkeypatch, onnx_file, ["y"], cpu=outputs)
    with pytest.raises(DibrError, match=r"model\.onnx has outputs y, but the reference has image, mask"):
        compare_doors(onnx_file, [], outputs, reference="torch", doors=["cpu"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"doors": ["gpu"]}, "doors must be some of cpu, cuda, onnxruntime-tensorrt, tensorrt, got 'gpu'"),
        ({"tolerance": -1.0}, "tolerance must be at least 0, got -1"),
        ({"tolerance": float("nan")}, "tolerance must be at least 0, got nan"),
    ],
)
def test_wrong_options(outputs: dict, onnx_file: Path, options: dict, sentence: str) -> None:
    with pytest.raises(DibrError, match=re.escape(sentence)):
        compare_doors(onnx_file, [], outputs, reference="torch", **options)


@pytest.mark.parametrize("half", [False, True])
def test_float16_weights_allow_more(outputs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    """2e-2 instead of 1e-4, and what jumps is counted and not judged: vertices are off by more than a pixel's edge."""
    weights = numpy_helper.from_array(np.ones(1, np.float16 if half else np.float32), "w")
    node = helper.make_node("Identity", ["w"], ["y"])
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", kind, [1])], [weights])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    shifted = changed(outputs, "face_index", (0, 0, slice(0, 40)), 10)
    shifted = changed(shifted, "image", (slice(None),), 1e-2)
    shifted = changed(shifted, "mask", (0, 1, slice(0, 40)), 0.5)
    Doors(monkeypatch, path, outputs, cpu=shifted)
    report = compare_doors(path, [], outputs, reference="torch", doors=["cpu"])
    assert report.tolerance == (2e-2 if half else 1e-4)
    assert report.passed == half
    assert [d.differing for d in report.differences if d.output in ("face_index", "mask")] == [40, 40]
    assert compare_doors(path, [], outputs, reference="torch", doors=["cpu"], tolerance=1e-3).passed is False


def test_doors_are_the_providers_of_a_session() -> None:
    assert sorted(DOORS) == sorted(PROVIDERS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verified") / "bundle.zip"
    return to_bundle(modules.SphereRenderer(), modules.inputs(2), path)


def test_a_bundle_against_its_sample(bundle: Path) -> None:
    report = compare_sample(bundle)
    assert report.passed and report.covered is not None and report.covered > 0.1
    assert {door.name: door.passed for door in report.doors}["cpu"]
    assert all(door.absent for door in report.doors if door.name != "cpu")


def test_a_sample_of_another_network_is_found(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle(bundle)
    files = {name: opened.read(name) for name in opened.manifest.files}
    inputs, outputs = read_sample(opened)
    files[opened.manifest.sample] = sample(inputs, changed(outputs, "image", (0, 0, 0, 0), 0.1))
    path = write_bundle(tmp_path / "b", opened.manifest.model_copy(update={"files": entries(files)}), files)
    report = compare_sample(path, doors=["cpu"])
    assert report.shortcomings == ["cpu differs in image"]


def test_verifying_a_bundle_needs_no_torch(bundle: Path) -> None:
    printed = dibr_without_torch(["verify", "--model", str(bundle), "--doors", "cpu"])
    assert printed.startswith("reference: torch, from the bundle's sample\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--doors", "cpu,tensorrt"], "bundle.zip: tensorrt is absent: "),
        (["--doors", "gpu"], "doors must be some of cpu, cuda"),
        (["--images", "."], "--images needs --checkpoint"),
        (["--tolerance", "-1"], "tolerance must be at least 0, got -1"),
        (["--model", "none.zip"], "none.zip does not exist"),
        (["--model", "{onnx}"], "is no bundle, and only a bundle holds a sample to compare with: name a checkpoint"),
    ],
)
def test_the_command_says_what_is_wrong(
    bundle: Path, onnx_file: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(onnx=onnx_file) for argument in arguments]
    assert main(["verify", "--model", str(bundle), *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dibr: ") and said.count("\n") == 1 and sentence in said


def test_a_bundle_is_read_and_hashed_once_for_all_doors(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    content = Bundle._content

    def note(self: Bundle, name: str, limit: int) -> bytes:
        read.append(name)
        return content(self, name, limit)

    monkeypatch.setattr(Bundle, "_content", note)
    assert compare_sample(bundle).passed
    assert sorted(read) == ["manifest.json", "model.onnx", "sample.npz"]
