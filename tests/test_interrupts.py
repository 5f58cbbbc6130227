"""SIGINT is collected where Python raises it, and left alone elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from dibr_deploy.interrupts import collected_interrupts


@pytest.fixture(autouse=True)
def _python_handles_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_collected_and_the_next_one_raised() -> None:
    with collected_interrupts() as interrupted:
        assert not interrupted.is_set()
        signal.raise_signal(signal.SIGINT)
        assert interrupted.is_set()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with collected_interrupts() as interrupted:
        signal.raise_signal(signal.SIGINT)
    assert not interrupted.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_handler_of_c_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Python shows as None: it could not be given back."""
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: pytest.fail("the handler is replaced"))
    with collected_interrupts() as interrupted:
        assert not interrupted.is_set()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_collects_nothing() -> None:
    handlers = []

    def collect() -> None:
        with collected_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=collect)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
