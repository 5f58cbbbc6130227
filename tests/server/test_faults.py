"""What goes wrong while a service runs: it says so with the right status, and goes on."""

from __future__ import annotations

import gzip
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from dibr_deploy.runtime.server import grpc_server, http_infer, repository
from dibr_deploy.runtime.server.errors import RequestError
from dibr_deploy.runtime.server.messages import MESSAGES, SERVICE
from dibr_deploy.runtime.server.repository import parse_specs
from dibr_deploy.runtime.server.service import Service
from dibr_deploy.runtime.server.settings import settings_of
from dibr_deploy.runtime.server.tensors import from_numbers
from server.clients import Grpc, Http, binary, first, message, metrics, request_of
from server.gated import POISON, GatedSession
from server.memory import forget_peak, peak
from server.service import Running, running, until

MALFORMED = max(int(os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000")) // 1000, 50)
"""Of each kind: 1,000 at full length."""
LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def gated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "Session", GatedSession)
    monkeypatch.setattr(repository, "_predictor", lambda session: None)


@pytest.fixture
def model(tmp_path: Any) -> str:
    (tmp_path / "gated.onnx").touch()
    return f"gated={tmp_path / 'gated.onnx'}"


@pytest.fixture
def service(gated: None, model: str) -> Iterator[Running]:
    with running([model], queue_limit=4, max_batch=4, max_request=LIMIT, upload_timeout=30.0) as service:
        yield service
        GatedSession.latest.gate.set()
        assert first(Http(service).infer(21.0)) == 42, "the service is no longer what it was"


def test_a_model_that_fails(service: Running) -> None:
    response = Http(service).infer(POISON)
    assert (response.status, response.json()) == (500, {"error": "the model could not be run: poison"})
    with pytest.raises(grpc.RpcError) as raised:
        Grpc(service).infer(POISON)
    assert raised.value.code() is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_an_error_of_the_services_own(model: str, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(grpc_server, "_parse", lambda request: 1 // 0)
    with running([model]) as service, grpc.insecure_channel(service.grpc) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            list(channel.stream_stream(f"/{SERVICE}/{call}")(iter([message(1.0)])))
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert raised.value.details() == "the service failed at this request"


def occupy(service: Running, waiting: int) -> list[threading.Thread]:
    """Threads whose requests run or wait while the gate is closed: one, and as many in the queue."""
    session = GatedSession.latest
    session.gate.clear()
    threads = []
    for number in range(1 + waiting):
        threads.append(threading.Thread(target=lambda n=number: Http(service).infer(float(n))))
        threads[-1].start()
        if number == 0:
            assert session.begun.acquire(timeout=60)
        else:
            waiting = f'waiting{{model="gated",version="1"}} {number}.0'
            until(lambda waiting=waiting: waiting in metrics(service))
    return threads


def test_a_full_queue_refuses_with_the_right_status(service: Running) -> None:
    threads = occupy(service, 4)
    response = Http(service).infer(1.0)
    assert response.status == 429 and "waiting already" in response.json()["error"]
    assert response.headers["retry-after"] == "1"
    with pytest.raises(grpc.RpcError) as raised:
        Grpc(service).infer(1.0)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    GatedSession.latest.gate.set()
    for thread in threads:
        thread.join()
    assert 'failures_total{model="gated",protocol="http",reason="queue_full",version="1"} 1.0' in metrics(service)


def test_deadlines(service: Running) -> None:
    """A request's own parameter, in microseconds, at both doors, and gRPC's deadline."""
    threads = occupy(service, 0)
    assert Http(service).infer(1.0, timeout=20_000).status == 504
    for options in ({"timeout": 0.2}, {"microseconds": 20_000}):
        with pytest.raises(grpc.RpcError) as raised:
            Grpc(service).infer(1.0, **options)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    GatedSession.latest.gate.set()
    threads[0].join()
    assert GatedSession.latest.batches == [1]  # nothing ran for those who no longer waited


def test_a_client_that_goes_away_while_it_waits_frees_its_place(service: Running) -> None:
    threads = occupy(service, 3)
    gone = raw_request(service, request_of(5.0))
    until(lambda: 'waiting{model="gated",version="1"} 4.0' in metrics(service))
    gone.close()
    until(lambda: 'reason="cancelled"' in metrics(service))
    threads.append(threading.Thread(target=lambda: answers.append(first(Http(service).infer(6.0)))))
    answers: list[float] = []
    threads[-1].start()
    until(lambda: 'waiting{model="gated",version="1"} 4.0' in metrics(service))
    GatedSession.latest.gate.set()
    for thread in threads:
        thread.join()
    assert answers == [12]
    assert sum(GatedSession.latest.batches) == 5


def raw_request(service: Running, body: bytes, length: int | None = None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.ports.http))
    head = f"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_client_that_is_killed_while_it_sends(service: Running) -> None:
    for number in range(20):
        connection = raw_request(service, bytes(1 + 1000 * number), length=500_000)
        if number % 2:  # a reset rather than a polite end
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    until(lambda: 'reason="cancelled",version="1"} 20.0' in metrics(service))
    assert GatedSession.latest.batches == []


def test_an_upload_that_does_not_come(model: str) -> None:
    with running([model], upload_timeout=0.1) as service:
        connection = raw_request(service, b"{", length=100)
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408 ") and b"did not come in time" in answer


def test_requests_that_are_too_large(service: Running) -> None:
    http = Http(service)
    assert http.post("/v2/models/gated/infer", bytes(LIMIT + 1)).status == 413
    assert http.pool.request(
        "POST", http.base + "/v2/models/gated/infer", body=iter([bytes(LIMIT // 2)] * 3), chunked=True
    ).status == 413  # fmt: skip
    with pytest.raises(grpc.RpcError) as raised:
        Grpc(service).call("ModelInfer", bytes(3 * LIMIT))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("name", "status"), [("gated", b"413"), ("none", b"404")])
def test_an_answer_that_comes_before_the_request(service: Running, name: str, status: bytes) -> None:
    """Reaches a client that sends everything before it reads, and is not lost with a connection that is reset."""
    size = 32 * LIMIT
    head = f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.ports.http), timeout=60) as connection:
        connection.sendall(head.encode())
        assert select.select([connection], [], [], 60)[0]
        connection.sendall(bytes(size))
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 " + status)


def test_a_request_that_does_not_end_after_its_answer(service: Running) -> None:
    """What is read of it, to be dropped, has a limit of its own."""
    with raw_request(service, b"", length=1 << 40) as connection, pytest.raises(ConnectionError):
        connection.sendall(bytes(128 * LIMIT))


def test_json_that_is_too_long(model: str) -> None:
    """Its limit is its own, since it takes many times its length as objects; raw tensors may be longer."""
    limit = settings_of().max_json
    body = gzip.compress(b'{"inputs": [' + b"[]," * (limit // 3) + b"[]]}")
    with running([model], max_request=4 * limit) as service:
        response = Http(service).post("/v2/models/gated/infer", body, content_encoding="gzip")
        assert response.status == 413 and "of JSON: send tensors raw" in response.json()["error"]
        content, length = binary([1, 2], bytes(limit + 1))
        response = Http(service).post("/v2/models/gated/infer", content, inference_header_content_length=length)
        assert response.status == 400 and "takes 8 bytes" in response.json()["error"]


OBJECTS = 45
"""Times its length that JSON takes as Python's objects."""
NESTED = ['{"":1},', "[],", "[" * 100 + "]" * 100 + ",", '{"":' * 100 + "1" + "}" * 100 + ","]


def long_json(many: str, limit: int) -> bytes:
    head, tail = '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [', "1]}]}"
    each = len(many.encode())
    body = (head + many * ((limit - len(head) - len(tail)) // each) + tail).encode()
    assert limit - each < len(body) <= limit
    return body


@pytest.mark.parametrize("many", NESTED)
def test_the_memory_that_json_takes_as_objects(many: str) -> None:
    body = long_json(many, 1 << 18)
    tracemalloc.start()
    try:
        with pytest.raises(RequestError):
            http_infer._parse(body, len(body))
        assert tracemalloc.get_traced_memory()[1] < OBJECTS * len(body)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("many", NESTED[2:3])
def test_the_memory_that_long_json_takes(model: str, many: str) -> None:
    """Of what takes the most as objects, from several clients at once: that of one."""
    limit = 1 << 20
    body = long_json(many, limit)
    with running([model], max_json=limit) as service, ThreadPoolExecutor(4) as pool:
        http = Http(service)
        before = forget_peak()
        answers = list(pool.map(lambda _: http.post("/v2/models/gated/infer", body).status, range(4)))
        assert answers == [400] * 4
        assert peak() - before < (OBJECTS + 4 * 3) * limit  # the bodies are here themselves, up to three times each


def typed(shape: list[int], **contents: Any) -> bytes:
    request = MESSAGES["ModelInferRequest"](model_name="gated")
    tensor = request.inputs.add(name="x", datatype="INT64", shape=shape)
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"\x32\x00" * (1 << 21), "INVALID_ARGUMENT"),  # outputs
        (b"\x2a\x00" * (1 << 21), "INVALID_ARGUMENT"),  # inputs
        (b"\x3a\x00" * (1 << 21), "INVALID_ARGUMENT"),  # raw tensors
        (typed([1 << 40], int64_contents=[1] * ((4 << 20) - 100)), "INVALID_ARGUMENT"),
        (typed([1 << 22], int64_contents=[1] * ((4 << 20) - 100)), "INVALID_ARGUMENT"),
        (typed([(4 << 20) - 100], int64_contents=[1] * ((4 << 20) - 100)), "INVALID_ARGUMENT"),  # it wants FP32
        (typed([1 << 22], int64_contents=[1] * (4 << 20)), "RESOURCE_EXHAUSTED"),
        (typed([1, 2], bytes_contents=[b""] * (2 << 20)), "RESOURCE_EXHAUSTED"),
        (typed([1] * (4 << 20)), "RESOURCE_EXHAUSTED"),
    ],
)
def test_the_memory_that_grpc_messages_take(model: str, content: bytes, status: str) -> None:
    """As much as JSON of the longest kind, whatever is repeated in them, and from several clients at once."""
    with running([model]) as service, ThreadPoolExecutor(4) as pool:
        client = Grpc(service)
        before = forget_peak()
        answers = list(pool.map(lambda _: client.status("ModelInfer", content)[0], range(4)))
        assert answers == [status] * 4
        assert peak() - before < (OBJECTS + 4 * 5) * (4 << 20)  # the client has its messages here as well


@pytest.mark.parametrize(
    "content",
    [b"\x0a", b"\x0a\x05abc", b"\xff" * 11, b"\x08" + b"\xff" * 10, b"\x0b\x0c", b"\x0d\x00", b"\x09\x00", b"\x00\x01"],
)
def test_bytes_that_are_no_grpc_message(service: Running, content: bytes) -> None:
    assert Grpc(service).status("ModelInfer", content)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("stage", ["_parse", "_answer"])
def test_a_request_does_not_wait_for_long_json_of_others_beyond_its_time(
    model: str, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Neither to be read nor for its answer to be written, nor at the other door."""
    rows = 1 << 16
    begun, go = threading.Event(), threading.Event()

    usual = getattr(http_infer, stage)

    def waits(*arguments: Any) -> Any:
        if len(arguments[0] if stage == "_parse" else arguments[3]["y"]) > 1000:
            begun.set()
            assert go.wait(60)
        return usual(*arguments)

    body, length = binary([rows, 2], bytes(8 * rows))
    written = body.replace(b'"binary_data_output": true', b'"binary_data_output":false')
    content, headers = {
        "_parse": (long_json("[1,2],", 1 << 18), {}),
        "_answer": (written, {"inference_header_content_length": length}),
    }[stage]
    message = typed([rows], int64_contents=[1] * rows)
    monkeypatch.setattr(http_infer, stage, waits)
    with running([model], timeout=0.5, max_batch=rows) as service, ThreadPoolExecutor(2) as pool:

        def post() -> int:
            return Http(service).post("/v2/models/gated/infer", content, **headers).status

        try:
            pool.submit(post)
            assert begun.wait(60)
            assert pool.submit(post).result(30) == 504
            assert pool.submit(Grpc(service).status, "ModelInfer", message).result(30) == ("DEADLINE_EXCEEDED", None)
        finally:
            go.set()


def test_the_memory_that_an_answer_in_json_takes(model: str) -> None:
    """A few times the answer's length, and not the objects of all its numbers."""
    values = np.random.default_rng(0).random((1 << 19, 2)).astype(np.float32)
    body, length = binary([len(values), 2], values.tobytes())
    body = body.replace(b'"binary_data_output": true', b'"binary_data_output":false')
    with running([model], max_batch=len(values)) as service:
        before = forget_peak()
        response = Http(service).post("/v2/models/gated/infer", body, inference_header_content_length=length)
        grown = peak() - before
    assert response.status == 200
    assert np.array_equal(np.array(response.json()["outputs"][0]["data"], np.float32).reshape(-1, 2), 2 * values)
    assert grown < 6 * len(response.data), grown / len(response.data)


@pytest.mark.parametrize("path", ["/v2/models/gated/infer", "/v2/health/live"])
def test_a_head_that_does_not_end(service: Running, path: str) -> None:
    """Refused after 64 KiB, and what a socket buffers, whatever the path: no key has been looked at yet."""
    with socket.create_connection(("127.0.0.1", service.ports.http)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nX: ".encode())
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * (64 << 20))


PROBE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "sent"), [(b"", b""), (b"", b"\r\n"), (b"", PROBE[:-1]), (PROBE, b"\r\n"), (PROBE, PROBE[:-1])]
)
def test_a_head_that_does_not_come(model: str, first: bytes, sent: bytes) -> None:
    """On a connection that is new, or is kept alive."""
    with (
        running([model], upload_timeout=0.1) as service,
        socket.create_connection(("127.0.0.1", service.ports.http), timeout=30) as connection,
    ):
        connection.sendall(first)
        if first:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        connection.sendall(sent)
        while connection.recv(1000):
            pass  # the rest of the answer, then the end


def test_a_body_that_drips_after_its_answer(model: str) -> None:
    """Its connection is closed, although something comes all the time."""
    request = b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with (
        running([model], upload_timeout=0.2) as service,
        socket.create_connection(("127.0.0.1", service.ports.http), timeout=0.05) as connection,
    ):
        connection.sendall(request)

        def closed() -> bool:
            try:
                connection.sendall(b"x")
                return connection.recv(1000) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        until(closed)


def test_a_request_keeps_the_model_that_it_was_accepted_for(model: str, tmp_path: Any) -> None:
    """A reload waits for it before it closes the old model."""
    service = Service(parse_specs([model]), settings_of())
    with service.accepted("gated", "", "http") as old:
        session = GatedSession.latest
        os.utime(tmp_path / "gated.onnx", (1, 1))
        reload = threading.Thread(target=service.models.reload)
        reload.start()
        until(lambda: service.models.find("gated") is not old)
        reload.join(0.2)
        assert reload.is_alive() and not session.closed
        work = old.batcher.submit({"x": np.ones((1, 2), np.float32)}, service.deadline(None))
        assert work.future.result(60)["y"][0, 0] == 2
    reload.join(60)
    assert session.closed and not GatedSession.latest.closed
    service.close(60.0)


def test_bodies_that_unpack_to_too_much(service: Running) -> None:
    """256 MiB of zeros in 256 KiB, and one bomb inside of another: refused, without the memory for it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    assert len(bomb) < LIMIT
    before = forget_peak()
    http = Http(service)
    inside_another = gzip.compress(bomb)  # unpacked once, as the header says, it is no JSON
    for coding, body, status in (
        ("gzip", bomb, 413),
        ("gzip", inside_another, 400),
        ("deflate", zlib.compress(bytes(LIMIT + 1)), 413),
    ):
        assert http.post("/v2/models/gated/infer", body, content_encoding=coding).status == status
    assert peak() - before < 64 << 20


GRPC_BOMB = """
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", -1)])
try:
    channel.unary_unary(sys.argv[2])(bytes(256 << 20), compression=grpc.Compression.Gzip)
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


def test_a_message_of_grpc_that_unpacks_to_too_much(service: Running) -> None:
    """The same, from a process of its own, which has to pack it."""
    before = forget_peak()
    command = [sys.executable, "-c", GRPC_BOMB, service.grpc, f"/{SERVICE}/ModelInfer"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "RESOURCE_EXHAUSTED Decompressed message larger than max"
    assert peak() - before < 64 << 20


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"not packed", 400),
        ("gzip", gzip.compress(b"{}" * 1000, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400),
        ("br", b"x", 415),
        ("gzip, gzip", b"x", 415),
    ],
)
def test_bodies_that_are_not_packed_as_they_say(service: Running, coding: str, body: bytes, status: int) -> None:
    assert Http(service).post("/v2/models/gated/infer", body, content_encoding=coding).status == status


TENSOR: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shape": [1, 3]}, "takes 3 values, got 2"),
        ({"shape": [2, 1]}, "input x must have shape [batch, 2] with batch = 2, got [2, 1]"),
        ({"shape": [2]}, "must have shape [batch, 2]"),
        ({"shape": [-1, 2]}, "a shape that is no shape"),
        ({"shape": [1 << 40, 1 << 40]}, "takes 1208925819614629174706176 values, got 2"),
        ({"shape": [1] * 9}, "a shape that is no shape"),
        ({"shape": [1, 2.0]}, "shape"),
        ({"shape": "12"}, "shape"),
        ({"datatype": "INT32"}, "must be float32, got int32"),
        ({"datatype": "FLOAT"}, "which must be one of BOOL, UINT8"),
        ({"datatype": 7}, "datatype"),
        ({"data": ["1", "2"]}, "no values of FP32"),
        ({"data": [[1], [2, 3]]}, "no regular array of numbers"),
        ({"data": [None, 1]}, "no values of FP32"),
        ({"data": [1e39, 1]}, "no values of FP32"),
        ({"data": {"a": 1}}, "no values of FP32"),
        ({"data": None}, "no values of FP32"),
        ({"data": [[1, "2"]]}, "no values of FP32"),
        ({"datatype": "UINT8", "data": [256, 0]}, "no values of UINT8"),
        ({"datatype": "BOOL", "data": [1, 0]}, "no values of BOOL"),
        ({"name": "z"}, "the model has no input z, its inputs are x"),
        ({"name": ""}, "name"),
        ({"parameters": {"binary_data_size": 8}}, "both data and binary_data_size"),
        ({"data": None, "parameters": {"binary_data_size": 8}}, "binary_data_size that is not in the body"),
        ({"data": None, "parameters": {"binary_data_size": -8}}, "binary_data_size that is not in the body"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory is not offered"),
    ],
)
def test_tensors_in_json_that_are_wrong(service: Running, changes: dict[str, Any], sentence: str) -> None:
    body = json.dumps({"inputs": [{**TENSOR, **changes}]}).encode()
    response = Http(service).post("/v2/models/gated/infer", body)
    assert response.status == 400
    assert sentence in response.json()["error"]


def test_texts_among_the_numbers_take_no_memory() -> None:
    """As one numpy array these 110 kB would be 1 GB."""
    texts = ["x" * 100_000] + [""] * 2500
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="no values of FP32"):
            from_numbers("x", "FP32", [len(texts)], texts)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"inputs": 3}', b"\xff\xfe", b"[" * 100_000, b'{"inputs": [' + b"{}," * 100 + b"{}]}",
     b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [NaN, 1]}]}',
     b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [' + b"9" * 5000 + b', 1]}]}',
     request_of(1.0, timeout="soon"), request_of(1.0, timeout=-1), request_of(1.0, timeout=10**400),
     request_of(1.0, sequence_id=3), request_of(*range(5)), request_of(1.0, binary_data_output=3)],
)  # fmt: skip
def test_bodies_that_are_no_requests(service: Running, body: bytes) -> None:
    response = Http(service).post("/v2/models/gated/infer", body)
    assert response.status == 400 and response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (binary([1, 2], bytes(7)), 400, "takes 8 bytes, got 7"),
        (binary([1, 2], bytes(9)), 400, "takes 8 bytes, got 9"),
        (binary([1, 2], bytes(9), 8), 400, "1 bytes follow the inputs"),
        (binary([1, 2], bytes(8), 9), 400, "binary_data_size that is not in the body"),
        (binary([1 << 47, 1 << 47], bytes(8)), 400, "bytes, got 8"),
        (binary([1, 2], bytes(8), datatype="BYTES"), 400, "which must be one of"),
        (binary([1, 2], b"\x02\x00", datatype="BOOL"), 400, "neither 0 nor 1"),
        (binary([1, 2], bytes(4), datatype="FP16"), 400, "must be float32, got float16"),
        ((binary([1, 2], bytes(8))[0], "1000000"), 400, "Inference-Header-Content-Length"),
        ((binary([1, 2], bytes(8))[0], "-1"), 400, "Inference-Header-Content-Length"),
        ((binary([1, 2], bytes(8))[0], "9" * 5000), 400, "Inference-Header-Content-Length"),
    ],
)
def test_raw_tensors_that_are_wrong(service: Running, body: tuple[bytes, str], status: int, sentence: str) -> None:
    content, length = body
    response = Http(service).post("/v2/models/gated/infer", content, inference_header_content_length=length)
    assert response.status == status and sentence in response.json()["error"]


def test_nan_goes_through_as_raw_values_but_not_as_json(service: Running) -> None:
    values = np.array([[np.nan, np.inf]], np.float32)
    body, length = binary([1, 2], values.tobytes())
    response = Http(service).post("/v2/models/gated/infer", body, inference_header_content_length=length)
    assert response.status == 200
    assert values.tobytes() in response.data  # doubled, NaN and infinity are what they were
    body = body.replace(b'"binary_data_output": true', b'"binary_data_output":false')
    response = Http(service).post("/v2/models/gated/infer", body, inference_header_content_length=length)
    assert response.status == 400 and "JSON cannot hold" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v3", 404), ("/v2/models", 404), ("/v2/models/..%2F..%2Fetc%2Fpasswd", 404),
        ("/v2/models/gated/versions/1/../../x", 404), ("/v2/models/gated/versions/0", 404),
        ("/v2/models/" + "x" * 5000, 404), ("/v2/models/gated/infer", 405), ("/v2/models/%00", 404),
        ("/v2/models/gated/", 404),
    ],
)  # fmt: skip
def test_paths_that_are_not_there(service: Running, path: str, status: int) -> None:
    response = Http(service).get(path)
    assert response.status == status and "error" in response.json()


@pytest.mark.long
def test_malformed_http_requests(service: Running, record_property: Any) -> None:
    """Random damage to good requests, JSON and binary: an answer with a 4xx, or a good answer where it stayed good."""
    rng = random.Random(5)
    sound = [(request_of(1.0, 2.0), None), binary([2, 2], np.arange(4, dtype=np.float32).tobytes())]
    http, counts = Http(service), Counter[str]()
    for _ in range(MALFORMED):
        body, length = rng.choice(sound)
        content = bytearray(body)
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(content))
            match rng.randrange(4):
                case 0:
                    content[place] = rng.randrange(256)
                case 1:
                    del content[place : place + rng.choice([1, 1, 10, 100])]
                case 2:
                    content[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 4, 50])))
                case 3:
                    content[place:place] = rng.choice([b"-", b"1e99", b"[", b'"', b"null", b"99999999999", b"{", b"\0"])
            if not content:
                break
        headers = {} if length is None else {"inference_header_content_length": length}
        response = http.post("/v2/models/gated/infer", bytes(content), **headers)
        assert response.status in (200, 400), (response.status, response.data, bytes(content))
        counts["accepted" if response.status == 200 else "refused"] += 1
    for name, count in counts.items():
        record_property(name, count)
    assert counts["refused"] > MALFORMED // 4


@pytest.mark.long
def test_malformed_grpc_requests(service: Running, record_property: Any) -> None:
    rng = random.Random(6)
    client, counts = Grpc(service), Counter[str]()
    request = MESSAGES["ModelInferRequest"](model_name="gated", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(bytes(8))
    typed = MESSAGES["ModelInferRequest"](model_name="gated")
    typed.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1.0, 2.0])
    sound = [request.SerializeToString(), typed.SerializeToString()]
    expected = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}  # what is damaged may become a timeout
    for _ in range(MALFORMED):
        content = bytearray(rng.choice(sound))
        for _ in range(rng.choice([1, 1, 2, 5])):
            place = rng.randrange(len(content))
            if rng.random() < 0.6:
                content[place] = rng.randrange(256)
            else:
                content[place : place + 1] = bytes(rng.randrange(256) for _ in range(rng.choice([0, 2, 9])))
        status, _ = client.status("ModelInfer", bytes(content))
        assert status in expected
        counts["accepted" if status == "OK" else "refused"] += 1
    for name, count in counts.items():
        record_property(name, count)
    assert counts["refused"] > MALFORMED // 4


def test_every_request_is_answered_once_under_overload(service: Running) -> None:
    """Unique payloads through both doors: each gets its own answer or a refusal, and the counters agree."""
    http, client = Http(service), Grpc(service)

    def request(number: int) -> str:
        if number % 2:
            response = http.infer(float(number))
            if response.status == 200:
                assert first(response) == 2.0 * number
                return "answered"
            assert response.status == 429
            return "refused"
        status, answer = client.status("ModelInfer", message(float(number)))
        if status != "OK":
            assert status == "RESOURCE_EXHAUSTED"
            return "refused"
        assert np.frombuffer(answer.raw_output_contents[0], np.float32)[0] == 2.0 * number
        return "answered"

    session = GatedSession.latest
    session.gate.clear()
    with ThreadPoolExecutor(24) as pool:
        results = pool.map(request, range(600))
        try:
            until(lambda: 'reason="queue_full"' in metrics(service))
        finally:
            session.gate.set()
        counts = Counter(results)
    assert sum(counts.values()) == 600 and counts["answered"] > 0 and counts["refused"] > 0
    totals = Counter[str]()
    for line in metrics(service).splitlines():
        for name in ("requests_total", "request_failures_total"):
            if line.startswith(f"dibr_{name}{{"):
                totals[name] += int(float(line.rsplit(" ", 1)[1]))
    assert totals["requests_total"] == counts["answered"]
    assert totals["request_failures_total"] == counts["refused"]
    assert sum(GatedSession.latest.batches) == counts["answered"]


def test_metrics_tell_what_happened(service: Running) -> None:
    Http(service).infer(1.0, 2.0)
    text = metrics(service)
    assert 'dibr_requests_total{model="gated",protocol="http",version="1"} 1.0' in text
    assert 'dibr_batch_size_sum{model="gated",version="1"} 2.0' in text
    for name in ("queue", "compute"):
        assert f'dibr_{name}_seconds_count{{model="gated",version="1"}} 1.0' in text
    assert "dibr_ready 1.0" in text
