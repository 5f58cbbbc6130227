"""A model that ONNX Runtime itself cannot run at some of its inputs: who asked is told, and nobody else is harmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.server.messages import MESSAGES
from server.clients import Grpc, Http, binary
from server.service import Running, running

GOOD, BAD = np.array([[2, 0]]), np.array([[1, 99]])
Ask = Callable[[Running, np.ndarray], bytes]
"""Raw output y; raises what ``Refused`` says where there is none."""


class Refused(Exception):
    """Status of the protocol."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a table of three, by indices [batch, 2], of which there may be others."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [1.5, 2.5, np.nan])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [table],
    )
    path = tmp_path_factory.mktemp("gather") / "gather.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Running]:
    with running([str(model)]) as service:
        yield service


def over_http(service: Running, x: np.ndarray) -> bytes:
    body, head = binary(list(x.shape), x.tobytes(), datatype="INT64")
    response = Http(service).post("/v2/models/gather/infer", body, inference_header_content_length=head)
    if response.status != 200:
        raise Refused(response.status)
    return response.data[int(response.headers["inference-header-content-length"]) :]


def over_grpc(service: Running, x: np.ndarray) -> bytes:
    request = MESSAGES["ModelInferRequest"](model_name="gather")
    request.inputs.add(name="x", datatype="INT64", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    status, answer = Grpc(service).status("ModelInfer", request.SerializeToString())
    if status != "OK":
        raise Refused(status)
    content: bytes = answer.raw_output_contents[0]
    return content


@pytest.mark.parametrize(("ask", "status"), [(over_http, 500), (over_grpc, "INTERNAL")])
def test_it_fails_alone(service: Running, model: Path, ask: Ask, status: int | str) -> None:
    """Also among others that come at the same time: they have the session's answers, and so has the next one."""
    session = Session(model, "cpu", threads=1)
    expected = session.run(x=GOOD)["y"].tobytes()
    with pytest.raises(DibrError, match="could not be run"):
        session.run(x=BAD)

    def outcome(x: np.ndarray) -> object:
        try:
            return ask(service, x)
        except Refused as refused:
            return refused.args[0]

    asked = [BAD if number % 3 == 0 else GOOD for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, asked))
    assert outcomes == [status if x is BAD else expected for x in asked]
    assert ask(service, GOOD) == expected
