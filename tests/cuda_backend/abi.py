"""libdibr's C ABI through ctypes: what a program without any framework would call, on numpy arrays."""

from __future__ import annotations

import ctypes as c
from pathlib import Path

import numpy as np

CPU, CUDA = 0, 1
OK, INVALID_ARGUMENT, UNSUPPORTED, WORKSPACE_TOO_SMALL = 0, 1, 2, 3
DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1, np.dtype(np.float16): 2}
BFLOAT16 = 3

_MESH = ("batch", "vertices", "faces", "height", "width")
_INTERPOLATE = ("batch", "attribute_batch", "vertices", "faces", "height", "width", "channels")
_TEXTURE = ("batch", "texture_batch", "channels", "texture_height", "texture_width", "height", "width")

_ANTIALIAS = (*_MESH, "channels")


def _params(name: str, *groups: tuple[type, str]) -> type[c.Structure]:
    fields = [("dtype", c.c_int)]
    fields += [(field, kind) for kind, names in groups for field in names.split()]
    return type(name, (c.Structure,), {"_fields_": fields})


_I32, _I64, _F64, _PTR = c.c_int32, c.c_int64, c.c_double, c.c_void_p

PARAMS: dict[str, type[c.Structure]] = {
    "rasterize": _params(
        "rasterize",
        (_I64, " ".join(_MESH)),
        (_I32, "perspective_correct cull depth_clip"),
        (_PTR, "positions face_indices face_ranges face_valid face_index barycentrics depth"),
    ),
    "rasterize_backward": _params(
        "rasterize_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_MESH)),
        (_I32, "perspective_correct"),
        (_PTR, "positions face_indices face_index barycentrics grad_barycentrics grad_depth grad_positions"),
    ),
    "interpolate": _params(
        "interpolate",
        (_I64, " ".join(_INTERPOLATE)),
        (_PTR, "attributes face_indices face_index barycentrics output"),
    ),
    "interpolate_backward": _params(
        "interpolate_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_INTERPOLATE)),
        (_PTR, "attributes face_indices face_index barycentrics grad_output grad_attributes grad_barycentrics"),
    ),
    "interpolate_raster_backward": _params(
        "interpolate_raster_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_INTERPOLATE)),
        (_I64, "raster_vertices"),
        (_I32, "perspective_correct"),
        (_PTR, "attributes face_indices face_index barycentrics positions raster_face_indices grad_output"),
        (_PTR, "grad_attributes grad_positions"),
    ),
    "soft_mask": _params(
        "soft_mask",
        (_I64, " ".join(_MESH)),
        (_F64, "sigmainv boxlen"),
        (_I64, "knum"),
        (_PTR, "positions face_indices face_ranges face_index mask"),
        (_I32, "keep"),
    ),
    "soft_mask_backward": _params(
        "soft_mask_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_MESH)),
        (_F64, "sigmainv boxlen"),
        (_I64, "knum"),
        (_PTR, "positions face_indices face_ranges face_index grad_mask grad_positions kept"),
    ),
    "texture": _params(
        "texture",
        (_I64, " ".join(_TEXTURE)),
        (_I32, "filter wrap"),
        (_PTR, "texture uv mip_level output"),
    ),
    "texture_backward": _params(
        "texture_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_TEXTURE)),
        (_I32, "filter wrap"),
        (_PTR, "texture uv mip_level grad_output grad_texture grad_uv grad_mip_level"),
    ),
    "antialias": _params(
        "antialias",
        (_I64, " ".join(_ANTIALIAS)),
        (_PTR, "image positions face_indices face_ranges face_index barycentrics output"),
    ),
    "antialias_backward": _params(
        "antialias_backward",
        (_I32, "deterministic"),
        (_I64, " ".join(_ANTIALIAS)),
        (_PTR, "image positions face_indices face_ranges face_index barycentrics"),
        (_PTR, "grad_output grad_image grad_positions"),
    ),
}


class RenderAttributes(c.Structure):
    _fields_ = (
        ("batch", _I64),
        ("vertices", _I64),
        ("channels", _I64),
        ("values", _PTR),
        ("face_indices", _PTR),
        ("output", _PTR),
    )


MOST_ATTRIBUTES = 3
RENDER_OUTPUTS = ("color", "mask", "face_index", "depth", "barycentrics", "uv")
"""In the order of their bits; those of the attributes follow."""

# Not in PARAMS, since some of its fields are structures; tests/cuda_backend/test_render.py is about it.
RENDER = _params(
    "render",
    (c.c_int, "texture_dtype attribute_dtype"),
    (c.c_uint32, "outputs"),
    (_I64, " ".join(_MESH)),
    (_I32, "perspective_correct cull depth_clip"),
    (_PTR, "positions face_indices face_ranges face_valid"),
    (_F64, "sigmainv boxlen"),
    (_I64, "knum"),
    (RenderAttributes, "uv"),
    (_I64, "texture_batch texture_channels texture_height texture_width"),
    (_I32, "filter wrap"),
    (_PTR, "texture"),
    (RenderAttributes * MOST_ATTRIBUTES, "attributes"),
    (_PTR, "color mask face_index depth barycentrics"),
)


class Launch(c.Structure):
    _fields_ = (
        ("device", c.c_int),
        ("stream", _PTR),
        ("parallel_for", _PTR),
        ("parallel_for_state", _PTR),
        ("workspace", _PTR),
        ("workspace_bytes", c.c_uint64),
    )


class DibrFailure(RuntimeError):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def aligned(shape: tuple[int, ...], dtype: np.dtype | type, poison: int = 0xCD) -> np.ndarray:
    """A 16-byte aligned array full of `poison`: what a kernel forgets to write is seen."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 16, poison, np.uint8)
    offset = -raw.ctypes.data % 16
    return raw[offset : offset + size].view(dtype).reshape(shape)


class Library:
    """One libdibr. Arrays passed as parameters must stay alive during the call; `None` is NULL."""

    def __init__(self, path: Path):
        self._library = c.CDLL(str(path))
        self._library.dibr_last_error.restype = c.c_char_p

    def workspace_size(self, op: str, params: c.Structure, device: int) -> int:
        size = c.c_uint64()
        self._check(getattr(self._library, f"dibr_{op}_workspace_size")(c.byref(params), device, c.byref(size)))
        return size.value

    def launch(self, op: str, params: c.Structure, launch: Launch) -> None:
        self._check(getattr(self._library, f"dibr_{op}")(c.byref(params), c.byref(launch)))

    def run(self, op: str, device: int, dtype: int, **values: object) -> None:
        params = make_params(op, dtype, **values)
        workspace = aligned((self.workspace_size(op, params, device),), np.uint8)
        self.launch(op, params, Launch(device, None, None, None, workspace.ctypes.data, workspace.size))

    def _check(self, status: int) -> None:
        if status != OK:
            raise DibrFailure(status, self._library.dibr_last_error().decode())


def make_params(op: str, dtype: int, **values: object) -> c.Structure:
    """Fields by their names, those of inner structures by paths: ``attributes.0.values``."""
    params = (RENDER if op == "render" else PARAMS[op])(dtype=dtype)
    unknown = {name.split(".")[0] for name in values} - {name for name, _ in params._fields_}
    assert not unknown, f"{op} has no parameter {sorted(unknown)}"
    for path, value in values.items():
        *outer, name = path.split(".")
        owner = params
        for step in outer:
            owner = owner[int(step)] if step.isdecimal() else getattr(owner, step)
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous, path
            setattr(owner, name, value.ctypes.data)
        else:
            setattr(owner, name, value)
    return params
