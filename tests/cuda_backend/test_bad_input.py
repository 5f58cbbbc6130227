"""Bad input at the C ABI, on both devices: a status, a sentence that names op and argument, and nothing is launched."""

from __future__ import annotations

import ctypes as c
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from cuda_backend.abi import (
    CPU,
    CUDA,
    DTYPES,
    INVALID_ARGUMENT,
    PARAMS,
    UNSUPPORTED,
    WORKSPACE_TOO_SMALL,
    DibrFailure,
    Launch,
    Library,
    aligned,
    make_params,
)

DEVICES = {"cpu": CPU, "cuda": CUDA}
B, V, F, H, W, D, HT, WT = 2, 4, 2, 5, 7, 3, 4, 6
SIZES = {
    "batch": B,
    "attribute_batch": B,
    "texture_batch": B,
    "vertices": V,
    "raster_vertices": V,
    "faces": F,
    "height": H,
    "width": W,
    "channels": D,
    "texture_height": HT,
    "texture_width": WT,
}
SETTINGS = {"perspective_correct": 1, "depth_clip": 1, "sigmainv": 7000.0, "boxlen": 0.02, "knum": 30, "filter": 2}
SHAPES = {
    "positions": (B, V, 4),
    "face_indices": (F, 3),
    "raster_face_indices": (F, 3),
    "face_ranges": (B, 2),
    "face_valid": (B, F),
    "face_index": (B, H, W),
    "barycentrics": (B, H, W, 3),
    "depth": (B, H, W),
    "attributes": (B, V, D),
    "output": (B, H, W, D),
    "mask": (B, H, W),
    "texture": (B, D, HT, WT),
    "uv": (B, H, W, 2),
    "mip_level": (B, H, W),
    "image": (B, H, W, D),
}
INTEGERS = {"face_indices", "raster_face_indices", "face_ranges", "face_valid", "face_index"}
OPTIONAL = {
    "rasterize": {"face_ranges", "face_valid", "depth"},
    "rasterize_backward": {"barycentrics", "grad_barycentrics", "grad_depth"},
    "interpolate_backward": {"grad_attributes", "grad_barycentrics"},
    "interpolate_raster_backward": {"grad_attributes"},
    "soft_mask": {"face_ranges"},
    "soft_mask_backward": {"face_ranges", "kept"},
    "texture_backward": {"grad_texture", "grad_uv", "grad_mip_level"},
    "antialias": {"face_ranges"},
    "antialias_backward": {"face_ranges", "grad_image", "grad_positions"},
}
OUTPUTS = {
    "rasterize": {"face_index", "barycentrics", "depth"},
    "rasterize_backward": {"grad_positions"},
    "interpolate": {"output"},
    "interpolate_backward": {"grad_attributes", "grad_barycentrics"},
    "interpolate_raster_backward": {"grad_attributes", "grad_positions"},
    "soft_mask": {"mask"},
    "soft_mask_backward": {"grad_positions"},
    "texture": {"output"},
    "texture_backward": {"grad_texture", "grad_uv", "grad_mip_level"},
    "antialias": {"output"},
    "antialias_backward": {"grad_image", "grad_positions"},
    "render": {
        *("color", "mask", "face_index", "depth", "barycentrics", "uv.output"),
        *(f"attributes.{k}.output" for k in range(3)),
    },
}
# What a message calls an argument, where that is not the field's name.
SPOKEN = {
    "face_indices": "faces",
    "raster_face_indices": "raster_faces",
    "raster_vertices": "raster vertices",
    "attribute_batch": "attribute batch",
    "texture_batch": "texture batch",
    "texture_height": "texture height",
    "texture_width": "texture width",
}


@dataclass(frozen=True)
class Case:
    """One thing wrong with an otherwise good call; `expected` must be in the message beside the op's name."""

    name: str
    status: int
    expected: str
    values: dict[str, object] = field(default_factory=dict)  # fields of the parameters
    launch: dict[str, object] = field(default_factory=dict)  # fields of the launch
    shifted: str | None = None  # pointer to move by one byte
    workspace_bytes: int = 0  # to add to what is needed
    needs_workspace: bool = False


def fields(op: str, kind: type) -> list[str]:
    return [name for name, type_ in PARAMS[op]._fields_ if type_ is kind]


def cases(op: str) -> Iterator[Case]:
    for name in fields(op, c.c_void_p):
        spoken = SPOKEN.get(name, name)
        if name not in OPTIONAL.get(op, set()):
            yield Case(f"{name}=null", INVALID_ARGUMENT, f"{spoken} is NULL", {name: None})
        yield Case(f"{name}=misaligned", INVALID_ARGUMENT, f"{spoken} must be aligned", shifted=name)
    for name in fields(op, c.c_int64):
        for value in (-1, -(2**63), 2**31, 2**63 - 1):
            yield Case(f"{name}={value}", INVALID_ARGUMENT, SPOKEN.get(name, name), {name: value})
    for name in {"height", "width", "texture_height", "texture_width", "knum"} & set(fields(op, c.c_int64)):
        yield Case(f"{name}=0", INVALID_ARGUMENT, SPOKEN.get(name, name), {name: 0})
    for name in {"attribute_batch", "texture_batch"} & set(fields(op, c.c_int64)):
        yield Case(f"{name}=3", INVALID_ARGUMENT, f"{SPOKEN[name]} must be 1 or", {name: 3})
    enormous = {"batch": 2**31 - 1, "height": 32768, "width": 32768}
    enormous |= {name: 1 for name in ("attribute_batch", "texture_batch") if name in fields(op, c.c_int64)}
    yield Case("too many elements", INVALID_ARGUMENT, "more than 2^40 elements", dict(enormous))
    for value in (-1, 4, 99):
        yield Case(f"dtype={value}", UNSUPPORTED, "dtype", {"dtype": value})
    if op not in ("interpolate", "texture", "antialias"):
        for value in (2, 3):
            yield Case(f"dtype={value}", UNSUPPORTED, "dtype must be float32 or float64", {"dtype": value})
    for name, wrong in (("cull", (-1, 2)), ("filter", (-1, 3)), ("wrap", (-1, 3))):
        if name in fields(op, c.c_int32):
            for value in wrong:
                yield Case(f"{name}={value}", INVALID_ARGUMENT, f"{name} must be in", {name: value})
    for name, wrong_values in (("sigmainv", (0.0, -1.0, np.nan, np.inf)), ("boxlen", (-1e-9, np.nan, np.inf))):
        if name in fields(op, c.c_double):
            for number in wrong_values:
                yield Case(f"{name}={number}", INVALID_ARGUMENT, f"{name} must be", {name: number})
    for device in (-1, 2):
        yield Case(f"device={device}", UNSUPPORTED, f"device code {device} ", launch={"device": device})
    yield Case("workspace=misaligned", INVALID_ARGUMENT, "workspace must be aligned", shifted="workspace")
    too_small = {"workspace_bytes": -1, "needs_workspace": True}
    yield Case("workspace=too small", WORKSPACE_TOO_SMALL, "workspace must have", **too_small)
    yield Case(
        "workspace=null", INVALID_ARGUMENT, "workspace is NULL", launch={"workspace": None}, needs_workspace=True
    )


class Call:
    """A good call of an op, to be spoilt; outputs and workspace are poisoned."""

    def __init__(self, library: Library, op: str, device: int):
        self.library, self.op = library, op
        self.arrays = {name: self._array(name) for name in fields(op, c.c_void_p)}
        self.params = self._make_params(op, self.arrays)
        self.needed = library.workspace_size(op, self.params, device)
        self.workspace = aligned((self.needed + 16,), np.uint8)
        self.launch = Launch(device, None, None, None, self.workspace.ctypes.data, self.needed)

    def _make_params(self, op: str, arrays: dict[str, np.ndarray], **others: int) -> c.Structure:
        known = dict(PARAMS[op]._fields_)
        numbers = {name: value for name, value in (SIZES | SETTINGS | {"deterministic": 1}).items() if name in known}
        return make_params(op, DTYPES[np.dtype(np.float32)], **numbers, **others, **arrays)

    def _kept(self) -> np.ndarray:
        """What soft_mask leaves on the CPU for the same inputs."""
        arrays = {name: self._array(name) for name in fields("soft_mask", c.c_void_p)}  # params only points at them
        params = self._make_params("soft_mask", arrays, keep=1)
        workspace = aligned((self.library.workspace_size("soft_mask", params, CPU),), np.uint8)
        self.library.launch("soft_mask", params, Launch(CPU, None, None, None, workspace.ctypes.data, workspace.size))
        return workspace

    def _array(self, name: str) -> np.ndarray:
        if name == "kept":
            return self._kept()
        shape = SHAPES[name.removeprefix("grad_")]
        dtype = np.int32 if name in INTEGERS else np.float32
        if name in OUTPUTS[self.op]:
            return aligned(shape, dtype)
        array = aligned(shape, dtype)
        array[:] = 0 if name in INTEGERS else 0.5
        return array

    def spoil(self, case: Case) -> None:
        for name, value in case.values.items():
            setattr(self.params, name, value)
        for name, value in case.launch.items():
            setattr(self.launch, name, value)
        self.launch.workspace_bytes = self.needed + case.workspace_bytes
        if case.shifted == "workspace":
            self.launch.workspace += 1
        elif case.shifted is not None:
            setattr(self.params, case.shifted, getattr(self.params, case.shifted) + 1)

    def untouched(self) -> bool:
        written = [self.arrays[name] for name in OUTPUTS[self.op]] + [self.workspace]
        return all((array.view(np.uint8) == 0xCD).all() for array in written)


def check(library: Library, op: str, device: int, case: Case) -> None:
    """The call is refused as the case says and leaves outputs and workspace alone."""
    call = Call(library, op, device)
    if case.needs_workspace and call.needed == 0:
        return
    call.spoil(case)
    with pytest.raises(DibrFailure) as caught:
        library.launch(op, call.params, call.launch)
    message = str(caught.value)
    assert caught.value.status == case.status, message
    assert message.startswith(f"{op}: ") and case.expected in message, message
    assert call.untouched()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", PARAMS)
def test_the_call_that_the_cases_spoil_is_good(library: Library, op: str, device: str) -> None:
    call = Call(library, op, DEVICES[device])
    library.launch(op, call.params, call.launch)
    assert not call.untouched()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", PARAMS)
def test_bad_input_is_refused_by_name(library: Library, op: str, device: str) -> None:
    tried = list(cases(op))
    assert len(tried) > 30
    faults = []
    for case in tried:
        try:
            check(library, op, DEVICES[device], case)
        except (AssertionError, pytest.fail.Exception) as fault:
            faults.append(f"{case.name}: {fault}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("op", PARAMS)
def test_null_structures_are_refused(library: Library, op: str) -> None:
    call, size = Call(library, op, CUDA), c.c_uint64(7)
    native = library._library
    run, measure = getattr(native, f"dibr_{op}"), getattr(native, f"dibr_{op}_workspace_size")
    for refused, expected in (
        (lambda: run(None, c.byref(call.launch)), "params is NULL"),
        (lambda: run(c.byref(call.params), None), "launch is NULL"),
        (lambda: measure(None, CUDA, c.byref(size)), "params is NULL"),
        (lambda: measure(c.byref(call.params), CUDA, None), "bytes is NULL"),
    ):
        assert refused() == INVALID_ARGUMENT
        assert native.dibr_last_error().decode() == f"{op}: {expected}"
    assert size.value == 7
    assert call.untouched()


@pytest.mark.parametrize("op", PARAMS)
def test_the_workspace_functions_refuse_the_same_sizes(library: Library, op: str) -> None:
    for case in cases(op):
        is_size = case.values and all(name not in fields(op, c.c_void_p) for name in case.values)
        if not is_size:
            continue
        call = Call(library, op, CUDA)
        call.spoil(case)
        with pytest.raises(DibrFailure, match=f"^{op}: "):
            library.workspace_size(op, call.params, CUDA)


def _refuse_everything(path: str) -> None:
    library = Library(Path(path))
    for op in PARAMS:
        for case in cases(op):
            check(library, op, CUDA, case)


def _call_everything(path: str) -> None:
    library = Library(Path(path))
    for op in PARAMS:
        call = Call(library, op, CUDA)
        library.launch(op, call.params, call.launch)


@pytest.mark.parametrize(("function", "launches"), [("_call_everything", True), ("_refuse_everything", False)])
def test_no_kernel_is_launched(library: Library, tmp_path: Path, function: str, launches: bool) -> None:
    """The shim writes what was launched when a process ends, and no file where nothing was."""
    counters = tmp_path / "counters.json"
    program = f"from cuda_backend.test_bad_input import {function}; {function}({library._library._name!r})"
    environment = {
        **os.environ,
        "CUDA_ON_HOST_COUNTERS": str(counters),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert counters.exists() == launches
