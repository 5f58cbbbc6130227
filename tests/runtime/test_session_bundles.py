"""Session on a bundle: what the manifest says is checked first, and what was checked is what runs."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnxruntime_door import modules
from runtime_bundles import MODEL, manifest_of, sample, write_model_bundle

from dibr_deploy.errors import DibrError, DoorAbsent
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle, write_bundle
from dibr_deploy.runtime.manifest import MODEL_FILE, Tensor


def rewrite(bundle: Path, **values: object) -> Path:
    """The same bundle with other values in its manifest."""
    opened = Bundle(bundle)
    files = {name: opened.read(name) for name in opened.manifest.files}
    return write_bundle(bundle, opened.manifest.model_copy(update=values), files)


def same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return list(actual) == list(expected) and all(actual[name].tobytes() == expected[name].tobytes() for name in actual)


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_a_bundle_is_run_like_its_model(bundle: Path, session: Session, arrays: tuple, provider: str) -> None:
    opened = Session(bundle, provider, threads=2)
    assert opened.provider == "cpu"
    assert same(opened.run(*arrays), session.run(*arrays))
    assert (opened.inputs, opened.outputs) == (session.inputs, session.outputs)
    assert opened.metadata == session.metadata


def test_what_was_checked_is_what_runs(bundle: Path, arrays: tuple, session: Session, monkeypatch) -> None:
    """The model is read once: it may change on disk after that."""
    read = Bundle.read

    def read_and_spoil(self: Bundle, name: str) -> bytes:
        content = read(self, name)
        if bundle.is_dir():
            (bundle / name).write_bytes(b"spoiled")
        else:
            bundle.write_bytes(b"spoiled")
        return content

    monkeypatch.setattr(Bundle, "read", read_and_spoil)
    assert same(Session(bundle, "cpu").run(*arrays), session.run(*arrays))


def test_a_model_of_another_hash(model: Path, tmp_path: Path) -> None:
    bundle = write_model_bundle(tmp_path / "bundle", model)
    content = bytearray((bundle / MODEL_FILE).read_bytes())
    content[-1] ^= 1
    (bundle / MODEL_FILE).write_bytes(content)
    with pytest.raises(DibrError, match=r"model.onnx is not the file that manifest.json describes"):
        Session(bundle, "cpu")


def test_a_newer_op_schema(bundle: Path) -> None:
    with pytest.raises(DibrError, match=r"bundle\S* uses version 2 of the ai\.dibr ops, .* knows versions up to 1"):
        Session(rewrite(bundle, schema_version=2), "cpu")


def test_a_newer_op_schema_inside_of_the_model(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    next(entry for entry in proto.opset_import if entry.domain == "ai.dibr").version = 2
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    bundle = write_model_bundle(tmp_path / "b.zip", tmp_path / "model.onnx")
    with pytest.raises(DibrError, match=r"model.onnx uses version 2 of the ai\.dibr ops"):
        Session(bundle, "cpu")


def test_a_newer_onnxruntime_api(bundle: Path) -> None:
    sentence = r"needs ONNX Runtime 1.999 or newer, but onnxruntime \S+ is installed: pip install --upgrade"
    with pytest.raises(DibrError, match=sentence):
        Session(rewrite(bundle, onnxruntime_api=999), "cpu")


OFFSETS, CAMERA = (
    Tensor(name="offsets", dtype="float32", shape=("batch", 1, 3)),
    Tensor(name="world_to_clip", dtype="float32", shape=("batch", 4, 4)),
)


@pytest.mark.parametrize(
    "inputs",
    [
        (),
        (OFFSETS,),
        (CAMERA, OFFSETS),
        (OFFSETS.model_copy(update={"name": "offset"}), CAMERA),
        (OFFSETS.model_copy(update={"dtype": "float16"}), CAMERA),
        (OFFSETS.model_copy(update={"shape": ("batch", 1, 4)}), CAMERA),
        (OFFSETS.model_copy(update={"shape": ("batch", "n", 3)}), CAMERA),
        (OFFSETS.model_copy(update={"shape": ("batch", 1)}), CAMERA),
        (OFFSETS, CAMERA, OFFSETS),
    ],
)
def test_other_inputs_than_the_manifest_names(model: Path, tmp_path: Path, inputs: tuple[Tensor, ...]) -> None:
    bundle = write_model_bundle(tmp_path / "b.zip", model, inputs=None, outputs=None)
    assert Bundle(bundle).manifest.inputs == (OFFSETS, CAMERA)
    with pytest.raises(DibrError, match=r"inputs and outputs of model.onnx are not those that its manifest names"):
        Session(rewrite(bundle, inputs=inputs), "cpu")


def test_a_manifest_before_all_else(tmp_path: Path) -> None:
    """A bundle whose model is no model is refused for its versions, which its manifest has."""
    files = {MODEL_FILE: MODEL}
    path = write_bundle(tmp_path / "b.zip", manifest_of(files, schema_version=7), files)
    with pytest.raises(DibrError, match=r"uses version 7 of the ai\.dibr ops"):
        Session(path)
    path = write_bundle(tmp_path / "b.zip", manifest_of(files), files)
    with pytest.raises(DibrError, match=r"model \S+b.zip/model.onnx is (not an ONNX file|cut off)"):
        Session(path)


def test_no_engine(bundle: Path, model: Path) -> None:
    with pytest.raises(DoorAbsent, match=r"is no bundle, and provider tensorrt needs an engine: make a bundle"):
        Session(model, "tensorrt")


def test_cpu_tensors_of_torch_are_read_where_they_are(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = modules.inputs(2)
    expected = session.run(*(tensor.numpy() for tensor in tensors))
    addresses = []
    run = session._backend.run

    def spy(feed):
        addresses.extend(array.ctypes.data for array in feed.values())
        return run(feed)

    monkeypatch.setattr(session._backend, "run", spy)
    assert same(session.run(*tensors), expected)
    assert addresses == [tensor.data_ptr() for tensor in tensors]
    assert same(session.run(tensors[0].transpose(1, 2).contiguous().transpose(1, 2), tensors[1]), expected)


def test_tensors_that_cannot_be_read(session: Session) -> None:
    offsets, camera = modules.inputs(2)
    with pytest.raises(DibrError, match=r"input offsets cannot be read without a copy: .*require gradient"):
        session.run(offsets.requires_grad_(), camera)
    with pytest.raises(DibrError, match=r"input offsets cannot be read without a copy: "):
        session.run(offsets.detach().bfloat16(), camera)
    with pytest.raises(DibrError, match=r"input offsets must be float32, got float16"):
        session.run(offsets.detach().half(), camera)


class OnDevice:
    """A tensor whose memory the CPU cannot read."""

    def __init__(self, shape: tuple[int, ...], dtype: object) -> None:
        self.shape, self.dtype = shape, dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("nobody may ask for it")


def test_tensors_on_a_device_are_not_for_this_provider(session: Session) -> None:
    camera = np.zeros((2, 4, 4), np.float32)
    for dtype in (torch.float32, np.dtype(np.float32)):
        with pytest.raises(DibrError, match=r"input offsets lies on a device, but provider cpu reads host memory"):
            session.run(OnDevice((2, 1, 3), dtype), camera)
    with pytest.raises(DibrError, match=r"input offsets must be float32, got bfloat16"):
        session.run(OnDevice((2, 1, 3), torch.bfloat16), camera)
    with pytest.raises(DibrError, match=r"input offsets must have shape \[batch, 1, 3\], got \[2, 3\]"):
        session.run(OnDevice((2, 3), torch.float32), camera)


def test_run_on_device_is_run_on_the_host(session: Session, arrays: tuple) -> None:
    assert same(session.run_on_device(*arrays), session.run(*arrays))


def test_warm_up_takes_the_sample(bundle: Path, arrays: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session(bundle, "cpu")
    fed = []
    run = opened._backend.run
    monkeypatch.setattr(opened._backend, "run", lambda feed: fed.append(feed) or run(feed))
    assert opened.warm_up() is None
    opened.warm_up(arrays[0][:1], world_to_clip=arrays[1][:1])
    assert [feed["offsets"].shape[0] for feed in fed] == [3, 1]
    assert np.array_equal(fed[0]["world_to_clip"], arrays[1])


def test_warm_up_without_a_sample(session: Session) -> None:
    session.warm_up()
    with pytest.raises(DibrError, match=r"^input world_to_clip is missing"):
        session.warm_up(np.zeros((1, 1, 3), np.float32))


def test_warm_up_of_a_model_that_needs_more_than_zeros(tmp_path: Path) -> None:
    """A convolution that does not fit into an image of one pixel."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 1, "height", "width"]
    values = [helper.make_tensor_value_info(name, number, shape) for name in ("x", "y")]
    kernel = onnx.numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", values[:1], values[1:], [kernel])
    path = tmp_path / "m.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    session = Session(path)
    session.warm_up(np.ones((1, 1, 5, 5), np.float32))
    with pytest.raises(DibrError, match=r"^warm_up\(\) needs arrays for this model: the model could not be run: "):
        session.warm_up()


def test_a_sample_that_is_not_what_the_manifest_says(bundle: Path, arrays: tuple) -> None:
    content = sample({"offsets": arrays[0]}, {})
    opened = Bundle(bundle)
    files = {MODEL_FILE: opened.read(MODEL_FILE), "sample.npz": content}
    manifest = manifest_of(files, inputs=opened.manifest.inputs, outputs=opened.manifest.outputs, sample="sample.npz")
    write_bundle(bundle, manifest, files)
    with pytest.raises(DibrError, match=r"sample.npz must hold input.world_to_clip"):
        Session(bundle, "cpu").warm_up()


def test_closed(model: Path, arrays: tuple) -> None:
    with Session(model, "cpu") as opened:
        opened.run(*arrays)
    for use in (opened.run, opened.run_on_device, opened.warm_up):
        with pytest.raises(DibrError, match=r"^the session of .*model.onnx is closed: open a new one$"):
            use(*arrays)
    opened.close()
    assert opened.inputs[0].name == "offsets"


def test_closing_waits_for_what_runs(model: Path, arrays: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Session(model, "cpu")
    backend = opened._backend
    inside, go_on = threading.Event(), threading.Event()
    order = []
    run, close = backend.run, backend.close

    def slow_run(feed):
        inside.set()
        go_on.wait(10)
        outputs = run(feed)
        order.append("run")
        return outputs

    monkeypatch.setattr(backend, "run", slow_run)
    monkeypatch.setattr(backend, "close", lambda: (order.append("close"), close()))
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(opened.run, *arrays)
        assert inside.wait(10)
        closing = pool.submit(opened.close)
        while opened._backend is not None:
            pass
        with pytest.raises(DibrError, match="is closed"):
            opened.run(*arrays)
        go_on.set()
        assert running.result(10)["depth"].shape[0] == 3
        closing.result(10)
    assert order == ["run", "close"]


def test_threads_share_a_bundle_and_close_it(bundle: Path, session: Session) -> None:
    """Every run gives what it gives alone, or says that the session is closed."""
    inputs = [tuple(tensor.numpy() for tensor in modules.inputs(batch)) for batch in (1, 2, 3, 5)]
    expected = [session.run(*arrays) for arrays in inputs]
    opened = Session(bundle, "cpu", threads=1)
    start = threading.Barrier(4)

    def work(index: int) -> list[str]:
        start.wait()
        ends = []
        for turn in range(12):
            which = (index + turn) % len(inputs)
            try:
                assert same(opened.run(*inputs[which]), expected[which])
                ends.append("ran")
            except DibrError as error:
                ends.append(str(error))
            if index == 0 and turn == 8:
                opened.close()
        return ends

    with ThreadPoolExecutor(4) as pool:
        ends = [end for worker in pool.map(work, range(4)) for end in worker]
    assert ends.count("ran") >= 9
    assert {end for end in ends if end != "ran"} == {f"the session of {bundle} is closed: open a new one"}


def test_metadata_of_an_engine_is_that_of_the_model(bundle: Path, session: Session) -> None:
    from dibr_deploy.runtime.session import _metadata

    stated = session.metadata
    meanings = json.loads(stated["dibr.outputs"])
    opened = Bundle(bundle).manifest
    outputs = tuple(tensor.model_copy(update={"meaning": meanings[tensor.name]}) for tensor in opened.outputs)
    manifest = opened.model_copy(update={"outputs": outputs, "producer": stated["dibr.producer"]})
    actual = _metadata(manifest)
    assert json.loads(actual.pop("dibr.outputs")) == meanings
    assert actual == {name: value for name, value in stated.items() if name != "dibr.outputs"}
