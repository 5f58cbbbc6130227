"""Every door of a service with an image-to-mesh model once, by a client that needs no more packages than the service.

tests/packaging uses it on an installed wheel too.
"""

from __future__ import annotations

import json
import re
import urllib.request

import grpc
import numpy as np

from dibr_deploy.runtime.server.messages import MESSAGES, SERVICE
from dibr_deploy.runtime.server.tensors import DTYPES

OUTPUT = "vertices"


def visit(http: str, grpc_address: str, model: str, photo: bytes) -> None:
    """Page, description, metrics, render, and one inference at each of both doors; fails where they do not agree.

    http, grpc_address: host and port; photo: a PNG.
    """
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', _ask(http, "/").decode()):
        assert _ask(http, path), path
    assert b"dibr_ready 1.0" in _ask(http, "/metrics")
    assert json.loads(_ask(http, "/openapi.json"))["openapi"]
    rendered = json.loads(_ask(http, f"/v2/models/{model}/render?views=2", photo, {"content-type": "image/png"}))
    assert len(rendered["views"]) == 2 and rendered["mesh"]
    inputs = _zeros(http, model)
    over_http, over_grpc = _infer_http(http, model, inputs), _infer_grpc(grpc_address, model, inputs)
    assert np.isfinite(over_http).all() and over_http.tobytes() == over_grpc.tobytes()


def _ask(http: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(f"http://{http}{path}", body, headers or {})
    with urllib.request.urlopen(request, timeout=120) as response:
        content: bytes = response.read()
    return content


def _zeros(http: str, model: str) -> dict[str, tuple[str, np.ndarray]]:
    """Datatype and array by input: one image."""
    metadata = json.loads(_ask(http, f"/v2/models/{model}"))
    return {
        tensor["name"]: (tensor["datatype"], np.zeros(np.maximum(tensor["shape"], 1), DTYPES[tensor["datatype"]]))
        for tensor in metadata["inputs"]
    }


def _infer_http(http: str, model: str, inputs: dict[str, tuple[str, np.ndarray]]) -> np.ndarray:
    tensors = [
        {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
        for name, (datatype, array) in inputs.items()
    ]
    body = json.dumps({"inputs": tensors, "outputs": [{"name": OUTPUT}]}).encode()
    answer = json.loads(_ask(http, f"/v2/models/{model}/infer", body, {"content-type": "application/json"}))
    [output] = answer["outputs"]
    return np.array(output["data"], DTYPES[output["datatype"]])


def _infer_grpc(address: str, model: str, inputs: dict[str, tuple[str, np.ndarray]]) -> np.ndarray:
    request = MESSAGES["ModelInferRequest"](model_name=model)
    for name, (datatype, array) in inputs.items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    request.outputs.add(name=OUTPUT)
    with grpc.insecure_channel(address) as channel:

        def call(name: str, message: bytes) -> object:
            method = channel.unary_unary(f"/{SERVICE}/{name}", None, MESSAGES[f"{name}Response"].FromString)
            return method(message, timeout=120)

        assert call("ServerReady", b"").ready
        answer = call("ModelInfer", request.SerializeToString())
    return np.frombuffer(answer.raw_output_contents[0], DTYPES[answer.outputs[0].datatype])
