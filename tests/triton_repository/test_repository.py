"""What `dibr export --triton` writes: the layout, the configurations as Triton's own message, and the graphs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from runtime_bundles import write_model_bundle
from torch import Tensor, nn
from tritonclient.grpc import model_config_pb2

from dibr_deploy.cli import main
from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_bundle, to_onnx
from dibr_deploy.export.triton import to_triton
from dibr_deploy.export.triton.configuration import to_text
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample
from dibr_deploy.runtime.manifest import Engine, Profile

LIBRARIES = {"libdibr_onnxruntime.so", "libdibr.so.1"}


def config_of(model: Path) -> Any:
    """As Triton reads it: an unknown field, a wrong type or bad syntax raises."""
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_layout(repository: Path) -> None:
    warm_up = {"warmup/input_image", "warmup/world_to_clip"}
    assert sorted(os.listdir(repository)) == ["shape_onnxruntime", "shape_python"]
    assert files_in(repository / "shape_onnxruntime") == {"config.pbtxt", "1/model.onnx", *LIBRARIES, *warm_up}
    python = {f"1/{name}" for name in ("model.onnx", "model.py", *LIBRARIES)}
    assert files_in(repository / "shape_python") == {"config.pbtxt", *python, *warm_up}
    assert sorted(os.listdir(repository.parent)) == ["repository"], "nothing is left beside it"


@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_configuration(bundle: Path, repository: Path, backend: str) -> None:
    model = repository / f"shape_{backend}"
    config = config_of(model)
    manifest = Bundle(bundle).manifest
    assert (config.name, config.backend, config.max_batch_size) == (model.name, backend, 4)
    types = {
        "float32": model_config_pb2.TYPE_FP32,
        "int32": model_config_pb2.TYPE_INT32,
        "uint8": model_config_pb2.TYPE_UINT8,
    }
    for described, tensors in ((config.input, manifest.inputs), (config.output, manifest.outputs)):
        assert [(one.name, one.data_type) for one in described] == [(one.name, types[one.dtype]) for one in tensors]
    shapes = {one.name: list(one.dims) for one in (*config.input, *config.output)}
    assert (shapes["input_image"], shapes["image"], shapes["faces"]) == ([32, 32, 3], [24, 20, 3], [80, 3])
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size > 0
    assert [group.count for group in config.instance_group] == [1]
    assert config.version_policy.latest.num_versions == 2
    library = f"{repository}/shape_onnxruntime/libdibr_onnxruntime.so"
    assert list(config.model_operations.op_library_filename) == ([library] if backend == "onnxruntime" else [])


def test_warm_up_is_the_sample(bundle: Path, repository: Path) -> None:
    """Triton repeats the first item to the size of the batch."""
    inputs, _ = read_sample(Bundle(bundle))
    config = config_of(repository / "shape_python")
    assert [one.batch_size for one in config.model_warmup] == [1, 4]
    for warm_up in config.model_warmup:
        for name, value in warm_up.inputs.items():
            file = repository / "shape_python" / "warmup" / value.input_data_file
            content = np.fromfile(file, inputs[name].dtype)
            assert np.array_equal(content.reshape(*value.dims), inputs[name][0])


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batched_graph_gives_the_same(bundle: Path, repository: Path, batch: int) -> None:
    """Every output bit for bit; the template's constants once for every item."""
    inputs, _ = read_sample(Bundle(bundle))
    feed = {name: array[[index % 2 for index in range(batch)]] for name, array in inputs.items()}
    expected = Session(bundle, "cpu").run(**feed)
    actual = Session(repository / "shape_onnxruntime" / "1" / "model.onnx", "cpu").run(**feed)
    assert list(actual) == list(expected)
    for name, array in actual.items():
        assert array.shape[0] == batch
        assert np.array_equal(array, np.broadcast_to(expected[name], array.shape)), name
    assert actual["faces"].shape == (batch, *expected["faces"].shape)


class Scaled(nn.Module):
    """A number per item."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"total": x.sum(dim=1)}


class Mean(nn.Module):
    """An output that mixes the items of a batch."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": 2 * x, "mean": x.mean(dim=0)}


def test_a_tensor_without_dimensions(tmp_path: Path) -> None:
    """Triton wants one: it is of size 1, and reshaped away."""
    path = to_bundle(Scaled(), torch.ones(2, 3), tmp_path / "scaled.zip")
    to_triton(path, tmp_path / "repository")
    [output] = config_of(tmp_path / "repository" / "scaled_python").output
    assert (list(output.dims), output.HasField("reshape"), list(output.reshape.shape)) == ([1], True, [])


@pytest.mark.parametrize(("module", "options"), [(Mean(), {}), (Scaled(), {"dynamic_batch": False})])
def test_a_model_that_cannot_be_batched(module: nn.Module, options: dict[str, bool], tmp_path: Path) -> None:
    """It keeps all of its axes, and Triton runs one request at a time."""
    path = to_bundle(module, torch.ones(2, 3), tmp_path / "bundle.zip", **options)
    [first, _] = to_triton(path, tmp_path / "repository")
    config = config_of(first.folder)
    assert (config.max_batch_size, first.max_batch, config.HasField("dynamic_batching")) == (0, 0, False)
    assert list(config.input[0].dims) == ([2, 3] if options else [-1, 3])
    assert [one.batch_size for one in config.model_warmup] == [0]
    assert (first.folder / "1" / "model.onnx").read_bytes() == Bundle(path).read("model.onnx")


def test_without_a_sample_zeros_warm_up(tmp_path: Path) -> None:
    model = to_onnx(Scaled(), torch.ones(2, 3), tmp_path / "scaled.onnx")
    path = write_model_bundle(tmp_path / "scaled.zip", model)
    [first, _] = to_triton(path, tmp_path / "repository")
    value = config_of(first.folder).model_warmup[0].inputs["x"]
    assert (value.zero_data, list(value.dims)) == (True, [3])
    assert files_in(first.folder) == {"config.pbtxt", "1/model.onnx"}, "no ops of ours: no library"


PROFILE = {
    "input_image": Profile(min=(1, 32, 32, 3), opt=(2, 32, 32, 3), max=(6, 32, 32, 3)),
    "world_to_clip": Profile(min=(1, 4, 4), opt=(2, 4, 4), max=(6, 4, 4)),
}


def with_engine(bundle: Path, path: Path, model: Path, **values: Any) -> Path:
    """A bundle that says it has an engine."""
    inputs, outputs = read_sample(Bundle(bundle))
    engine = {
        "file": "model.engine", "flavour": "tensorrt", "version": "10.16.1.11", "compute_capability": ("8.9",),
        "plugin_sha256": "0" * 64, "profiles": (PROFILE,), **values,
    }  # fmt: skip
    others = {"model.engine": b"an engine"}
    return write_model_bundle(path, model, inputs, outputs, others, engines=(Engine(**engine),))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin library to be copied."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "libdibr_tensorrt_static.so").write_bytes(b"a plugin")
    monkeypatch.setenv("DIBR_LIBRARY_DIR", str(folder))
    return folder / "libdibr_tensorrt_static.so"


@pytest.fixture
def model(bundle: Path, tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(Bundle(bundle).read("model.onnx"))
    return tmp_path / "model.onnx"


def test_an_engine(bundle: Path, model: Path, plugin: Path, tmp_path: Path) -> None:
    """The template's outputs have no batch axis in the engine, so that Triton must not batch it."""
    path = with_engine(bundle, tmp_path / "shape.zip", model)
    [*_, written] = to_triton(path, tmp_path / "repository", seen_at="/models/")
    assert (written.name, written.max_batch) == ("shape_tensorrt", 0)
    config = config_of(written.folder)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 0)
    assert list(config.input[0].dims) == [-1, 32, 32, 3]
    [group] = config.instance_group
    assert (group.kind, list(group.profile)) == (model_config_pb2.ModelInstanceGroup.KIND_GPU, ["0"])
    assert (written.folder / "1" / "model.plan").read_bytes() == b"an engine"
    assert (written.folder / plugin.name).read_bytes() == b"a plugin"
    assert (written.folder / "libdibr.so.1").is_file()
    assert f"--backend-config=tensorrt,plugins=/models/shape_tensorrt/{plugin.name}" in written.note
    assert "10.16.1.11" in written.note


def test_an_engine_whose_tensors_all_have_the_axis(plugin: Path, tmp_path: Path) -> None:
    model = to_onnx(Scaled(), torch.ones(2, 3), tmp_path / "model.onnx")
    profile = {"x": Profile(min=(1, 3), opt=(2, 3), max=(6, 3))}
    engine = Engine(
        file="model.engine", flavour="tensorrt", version="10.16", compute_capability=(), plugin_sha256="0" * 64,
        profiles=(profile, profile),
    )  # fmt: skip
    path = write_model_bundle(tmp_path / "scaled", model, others={"model.engine": b"e"}, engines=(engine,))
    [*_, written] = to_triton(path, tmp_path / "repository")
    config = config_of(written.folder)
    assert config.max_batch_size == written.max_batch == 6, "what the engine was built for, and no more"
    assert list(config.instance_group[0].profile) == ["0", "1"]


def test_an_engine_that_carries_its_plugin_needs_none(bundle: Path, model: Path, tmp_path: Path) -> None:
    path = with_engine(bundle, tmp_path / "shape.zip", model, carries_plugin=True)
    [*_, written] = to_triton(path, tmp_path / "repository")
    assert "plugins" not in written.note
    assert not list(written.folder.glob("*.so*"))


def test_engines_of_tensorrt_rtx_are_not_for_triton(bundle: Path, model: Path, tmp_path: Path) -> None:
    path = with_engine(bundle, tmp_path / "shape.zip", model, flavour="tensorrt_rtx")
    assert [one.backend for one in to_triton(path, tmp_path / "repository")] == ["onnxruntime", "python"]


def test_a_shape_input(plugin: Path, tmp_path: Path) -> None:
    """An input of a fixed size with a range all the same is one that TensorRT reads as a shape."""
    model = to_onnx(Scaled(), torch.ones(2, 3), tmp_path / "model.onnx", dynamic_batch=False)
    profile = {"x": Profile(min=(1, 1), opt=(2, 2), max=(3, 3))}
    engine = Engine(
        file="e",
        flavour="tensorrt",
        version="10.16",
        compute_capability=(),
        plugin_sha256="0" * 64,
        profiles=(profile,),
    )
    path = write_model_bundle(tmp_path / "sized", model, others={"e": b"e"}, engines=(engine,))
    [*_, written] = to_triton(path, tmp_path / "repository")
    assert [one.is_shape_tensor for one in config_of(written.folder).input] == [True]


def test_a_new_version(bundle: Path, tmp_path: Path) -> None:
    """The old versions, and what a user has put into the folder, stay; a reader of the old folder sees no change."""
    repository = tmp_path / "repository"
    to_triton(bundle, repository)
    model = repository / "shape_python"
    (model / "packages").mkdir()
    (model / "packages" / "module.py").write_text("x = 1")
    old = os.open(model, os.O_RDONLY)
    before = (model / "config.pbtxt").read_text()
    assert [one.version for one in to_triton(bundle, repository, max_batch=2)] == [2, 2]
    assert {path.name for path in model.iterdir()} >= {"1", "2", "packages"}
    assert files_in(model / "1") == files_in(model / "2")
    assert config_of(model).max_batch_size == 2
    assert not os.listdir(old), "the folder that was open is gone"
    os.close(old)
    assert "max_batch_size: 8" in before


@pytest.mark.parametrize("exists", [False, True], ids=["new", "older"])
def test_a_full_disk(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    """Whichever file it is that does not fit: the repository is as it was."""
    repository = tmp_path / "place" / "repository"
    repository.parent.mkdir()
    if exists:
        to_triton(bundle, repository)
    before = snapshot(tmp_path / "place")
    count = 0

    def full(original: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > allowed:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        return write

    for allowed in (0, 1, 4, 7, 10):
        count = 0
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full(Path.write_bytes))
            patched.setattr(shutil, "copyfile", full(shutil.copyfile))
            with pytest.raises(OSError, match="No space left"):
                to_triton(bundle, repository)
        assert snapshot(tmp_path / "place") == before, allowed


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, r"the model's name must be letters, digits, '_', '-' and '.', got 'a/b'"),
        ({"name": ""}, "the model's name must be"),
        ({"max_batch": 0}, "max_batch must be at least 1, got 0"),
        ({"instances": -1}, "instances must be at least 1, got -1"),
    ],
)
def test_refused(bundle: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DibrError, match=message):
        to_triton(bundle, tmp_path / "repository", **options)
    assert not os.listdir(tmp_path)


def test_places_that_are_none(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"the folder .*absent does not exist"):
        to_triton(bundle, tmp_path / "absent" / "repository")
    (tmp_path / "file").touch()
    with pytest.raises(DibrError, match="file is no folder"):
        to_triton(bundle, tmp_path / "file")
    (tmp_path / "repository" / "shape_python").mkdir(parents=True)
    with pytest.raises(DibrError, match="shape_python is no model of a Triton repository"):
        to_triton(bundle, tmp_path / "repository")
    assert os.listdir(tmp_path / "repository") == ["shape_python"]


def test_a_damaged_bundle_is_not_written(bundle: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "shape.zip"
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DibrError, match=r"is not the file that|cannot be read"):
        to_triton(damaged, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_text_format_quotes() -> None:
    name = 'a "quoted"\\ näme\n'
    parsed = text_format.Parse(to_text({"name": name}), model_config_pb2.ModelConfig())
    assert parsed.name == name


def test_the_command(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = tmp_path / "repository"
    options = ["--triton-name", "ball", "--triton-path", "/models", "--max-batch", "3", "--instances", "2"]
    assert main(["export", "--bundle", str(bundle), "--triton", str(repository), *options]) == 0
    assert "ball_python version 1: batches of up to 3" in capsys.readouterr().out
    config = config_of(repository / "ball_onnxruntime")
    assert (config.max_batch_size, config.instance_group[0].count) == (3, 2)
    assert config.model_operations.op_library_filename == ["/models/ball_onnxruntime/libdibr_onnxruntime.so"]


def test_the_command_with_a_model(bundle: Path, model: Path, tmp_path: Path) -> None:
    """No bundle is kept where none is asked for."""
    assert main(["export", "--model", str(model), "--triton", str(tmp_path / "repository")]) == 0
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "repository"]
    assert sorted(os.listdir(tmp_path / "repository")) == ["model_onnxruntime", "model_python"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "b"], "--bundle needs --tensorrt or --triton"),
        (["--bundle", "b", "--triton", "r", "--output", "c"], "--output needs --tensorrt"),
        (["--model", "m.onnx"], "--output is missing"),
        (["--bundle", "b", "--tensorrt", "--max-batch", "3"], "--max-batch needs --triton"),
        (["--checkpoint", "c", "--triton", "r", "--output", "m.onnx"], "--triton needs a bundle"),
    ],
)
def test_combinations_that_mean_nothing(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
