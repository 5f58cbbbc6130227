"""Optimization profiles: which sizes an engine is built for, from the names of the model's dynamic axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.manifest import Profile
from dibr_deploy.runtime.onnx_file import ValueInfo

Sizes = Mapping[str, Sequence[Any]]
"""Smallest, usual and largest: three numbers by the name of an axis, or three shapes by the name of an input. Of an
input that is read as a shape, like image_size, the shapes are its values."""
DEFAULT_SIZES: Sizes = {"batch": (1, 8, 32)}
"""Of an axis that is not given."""

_KINDS = ("min", "opt", "max")


def optimization_profiles(
    inputs: Sequence[ValueInfo], shape_inputs: Set[str], sizes: Sizes | Sequence[Sizes]
) -> tuple[dict[str, Profile], ...]:
    """The profiles of an engine: for each, the range of every input with dynamic axes and of every shape input.

    Args:
        inputs: of the model.
        shape_inputs: names of the inputs that TensorRT reads as shapes.
        sizes: of one profile, or a sequence for one profile each. An input named here has the shapes given, whatever
            is said of its axes.

    Raises:
        DibrError: an axis has no size, a name is neither an axis nor an input, or a range does not fit.
    """
    given = [sizes] if isinstance(sizes, Mapping) else list(sizes)
    return tuple(_profile(inputs, shape_inputs, one) for one in given or [{}])


def _profile(inputs: Sequence[ValueInfo], shape_inputs: Set[str], sizes: Sizes) -> dict[str, Profile]:
    axes = dict.fromkeys(size for info in inputs for size in info.shape if isinstance(size, str))
    names = [info.name for info in inputs]
    for name, value in sizes.items():
        if name not in axes and name not in names:
            known = f"its dynamic axes are {', '.join(axes)}" if axes else "it has no dynamic axes"
            raise DibrError(f"size {name}: the model has no axis or input of that name; {known}")
        if len(value) != len(_KINDS):
            raise DibrError(f"size {name} must be smallest, usual and largest, got {list(value)}")
    profiles = {}
    for info in inputs:
        if info.name in sizes and _is_shapes(sizes[info.name]):
            profiles[info.name] = _given(info, sizes[info.name], info.name in shape_inputs)
        elif info.name in shape_inputs:
            raise DibrError(
                f"input {info.name} is read as a shape, whose smallest, usual and largest values must be given, for "
                f"example --size {info.name}={_example(info)} or sizes={{{info.name!r}: (smallest, usual, largest)}}"
            )
        elif any(isinstance(size, str) for size in info.shape):
            profiles[info.name] = _from_axes(info, sizes)
    return profiles


def _is_shapes(value: Sequence[Any]) -> bool:
    return all(isinstance(part, Sequence) for part in value)


def _given(info: ValueInfo, shapes: Sequence[Sequence[int]], is_shape_input: bool) -> Profile:
    """A range of shapes that fit the input, or of its values."""
    expected: Sequence[int | str] = info.shape
    if is_shape_input:
        expected = ["value"] * (info.shape[0] if info.shape and isinstance(info.shape[0], int) else 1)
    for shape in shapes:
        if len(shape) != len(expected) or any(
            isinstance(size, int) and size != given for size, given in zip(expected, shape, strict=True)
        ):
            what = f"{len(expected)} values" if is_shape_input else f"shape [{', '.join(map(str, expected))}]"
            raise DibrError(f"size {info.name}: the input must have {what}, got {list(shape)}")
    return _ordered(info.name, shapes)


def _from_axes(info: ValueInfo, sizes: Sizes) -> Profile:
    ranges = [_range(info, axis, sizes) if isinstance(axis, str) else (axis,) * len(_KINDS) for axis in info.shape]
    return _ordered(info.name, list(zip(*ranges, strict=True)))


def _range(info: ValueInfo, axis: str, sizes: Sizes) -> Sequence[int]:
    value = sizes.get(axis, DEFAULT_SIZES.get(axis))
    if value is None or _is_shapes(value):
        raise DibrError(
            f"axis {axis} of input {info.name} is dynamic: give its smallest, usual and largest size, for example "
            f"--size {axis}=1:64:256 or sizes={{{axis!r}: (1, 64, 256)}}"
        )
    _ordered(axis, [[size] for size in value])
    return value


def _ordered(name: str, shapes: Sequence[Sequence[int]]) -> Profile:
    try:
        return Profile(**{kind: tuple(shape) for kind, shape in zip(_KINDS, shapes, strict=True)})
    except ValueError:
        said = " : ".join("x".join(map(str, shape)) for shape in shapes)
        raise DibrError(f"size {name} must be whole numbers with smallest <= usual <= largest, got {said}") from None


def _example(info: ValueInfo) -> str:
    count = info.shape[0] if info.shape and isinstance(info.shape[0], int) else 1
    return ":".join("x".join([size] * count) for size in ("1", "64", "512"))
