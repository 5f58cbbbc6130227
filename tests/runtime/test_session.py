"""Session: numpy in, numpy out, without torch, and every misuse told in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime_door import modules

from dibr_deploy import _native
from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.onnx_file import read_header


def altered(model: Path, path: Path, alter) -> Path:
    proto = onnx.load(model)
    alter(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def test_inputs_and_outputs_are_described(session: Session) -> None:
    assert [(info.name, info.dtype, info.shape) for info in session.inputs] == [
        ("offsets", np.float32, ("batch", 1, 3)),
        ("world_to_clip", np.float32, ("batch", 4, 4)),
    ]
    assert [(info.name, info.dtype, info.shape) for info in session.outputs] == [
        ("image", np.float32, ("batch", 24, 17, 3)),
        ("mask", np.float32, ("batch", 24, 17)),
        ("face_index", np.int32, ("batch", 24, 17)),
        ("depth", np.float32, ("batch", 24, 17)),
    ]
    assert session.metadata["dibr.schema_version"] == "1"


def test_runs_by_position_by_name_and_mixed(session: Session, arrays: tuple) -> None:
    offsets, world_to_clip = arrays
    runs = [
        session.run(offsets, world_to_clip),
        session.run(world_to_clip=world_to_clip, offsets=offsets),
        session.run(offsets, world_to_clip=world_to_clip),
        session.run(np.asfortranarray(offsets), world_to_clip),
    ]
    assert [info.name for info in session.outputs] == list(runs[0])
    assert all(output[name].tobytes() == runs[0][name].tobytes() for output in runs[1:] for name in runs[0])
    assert (runs[0]["face_index"] >= 0).any()


def test_is_what_torch_computes(module: modules.SphereRenderer, session: Session, arrays: tuple) -> None:
    import torch

    expected = module(*map(torch.from_numpy, arrays))
    actual = session.run(*arrays)
    assert np.array_equal(actual["face_index"], expected.face_index.numpy())
    for name in ("image", "mask", "depth"):
        assert np.abs(actual[name] - getattr(expected, name).detach().numpy()).max() < 1e-5, name


def test_threads_do_not_change_a_bit(model: Path, arrays: tuple) -> None:
    runs = [Session(model, "cpu", threads=threads).run(*arrays) for threads in (1, 2, 7)]
    for name in ("face_index", "depth", "mask"):
        assert len({run[name].tobytes() for run in runs}) == 1, name


def test_runs_without_torch(model: Path, tmp_path: Path) -> None:
    """In a fresh process: session, images, cameras and rendering load neither torch nor onnx."""
    code = (
        "import sys, numpy as np\n"
        "import dibr_deploy.runtime, dibr_deploy.runtime.render, dibr_deploy.runtime.cli\n"
        f"session = dibr_deploy.runtime.Session({str(model)!r}, threads=1)\n"
        "output = session.run(np.zeros((2, 1, 3), 'f4'), np.zeros((2, 4, 4), 'f4'))\n"
        "assert output['face_index'].max() == -1\n"
        "loaded = {'torch', 'onnx', 'onnxscript'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda a, b: ((a,), {}), "input world_to_clip is missing, the model's inputs are offsets, world_to_clip"),
        (lambda a, b: ((a, b, b), {}), r"the model takes 2 inputs \(offsets, world_to_clip\), got 3 arrays"),
        (lambda a, b: ((a, b), {"offsets": a}), "input offsets is given twice, by position and by name"),
        (lambda a, b: ((a,), {"camera": b}), "no input camera, its inputs are offsets, world_to_clip"),
        (lambda a, b: ((a.astype(np.float64), b), {}), "input offsets must be float32, got float64"),
        (lambda a, b: ((a[0], b), {}), r"input offsets must have shape \[batch, 1, 3\], got \[1, 3\]"),
        (lambda a, b: ((a[:2], b), {}), r"must have shape \[batch, 4, 4\] with batch = 2, got \[3, 4, 4\]"),
        (lambda a, b: ((a, b[:, :3]), {}), r"must have shape \[batch, 4, 4\] with batch = 3, got \[3, 3, 4\]"),
        (lambda a, b: (("photo.png", b), {}), "input offsets must be float32, got <U9"),
    ],
)
def test_wrong_input(session: Session, arrays: tuple, call, sentence: str) -> None:
    positional, named = call(*arrays)
    with pytest.raises(DibrError, match=sentence):
        session.run(*positional, **named)


def test_what_an_operator_refuses(model: Path, tmp_path: Path, arrays: tuple) -> None:
    """The operator's own sentence, without ONNX Runtime's codes around it."""

    def name_a_vertex_that_is_not_there(proto: onnx.ModelProto) -> None:
        name = next(node.input[1] for node in proto.graph.node if node.op_type == "Render")
        faces = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        values = onnx.numpy_helper.to_array(faces).copy()
        values[0, 0] = 9999
        faces.CopyFrom(onnx.numpy_helper.from_array(values, faces.name))

    broken = Session(altered(model, tmp_path / "model.onnx", name_a_vertex_that_is_not_there), "cpu")
    with pytest.raises(DibrError, match=r"^the model could not be run: .*faces.*9999"):
        broken.run(*arrays)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"provider": "tpu"}, "provider must be one of auto, cpu, cuda, tensorrt, onnxruntime-tensorrt, got 'tpu'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"instances": 0}, "instances must be at least 1, got 0"),
        ({"device": -1}, "device must be at least 0, got -1"),
    ],
)
def test_wrong_options(model: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(DibrError, match=sentence):
        Session(model, **arguments)


def test_a_provider_that_this_onnxruntime_lacks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DibrError, match="provider cuda is not in this onnxruntime, which offers CPUExecutionProvider"):
        Session(model, "cuda")
    assert Session(model, "auto").run


def test_without_the_custom_op_library(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "library_folders", lambda: [tmp_path])
    with pytest.raises(
        FileNotFoundError, match=r"model .*model.onnx needs the ai.dibr custom ops, but libdibr.*so is not"
    ):
        Session(model)


def test_a_model_without_our_ops_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "library_folders", lambda: [tmp_path])
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None])
    negated = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [info], [negated])
    path = tmp_path / "negate.onnx"
    opset = [onnx.helper.make_opsetid("", 18)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    assert Session(path).run(np.array([1, 2], np.float32))["y"].tolist() == [-1, -2]


def newer_domain(proto: onnx.ModelProto) -> None:
    [entry] = [entry for entry in proto.opset_import if entry.domain == "ai.dibr"]
    entry.version = 2


def newer_metadata(proto: onnx.ModelProto) -> None:
    [entry] = [entry for entry in proto.metadata_props if entry.key == "dibr.schema_version"]
    entry.value = "2"


@pytest.mark.parametrize("alter", [newer_domain, newer_metadata])
def test_a_newer_op_schema_is_refused(model: Path, tmp_path: Path, alter) -> None:
    with pytest.raises(
        DibrError, match=r"uses version 2 of the ai\.dibr ops, but this dibr_deploy knows versions up to 1"
    ):
        Session(altered(model, tmp_path / "model.onnx", alter))


def test_a_graph_that_onnxruntime_refuses(model: Path, tmp_path: Path) -> None:
    def misspell(proto: onnx.ModelProto) -> None:
        next(node for node in proto.graph.node if node.op_type == "Render").op_type = "Rendre"

    with pytest.raises(DibrError, match=r"^model .* cannot be opened: .*Rendre") as caught:
        Session(altered(model, tmp_path / "model.onnx", misspell))
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model .*none.onnx does not exist"):
        Session(tmp_path / "none.onnx")
    with pytest.raises(DibrError, match=r"bundle .* has no manifest.json: it must be what `dibr export` writes"):
        Session(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 60, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off(model: Path, tmp_path: Path, kept: float) -> None:
    content = model.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(DibrError, match=r"^model .*cut.onnx is cut off"):
        Session(path)


@pytest.mark.parametrize("content", [b"no model at all, but some text", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(64)])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DibrError, match=r"^model .*model.onnx is (not an ONNX file|cut off)"):
        Session(path)


def test_any_bytes_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for seed in range(300):
        path.write_bytes(np.random.default_rng(seed).integers(0, 256, seed, np.uint8).tobytes())
        with pytest.raises(DibrError, match=r"^model "):
            read_header(path)


def test_the_header_is_what_onnx_reads(model: Path) -> None:
    header, proto = read_header(model), onnx.load(model)
    assert header.ir_version == proto.ir_version
    assert header.opsets == {entry.domain: entry.version for entry in proto.opset_import}
    assert header.metadata == {entry.key: entry.value for entry in proto.metadata_props}


def test_several_threads_share_a_session(session: Session) -> None:
    from concurrent.futures import ThreadPoolExecutor

    inputs = [tuple(tensor.numpy() for tensor in modules.inputs(batch)) for batch in (1, 2, 3, 4)] * 4
    expected = [session.run(*arrays)["depth"] for arrays in inputs]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(lambda arrays: session.run(*arrays)["depth"], inputs))
    assert all(a.tobytes() == e.tobytes() for a, e in zip(actual, expected, strict=True))


def test_onnxruntime_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DibrError, match=r"onnxruntime is not installed: install it, or dibr_deploy with the extra"):
        Session(model)


def test_library_folder_from_the_environment(model: Path, arrays: tuple, tmp_path: Path) -> None:
    """A copy of the libraries elsewhere serves too: they find one another in their own folder."""
    import shutil

    for name in ("libdibr.so", "libdibr_onnxruntime.so"):
        found = _native.library_path(name)
        shutil.copy(found, tmp_path / ("libdibr.so.1" if name == "libdibr.so" else name))
    code = f"from dibr_deploy.runtime import Session; Session({str(model)!r})\n"
    code += "print([line.split()[-1] for line in open('/proc/self/maps') if 'libdibr' in line][0])"
    environment = {**os.environ, _native.LIBRARY_DIR_VARIABLE: str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.startswith(str(tmp_path))
