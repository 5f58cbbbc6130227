"""A real Triton server on a repository, in a process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absent import missing
from cuda_backend.host_build import ROOT

PROGRAM = ROOT / ".venv-triton" / "bin" / "tritonserver"
_START_SECONDS, _ATTEMPTS = 60, 3


class Addresses(NamedTuple):
    """Where a server of the Open Inference Protocol listens, HOST:PORT."""

    http: str
    grpc: str


@contextlib.contextmanager
def running(repository: Path, *models: str) -> Iterator[Addresses]:
    """The server with these models loaded, whose warm-ups have run; skips the test where it is not installed."""
    if not PROGRAM.exists():
        missing("Triton is not installed: `make setup-triton`")
    for attempt in range(_ATTEMPTS):
        http, grpc = _free_ports(2)
        command = [
            str(PROGRAM),
            f"--model-repository={repository}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in models),
            "--http-address=127.0.0.1",
            f"--http-port={http}",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={grpc}",
            "--allow-metrics=false",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=10",
        ]
        log = repository.parent / f"tritonserver.{http}.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            ready = _wait_until_ready(process, http)
            if ready:
                yield Addresses(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        finally:
            process.terminate()
            assert process.wait(30) == 0 or not ready, log.read_text()
        if ready:
            return
        # Someone else may have taken a port in between: then, and only then, there is another attempt.
        assert "Address already in use" in log.read_text() and attempt + 1 < _ATTEMPTS, log.read_text()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready"):
            return True
        time.sleep(0.1)
    return False
