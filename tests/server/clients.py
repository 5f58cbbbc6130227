"""Requests to a service with the model of gated.py, by clients that add nothing of their own."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import urllib3

from dibr_deploy.runtime.server.messages import MESSAGES, SERVICE
from server.service import Running


class Http:
    """Plain requests, so that nothing of a client's own stands between the test and the service."""

    def __init__(self, service: Running) -> None:
        self.pool = urllib3.PoolManager(retries=False, maxsize=32)
        self.base = f"http://{service.http}"

    def post(self, path: str, body: bytes, **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pool.request("POST", self.base + path, body=body, headers=named)

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return self.pool.request("GET", self.base + path)

    def infer(self, *values: float, **parameters: Any) -> urllib3.BaseHTTPResponse:
        return self.post("/v2/models/gated/infer", request_of(*values, **parameters))


class Grpc:
    def __init__(self, service: Running) -> None:
        self.channel = grpc.insecure_channel(service.grpc)

    def infer(self, *values: float, timeout: float | None = None, microseconds: int | None = None) -> Any:
        """timeout: gRPC's deadline, seconds; microseconds: the protocol's parameter."""
        return self.call("ModelInfer", message(*values, microseconds=microseconds), timeout)

    def status(self, name: str, content: bytes) -> tuple[str, Any]:
        """Name of the status, and the answer."""
        try:
            return "OK", self.call(name, content, 60.0)
        except grpc.RpcError as error:
            return error.code().name, None

    def call(self, name: str, content: bytes, timeout: float | None = None, **options: Any) -> Any:
        """Bytes in, a parsed message out."""
        parse = MESSAGES[f"{name}Response"].FromString
        call = self.channel.unary_unary(f"/{SERVICE}/{name}", None, parse)
        return call(content, timeout=timeout, **options)


def message(*values: float, microseconds: int | None = None) -> bytes:
    request = MESSAGES["ModelInferRequest"](model_name="gated")
    request.inputs.add(name="x", datatype="FP32", shape=[len(values), 2])
    request.raw_input_contents.append(np.array([[v, -v] for v in values], np.float32).tobytes())
    if microseconds is not None:
        request.parameters["timeout"].int64_param = microseconds
    return request.SerializeToString()


def request_of(*values: float, **parameters: Any) -> bytes:
    data = [[value, -value] for value in values]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(values), 2], "data": data}
    return json.dumps({"inputs": [tensor], "parameters": parameters}).encode()


def first(response: urllib3.BaseHTTPResponse) -> float:
    assert response.status == 200, response.data
    return response.json()["outputs"][0]["data"][0]


def binary(shape: list[int], content: bytes, size: int | None = None, datatype: str = "FP32") -> tuple[bytes, str]:
    tensor = {"name": "x", "datatype": datatype, "shape": shape}
    tensor["parameters"] = {"binary_data_size": len(content) if size is None else size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + content, str(len(head))


def metrics(service: Running) -> str:
    return Http(service).get("/metrics").data.decode()
