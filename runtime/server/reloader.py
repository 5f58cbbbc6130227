"""Opens models again while a service runs, without a thread that answers requests, or one that its end waits for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Reloader:
    """Calls ``reload`` whenever it is asked to, one call at a time, in a daemon thread: a call may hang."""

    def __init__(self, reload: Callable[[], object]) -> None:
        self._reload = reload
        self._asked = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="reloader", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Returns at once. Asked again during a call, any number of times: one more call follows it."""
        self._asked.set()

    def stop(self, timeout: float) -> bool:
        """Begin no call any more; False where one goes on for so many seconds."""
        self._stopping = True
        self._asked.set()
        self._thread.join(timeout)
        ended = not self._thread.is_alive()
        if not ended:
            log.error("opening models again hangs, and is left as it is")
        return ended

    def _serve(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping:
                return
            try:
                self._reload()
            except Exception as error:  # whatever a backend raises: the next call may do better
                log.error("reload failed", extra={"why": repr(error)})
