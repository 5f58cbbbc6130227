"""The end of a service: what it waits for, what its result says, and models that hang. And clients that break off."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import urllib3

from dibr_deploy.runtime.server import lifecycle
from dibr_deploy.runtime.server.messages import SERVICE
from dibr_deploy.runtime.server.repository import parse_specs
from dibr_deploy.runtime.server.service import Service
from dibr_deploy.runtime.server.settings import settings_of
from server.clients import Grpc, Http, binary, first, message, request_of
from server.gated import GatedSession, gated_model
from server.process import Process, serving
from server.service import Running, running, until

ROWS = 1 << 21
"""A tensor of 16 MiB, more than what sockets and gRPC keep of an answer that nobody reads."""
FEWER_ROWS = 1 << 17
"""A tensor of 1 MiB, which the service's socket keeps."""

CLIENT = """
import hashlib, sys
import numpy as np
import tritonclient.{protocol} as triton
client = triton.InferenceServerClient(sys.argv[1], **{options})
x = np.arange(2 * int(sys.argv[2]), dtype=np.float32).reshape(-1, 2)
tensor = triton.InferInput("x", x.shape, "FP32")
tensor.set_data_from_numpy(x)
answer = client.infer("gated", [tensor], outputs=[triton.InferRequestedOutput("y")]).as_numpy("y")
print(hashlib.sha256(answer.tobytes()).hexdigest())
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return gated_model(monkeypatch, tmp_path)


def asking(protocol: str, address: str, rows: int = ROWS, **options: Any) -> subprocess.Popen:
    program = CLIENT.format(protocol=protocol, options=options)
    command = [sys.executable, "-c", program, address, str(rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def stopped_client(service: Running, protocol: str, rows: int = ROWS, **options: Any) -> Iterator[subprocess.Popen]:
    """A client that does not run, while its answer is on its way."""
    session = GatedSession.latest
    session.gate.clear()
    with asking(protocol, getattr(service, protocol), rows, **options) as client:
        try:
            assert session.begun.acquire(timeout=60)
            client.send_signal(signal.SIGSTOP)
            session.gate.set()
            until(lambda: session.batches == [rows])
            yield client
        finally:
            client.kill()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_end_waits_for_answers_that_are_being_sent(model: str, protocol: str) -> None:
    with running([model], max_batch=ROWS) as service, ThreadPoolExecutor(1) as pool:
        with stopped_client(service, protocol) as client:
            result = pool.submit(service.stop)
            until(lambda: refuses(service))
            assert not result.done()
            client.send_signal(signal.SIGCONT)
            told, _ = client.communicate(timeout=60)
        assert result.result(60) is True
    assert told.strip() == digest()


def test_the_end_of_grpc_waits_for_what_the_system_has_to_send(model: str) -> None:
    """Over a slow line: when the call has ended, megabytes are still in the socket, and the client writes while it
    reads. Closed then, the connection would be reset, and the answer lost."""
    with running([model], max_batch=ROWS) as service, slow_line(service.ports.grpc) as address:
        session = GatedSession.latest
        session.gate.clear()
        with asking("grpc", address) as client:
            assert session.begun.acquire(timeout=60)
            session.gate.set()
            until(lambda: session.batches == [ROWS])
            assert service.stop() is True
            told, _ = client.communicate(timeout=60)
    assert told.strip() == digest()


def digest() -> str:
    """What a client prints."""
    return hashlib.sha256((2 * np.arange(2 * ROWS, dtype=np.float32)).tobytes()).hexdigest()


@contextmanager
def slow_line(port: int) -> Iterator[str]:
    """An address from where one client reaches the port, and is answered with less than 8 MiB a second."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as pool, socket.socket() as up:
        # What waits has to wait in the service's socket.
        up.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        up.connect(("127.0.0.1", port))

        def carry() -> None:
            down, _ = listener.accept()
            back = pool.submit(pump, up, down, 0.002)
            pump(down, up)
            back.result()
            down.close()

        carrying = pool.submit(carry)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        carrying.result(60)


def pump(source: socket.socket, target: socket.socket, seconds: float = 0.0) -> None:
    """Until one of them ends; then both do."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 14):
            target.sendall(data)
            time.sleep(seconds)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def refuses(service: Running) -> bool:
    """New requests, although it still listens."""
    return Http(service).infer(1.0).status == 503


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_answer_that_its_client_does_not_take(model: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not waited for longer than the shutdown may take, and the result says so."""
    monkeypatch.setattr(lifecycle, "_TO_SEND", 0.0)
    with running([model], max_batch=ROWS, shutdown_timeout=0.2) as service, stopped_client(service, protocol):
        assert service.stop() is False


def test_an_answer_that_stays_in_the_socket(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call has ended for gRPC, whose client lets it send as much as it likes; the result says that it is lost."""
    monkeypatch.setattr(lifecycle, "_TO_SEND", 0.2)
    unread = {"channel_args": [("grpc.http2.lookahead_bytes", 1 << 24)]}
    with running([model], max_batch=ROWS) as service, stopped_client(service, "grpc", FEWER_ROWS, **unread):
        until(lambda: lifecycle._unacknowledged(service.ports.grpc))
        assert service.stop() is False


def program(folder: Path, methods: str, to_stop: float = 0.2) -> tuple[str]:
    """`dibr`, with sessions that do something else in these methods, and have so many seconds at the end."""
    (folder / "gated.onnx").touch()
    path = folder / "program.py"
    path.write_text(
        "import sys, threading\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from dibr_deploy import cli\n"
        "from dibr_deploy.runtime.server import lifecycle, repository\n"
        "from server.gated import GatedSession\n"
        "from server.service import until\n"
        f"FOLDER = Path({str(folder)!r})\n"
        "class Session(GatedSession):\n"
        f"{textwrap.indent(textwrap.dedent(methods), '    ')}\n"
        f"lifecycle._TO_SEND, lifecycle._TO_STOP = 0.0, {to_stop}\n"
        "repository.Session, repository._predictor = Session, lambda session: None\n"
        "sys.exit(cli.main())\n"
    )
    return (str(path),)


HANGS = """
    def run(self, x):
        threading.Event().wait()
"""
HANGS_WHEN_OPENED_AGAIN = """
    opened = 0
    def warm_up(self):
        type(self).opened += 1
        if self.opened > 1:
            (FOLDER / "hangs").touch()
            threading.Event().wait()
"""
OPENS_SLOWLY = """
    def warm_up(self):
        (FOLDER / "opening").touch()
        if not (FOLDER / "go").exists():
            until((FOLDER / "go").exists)
"""
WAITS = """
    def run(self, x):
        if x[0, 0] == 7:
            until((FOLDER / "go").exists)
        return super().run(x)
"""


def begin(process: Process, address: str, value: float) -> socket.socket:
    """A client whose request runs."""
    host, port = address.split(":")
    body = request_of(value)
    client = socket.create_connection((host, int(port)))
    client.sendall(f"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    client.sendall(body)
    process.wait_for_metric(address, 'dibr_queue_seconds_count{model="gated",version="1"} 1.0')
    return client


def replace(folder: Path, process: Process, time: int) -> None:
    os.utime(folder / "gated.onnx", (time, time))
    process.signal(signal.SIGHUP)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_model_that_hangs(tmp_path: Path, replaced: bool) -> None:
    """The command ends all the same, with exit code 1, and says which model it was, also where it is not served now."""
    model = f"gated={tmp_path / 'gated.onnx'}"
    with serving(model, "--shutdown-timeout", "0.2", program=program(tmp_path, HANGS)) as (process, address):
        client = begin(process, address, 1.0)
        if replaced:
            replace(tmp_path, process, 1)
            process.wait_for("model reloaded")
        process.signal(signal.SIGTERM)
        assert process.finish() == 1
        client.close()
    assert process.wait_for("stopped")["all_answered"] is False
    assert process.wait_for("a model hangs, and is left open")["model"] == "gated"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_comes_while_models_are_opened(tmp_path: Path, number: signal.Signals) -> None:
    """The command ends at once, with exit code 0: it has accepted nothing."""
    process = Process(f"gated={tmp_path / 'gated.onnx'}", program=program(tmp_path, OPENS_SLOWLY))
    try:
        until((tmp_path / "opening").exists)
        process.signal(number)
        assert process.process.wait(30) == 0
    finally:
        process.process.kill()
        process.finish()
    assert process.wait_for("stopped before the start")["signal"] == number.name


def test_a_bundle_is_replaced_while_models_are_opened(tmp_path: Path) -> None:
    """SIGHUP does not end the start, and what has changed is opened again after it."""
    process = Process(f"gated={tmp_path / 'gated.onnx'}", program=program(tmp_path, OPENS_SLOWLY))
    try:
        until((tmp_path / "opening").exists)
        replace(tmp_path, process, 1)
        time.sleep(0.1)
        (tmp_path / "go").touch()
        process.wait_for("model reloaded")
        process.signal(signal.SIGTERM)
        assert process.finish() == 0
    finally:
        process.process.kill()
        process.finish()


def run_code(code: str) -> None:
    begin = """
        import os, signal, threading
        from dibr_deploy import cli
        from dibr_deploy.runtime.server import repository
    """
    command = [sys.executable, "-c", textwrap.dedent(begin) + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done


def test_sighup_at_the_very_start() -> None:
    """Before the models are looked for: it does nothing."""
    run_code("""
        real = repository.parse_specs
        def parse_specs(models):
            os.kill(os.getpid(), signal.SIGHUP)
            return real(models)
        repository.parse_specs = parse_specs
        assert cli.main(["serve", "/nonexistent"]) == 2
    """)


def test_a_failed_start_leaves_signals_as_they_were() -> None:
    """For the program that has called the command, which may do so in a thread as well."""
    run_code("""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = [signal.getsignal(number) for number in numbers]
        assert cli.main(["serve", "/nonexistent"]) == 2
        assert [signal.getsignal(number) for number in numbers] == before
    """)
    run_code("""
        codes = []
        thread = threading.Thread(target=lambda: codes.append(cli.main(["serve", "/nonexistent"])))
        thread.start()
        thread.join()
        assert codes == [2]
    """)


def test_a_reload_that_hangs(tmp_path: Path) -> None:
    """The end of the service does not wait for it; its exit code says so."""
    model = f"gated={tmp_path / 'gated.onnx'}"
    with serving(model, program=program(tmp_path, HANGS_WHEN_OPENED_AGAIN)) as (process, _):
        replace(tmp_path, process, 1)
        until((tmp_path / "hangs").exists)
        process.signal(signal.SIGTERM)
        assert process.finish() == 1
    assert process.wait_for("stopped")["all_answered"] is True
    assert process.wait_for("opening models again hangs")["level"] == "error"


def test_reloads_leave_requests_their_threads(tmp_path: Path) -> None:
    """Many are asked for while the first waits for a request to the old model. They become one, of the newest file."""
    model = f"gated={tmp_path / 'gated.onnx'}"
    content, length = binary([1 << 14, 2], bytes(8 << 14))
    patient = program(tmp_path, WAITS, to_stop=60.0)
    with serving(model, "--max-batch", str(1 << 14), program=patient) as (process, address):
        with begin(process, address, 7.0) as client:
            for number in range(40):  # more than there are threads
                replace(tmp_path, process, 1 + number)
                time.sleep(0.02)
            answer = urllib3.request(
                "POST", f"http://{address}/v2/models/gated/infer", body=content, timeout=30, retries=False,
                headers={"inference-header-content-length": length},
            )  # fmt: skip
            assert answer.status == 200
            (tmp_path / "go").touch()
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        process.wait_for("model reloaded", 2)
        process.signal(signal.SIGTERM)
        assert process.finish() == 0
    assert len([line for line in process.log if line["message"] == "model reloaded"]) == 2


def test_a_model_that_is_opened_after_the_end(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed again."""
    service = Service(parse_specs([model]), settings_of())
    opening, go = threading.Event(), threading.Event()

    def warm_up(session: GatedSession) -> None:
        opening.set()
        assert go.wait(60)

    monkeypatch.setattr(GatedSession, "warm_up", warm_up)
    os.utime(tmp_path / "gated.onnx", (1, 1))
    reload = threading.Thread(target=service.models.reload)
    reload.start()
    assert opening.wait(60)
    assert service.close(60.0)
    go.set()
    reload.join(60)
    assert GatedSession.latest.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gated")]


class Cut:
    """A way to the service's gRPC port that is cut, in both directions, after so many bytes from the client."""

    def __init__(self, port: int, after: int) -> None:
        self._port, self._after = port, after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.forwarded = 0
        self._thread = threading.Thread(target=self._forward)
        self._thread.start()

    def _forward(self) -> None:
        client, _ = self._listener.accept()
        self._listener.close()
        with client, socket.create_connection(("127.0.0.1", self._port)) as service:
            back = threading.Thread(target=self._back, args=(service, client))
            back.start()
            while self.forwarded < self._after:
                content = client.recv(min(1 << 16, self._after - self.forwarded))
                service.sendall(content)
                self.forwarded += len(content)
            for connection in (service, client):
                connection.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _back(service: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while content := service.recv(1 << 16):
                client.sendall(content)

    def join(self) -> None:
        self._thread.join()


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer"])
def test_a_grpc_client_that_is_killed_while_it_sends(model: str, call: str) -> None:
    """Nothing of its request is run, the service goes on, and its end waits for nobody."""
    content = message(*range(1 << 17))
    with running([model], max_batch=1 << 17, shutdown_timeout=600.0) as service:
        for number in range(6):
            cut = Cut(service.ports.grpc, after=1000 + number * len(content) // 6)
            with grpc.insecure_channel(cut.address) as channel:
                answers = channel.stream_stream(f"/{SERVICE}/{call}")(iter([content]), timeout=60)
                with pytest.raises(grpc.RpcError) as raised:
                    next(answers)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            cut.join()
        assert GatedSession.latest.batches == []
        assert Grpc(service).infer(1.0).outputs[0].shape == [1, 2]
        assert first(Http(service).infer(21.0)) == 42
        assert service.stop() is True


def test_a_grpc_client_that_leaves_a_stream(tmp_path: Path) -> None:
    """While answers are on their way to it: the service, a process of its own since it could crash, goes on, and its
    end waits for nobody."""
    options = ("--max-batch", str(1 << 17), "--shutdown-timeout", "600")
    model = f"gated={tmp_path / 'gated.onnx'}"
    content = message(*[1.0] * (1 << 17))
    with serving(model, *options, program=program(tmp_path, "pass")) as (process, _):
        address = f"127.0.0.1:{process.wait_for('started')['grpc']}"
        left = 0
        for number in range(1, 31):
            with grpc.insecure_channel(address) as channel:
                call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([content] * 6))
                time.sleep(0.15)
                call.cancel()
            left += process.wait_for("request", number)["status"] == "CANCELLED"
            if left == 3:
                break
        assert left == 3, "no stream was left in the middle of an answer"
        process.signal(signal.SIGTERM)
        assert process.finish() == 0
