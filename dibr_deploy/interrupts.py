"""Ctrl-C where an exception at any instruction would do harm."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def collected_interrupts() -> Iterator[threading.Event]:
    """Sets the event at every SIGINT instead of raising KeyboardInterrupt; the handler of before comes back at the end.

    Outside the main thread, where no signal arrives, and where SIGINT is ignored, nothing changes.
    """
    interrupted = threading.Event()
    in_main_thread = threading.current_thread() is threading.main_thread()
    # Python cannot give back a handler that is not its own, which getsignal shows by None.
    if not in_main_thread or signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN):
        yield interrupted
        return
    previous = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)
