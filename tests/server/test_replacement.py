"""A model that cannot be run never takes the place of one that can, and ends a start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from runtime_bundles import write_model_bundle

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.server.metrics import Metrics
from dibr_deploy.runtime.server.repository import Repository, parse_specs
from dibr_deploy.runtime.server.settings import settings_of

PHOTO = np.array([[1.0, 2.0, 3.0]], np.float32)


def columns(path: Path, column: int) -> Path:
    """y = x[:, column + x[0, 0] * 0] of x [batch, 3], so that nobody knows before a run whether there is such a one."""
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "column"], ["chosen"]),
        helper.make_node("Cast", ["chosen"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["x", "index"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "columns",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(column, np.float32), "column"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def packed(model: Path, path: Path) -> Path:
    return write_model_bundle(path, model, {"x": PHOTO}, {"y": PHOTO[:, 0]})


@pytest.fixture(params=["bundle", "onnx"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model that can be run."""
    model = columns(tmp_path / "columns.onnx", 1)
    return model if request.param == "onnx" else packed(model, tmp_path / "columns.zip")


@pytest.fixture
def repository(served: Path) -> Iterator[Repository]:
    opened = Repository(parse_specs([str(served)]), settings_of(threads=1), Metrics())
    yield opened
    opened.close(60.0)


def replace(served: Path, column: int) -> None:
    model = columns(served.parent / "other.onnx", column)
    if served.suffix == ".zip":
        packed(model, served)
    else:
        model.replace(served)


def answer(repository: Repository) -> float:
    return float(repository.find("columns").session.run(PHOTO)["y"][0])


def test_a_successor_that_cannot_be_run(repository: Repository, served: Path) -> None:
    replace(served, 7)
    [problem] = repository.reload()
    assert "cannot" in problem and str(served) in problem
    assert answer(repository) == 2.0


def test_a_successor_that_can(repository: Repository, served: Path) -> None:
    replace(served, 2)
    assert repository.reload() == []
    assert answer(repository) == 3.0


def test_a_bundle_whose_sample_cannot_be_run(tmp_path: Path) -> None:
    bundle = packed(columns(tmp_path / "columns.onnx", 7), tmp_path / "columns.zip")
    with pytest.raises(DibrError, match=r"columns.zip cannot run its bundle's own sample"):
        Repository(parse_specs([str(bundle)]), settings_of(threads=1), Metrics())


def test_a_model_that_takes_no_zeros_is_served(tmp_path: Path) -> None:
    model = columns(tmp_path / "columns.onnx", 7)
    opened = Repository(parse_specs([str(model)]), settings_of(threads=1), Metrics())
    assert not opened.find("columns").warm
    opened.close(60.0)
