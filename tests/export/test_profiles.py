"""Optimization profiles from the names of a model's axes."""

from __future__ import annotations

from typing import Any

import pytest

from dibr_deploy.errors import DibrError
from dibr_deploy.export.profiles import optimization_profiles
from dibr_deploy.runtime.onnx_file import ValueInfo

IMAGE = ValueInfo("image", "float32", ("batch", 3, "height", "width"))
CAMERA = ValueInfo("camera", "float32", ("batch", 4, 4))
FACES = ValueInfo("faces", "int32", (20, 3))
SIZE = ValueInfo("image_size", "int64", (2,))


def ranges(inputs: list[ValueInfo], sizes: Any, shape_inputs: tuple[str, ...] = ()) -> list[dict[str, list]]:
    profiles = optimization_profiles(inputs, set(shape_inputs), sizes)
    return [{name: [p.min, p.opt, p.max] for name, p in profile.items()} for profile in profiles]


def test_axes_of_one_name_have_one_range_and_static_inputs_none() -> None:
    sizes = {"batch": (1, 2, 8), "height": (16, 32, 64), "width": (8, 8, 8)}
    assert ranges([IMAGE, CAMERA, FACES], sizes) == [
        {
            "image": [(1, 3, 16, 8), (2, 3, 32, 8), (8, 3, 64, 8)],
            "camera": [(1, 4, 4), (2, 4, 4), (8, 4, 4)],
        }
    ]


def test_the_default_of_batch_and_of_a_static_model() -> None:
    assert ranges([CAMERA], {}) == [{"camera": [(1, 4, 4), (8, 4, 4), (32, 4, 4)]}]
    assert ranges([CAMERA], ()) == ranges([CAMERA], {})
    assert ranges([FACES], {}) == [{}]


def test_an_input_by_its_name_overrides_its_axes() -> None:
    shapes = ((1, 3, 4, 4), (2, 3, 8, 4), (4, 3, 9, 9))
    actual = ranges([IMAGE, CAMERA], {"image": shapes, "batch": (1, 2, 4)})
    assert actual == [{"image": list(shapes), "camera": [(1, 4, 4), (2, 4, 4), (4, 4, 4)]}]


def test_a_shape_input_has_values() -> None:
    values = ((1, 1), (64, 48), (512, 256))
    assert ranges([FACES, SIZE], {"image_size": values}, ("image_size",)) == [{"image_size": list(values)}]


def test_several_profiles_and_an_axis_without_a_name() -> None:
    unnamed = ValueInfo("points", "float32", ("points.0", 3))
    actual = ranges([unnamed], [{"points.0": (1, 1, 1)}, {"points.0": (2, 5, 9)}])
    assert actual == [{"points": [(1, 3)] * 3}, {"points": [(2, 3), (5, 3), (9, 3)]}]


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({}, "axis height of input image is dynamic: give .* --size height=1:64:256"),
        (
            {"depth": (1, 2, 3)},
            "size depth: .* no axis or input of that name; its dynamic axes are batch, height, width",
        ),
        ({"height": (1, 2)}, r"size height must be smallest, usual and largest, got \[1, 2\]"),
        ({"height": (4, 2, 8), "width": (1, 1, 1)}, "smallest <= usual <= largest, got 4 : 2 : 8"),
        ({"height": (-1, 2, 8), "width": (1, 1, 1)}, "got -1 : 2 : 8"),
        ({"height": (1, 2.5, 8), "width": (1, 1, 1)}, "must be whole numbers .* got 1 : 2.5 : 8"),
        ({"image": ((1, 3, 4),) * 3}, r"must have shape \[batch, 3, height, width\], got \[1, 3, 4\]"),
        ({"image": ((1, 4, 4, 4),) * 3}, r"must have shape .* got \[1, 4, 4, 4\]"),
        ({"image": ((1, 3, 4, 4),) * 3}, "input image_size is read as a shape, .* --size image_size=1x1:64x64:512x512"),
        ({"image": ((1, 3, 4, 4),) * 3, "image_size": ((1,),) * 3}, r"image_size: .* 2 values, got \[1\]"),
    ],
)
def test_what_is_refused(sizes: Any, sentence: str) -> None:
    with pytest.raises(DibrError, match=sentence):
        optimization_profiles([IMAGE, CAMERA, SIZE], {"image_size"}, sizes)


def test_a_model_without_dynamic_axes_says_so() -> None:
    with pytest.raises(DibrError, match=r"size batch: .*; it has no dynamic axes"):
        optimization_profiles([FACES], set(), {"batch": (1, 2, 3)})
