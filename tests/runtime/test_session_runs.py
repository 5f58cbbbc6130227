"""In another thread, into the caller's arrays, in parts of a batch: a session gives what ``run`` gives."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from onnxruntime_door import modules

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session


def assert_equal(actual: dict, expected: dict) -> None:
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype and actual[name].tobytes() == array.tobytes(), name


def test_many_runs_in_other_threads(model: Path) -> None:
    inputs = [tuple(tensor.numpy() for tensor in modules.inputs(batch)) for batch in (1, 2, 3)] * 5
    with Session(model, "cpu", threads=1, instances=2) as session:
        futures = [session.run_async(*arrays) for arrays in inputs]
        for arrays, future in zip(inputs, futures, strict=True):
            assert_equal(future.result(60), session.run(*arrays))


def test_what_is_wrong_is_told_at_once(session: Session, arrays: tuple) -> None:
    with pytest.raises(DibrError, match="input world_to_clip is missing"):
        session.run_async(arrays[0])


def test_close_waits_for_submitted_runs(model: Path, arrays: tuple) -> None:
    session = Session(model, "cpu", threads=1)
    futures: list[Future] = [session.run_async(*arrays) for _ in range(8)]
    assert futures[-1].cancel() or futures[-1].done()
    session.close()
    assert all(future.done() for future in futures)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dibr-session")]
    with pytest.raises(DibrError, match="is closed"):
        session.run_async(*arrays)


def test_outputs_are_written_into_the_callers_arrays(session: Session, arrays: tuple) -> None:
    expected = session.run(*arrays)
    mine = {name: np.full_like(array, 7) for name, array in expected.items()}
    results = session.run_into(mine, *arrays)
    assert all(results[name] is array for name, array in mine.items())
    assert_equal(mine, expected)


def test_some_of_the_outputs(session: Session, arrays: tuple) -> None:
    expected = session.run(*arrays)
    mask = np.empty_like(expected["mask"])
    results = session.run_into({"mask": mask}, *arrays)
    assert results["mask"] is mask
    assert_equal(results, expected)


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"colour": np.zeros(3)}, "the model has no output colour, its outputs are image, mask"),
        ({"mask": np.zeros((3, 24, 17))}, "output mask must be a numpy array of float32, got float64"),
        ({"mask": [1]}, "output mask must be a numpy array of float32, got list"),
        ({"mask": np.zeros((2, 24, 17), np.float32)}, r"must have shape \[batch, 24, 17\] with batch = 3, got \[2, "),
        ({"mask": np.zeros((3, 17, 24), np.float32).transpose(0, 2, 1)}, "must be C-contiguous and writable"),
        ({"mask": np.broadcast_to(np.float32(0), (3, 24, 17))}, "must be C-contiguous and writable"),
    ],
)
def test_arrays_that_outputs_do_not_fit(session: Session, arrays: tuple, outputs: dict, sentence: str) -> None:
    with pytest.raises(DibrError, match=sentence):
        session.run_into(outputs, *arrays)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_parts_of_a_batch_are_the_batch(session: Session, size: int) -> None:
    arrays = [tensor.numpy() for tensor in modules.inputs(5)]
    assert_equal(session.run_in_batches(size, *arrays), session.run(*arrays))


def test_a_model_without_a_batch_axis(tmp_path: Path) -> None:
    import onnx

    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    path = tmp_path / "negate.onnx"
    opset = [onnx.helper.make_opsetid("", 18)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    with pytest.raises(DibrError, match="has no batch axis"):
        Session(path).run_in_batches(2, np.zeros(4, np.float32))


def test_outputs_leave_through_dlpack(session: Session, arrays: tuple) -> None:
    """Without a copy: torch sees the memory of the array."""
    import torch

    depth = session.run(*map(torch.from_numpy, arrays))["depth"]
    tensor = torch.from_dlpack(depth)
    assert tensor.data_ptr() == depth.ctypes.data
    assert (tensor.numpy() == session.run(*arrays)["depth"]).all()
