"""The check that tests/conftest.py makes of every exported model sees what it should see."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime_door import modules

from dibr_deploy.export import to_onnx
from tensorrt_door import environment, exported
from tensorrt_door.watch import Watch

Change = Callable[[onnx.ModelProto, onnx.NodeProto], None]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    environment.python()
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return to_onnx(modules.SphereRenderer(), modules.inputs(1), path, fused=False).read_bytes()


def test_an_exported_model_has_no_problems(content: bytes) -> None:
    assert exported.is_exported(content)
    assert exported.problems(content) == []


def set_attribute(name: str, value: object) -> Change:
    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def drop_depth(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.output[2] = ""


def double_positions(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    value = next(value for value in model.graph.value_info if value.name == node.input[0])
    value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


def another_op(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.op_type = "Rasterise"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (set_attribute("plugin_version", "2"), "plugin_version is not 1"),
        (set_attribute("plugin_namespace", "dibr"), "plugin_namespace is not ai.dibr"),
        (set_attribute("depth_clip", 1.0), "attribute depth_clip is FLOAT32, but the creator's field is INT32"),
        (set_attribute("tiles", 4), "attribute tiles is INT32, but the creator's field is None"),
        (set_attribute("tensorrt_plugin_shape_input_indices", [4]), "its shape inputs are [4]"),
        (drop_depth, "has outputs"),
        (double_positions, "positions must be FLOAT, got DOUBLE"),
        (another_op, "Rasterise has no creator"),
        (set_attribute("cull", "front"), 'field cull must be "none" or "back", got "front"'),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_tensorrt_would_refuse_is_a_problem(content: bytes, change: Change, sentence: str) -> None:
    model = onnx.load_from_string(content)
    change(model, next(node for node in model.graph.node if node.op_type == "Rasterize"))
    found = exported.problems(model.SerializeToString())
    assert any(sentence in problem for problem in found), found


def test_models_are_seen_where_they_arrive(content: bytes, tmp_path: Path) -> None:
    """As a file, in a folder, in a zip file, from `dibr export` in another process, and in the folder of any other."""
    watch = Watch()
    variants = [content + bytes([0x72, 1, index]) for index in range(5)]  # an empty metadata entry each
    names = ["model.onnx", "bundle", "bundle.zip"]
    (tmp_path / ".model.onnx").write_bytes(variants[0])
    (tmp_path / ".bundle").mkdir()
    (tmp_path / ".bundle" / "model.onnx").write_bytes(variants[1])
    with zipfile.ZipFile(tmp_path / ".bundle.zip", "w") as archive:
        archive.writestr("model.onnx", variants[2])
    for name in names:
        watch.event("os.rename", (str(tmp_path / f".{name}"), str(tmp_path / name), -1, -1))
    (tmp_path / "far.onnx").write_bytes(variants[3])
    command = [sys.executable, "-m", "dibr_deploy.cli", "export", "--output", str(tmp_path / "far.onnx")]
    watch.event("subprocess.Popen", (command[0], command, None, None))
    (tmp_path / "of_a_program").mkdir()
    (tmp_path / "of_a_program" / "deep.onnx").write_bytes(variants[4])
    watch.event("subprocess.Popen", ("python", ["python", "-c", "..."], str(tmp_path / "of_a_program"), None))
    assert watch.take() == variants
    assert watch.take() == []


WATCHED = """
import subprocess, sys
from pathlib import Path
from tensorrt_door.watch import Watch
watch = Watch()
watch.start()
Path("a").write_bytes(b"one")
Path("a").rename("a.onnx")
writes = "open('b.onnx', 'wb').write(b'two')"
subprocess.run([sys.executable, "-c", writes, "export", "--output", "b.onnx"], check=True)
assert watch.take() == [b"one", b"two"]
"""


def test_python_tells_of_what_is_watched(tmp_path: Path) -> None:
    """In a process of its own, since a hook stays for good."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", WATCHED], cwd=tmp_path, env=variables, check=True)
    assert not exported.is_exported(b"one")


def test_the_engine_that_does_not_name_a_plugin_is_a_problem(content: bytes) -> None:
    ops = sorted(node.op_type for node in exported.ours(onnx.load_from_string(content)))
    assert exported.engine_problems(content, ops) == []
    [first, second] = exported.engine_problems(content, [*ops, "Antialias"])
    assert first.startswith("the dynamic engine names") and second.startswith("the static engine names")


def test_an_engine_that_is_not_there_is_a_problem() -> None:
    silent = {"errors": [], "dynamic": None, "static": ["Rasterize"]}
    assert exported.objections(silent, ["Rasterize"]) == ["there is no dynamic engine"]


def test_a_model_with_other_weights_is_remembered_and_no_other_model(content: bytes) -> None:
    def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
        model = onnx.load_from_string(content)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
        return exported.without_weights(model.SerializeToString())

    same = exported.without_weights(content)
    tensors = onnx.load_from_string(content).graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    large = next(name for name, value in weights.items() if value.dtype == np.float32 and value.size > 100)
    integers = next(name for name, value in weights.items() if value.dtype == np.int32 and value.size > 100)
    assert changed(large, lambda value: value + 1) == same
    assert changed(large, lambda value: value[..., None]) != same
    assert changed(large, lambda value: value.astype(np.float16)) != same
    assert changed(integers, lambda value: value[::-1]) != same
    for name, value in weights.items():
        if value.size < exported.SMALLEST_WEIGHT:
            assert changed(name, lambda value: value + value.dtype.type(1)) != same, name


def test_another_tensorrt_is_asked_again(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = exported.tools_hash.__wrapped__()
    (tmp_path / "TENSORRT").write_text("tensorrt-rtx-cu13-libs==9.9\n")
    monkeypatch.setattr(environment, "VERSIONS", tmp_path / "TENSORRT")
    assert exported.tools_hash.__wrapped__() != before


def test_without_tensorrt_the_check_fails_in_ci_and_is_skipped_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "PYTHON", tmp_path / "python")
    monkeypatch.delenv("CI", raising=False)
    assert not environment.is_there()
    with pytest.raises(pytest.skip.Exception, match="make setup-trt"):
        environment.python()
    monkeypatch.setenv("CI", "true")
    for ask in (environment.is_there, environment.python):
        with pytest.raises(pytest.fail.Exception, match="make setup-trt"):
            ask()
