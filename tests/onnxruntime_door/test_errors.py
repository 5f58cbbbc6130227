"""What the door refuses, and in which words: one sentence that names op, argument, expected and actual."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from dibr_deploy import _native
from onnxruntime_door import graphs

TRIANGLE = np.array([[[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [0, 0.9, 0, 1]]], np.float32)
FACE = np.array([[0, 1, 2]], np.int32)
FACE_INDEX = np.zeros((1, 4, 4), np.int32)
BARYCENTRICS = np.full((1, 4, 4, 3), 1 / 3, np.float32)

RASTERIZE = {
    "positions": TRIANGLE,
    "faces": FACE,
    "face_ranges": np.array([[0, 1]], np.int32),
    "face_valid": np.ones((1, 1), np.int32),
    "image_size": np.array([4, 4]),
}
INTERPOLATE = {"attributes": TRIANGLE, "faces": FACE, "face_index": FACE_INDEX, "barycentrics": BARYCENTRICS}
SOFT_MASK = {
    "positions": TRIANGLE,
    "faces": FACE,
    "face_index": FACE_INDEX,
    "face_ranges": np.array([[0, 1]], np.int32),
}
TEXTURE = {"texture": np.zeros((1, 3, 4, 4), np.float32), "uv": np.zeros((1, 4, 4, 2), np.float32)}
ANTIALIAS = {
    "image": np.zeros((1, 4, 4, 3), np.float32),
    "positions": TRIANGLE,
    "faces": FACE,
    "face_index": FACE_INDEX,
    "barycentrics": BARYCENTRICS,
    "face_ranges": np.array([[0, 1]], np.int32),
}
OPS = {
    "Rasterize": RASTERIZE,
    "Interpolate": INTERPOLATE,
    "SoftMask": SOFT_MASK,
    "Texture": TEXTURE,
    "Antialias": ANTIALIAS,
}


@pytest.mark.parametrize("op", OPS)
def test_good_input_is_taken(op: str) -> None:
    graphs.run(op, OPS[op])


@pytest.mark.parametrize(
    ("op", "argument", "shape", "sentence"),
    [
        ("Rasterize", "positions", (3, 4), "positions must have shape [B, V, 4], got [3, 4]"),
        ("Rasterize", "positions", (1, 3, 3), "positions must have shape [B, V, 4], got [1, 3, 3]"),
        ("Rasterize", "faces", (1, 4), "faces must have shape [F, 3], got [1, 4]"),
        ("Rasterize", "face_ranges", (2, 2), "face_ranges must have shape [B, 2] with B = 1, got [2, 2]"),
        ("Rasterize", "face_valid", (1, 5), "face_valid must have shape [B, F] with B = 1, F = 1, got [1, 5]"),
        ("Rasterize", "image_size", (3,), "image_size must have shape [2], got [3]"),
        ("Interpolate", "attributes", (2, 3, 4), "attributes must have shape [1 or B, V, D] with B = 1, got [2, 3, 4]"),
        ("Interpolate", "attributes", (3, 4), "attributes must have shape [1 or B, V, D] with B = 1, got [3, 4]"),
        ("Interpolate", "faces", (3,), "faces must have shape [F, 3], got [3]"),
        ("Interpolate", "face_index", (4, 4), "face_index must have shape [B, H, W], got [4, 4]"),
        (
            "Interpolate",
            "barycentrics",
            (1, 4, 5, 3),
            "barycentrics must have shape [B, H, W, 3] with B = 1, H = 4, W = 4, got [1, 4, 5, 3]",
        ),
        ("SoftMask", "positions", (1, 3, 2), "positions must have shape [B, V, 4], got [1, 3, 2]"),
        ("SoftMask", "faces", (1, 2), "faces must have shape [F, 3], got [1, 2]"),
        ("SoftMask", "face_index", (2, 4, 4), "face_index must have shape [B, H, W] with B = 1, got [2, 4, 4]"),
        ("SoftMask", "face_ranges", (1, 3), "face_ranges must have shape [B, 2] with B = 1, got [1, 3]"),
        (
            "Texture",
            "texture",
            (2, 3, 4, 4),
            "texture must have shape [1 or B, C, Ht, Wt] with B = 1, got [2, 3, 4, 4]",
        ),
        ("Texture", "uv", (1, 4, 4, 3), "uv must have shape [B, H, W, 2], got [1, 4, 4, 3]"),
        ("Antialias", "image", (4, 4, 3), "image must have shape [B, H, W, C], got [4, 4, 3]"),
        ("Antialias", "positions", (2, 3, 4), "positions must have shape [B, V, 4] with B = 1, got [2, 3, 4]"),
        ("Antialias", "faces", (1, 2), "faces must have shape [F, 3], got [1, 2]"),
        (
            "Antialias",
            "face_index",
            (1, 4, 5),
            "face_index must have shape [B, H, W] with B = 1, H = 4, W = 4, got [1, 4, 5]",
        ),
        (
            "Antialias",
            "barycentrics",
            (1, 4, 4, 2),
            "barycentrics must have shape [B, H, W, 3] with B = 1, H = 4, W = 4, got [1, 4, 4, 2]",
        ),
        ("Antialias", "face_ranges", (1, 3), "face_ranges must have shape [B, 2] with B = 1, got [1, 3]"),
    ],
)
def test_wrong_shapes(op: str, argument: str, shape: tuple[int, ...], sentence: str) -> None:
    inputs = {**OPS[op], argument: np.zeros(shape, OPS[op][argument].dtype)}
    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        graphs.run(op, inputs)
    assert str(caught.value).endswith(f"{op}: {sentence}")


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, -1), (4, 32769), (2**62, 2**62)])
def test_image_size_out_of_range(height: int, width: int) -> None:
    """Before anything of that size is allocated."""
    with pytest.raises(Exception, match=r"rasterize: (height|width) must be in \[1, 32768\], got"):
        graphs.run("Rasterize", {**RASTERIZE, "image_size": np.array([height, width])})


@pytest.mark.parametrize("index", [-1, 3, 2**31 - 1])
@pytest.mark.parametrize("op", ["Rasterize", "Interpolate", "SoftMask", "Antialias"])
def test_faces_that_name_no_vertex(op: str, index: int) -> None:
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*faces"):
        graphs.run(op, {**OPS[op], "faces": np.array([[0, 1, index]], np.int32)})


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 2), (2, 0), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("op", ["Rasterize", "SoftMask", "Antialias"])
def test_face_ranges_outside_of_the_faces(op: str, start: int, count: int) -> None:
    with pytest.raises(Exception, match=r"INVALID_ARGUMENT.*face_ranges"):
        graphs.run(op, {**OPS[op], "face_ranges": np.array([[start, count]], np.int32)})


@pytest.mark.parametrize(
    ("op", "attributes", "sentence"),
    [
        ("Rasterize", {"cull": "front"}, 'attribute cull must be one of "none", "back", got "front"'),
        ("Rasterize", {"cull": 1}, "attribute cull must be a string, got the integer 1"),
        ("Rasterize", {"perspective_correct": 2}, "attribute perspective_correct must be 0 or 1, got 2"),
        ("Rasterize", {"depth_clip": -1}, "attribute depth_clip must be 0 or 1, got -1"),
        ("Rasterize", {"depth_clip": 1.0}, "attribute depth_clip must be an integer, got the float 1"),
        ("Rasterize", {"height": -3}, "attribute height must be at least 0, got -3"),
        ("Rasterize", {"width": "5"}, 'attribute width must be an integer, got the string "5"'),
        ("SoftMask", {"sigmainv": 0.0}, "attribute sigmainv must be finite and greater than 0, got 0"),
        ("SoftMask", {"sigmainv": float("nan")}, "attribute sigmainv must be finite and greater than 0, got nan"),
        ("SoftMask", {"sigmainv": 7000}, "attribute sigmainv must be a float, got the integer 7000"),
        ("SoftMask", {"boxlen": -0.02}, "attribute boxlen must be finite and at least 0, got -0.02"),
        ("SoftMask", {"boxlen": float("inf")}, "attribute boxlen must be finite and at least 0, got inf"),
        ("SoftMask", {"knum": 0}, "attribute knum must be at least 1, got 0"),
        (
            "Texture",
            {"filter": "cubic"},
            'attribute filter must be one of "bilinear", "nearest", "trilinear", got "cubic"',
        ),
        ("Texture", {"wrap": ""}, 'attribute wrap must be one of "clamp", "repeat", "mirror", got ""'),
        (
            "Texture",
            {"plugin_version": "2"},
            'attribute plugin_version must be "1", the op schema of this library, got "2"; '
            "use a dibr_deploy that knows that schema",
        ),
    ],
)
def test_wrong_attributes_are_refused_when_the_session_is_created(op: str, attributes: dict, sentence: str) -> None:
    with pytest.raises(Exception, match="attribute") as caught:
        graphs.open_session(graphs.one_node(op, OPS[op], **attributes))
    assert str(caught.value).endswith(f"{op}: {sentence}")


@pytest.mark.parametrize("size", [{}, {"height": 4}, {"height": 0, "width": 4}])
def test_no_image_size_at_all(size: dict) -> None:
    with pytest.raises(Exception, match="height and width must be at least 1 where the input image_size is absent"):
        graphs.open_session(graphs.one_node("Rasterize", {**RASTERIZE, "image_size": None}, **size))


def test_trilinear_needs_a_mip_level() -> None:
    with pytest.raises(Exception, match='Texture: input mip_level must be given with filter "trilinear", got none'):
        graphs.open_session(graphs.one_node("Texture", TEXTURE, filter="trilinear"))
    levels = {**TEXTURE, "mip_level": np.zeros((1, 4, 5), np.float32)}
    with pytest.raises(Exception, match=r"mip_level must have shape \[B, H, W\] with B = 1, H = 4, W = 4, got"):
        graphs.run("Texture", levels, filter="trilinear")


def test_one_real_type_per_node() -> None:
    with pytest.raises(Exception, match="Interpolate"):
        graphs.open_session(
            graphs.one_node("Interpolate", {**INTERPOLATE, "barycentrics": BARYCENTRICS.astype(np.float64)})
        )


@pytest.mark.parametrize("dtype", [np.float16, np.int64])
def test_types_without_a_kernel(dtype: type) -> None:
    with pytest.raises(Exception, match="Texture"):
        graphs.open_session(graphs.one_node("Texture", {name: array.astype(dtype) for name, array in TEXTURE.items()}))


def test_a_session_survives_a_refused_run() -> None:
    session = graphs.open_session(graphs.one_node("Rasterize", RASTERIZE))
    good = session.run(None, RASTERIZE)
    with pytest.raises(Exception, match="image_size"):
        session.run(None, {**RASTERIZE, "image_size": np.array([4, 4, 4])})
    again = session.run(None, RASTERIZE)
    assert [value.tobytes() for value in again] == [value.tobytes() for value in good]


def test_a_runtime_that_is_too_old_is_told_both_versions() -> None:
    """RegisterCustomOps called as ONNX Runtime 1.9 would: it offers API 1 to 9, and CreateStatus is API 1's first."""
    create_status = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)
    messages: list[bytes] = []

    class Api(ctypes.Structure):
        _fields_ = (("create_status", create_status),)

    class ApiBase(ctypes.Structure):
        _fields_ = (("get_api", get_api), ("get_version", get_version))

    def refuse(code: int, message: bytes) -> int:
        messages.append(message)
        return 1

    api = Api(create_status(refuse))
    version_string = ctypes.create_string_buffer(b"1.9.0")
    get_fake_api = get_api(lambda version: ctypes.addressof(api) if version <= 9 else None)
    base = ApiBase(get_fake_api, get_version(lambda: ctypes.addressof(version_string)))
    library = ctypes.CDLL(str(_native.library_path("libdibr_onnxruntime.so")))
    library.RegisterCustomOps.restype = ctypes.c_void_p
    assert library.RegisterCustomOps(None, ctypes.byref(base)) == 1
    assert messages == [
        b"dibr: this custom-op library needs ONNX Runtime 1.17 or newer, but ONNX Runtime 1.9.0 loaded it"
    ]


@pytest.mark.skipif(shutil.which("nm") is None or shutil.which("readelf") is None, reason="needs binutils")
def test_the_library_exports_one_symbol_and_needs_no_onnxruntime() -> None:
    library = str(_native.library_path("libdibr_onnxruntime.so"))
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in symbols.stdout.splitlines()] == ["RegisterCustomOps"]
    dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    needed = [line for line in dynamic.stdout.splitlines() if "NEEDED" in line]
    assert any("libdibr.so.1" in line for line in needed)
    assert not any("onnxruntime" in line for line in needed)
