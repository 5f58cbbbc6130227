"""No path that comes with a request is ever opened: Python's audit events, over requests with paths in all places."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import urllib3

from dibr_deploy.runtime.server.messages import MESSAGES, SERVICE
from server.clients import binary
from server.photos import photo
from server.service import Running, running
from server.watch import Watch

INFER, RENDER = "/v2/models/shape/infer", "/v2/models/shape/render"


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def service(shape: Path) -> Iterator[Running]:
    with running([f"shape={shape}"]) as service:
        yield service


@pytest.fixture
def paths(tmp_path: Path, shape: Path) -> list[str]:
    """Files that exist, and ways out of whatever folder there may be."""
    there = tmp_path / "picture.png"
    there.write_bytes(photo())
    return [
        str(there),
        str(shape),
        str(tmp_path),
        f"file://{there}",
        "/etc/passwd",
        "../../../../../../etc/passwd",
        "..",
    ]


def http_requests(path: str) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Method, target, body and headers."""
    for target in (path, quote(path, safe="")):
        for place in ("", "static/", "v2/models/"):
            yield "GET", f"/{place}{target}", b"", {}
        for rest in ("/infer", "/render", "/versions/1/infer"):
            yield "POST", f"/v2/models/{target}{rest}", request(path), {}
        yield "GET", f"/v2/models/shape/versions/{target}", b"", {}
    yield "POST", INFER, request(path), {}
    yield "POST", INFER, request(path, name="input_image"), {}
    for datatype in ("BYTES", "UINT8", path):
        body, head = binary([1], path.encode(), datatype=datatype)
        yield "POST", INFER, body, {"inference-header-content-length": head}
    yield "POST", INFER, request("x"), {"inference-header-content-length": path}
    for name in ("content-encoding", "content-type", "accept", "accept-encoding", "if-none-match"):
        yield "POST", RENDER, photo(), {"content-type": "image/png", name: path}
    yield "POST", RENDER, path.encode(), {"content-type": "image/png"}
    for name in ("light", "views", "image", quote(path, safe="")):
        yield "POST", f"{RENDER}?{name}={quote(path, safe='')}", photo(), {"content-type": "image/png"}
    for fields in (
        {"image": (path, photo(), "image/png")}, {"image": (path, path, "image/png")}, {"image": path},
        {path: (path, photo(), "image/png")}, {"image": ("x.png", photo(), path)},
        {"image": (path, photo(), "image/png"), "light": path}, {"image": ("x", photo(), "image/png"), path: path},
    ):  # fmt: skip
        form, media = urllib3.encode_multipart_formdata(fields)
        yield "POST", RENDER, form, {"content-type": media}


def request(path: str, name: str = "") -> bytes:
    """An inference request with a path wherever text may stand."""
    tensor = {"name": name or path, "datatype": path, "shape": [1], "data": [path], "parameters": {path: path}}
    outputs = [{"name": path, "parameters": {path: path}}]
    parameters = {path: path, "timeout": path}
    return json.dumps({"id": path, "inputs": [tensor], "outputs": outputs, "parameters": parameters}).encode()


def send(service: Running, method: str, target: str, body: bytes, headers: dict[str, str]) -> int:
    """Status; the target is sent as it is, with its dots."""
    connection = http.client.HTTPConnection("127.0.0.1", service.ports.http, timeout=120)
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def grpc_requests(path: str) -> Iterator[tuple[str, Any]]:
    """Method, and message."""
    for name in ("ModelReady", "ModelMetadata"):
        yield name, MESSAGES[f"{name}Request"](name=path)
        yield name, MESSAGES[f"{name}Request"](name="shape", version=path)
    yield "RepositoryIndex", MESSAGES["RepositoryIndexRequest"](repository_name=path)
    for model, version in ((path, ""), ("shape", path), ("shape", "")):
        for raw in (True, False):
            message = MESSAGES["ModelInferRequest"](model_name=model, model_version=version, id=path)
            message.parameters[path].string_param = path
            tensor = message.inputs.add(name=path, datatype="BYTES", shape=[1])
            tensor.parameters[path].string_param = path
            message.outputs.add(name=path)
            if raw:
                message.raw_input_contents.append(path.encode())
            else:
                tensor.contents.bytes_contents.append(path.encode())
            yield "ModelInfer", message


def call(channel: grpc.Channel, name: str, message: Any, metadata: list[tuple[str, str]]) -> str:
    """Name of the status."""
    try:
        channel.unary_unary(f"/{SERVICE}/{name}")(message.SerializeToString(), timeout=120, metadata=metadata)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_the_watch_sees_what_is_opened(watch: Watch, paths: list[str]) -> None:
    with watch.watching() as seen:
        Path(paths[0]).read_bytes()
        list(Path(paths[2]).iterdir())
    assert len(seen) == 2 and paths[0] in seen[0] and paths[2] in seen[1]


def test_over_http(service: Running, watch: Watch, paths: list[str]) -> None:
    """In targets, headers, bodies, forms and the names of their files."""
    requests = [[*http_requests(path)] for path in ("x", *paths)]
    for each in requests[0]:
        send(service, *each)  # what is loaded at a first use is no path of a request
    with watch.watching() as seen:
        statuses = {send(service, *each) for own in requests[1:] for each in own}
    assert not seen
    assert {200, 400, 404, 415} <= statuses and max(statuses) < 500


def test_over_grpc(service: Running, watch: Watch, paths: list[str]) -> None:
    """In names, ids, parameters, tensors and metadata."""
    requests = [(path, *each) for path in ("x", *paths) for each in grpc_requests(path)]
    with grpc.insecure_channel(service.grpc) as channel:
        for path, name, message in requests:
            if path == "x":
                call(channel, name, message, [])
        with watch.watching() as seen:
            statuses = {call(channel, name, message, [("x-path", path)]) for path, name, message in requests}
    assert not seen
    assert statuses == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}
