"""`dibr serve` as a process: its start, signals, replaced bundles, its end, and what it must not load."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import urllib3
from onnxruntime_door import modules
from tritonclient.utils import InferenceServerException

from dibr_deploy.errors import DibrError
from dibr_deploy.export import to_bundle
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.server import repository
from dibr_deploy.runtime.server.metrics import Metrics
from dibr_deploy.runtime.server.repository import parse_specs
from dibr_deploy.runtime.server.settings import settings_of
from server.gated import GatedSession
from server.photos import photo
from server.process import Process, serving
from server.service import until


def inputs_of(arrays: dict[str, np.ndarray], protocol: ModuleType = tritonclient.http) -> list[Any]:
    tensors = []
    for name, array in arrays.items():
        tensors.append(protocol.InferInput(name, array.shape, "FP32"))
        tensors[-1].set_data_from_numpy(array)
    return tensors


def hammer(
    address: str,
    arrays: dict,
    answers: list,
    done: threading.Event,
    threads: int = 4,
    protocol: ModuleType = tritonclient.http,
) -> list[threading.Thread]:
    """Threads that ask, one request after another, until they are told to stop or the service no longer answers."""

    def ask() -> None:
        client = protocol.InferenceServerClient(address)
        while not done.is_set():
            try:
                answers.append(client.infer("sphere", inputs_of(arrays, protocol)).as_numpy("image").tobytes())
            except Exception as error:
                answers.append(error)
                return

    started = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in started:
        thread.start()
    return started


@pytest.mark.parametrize("protocol", [tritonclient.http, tritonclient.grpc])
def test_sigterm_under_load(bundle: Path, session: Session, arrays: dict, protocol: ModuleType) -> None:
    """What was accepted is answered, and right; then the service ends by itself with exit code 0."""
    with serving(f"sphere={bundle}") as (process, address):
        answers: list[Any] = []
        done = threading.Event()
        if protocol is tritonclient.grpc:
            address = f"127.0.0.1:{process.wait_for('started')['grpc']}"
        threads = hammer(address, arrays, answers, done, protocol=protocol)
        until(lambda: len(answers) >= 20)
        process.signal(signal.SIGTERM)
        code = process.finish()
        done.set()
        for thread in threads:
            thread.join()
    expected = session.run(**arrays)["image"].tobytes()
    assert code == 0
    assert process.wait_for("stopped")["all_answered"] is True
    kinds = Counter("right" if answer == expected else type(answer).__name__ for answer in answers)
    assert kinds["right"] >= 20 and sum(kinds.values()) - kinds["right"] == len(threads), kinds
    served = [line for line in process.log if line["message"] == "request" and line["status"] in (200, "OK")]
    assert len(served) == kinds["right"], "an accepted request was answered, and its client has no answer"


def test_an_accepted_request_that_is_not_answered_in_time(bundle: Path) -> None:
    """The exit code says so."""
    with serving(f"sphere={bundle}", "--shutdown-timeout", "0") as (process, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as client:
            head = (
                "POST /v2/models/sphere/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            )
            client.sendall(head.encode())
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # accepted: the service waits for the body
            process.signal(signal.SIGTERM)
            assert process.wait_for("given up")["requests"] == 1
        assert process.finish() == 1
    assert process.wait_for("stopped")["all_answered"] is False


def test_an_idle_stream_does_not_hold_the_end(bundle: Path) -> None:
    with serving(f"sphere={bundle}", "--shutdown-timeout", "600") as (process, _):
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{process.wait_for('started')['grpc']}")
        answered = threading.Event()
        client.start_stream(lambda result, error: answered.set())
        client.async_stream_infer("sphere", [])
        assert answered.wait(60)  # the stream is open
        process.signal(signal.SIGTERM)
        assert process.finish() == 0
        client.stop_stream()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same model with another texture."""
    module = modules.SphereRenderer()
    module.texture.data = 1 - module.texture.data
    return to_bundle(module, modules.inputs(1), tmp_path / "other.zip")


def test_a_bundle_is_replaced_while_it_is_served(
    bundle: Path, other: Path, session: Session, arrays: dict, tmp_path: Path
) -> None:
    """SIGHUP opens it again. Every answer is one of the old or one of the new, and a damaged bundle changes nothing."""
    served = tmp_path / "served.zip"
    served.write_bytes(bundle.read_bytes())
    old = session.run(**arrays)["image"].tobytes()
    new = Session(other, "cpu", threads=1).run(**arrays)["image"].tobytes()
    assert old != new
    with serving(f"sphere={served}", "--log-level", "info") as (process, address):
        answers: list[Any] = []
        done = threading.Event()
        threads = hammer(address, arrays, answers, done, threads=2)
        damaged = tmp_path / "damaged.zip"
        damaged.write_bytes(other.read_bytes()[:-100])
        os.replace(damaged, served)
        process.signal(signal.SIGHUP)
        assert process.wait_for("model stays as it was")["level"] == "error"
        before = len(answers)
        os.replace(other, served)
        process.signal(signal.SIGHUP)
        process.wait_for("model reloaded")
        after = len(answers) + len(threads)
        until(lambda: len(answers) >= after + 5)
        done.set()
        for thread in threads:
            thread.join()
    assert set(answers) <= {old, new}
    assert set(answers[:before]) <= {old} and set(answers[after:]) == {new}


WITHOUT_TORCH = """
import sys
from server.service import running
from server.visit import visit
with running([f"shape={sys.argv[1]}"]) as service:
    visit(service.http, service.grpc, "shape", sys.stdin.buffer.read())
loaded = {"torch", "onnx", "onnxscript"} & set(sys.modules)
assert not loaded, loaded
"""


def test_the_service_needs_no_torch(shape: Path) -> None:
    """Neither for its start nor for any of its answers."""
    command = [sys.executable, "-c", WITHOUT_TORCH, shape]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, input=photo(), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()


def test_models_are_named_on_the_command_line(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in ("a/1.onnx", "a/12.zip", "b.zip", ".hidden/1.onnx", "c/notes.txt"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()
    (repository / "d" / "3").mkdir(parents=True)
    (repository / "d" / "3" / "manifest.json").touch()
    single = repository / "b.zip"
    assert [spec[:2] for spec in parse_specs([str(repository)])] == [("a", "1"), ("a", "12"), ("b", "1"), ("d", "3")]
    assert [spec[:2] for spec in parse_specs([str(single), f"x={single}", f"x:7={single}"])] == [
        ("b", "1"), ("x", "1"), ("x", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("none.zip", "model none.zip does not exist"),
        ("x=none.zip", "model none.zip does not exist"),
        ("a b={file}", "model name 'a b' must be letters"),
        ("../x={file}", "model name '../x' must be letters"),
        ("x:0={file}", "version '0' of model x must be a positive number"),
        ("x:latest={file}", "version 'latest' of model x"),
        ("x={folder}", "is a folder without manifest.json"),
        ("{folder}", "there is no model to serve"),
    ],
)
def test_models_that_cannot_be_named_so(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "m.onnx").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises((DibrError, FileNotFoundError), match=sentence):
        parse_specs([text.format(file=tmp_path / "m.onnx", folder=tmp_path / "empty")])


def test_the_newest_version_answers_where_none_is_asked_for(
    bundle: Path, other: Path, session: Session, arrays: dict
) -> None:
    from server.service import running

    new = Session(other, "cpu", threads=1).run(**arrays)["image"].tobytes()
    with running([f"sphere:2={bundle}", f"sphere:10={other}"]) as service:
        client = tritonclient.http.InferenceServerClient(service.http)
        assert client.get_model_metadata("sphere")["versions"] == ["2", "10"]
        assert client.infer("sphere", inputs_of(arrays)).as_numpy("image").tobytes() == new
        answer = client.infer("sphere", inputs_of(arrays), model_version="2")
        assert answer.as_numpy("image").tobytes() == session.run(**arrays)["image"].tobytes()


def test_a_model_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "dibr_deploy.cli", "serve", str(tmp_path / "m.onnx"), "--http-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "is not an ONNX file" in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused reload, of a bundle whose renderer is damaged: no session and no thread stays behind."""

    class Damaged(GatedSession):
        def open_renderer(self) -> None:
            raise DibrError("the renderer is damaged")

    monkeypatch.setattr(repository, "Session", Damaged)
    monkeypatch.setattr(repository, "_predictor", lambda session: session)
    (tmp_path / "m.onnx").touch()
    [spec] = parse_specs([f"damaged={tmp_path / 'm.onnx'}"])
    with pytest.raises(DibrError, match="the renderer is damaged"):
        repository.Model(spec, settings_of(), Metrics())
    assert GatedSession.latest.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("damaged")]


LONG = max(int(os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000")) // 50, 1000)
"""20,000 requests at full length."""


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


def http_requests(process: Process, arrays: dict) -> Callable[[], None]:
    address = f"127.0.0.1:{process.wait_for('started')['http']}"
    client, tensors = tritonclient.http.InferenceServerClient(address), inputs_of(arrays)
    url, pool = f"http://{address}/v2/models/sphere/infer", urllib3.PoolManager()

    def ask() -> None:
        for _ in range(10):
            client.infer("sphere", tensors)
        assert pool.request("POST", url, body=b"{").status == 400

    return ask


def grpc_requests(process: Process, arrays: dict) -> Callable[[], None]:
    address = f"127.0.0.1:{process.wait_for('started')['grpc']}"
    client, tensors = tritonclient.grpc.InferenceServerClient(address), inputs_of(arrays, tritonclient.grpc)

    def ask() -> None:
        for _ in range(10):
            client.infer("sphere", tensors)
        with pytest.raises(InferenceServerException, match="input world_to_clip is missing"):
            client.infer("sphere", tensors[:1])

    return ask


def render_requests(process: Process, _: dict) -> Callable[[], None]:
    url = f"http://127.0.0.1:{process.wait_for('started')['http']}/v2/models/shape/render?views=2"
    sound, pool, headers = photo(), urllib3.PoolManager(), {"content-type": "image/png"}

    def ask() -> None:
        for _ in range(10):
            assert pool.request("POST", url, body=sound, headers=headers).status == 200
        assert pool.request("POST", url, body=sound[:-200], headers=headers).status == 400

    return ask


CLIENTS = 4


def ask_together(asking: Callable[[], Callable[[], None]], times: int, clients: int) -> None:
    """As often in all, by clients at the same time, each with connections of its own."""

    def one(_: int) -> None:
        ask = asking()
        for _ in range(times // clients):
            ask()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))


def metric(address: str, name: str) -> float:
    text = urllib3.request("GET", f"http://{address}/metrics").data.decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"dibr_{name}{{"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("requests", "count", "clients"),
    [(http_requests, LONG, CLIENTS), (grpc_requests, LONG, CLIENTS), (render_requests, LONG // 5, 1)],
    ids=["http", "grpc", "render"],
)
def test_memory_stays_flat(
    requests: Callable[[Process, dict], Callable[[], None]],
    count: int,
    clients: int,
    bundle: Path,
    shape: Path,
    arrays: dict,
    record_property: Any,
) -> None:
    """Over thousands of requests, one in eleven of them a bad one; where there are several clients, also in batches."""
    with serving(f"sphere={bundle}", f"shape={shape}") as (process, address):
        asking = partial(requests, process, arrays)
        ask_together(asking, 40, clients)
        before = resident(process.process.pid)
        ask_together(asking, count // 10, clients)
        grown = resident(process.process.pid) - before
        runs, answered = metric(address, "batch_size_count"), metric(address, "requests_total")
    record_property("requests", count)
    assert clients == 1 or runs < answered, f"{answered} requests in {runs} runs: none shared a batch"
    assert grown < 8 << 20, f"{grown} bytes over {count} requests"
