"""The real `tritonclient` over HTTP and gRPC: the same test for the real Triton server and `dibr serve`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from server.service import running
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from dibr_deploy.export.triton import to_triton
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample
from triton_repository import server


class Served(NamedTuple):
    """A model that a server has."""

    client: Any
    address: str
    protocol: ModuleType
    """tritonclient's module of the client."""
    model: str

    def infer(self, feed: dict[str, np.ndarray], outputs: list[str] | None = None, **options: Any) -> Any:
        inputs = []
        for name, array in feed.items():
            inputs.append(self.protocol.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        wanted = None if outputs is None else [self.protocol.InferRequestedOutput(name) for name in outputs]
        return self.client.infer(self.model, inputs, outputs=wanted, **options)


@pytest.fixture(scope="module", params=["triton", "dibr serve"])
def addresses(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[server.Addresses, str]]:
    """A server, and the name of the model there."""
    if request.param == "dibr serve":
        with running([f"shape={bundle}"], max_batch=4) as service:
            yield server.Addresses(service.http, service.grpc), "shape"
        return
    repository = tmp_path_factory.mktemp("served") / "repository"
    to_triton(bundle, repository, max_batch=4)
    with server.running(repository, "shape_python") as found:
        yield found, "shape_python"


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def served(request: pytest.FixtureRequest, addresses: tuple[server.Addresses, str]) -> Iterator[Served]:
    where, model = addresses
    protocol = request.param
    address = where.http if protocol is tritonclient.http else where.grpc
    with protocol.InferenceServerClient(address) as client:
        yield Served(client, address, protocol, model)


@pytest.fixture(scope="module")
def session(bundle: Path) -> Session:
    return Session(bundle, "cpu", threads=2)


@pytest.fixture(scope="module")
def sample(bundle: Path) -> dict[str, np.ndarray]:
    return read_sample(Bundle(bundle))[0]


def same(actual: Any, expected: dict[str, np.ndarray]) -> None:
    """Every output within 1e-5: a library for matrices may sum in another order in another batch;
    an output without batch axis may come once for every item."""
    for name, array in expected.items():
        got = actual.as_numpy(name)
        assert got.dtype == array.dtype
        assert got.shape[-array.ndim :] == array.shape
        assert np.allclose(got, np.broadcast_to(array, got.shape), atol=1e-5), name


def test_it_is_ready(served: Served) -> None:
    assert served.client.is_server_live()
    assert served.client.is_server_ready()
    assert served.client.is_model_ready(served.model)
    assert not served.client.is_model_ready("another")


def test_metadata(served: Served, session: Session) -> None:
    options = {"as_json": True} if served.protocol is tritonclient.grpc else {}
    metadata = served.client.get_model_metadata(served.model, **options)
    types = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8"}
    for described, infos in ((metadata["inputs"], session.inputs), (metadata["outputs"], session.outputs)):
        assert [(one["name"], one["datatype"]) for one in described] == [
            (one.name, types[one.dtype.name]) for one in infos
        ]
    assert [int(size) for size in metadata["inputs"][0]["shape"]] == [-1, 32, 32, 3]


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_same_as_the_session(served: Served, session: Session, sample: dict[str, np.ndarray], batch: int) -> None:
    feed = {name: array[[index % 2 for index in range(batch)]] for name, array in sample.items()}
    same(served.infer(feed), session.run(**feed))


def test_some_of_the_outputs(served: Served, session: Session, sample: dict[str, np.ndarray]) -> None:
    result = served.infer(sample, ["mask"], request_id="seven")
    same(result, {"mask": session.run(**sample)["mask"]})
    assert result.as_numpy("image") is None
    response = result.get_response()
    assert (response["id"] if isinstance(response, dict) else response.id) == "seven"


def test_many_at_once(served: Served, session: Session, sample: dict[str, np.ndarray]) -> None:
    """Whatever the server batches, every client gets what is its own."""
    feeds = [{name: array[[index % 2]] for name, array in sample.items()} for index in range(24)]
    for index, feed in enumerate(feeds):
        feed["input_image"] = np.roll(feed["input_image"], index, axis=2)
    expected = [session.run(**feed) for feed in feeds]

    def ask(feed: dict[str, np.ndarray]) -> Any:
        with served.protocol.InferenceServerClient(served.address) as client:  # the HTTP one is for one thread
            return served._replace(client=client).infer(feed)

    with ThreadPoolExecutor(8) as pool:
        for result, outputs in zip(pool.map(ask, feeds), expected, strict=True):
            same(result, outputs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_image": np.zeros((1, 32, 31, 3), np.uint8)}, "shape"),
        ({"input_image": np.zeros((1, 32, 3), np.uint8)}, "shape"),
        ({"no_such_input": np.zeros((1, 4), np.float32)}, "no_such_input"),
        ({"world_to_clip": np.zeros((2, 4, 4), np.float32)}, "batch"),
        ({"input_image": np.zeros((1, 32, 32, 3), np.float32)}, "FP32|float32"),
    ],
    ids=["size", "rank", "name", "batch", "type"],
)
def test_what_does_not_fit_is_refused(
    served: Served, session: Session, sample: dict[str, np.ndarray], change: dict[str, np.ndarray], words: str
) -> None:
    """With words; and the next request is answered."""
    feed = {name: array[:1] for name, array in sample.items()}
    with pytest.raises(InferenceServerException, match=words):
        served.infer(feed | change)
    same(served.infer(feed), session.run(**feed))


def test_another_model_is_refused(served: Served, sample: dict[str, np.ndarray]) -> None:
    with pytest.raises(InferenceServerException, match=r"unknown model|no model of this name"):
        served._replace(model="another").infer(sample)
