"""The Python backend's model on a double of Triton: which requests share a batch, and what each is answered."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dibr_deploy.export.triton import repository

TABLE = np.array([10.0, 20.0, 30.0], np.float32)


class Utilities(ModuleType):
    """triton_python_backend_utils, as far as the model uses it."""

    Tensor = staticmethod(lambda name, array: SimpleNamespace(name=name, array=array))
    TritonError = staticmethod(lambda message: message)

    @staticmethod
    def InferenceResponse(tensors: Any = (), error: Any = None) -> SimpleNamespace:
        return SimpleNamespace(outputs={tensor.name: tensor.array for tensor in tensors}, error=error)

    @staticmethod
    def get_input_tensor_by_name(request: Any, name: str) -> SimpleNamespace:
        return SimpleNamespace(as_numpy=lambda: request.inputs[name])


@pytest.fixture
def open_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """open_model(max_batch): a model that looks numbers up in a table, and fails where there is none."""
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    graph = helper.make_graph(
        [node, helper.make_node("ReduceSum", ["y", "axis"], ["sum"], keepdims=0)],
        "lookup",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["batch", 2])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch"]),
        ],
        [
            helper.make_tensor("table", TensorProto.FLOAT, TABLE.shape, TABLE),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    folder = tmp_path / "lookup"
    (folder / "1").mkdir(parents=True)
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "1" / "model.onnx")
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", Utilities("triton_python_backend_utils"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("model", repository._PYTHON_MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def open_it(max_batch: int) -> Any:
        dims = [2] if max_batch else [-1, 2]
        config = {
            "max_batch_size": max_batch,
            "input": [{"name": "index", "dims": dims}],
            "output": [{"name": "y", "dims": dims}, {"name": "sum", "dims": [1] if max_batch else [-1]}],
            "parameters": {"threads": {"string_value": "1"}},
        }
        model = module.TritonPythonModel()
        arguments = {"model_repository": str(folder), "model_version": "1", "model_instance_kind": "CPU"}
        model.initialize({"model_config": json.dumps(config), **arguments})
        counted = model.session.run
        model.calls = []
        model.session = SimpleNamespace(
            run=lambda names, feed: (model.calls.append(len(feed["index"])), counted(names, feed))[1]
        )
        return model

    return open_it


def request(*rows: tuple[int, int], wanted: tuple[str, ...] = ("y", "sum")) -> SimpleNamespace:
    return SimpleNamespace(inputs={"index": np.array(rows, np.int64)}, requested_output_names=lambda: list(wanted))


def test_requests_share_a_batch(open_model: Callable[..., Any]) -> None:
    model = open_model(8)
    responses = model.execute([request((0, 1)), request((2, 2), (1, 0)), request((0, 0), wanted=("y",))])
    assert model.calls == [4]
    assert [response.error for response in responses] == [None] * 3
    assert responses[0].outputs["y"].tolist() == [[10, 20]]
    assert responses[1].outputs["y"].tolist() == [[30, 30], [20, 10]]
    assert responses[1].outputs["sum"].tolist() == [[60], [30]], "no dimensions: one of size 1"
    assert list(responses[2].outputs) == ["y"]


def test_what_is_wrong_with_one_does_not_harm_the_others(open_model: Callable[..., Any]) -> None:
    model = open_model(8)
    responses = model.execute([request((0, 1)), request((7, 0)), request((2, 2))])
    assert model.calls == [3, 1, 1, 1]
    assert "7" in responses[1].error
    assert [response.outputs["y"].tolist() for response in responses[::2]] == [[[10, 20]], [[30, 30]]]


def test_without_batching_each_runs_alone(open_model: Callable[..., Any]) -> None:
    model = open_model(0)
    responses = model.execute([request((0, 1)), request((2, 2), (1, 1))])
    assert model.calls == [1, 2]
    assert responses[1].outputs["sum"].tolist() == [60, 40]


def test_packages_beside_the_model_are_found_first(open_model: Callable[..., Any], tmp_path: Path) -> None:
    open_model(1)
    assert sys.path[0] == str(tmp_path / "lookup" / "packages")
