"""`dibr serve` as a process of its own, with what it logs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import urllib3

from server.service import until

END = {"message": "the end of the log"}


class Process:
    """`dibr serve`, with what it logs."""

    def __init__(self, *arguments: str, program: Sequence[str]) -> None:
        command = [sys.executable, *program, "serve", "--http-port", "0", "--grpc-port", "0"]
        self.process = subprocess.Popen([*command, "--threads", "1", *arguments], stderr=subprocess.PIPE, text=True)
        self.log: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.changed:
                self.log.append(json.loads(line))  # every line is JSON
                self.changed.notify_all()
        with self.changed:
            self.log.append(END)
            self.changed.notify_all()

    def wait_for(self, text: str, count: int = 1) -> dict[str, Any]:
        """The line of the log whose message has the text."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.log if text in line["message"]]

        with self.changed:
            assert self.changed.wait_for(lambda: len(found()) >= count or self.log[-1:] == [END], 120)
        assert len(found()) >= count, self.log
        return found()[count - 1]

    def wait_for_metric(self, address: str, text: str) -> None:
        until(lambda: text in urllib3.request("GET", f"http://{address}/metrics").data.decode())

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self) -> int:
        code = self.process.wait(60)
        self.reader.join()
        return code


@contextmanager
def serving(*arguments: str, program: Sequence[str] = ("-m", "dibr_deploy.cli")) -> Iterator[tuple[Process, str]]:
    """The process, and its address for HTTP.

    program: what Python runs, in place of the command itself.
    """
    process = Process(*arguments, program=program)
    try:
        yield process, f"127.0.0.1:{process.wait_for('started')['http']}"
    finally:
        process.process.kill()
        process.finish()
