"""Who may come in: API keys and TLS at both doors."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
import urllib3

from dibr_deploy.cli import build_parser
from dibr_deploy.errors import DibrError
from dibr_deploy.runtime.server import cli
from dibr_deploy.runtime.server.auth import Keys
from dibr_deploy.runtime.server.http_protocol import MOST_REFUSED
from dibr_deploy.runtime.server.messages import SERVICE
from dibr_deploy.runtime.server.settings import settings_of
from server.clients import Grpc, Http, metrics, request_of
from server.gated import GatedSession, gated_model
from server.service import Running, running, until

KEY = "correct horse battery staple"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return gated_model(monkeypatch, tmp_path)


@pytest.fixture
def service(model: str) -> Iterator[Running]:
    with running([model], api_keys=("another key of somebody", KEY)) as service:
        yield service


def get(service: Running, path: str, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib3.request("GET", f"http://{service.http}{path}", headers=named).status


@pytest.mark.parametrize("path", ["/v2", "/v2/models/gated", "/v2/models/nothing", "/metrics"])
def test_http_asks_for_a_key(service: Running, path: str) -> None:
    expected = 404 if path.endswith("nothing") else 200
    assert get(service, path) == 401
    assert get(service, path, authorization="Bearer wrong key, wrong key") == 401
    assert get(service, path, authorization=f"Basic {KEY}") == 401
    assert get(service, path, authorization=f"Bearer {KEY}") == expected
    assert get(service, path, x_api_key=KEY) == expected


@pytest.mark.parametrize("path", ["/v2/models/gated/infer", "/v2/models/gated/render", "/v2/repository/index"])
def test_what_is_posted_needs_a_key(service: Running, path: str) -> None:
    url = f"http://{service.http}{path}"
    assert urllib3.request("POST", url, body=b"{}").status == 401
    shown = urllib3.request("POST", url, body=b"{}", headers={"authorization": f"Bearer {KEY}"})
    assert shown.status == (200 if path.endswith("index") else 400)


def test_probes_need_no_key(service: Running) -> None:
    assert get(service, "/v2/health/live") == get(service, "/v2/health/ready") == 200
    client = tritonclient.grpc.InferenceServerClient(service.grpc)
    assert client.is_server_live() and client.is_server_ready()


@pytest.mark.parametrize("call", ["ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex", "ModelReady"])
def test_grpc_asks_for_a_key(service: Running, call: str) -> None:
    channel = grpc.insecure_channel(service.grpc)
    method = channel.unary_unary(f"/{SERVICE}/{call}")

    def status(*metadata: tuple[str, str]) -> str:
        try:
            method(b"", metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    assert status() == "UNAUTHENTICATED"
    assert status(("authorization", "Bearer wrong key, wrong key")) == "UNAUTHENTICATED"
    assert status(("authorization", f"Bearer {KEY}")) in ("OK", "NOT_FOUND")


def test_a_grpc_stream_asks_for_a_key(service: Running) -> None:
    stream = grpc.insecure_channel(service.grpc).stream_stream(f"/{SERVICE}/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as raised:
        list(stream(iter([b""])))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "Bearer \udcff", f"Bearer {KEY}x", f"bearer {KEY[:-1]}"]
)
def test_keys_that_do_not_fit(shown: str | None) -> None:
    assert not Keys([KEY]).admit(shown, None)
    assert Keys([]).admit(shown, None)


def test_those_who_have_no_key_are_counted(model: str) -> None:
    with running([model], api_keys=(KEY,)) as service:
        assert get(service, "/metrics") == get(service, "/v2/models/nothing") == 401
        with pytest.raises(grpc.RpcError):
            grpc.insecure_channel(service.grpc).unary_unary(f"/{SERVICE}/ServerMetadata")(b"")
        text = urllib3.request("GET", f"http://{service.http}/metrics", headers={"x-api-key": KEY}).data.decode()
    assert 'dibr_turned_away_total{protocol="http",reason="unauthenticated"} 2.0' in text
    assert 'dibr_turned_away_total{protocol="grpc",reason="unauthenticated"} 1.0' in text


def test_connections_beyond_the_limit(model: str, caplog: pytest.LogCaptureFixture) -> None:
    """Are refused in the words of the protocol, logged and counted; those within it are served, and their places are
    free when they leave."""
    places = 3
    caplog.set_level(logging.INFO)
    with running([model], max_connections=places) as service, contextlib.ExitStack() as stack:

        def connect() -> http.client.HTTPConnection:
            return stack.enter_context(contextlib.closing(http.client.HTTPConnection(service.http, timeout=60)))

        def ask(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            connection.request("POST", "/v2/models/gated/infer", request_of(21.0))
            return connection.getresponse()

        kept = [connect() for _ in range(places)]
        for connection in kept:
            assert ask(connection).read()
        refused = ask(connect())
        assert (refused.status, json.load(refused)) == (503, {"error": "there are too many connections: try later"})
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        answer = ask(kept[0])
        assert answer.status == 200 and answer.read()
        for connection in kept:
            connection.close()
        until(lambda: Http(service).get("/v2").status == 200)
        text = metrics(service)
    assert 'dibr_turned_away_total{protocol="http",reason="crowded"}' in text
    assert f'dibr_requests_total{{model="gated",protocol="http",version="1"}} {places + 1}.0' in text
    logged = [record for record in caplog.records if record.message == "request" and record.status == 503]
    assert logged[0].path == "/v2/models/gated/infer"


def test_a_flood_of_connections(model: str) -> None:
    """Does not take all files that the process may open: those far beyond the limit are closed, and the others stay as
    they are."""
    with running([model], max_connections=2, upload_timeout=600) as service, contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            address = ("127.0.0.1", service.ports.http)
            return stack.enter_context(socket.create_connection(address, timeout=60))

        kept = [connect() for _ in range(2 + MOST_REFUSED)]
        for _ in range(3):
            assert connect().recv(1) == b""
        for connection, status in ((kept[0], 200), (kept[-1], 503)):
            connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 %d " % status)
        for connection in kept[1:]:
            connection.close()
        until(lambda: urllib3.request("GET", f"http://{service.http}/v2", retries=False).status == 200)


@pytest.mark.parametrize("probe", ["live", "ready"])
def test_probes_are_answered_beyond_the_limit(model: str, probe: str) -> None:
    """Where all places are taken, a service is not dead; the connection is closed after it."""
    with running([model], max_connections=2, upload_timeout=600) as service, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", service.ports.http)
        for _ in range(2):
            stack.enter_context(socket.create_connection(address, timeout=60))
        for _ in range(2 * MOST_REFUSED):
            with contextlib.closing(http.client.HTTPConnection(service.http, timeout=60)) as connection:
                connection.request("GET", f"/v2/health/{probe}")
                answer = connection.getresponse()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert json.load(answer) == {probe: True}


def test_places_of_those_who_leave_are_free(model: str) -> None:
    """For newcomers, however many connections beyond the limit still wait."""
    with running([model], max_connections=10, upload_timeout=600) as service, contextlib.ExitStack() as stack:

        def connect(count: int) -> list[http.client.HTTPConnection]:
            made = [http.client.HTTPConnection(service.http, timeout=60) for _ in range(count)]
            for connection in made:
                stack.enter_context(contextlib.closing(connection)).connect()
            return made

        def status(connection: http.client.HTTPConnection) -> int:
            connection.request("GET", "/v2")
            answer = connection.getresponse()
            return answer.status if answer.read() else 0

        served = connect(10)
        assert {status(connection) for connection in served} == {200}
        beyond = connect(20)
        assert status(beyond[-1]) == 503  # so all have been seen
        for connection in served:
            connection.close()
        until(lambda: status(connect(1)[0]) == 200, 10)


def test_calls_beyond_the_limit(model: str, caplog: pytest.LogCaptureFixture) -> None:
    """Are refused in words, logged and counted; those within it are served, and whether the service lives is said
    always."""
    caplog.set_level(logging.INFO)
    with running([model], max_connections=1) as service, ThreadPoolExecutor(1) as pool:
        client, session = Grpc(service), GatedSession.latest
        session.gate.clear()
        running_call = pool.submit(client.infer, 1.0)
        assert session.begun.acquire(timeout=60)
        with pytest.raises(grpc.RpcError) as raised:
            client.call("ServerMetadata", b"")
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert raised.value.details() == "there are too many calls: try later"
        assert client.status("ServerLive", b"")[0] == "OK"
        session.gate.set()
        assert running_call.result(60).outputs[0].shape == [1, 2]
        until(lambda: client.status("ServerMetadata", b"")[0] == "OK")
        text = metrics(service)
    assert 'dibr_turned_away_total{protocol="grpc",reason="crowded"} 1.0' in text
    logged = [record for record in caplog.records if getattr(record, "status", "") == "RESOURCE_EXHAUSTED"]
    assert [record.method for record in logged] == ["ServerMetadata"]


def test_a_flood_of_calls(model: str) -> None:
    """All but those within the limit are refused, and the places of these are free when they leave."""
    done = threading.Event()

    def silent() -> Iterator[bytes]:
        done.wait(60)
        yield from ()

    with running([model], max_connections=2, upload_timeout=600.0) as service:
        try:
            begin = grpc.insecure_channel(service.grpc).stream_stream(f"/{SERVICE}/ModelInfer")
            calls = [begin(silent(), 60) for _ in range(200)]
            until(lambda: sum(call.is_active() for call in calls) == 2)
            assert (
                sum(call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED for call in calls if not call.is_active()) == 198
            )
            assert Grpc(service).status("ServerMetadata", b"")[0] == "RESOURCE_EXHAUSTED"
            for call in calls:
                call.cancel()
            until(lambda: Grpc(service).status("ServerMetadata", b"")[0] == "OK")
        finally:
            done.set()


@pytest.mark.parametrize("call", ["ModelInfer", "ModelStreamInfer", "ServerLive"])
@pytest.mark.parametrize("key", [None, KEY])
def test_calls_whose_message_does_not_come(model: str, call: str, key: str | None) -> None:
    """End: those without a key, and those that need none, at once, the others after the time of an upload, until when
    they keep others out."""
    public = call == "ServerLive"
    metadata = () if key is None else (("x-api-key", key),)
    waits = key is not None and not public
    done = threading.Event()

    def silent() -> Iterator[bytes]:
        done.wait(60)
        yield from ()

    with running([model], max_connections=4, api_keys=(KEY,), upload_timeout=2.0 if waits else 600.0) as service:
        try:
            channel = grpc.insecure_channel(service.grpc)
            begin = channel.stream_stream(f"/{SERVICE}/{call}")
            calls = [begin(silent(), 60, metadata) for _ in range(4)]
            metadata_of_it = channel.unary_unary(f"/{SERVICE}/ServerMetadata")

            def status() -> str:
                try:
                    metadata_of_it(b"", metadata=(("x-api-key", KEY),))
                except grpc.RpcError as error:
                    return error.code().name
                return "OK"

            if waits:
                until(lambda: status() == "RESOURCE_EXHAUSTED")
            sentence = "the request's message did not come in time" if waits else "this needs an API key"
            for silent_call in calls:
                if public:
                    assert len(list(silent_call)) == 1
                else:
                    assert silent_call.details().startswith(sentence)
            until(lambda: status() == "OK")
        finally:
            done.set()


def test_short_keys_are_refused() -> None:
    with pytest.raises(DibrError, match=r"api_keys: .*at least 16"):
        settings_of(api_keys=("short",))


@pytest.mark.parametrize("key", ["schlüssel für die tür", "a key with a \ttab in it", "a key with a line's end\n"])
def test_keys_that_no_header_can_carry_are_refused(key: str) -> None:
    with pytest.raises(DibrError, match=r"api_keys: .*pattern"):
        settings_of(api_keys=(key,))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_tls_at_both_doors(model: str, certificate: tuple[Path, Path]) -> None:
    public, private = certificate
    with running([model], tls_certificate=public, tls_key=private) as service:
        secure = urllib3.PoolManager(ca_certs=str(public), retries=False)
        assert secure.request("GET", f"https://{service.http}/v2/models/gated").status == 200
        with pytest.raises(urllib3.exceptions.HTTPError):
            urllib3.PoolManager(retries=False).request("GET", f"https://{service.http}/v2")  # nobody vouches for it
        client = tritonclient.grpc.InferenceServerClient(service.grpc, ssl=True, root_certificates=str(public))
        assert client.is_model_ready("gated")
        with pytest.raises(urllib3.exceptions.HTTPError):
            urllib3.PoolManager(retries=False).request("GET", f"http://{service.http}/v2")


def test_a_key_that_is_not_the_certificates(model: str, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genrsa", "-out", other, "2048"], check=True, capture_output=True)
    with (
        pytest.raises(DibrError, match="the TLS certificate or key cannot be used"),
        running([model], tls_certificate=certificate[0], tls_key=other),
    ):
        pass


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tls_certificate": "none.pem"}, "belong together"),
        ({"tls_certificate": "none.pem", "tls_key": "none.pem"}, "none.pem does not exist"),
        ({"http_port": 70000}, "http_port: "),
        ({"queue_limit": 0}, "queue_limit: "),
        ({"timeout": 0}, "timeout: "),
        ({"timeout": float("inf")}, "timeout: "),
        ({"max_delay": float("inf")}, "max_delay: "),
        ({"max_delay": 1e12}, "max_delay: "),
        ({"max_request": float("nan")}, "max_request: "),
        ({"max_request": 1 << 31}, "max_request: "),
        ({"threads": 1 << 40}, "threads: "),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_settings_that_cannot_be(values: dict, sentence: str) -> None:
    with pytest.raises(DibrError, match=sentence):
        settings_of(**values)


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "0", "1e300"])
def test_sizes_on_the_command_line_that_cannot_be(value: str) -> None:
    with pytest.raises(DibrError, match=r"^max_request: "):
        cli._settings(build_parser().parse_args(["serve", "model.onnx", "--max-request", value]))


def test_addresses_of_version_6(model: str) -> None:
    with running([model], host="::1") as service:
        assert urllib3.request("GET", f"http://[::1]:{service.ports.http}/v2/health/ready").status == 200
        assert tritonclient.grpc.InferenceServerClient(f"[::1]:{service.ports.grpc}").is_server_ready()


def test_a_port_that_is_taken(model: str, service: Running) -> None:
    for values in ({"http_port": service.ports.http}, {"grpc_port": service.ports.grpc}):
        with pytest.raises(DibrError, match=r"cannot listen at 127\.0\.0\.1"), running([model], **values):
            pass
