"""Pickles are programs: what comes from a client or lies in a bundle is never read as one."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import urllib3
from onnxruntime_door import modules
from runtime_bundles import write_model_bundle

from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_onnx
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample
from dibr_deploy.runtime.server.messages import MESSAGES
from server.clients import Grpc, Http, binary
from server.service import Running, running

HEADER = "inference_header_content_length"


class Mark:
    """Makes a file when its pickle is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def program(mark: Path) -> bytes:
    content = pickle.dumps(Mark(mark))
    pickle.loads(content)
    assert mark.exists()
    mark.unlink()
    return content


def npy(value: object) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([value], object), allow_pickle=True)
    return content.getvalue()


@pytest.fixture(scope="module")
def with_photos(shape: Path) -> Iterator[Running]:
    with running([f"shape={shape}"]) as service:
        yield service


@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "npy"])
def test_as_a_photo(with_photos: Running, program: bytes, mark: Path, packed: bool) -> None:
    content = npy(Mark(mark)) if packed else program
    form, media_of_form = urllib3.encode_multipart_formdata({"image": ("x.png", content, "image/png")})
    http, render = Http(with_photos), "/v2/models/shape/render"
    for body, media in ((content, "image/png"), (form, media_of_form)):
        refused = http.post(render, body, content_type=media)
        assert refused.status == 400 and "is cut off or no image" in refused.json()["error"]
    assert http.post(render, content, content_type="application/x-pickle").status == 415
    assert not mark.exists()


@pytest.mark.parametrize("packed", [False, True], ids=["pickle", "npy"])
def test_over_http(service: Running, program: bytes, mark: Path, packed: bool) -> None:
    """As a body and as a tensor, whatever its media type."""
    content = npy(Mark(mark)) if packed else program
    http, infer = Http(service), "/v2/models/sphere/infer"
    for media in ("application/json", "application/octet-stream", "application/x-pickle", "application/x-npy"):
        assert http.post(infer, content, content_type=media).status == 400
    for datatype in ("BYTES", "FP32", "UINT8"):
        body, head = binary([1], content, datatype=datatype)
        assert http.post(infer, body, **{HEADER: head}).status == 400
    assert not mark.exists()


def test_over_grpc(service: Running, program: bytes, mark: Path) -> None:
    client = Grpc(service)
    assert client.status("ModelInfer", program)[0] == "INVALID_ARGUMENT"
    for raw in (True, False):
        request = MESSAGES["ModelInferRequest"](model_name="sphere")
        tensor = request.inputs.add(name="offsets", datatype="BYTES", shape=[1])
        if raw:
            request.raw_input_contents.append(program)
        else:
            tensor.contents.bytes_contents.append(program)
        assert client.status("ModelInfer", request.SerializeToString())[0] == "INVALID_ARGUMENT"
    assert not mark.exists()


def test_in_the_sample_of_a_bundle(mark: Path, tmp_path: Path) -> None:
    model = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx")
    inputs = {"offsets": np.array([Mark(mark)], object)}
    bundle = write_model_bundle(tmp_path / "bundle.zip", model, inputs, {})
    assert not mark.exists()
    with pytest.raises(DibrError, match=r"sample.npz cannot be read"):
        read_sample(Bundle(bundle))
    assert not mark.exists()
