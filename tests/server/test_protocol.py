"""The Open Inference Protocol v2, spoken by the real tritonclient over HTTP and gRPC."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from dibr_deploy.runtime import Session
from dibr_deploy.runtime.server import messages
from server.service import Running


class Client(NamedTuple):
    module: ModuleType
    client: Any

    def tensors(self, arrays: dict[str, np.ndarray], **options: Any) -> list[Any]:
        return [self.tensor(name, array, **options) for name, array in arrays.items()]

    def tensor(self, name: str, array: np.ndarray, **options: Any) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def as_dict(self, response: Any) -> dict[str, Any]:
        if isinstance(response, (dict, list)):
            return response
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(response, preserving_proto_field_name=True)


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, service: Running) -> Client:
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    return Client(module, module.InferenceServerClient(getattr(service, request.param)))


def assert_same(answer: Any, expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        actual = answer.as_numpy(name)
        assert actual.dtype == array.dtype and actual.tobytes() == array.tobytes(), name


def test_health_and_metadata(client: Client, session: Session) -> None:
    assert client.client.is_server_live()
    assert client.client.is_server_ready()
    assert client.client.is_model_ready("sphere")
    assert client.client.is_model_ready("sphere", "1")
    server = client.as_dict(client.client.get_server_metadata())
    assert server["name"] == "dibr_deploy" and "binary_tensor_data" in server["extensions"]
    metadata = client.as_dict(client.client.get_model_metadata("sphere"))
    assert metadata["versions"] == ["1"]
    described = [(t["name"], t["datatype"], [int(n) for n in t["shape"]]) for t in metadata["inputs"]]
    assert described == [("offsets", "FP32", [-1, 1, 3]), ("world_to_clip", "FP32", [-1, 4, 4])]
    assert [tensor["name"] for tensor in metadata["outputs"]] == [info.name for info in session.outputs]
    index = client.as_dict(client.client.get_model_repository_index())
    models = index if isinstance(index, list) else index["models"]
    assert [(model["name"], model["version"], model["state"]) for model in models] == [("sphere", "1", "READY")]


def test_answers_are_the_sessions_bit_for_bit(client: Client, session: Session, arrays: dict) -> None:
    answer = client.client.infer("sphere", client.tensors(arrays), request_id="a-7", model_version="1")
    assert_same(answer, session.run(**arrays))
    response = client.as_dict(answer.get_response())
    assert (response["model_name"], response["model_version"], response["id"]) == ("sphere", "1", "a-7")


def test_numbers_that_are_not_finite_reach_the_model_and_come_back(
    client: Client, session: Session, arrays: dict
) -> None:
    """Raw NaN and infinities, among places and cameras: what the session makes of them, bit for bit."""
    places = {name: array.copy() for name, array in arrays.items()}
    places["offsets"][0, 0] = np.nan, np.inf, -np.inf
    places["world_to_clip"][1, 3] = np.inf
    places["world_to_clip"][2, 0, 0] = np.nan
    expected = session.run(**places)
    assert not all(np.array_equal(array, expected[name]) for name, array in session.run(**arrays).items())
    assert_same(client.client.infer("sphere", client.tensors(places)), expected)
    assert_same(client.client.infer("sphere", client.tensors(arrays)), session.run(**arrays))


def test_outputs_that_are_asked_for_alone(client: Client, session: Session, arrays: dict) -> None:
    wanted = [client.module.InferRequestedOutput(name) for name in ("depth", "mask")]
    answer = client.client.infer("sphere", client.tensors(arrays), outputs=wanted)
    response = client.as_dict(answer.get_response())
    assert [output["name"] for output in response["outputs"]] == ["depth", "mask"]
    expected = session.run(**arrays)
    assert_same(answer, {name: expected[name] for name in ("depth", "mask")})


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_tensors(
    service: Running, session: Session, arrays: dict, binary_in: bool, binary_out: bool
) -> None:
    """JSON carries float32 exactly, since its decimal numbers are those of float64."""
    client = Client(tritonclient.http, tritonclient.http.InferenceServerClient(service.http))
    wanted = [tritonclient.http.InferRequestedOutput(info.name, binary_data=binary_out) for info in session.outputs]
    inputs = client.tensors(arrays, binary_data=binary_in)
    answer = client.client.infer("sphere", inputs, outputs=wanted)
    assert_same(answer, session.run(**arrays))
    for output in answer.get_response()["outputs"]:
        assert ("data" in output) != binary_out


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_requests_and_answers(service: Running, session: Session, arrays: dict, coding: str) -> None:
    client = Client(tritonclient.http, tritonclient.http.InferenceServerClient(service.http))
    answer = client.client.infer(
        "sphere",
        client.tensors(arrays),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert_same(answer, session.run(**arrays))


def test_a_grpc_stream_answers_in_order_and_survives_a_refusal(
    service: Running, session: Session, arrays: dict
) -> None:
    import queue

    client = Client(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(service.grpc))
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(4):
        inputs = client.tensors(arrays)
        client.client.async_stream_infer("sphere", inputs[:1] if number == 2 else inputs, request_id=str(number))
    expected = session.run(**arrays)
    for number in range(4):
        result, error = answers.get(timeout=60)
        if number == 2:
            assert "input world_to_clip is missing" in str(error)
        else:
            assert result.get_response().id == str(number)
            assert_same(result, expected)
    client.client.stop_stream()


@pytest.mark.parametrize(
    ("name", "version", "sentence", "http", "grpc"),
    [
        ("cube", "", "there is no model of this name", "404", "StatusCode.NOT_FOUND"),
        ("sphere", "2", "the model has no such version", "404", "StatusCode.NOT_FOUND"),
    ],
)
def test_unknown_models(
    client: Client, arrays: dict, name: str, version: str, sentence: str, http: str, grpc: str
) -> None:
    with pytest.raises(InferenceServerException, match=sentence) as raised:
        client.client.infer(name, client.tensors(arrays), model_version=version)
    assert raised.value.status() == (http if client.module is tritonclient.http else grpc)


def fields(message: descriptor_pb2.DescriptorProto) -> dict[str, Any]:
    """Everything of a message that is seen on the wire."""
    own = {field.name: (field.number, field.type, field.label, field.type_name) for field in message.field}
    return {**own, **{nested.name: fields(nested) for nested in message.nested_type}}


def test_our_messages_are_tritons() -> None:
    """On the wire: names, numbers and types of all fields. Triton's may have more."""
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    published = {message.name: fields(message) for message in theirs.message_type}
    assert len(messages.MESSAGES) == 17
    for name, message in messages.MESSAGES.items():
        described = descriptor_pb2.DescriptorProto()
        message.DESCRIPTOR.CopyToProto(described)
        assert fields(described) == published[name], name


def test_the_compiled_messages_are_the_written_ones(tmp_path: Path) -> None:
    folder = Path(messages.__file__).parent
    compiled = tmp_path / "compiled"
    arguments = ["protoc", f"-I{folder}", f"--descriptor_set_out={compiled}", str(folder / "open_inference.proto")]
    assert protoc.main(arguments) == 0
    ours, written = descriptor_pb2.FileDescriptorSet(), descriptor_pb2.FileDescriptorSet()
    ours.ParseFromString((folder / "open_inference.binpb").read_bytes())
    written.ParseFromString(compiled.read_bytes())
    assert ours == written


def connections_at(port: int) -> Iterator[socket.socket]:
    """This process's ends of the connections to a port at which it listens itself."""
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            connection = socket.socket(fileno=os.dup(number))
        except OSError:
            continue
        with connection:
            accepts = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            inet = connection.family in (socket.AF_INET, socket.AF_INET6)
            if inet and not accepts and connection.getsockname()[1] == port:
                yield connection


def test_answers_do_not_wait_for_acknowledgements(service: Running) -> None:
    """With Nagle's algorithm a body waits 40 ms until the client acknowledges the headers that went before it."""
    client = HTTPConnection(service.http)
    client.request("GET", "/v2/health/ready")
    assert client.getresponse().read()
    options = [end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in connections_at(service.ports.http)]
    assert options and all(options)
    client.close()
