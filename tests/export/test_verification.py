"""The comparison itself: it must see every difference that matters, and count what it leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnxruntime_door import modules

from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_onnx, verify
from dibr_deploy.export.verification import Difference, Report, compare

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


def of(report: Report, name: str) -> Difference:
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
        DibrError, match=r"output vertices is float32 \[1, 9, 3\] in ONNX Runtime, but float32 \[2, 9, 3\]"
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

    with pytest.raises(DibrError, match="has outputs image, mask, face_index, depth, but the module has output"):
        verify(Other(), path, modules.inputs(1))
