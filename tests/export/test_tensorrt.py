"""The engine builder with the real TensorRT-RTX, which needs no device to build, in processes of their own."""

from __future__ import annotations

import enum
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnxruntime_door import modules
from tensorrt_door.handmade import textured_mesh

from dibr_deploy.errors import DibrError, DoorAbsent
from dibr_deploy.export import tensorrt, to_onnx, verify
from dibr_deploy.runtime.bundle import sha256

OPS = (b"Rasterize", b"Interpolate", b"SoftMask", b"Texture", b"Antialias")
SIZE = {"image_size": [[1, 1], [64, 48], [512, 256]]}


@pytest.fixture
def build(ask, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], bytes]]:
    """build(model, **options): the program's answer and the engine, empty where there is none."""

    def build_one(model: Path, **options: Any) -> tuple[dict[str, Any], bytes]:
        engine = tmp_path / "model.engine"
        answer = ask("build", model=str(model), engine=str(engine), **options)
        return answer, engine.read_bytes() if engine.exists() else b""

    return build_one


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return textured_mesh(tmp_path / "static.onnx", 2, (16, 24))


def expect_engine(answer: dict[str, Any], engine: bytes) -> dict[str, Any]:
    assert "entry" in answer, answer
    assert all(op in engine for op in OPS)
    assert answer["loaded"] == []
    return answer["entry"]


def test_static_shapes(build, static: Path, plugin_library: Path) -> None:
    answer, engine = build(static)
    entry = expect_engine(answer, engine)
    assert entry.pop("version").startswith("1.")
    assert entry.pop("file").startswith("tensorrt_rtx-1.")
    assert entry == {
        "flavour": "tensorrt_rtx",
        "compute_capability": [],
        "version_compatible": False,
        "hardware_compatible": "none",
        "plugin_sha256": sha256(plugin_library.read_bytes()),
        "carries_plugin": False,
        "profiles": [],
    }


def test_progress_goes_on_to_the_end(build, static: Path) -> None:
    """Phases have names, and the fraction grows from step to step."""
    answer, _ = build(static)
    fractions = [fraction for _, fraction in answer["progress"]]
    assert len({phase for phase, _ in answer["progress"]}) > 3
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.5 < 0.8 < fractions[-1] <= 1


def test_dynamic_batch_has_a_default(build, tmp_path: Path) -> None:
    model = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx", fused=False)
    answer, engine = build(model)
    entry = expect_engine(answer, engine)
    assert [profile["offsets"] for profile in entry["profiles"]] == [
        {"min": [1, 1, 3], "opt": [8, 1, 3], "max": [32, 1, 3]}
    ]


def test_image_size_from_an_input_and_two_profiles(build, tmp_path: Path) -> None:
    model = textured_mesh(tmp_path / "model.onnx", "B", None)
    answer, engine = build(model, sizes=[{"B": [1, 1, 1], **SIZE}, {"B": [2, 4, 8], **SIZE}])
    entry = expect_engine(answer, engine)
    assert [profile["positions"]["opt"][0] for profile in entry["profiles"]] == [1, 4]
    assert [profile["image_size"]["max"] for profile in entry["profiles"]] == [[512, 256]] * 2


@pytest.mark.parametrize("fp16", [False, True])
def test_image_size_from_an_image(build, tmp_path: Path, fp16: bool) -> None:
    module, example = modules.SizedSphereRenderer(), modules.sized_inputs(1, 6, 7)
    path = tmp_path / "model.onnx"
    model = to_onnx(module, example, path, dynamic_shapes=modules.SIZED_AXES, fp16=fp16, fused=False)
    axes = sorted({name for axes in modules.SIZED_AXES.values() for name in axes.values()} - {"batch"})
    answer, engine = build(model, sizes={"batch": [1, 2, 4], **{axis: [1, 32, 128] for axis in axes}})
    expect_engine(answer, engine)


def test_numbers_of_vertices_and_faces(build, tmp_path: Path) -> None:
    module, path = modules.AnyMesh(), tmp_path / "model.onnx"
    model = to_onnx(module, modules.mesh_inputs(2, 1), path, dynamic_shapes=modules.MESH_AXES)
    assert verify(module, path, modules.mesh_inputs(3, 2)).passed
    answer, engine = build(model, sizes={"batch": [1, 2, 4], "vertices": [12, 42, 162], "faces": [20, 80, 320]})
    assert "entry" in answer, answer
    assert b"Render" in engine
    [profile] = answer["entry"]["profiles"]
    assert [profile["faces"][kind][0] for kind in ("min", "opt", "max")] == [20, 80, 320]


def test_devices_and_a_carried_plugin(build, static: Path) -> None:
    _, bare = build(static)
    answer, engine = build(
        static, compute_capabilities=["8.9", "12.0"], carry_plugin=True, optimization_level=1, workspace=1 << 30
    )
    entry = expect_engine(answer, engine)
    assert entry["compute_capability"] == ["8.9", "12.0"]
    assert entry["carries_plugin"]
    assert entry["file"].endswith("-sm89-sm120.engine")
    assert b"getCreators" in engine
    assert b"getCreators" not in bare


@pytest.mark.parametrize(("stop", "error"), [("interrupt", "KeyboardInterrupt"), ("raise", "RuntimeError")])
def test_a_build_can_be_stopped(build, static: Path, stop: str, error: str) -> None:
    """By Ctrl-C or by what looks on: TensorRT ends at once, and the exception arrives."""
    answer, engine = build(static, stop=stop)
    assert (answer["error"], len(answer["progress"]), engine) == (error, 1, b"")


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"flavour": "tensorrt"}, "DoorAbsent", "the Python package tensorrt is not installed"),
        ({"flavour": "rtx"}, "DibrError", "flavour must be auto, tensorrt or tensorrt_rtx, got 'rtx'"),
        ({"version_compatible": True}, "DibrError", "TensorRT-RTX has no version-compatible engines"),
        ({"hardware_compatible": "ampere_plus"}, "DibrError", "hardware_compatible is of TensorRT"),
        ({"hardware_compatible": "all"}, "DibrError", "must be one of none, ampere_plus, same_compute_capability"),
        ({"compute_capabilities": ["9.9"]}, "DibrError", "compute_capabilities must be among 7.5, "),
        ({"timing_cache": "cache"}, "DibrError", "timing_cache is of TensorRT"),
        ({"timing_cache": "/no/such/folder/cache"}, "DibrError", "timing_cache must lie in a folder that exists"),
        ({"optimization_level": 6}, "DibrError", "optimization_level must be in [0, 5], got 6"),
        ({"workspace": -1}, "DibrError", "workspace must be in [0, "),
        ({"sizes": {"batch": [1, 2, 3]}}, "DibrError", "size batch: the model has no axis or input of that name"),
    ],
)
def test_options_that_are_refused(build, static: Path, options: dict, error: str, sentence: str) -> None:
    answer, engine = build(static, **options)
    assert (answer.get("error"), engine) == (error, b""), answer
    assert sentence in answer["message"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"height": -3}, "height must be in [1, 32768], got -3"),
        ({"cull": "front"}, 'field cull must be "none" or "back", got "front"'),
        ({"plugin_version": "2"}, "Plugin not found"),
    ],
)
def test_models_that_are_refused(build, tmp_path: Path, changes: dict, sentence: str) -> None:
    """In one sentence that repeats what the plugin or TensorRT says, without its codes and source files."""
    answer, engine = build(textured_mesh(tmp_path / "model.onnx", 2, (16, 24), changes=changes))
    assert (answer.get("error"), engine) == ("DibrError", b"")
    assert sentence in answer["message"]
    assert "\n" not in answer["message"]
    assert "/_src/" not in answer["message"]


def test_no_model(build, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    answer, _ = build(tmp_path / "model.onnx")
    assert answer["error"] == "DibrError"


def test_a_timing_cache_is_written_and_a_damaged_one_replaced(ask, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    fresh = ask("timing_cache", path=str(path))
    assert (len(fresh["content"]) > 0, fresh["warnings"]) == (True, [])
    damaged = ask("timing_cache", path=str(path), damaged=True)
    assert damaged["content"] == fresh["content"]
    assert damaged["warnings"] == [f"timing cache {path} is damaged or of another device, and is replaced"]
    assert list(tmp_path.iterdir()) == [path]


def test_options_of_tensorrt_reach_its_config_and_the_manifest(ask, tmp_path: Path) -> None:
    """Version-compatible and with a timing cache; TF32 is off, and one profile is there."""
    model = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx")
    answer = ask("of_tensorrt", model=str(model), timing_cache=str(tmp_path / "cache"))
    entry = answer.pop("entry")
    assert answer.pop("order") == ["ask the device", "build"], "a driver that refuses must cost no build"
    assert answer == {"flags": ["VERSION_COMPATIBLE"], "profiles": 1, "has_timing_cache": True}
    assert (entry["flavour"], entry["version_compatible"], entry["hardware_compatible"]) == (
        "tensorrt",
        True,
        "ampere_plus",
    )
    assert (entry["compute_capability"], entry["file"][-12:]) == (["8.9"], "-sm89.engine")
    assert len((tmp_path / "cache").read_bytes()) > 0


def test_hardware_compatibility_reaches_the_config() -> None:
    """TensorRT-RTX's config forgets it: here a double of TensorRT's, of a version that knows one kind alone."""
    levels = enum.Enum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"])
    trt, config = types.SimpleNamespace(HardwareCompatibilityLevel=levels), types.SimpleNamespace()
    tensorrt._set_compatibility(trt, config, False, "ampere_plus", ())
    assert config.hardware_compatibility_level is levels.AMPERE_PLUS
    with pytest.raises(DibrError, match="this TensorRT has no HardwareCompatibilityLevel same_compute_capability"):
        tensorrt._set_compatibility(trt, config, False, "same_compute_capability", ())


class Config:
    """Takes timing caches as TensorRT does where there is a device: one that it wrote for this device fits."""

    class Cache:
        def __init__(self, content: bytes) -> None:
            self.content = content if content.startswith(b"cache of ") else b"cache of nothing"

        def serialize(self) -> bytes:
            return self.content

    def create_timing_cache(self, content: bytes) -> Config.Cache:
        return self.Cache(content)

    def set_timing_cache(self, cache: Config.Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return not cache.content.startswith(b"cache of another")


@pytest.mark.parametrize(
    ("found", "lent", "warned"),
    [
        (None, b"cache of nothing", False),
        (b"cache of a build", b"cache of a build", False),
        (b"damaged", b"cache of nothing", True),
        (b"cache of another device", b"cache of nothing", True),
    ],
)
def test_a_timing_cache_that_fits_is_used(tmp_path: Path, found: bytes | None, lent: bytes, warned: bool) -> None:
    path, config = tmp_path / "cache", Config()
    if found is not None:
        path.write_bytes(found)
    with warnings.catch_warnings(record=True) as caught, tensorrt._timing_cache(config, path):
        assert config.cache.content == lent
        config.cache.content = b"cache of a longer build"
    assert [str(warning.message).endswith("is replaced") for warning in caught] == [True] * warned
    assert path.read_bytes() == b"cache of a longer build"


def test_a_failed_build_leaves_the_timing_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"cache of a build")
    with pytest.raises(DibrError, match="failed"), tensorrt._timing_cache(Config(), path):
        raise DibrError("failed")
    assert path.read_bytes() == b"cache of a build"


def test_a_timing_cache_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DibrError, match=r"timing_cache must be a file that can be read, got .*: Is a directory"),
        tensorrt._timing_cache(Config(), tmp_path),
    ):
        pass


def test_tensorrt_without_a_device(monkeypatch: pytest.MonkeyPatch, static: Path) -> None:
    """Its bindings raise TypeError where it gives no builder, having logged why."""

    class Interface:
        ERROR = 1

        def __init__(self) -> None:
            pass

    def builder(logger: Any) -> None:
        logger.log(1, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    bindings = types.SimpleNamespace(
        __name__="tensorrt_without_device", ILogger=Interface, IErrorRecorder=Interface, Builder=builder
    )
    monkeypatch.setattr(tensorrt, "_import_tensorrt", lambda flavour: ("tensorrt", bindings))
    with pytest.raises(DoorAbsent, match=r"needs a CUDA device \(CUDA initialization failure with error: 35\); build"):
        tensorrt.build_engine(static.read_bytes())
