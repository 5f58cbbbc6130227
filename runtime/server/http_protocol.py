"""Limits on what comes before a request can be looked at: uvicorn has none of its own for its head."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 1 << 16
"""Bytes of request line and headers, and of what else stands between two parts of bodies."""


MOST_REFUSED = 64
"""Connections beyond those that are served, whose requests are refused in words. Each is an open file of the process,
which may not have many: what comes beyond these is closed at once. As many calls of gRPC; what comes beyond these, grpc
refuses unseen."""
CROWDED = "crowded"
"""In a request's state: whether it must be refused, as its connection is one too many."""


def limited_protocol(seconds: float, connections: int) -> type[asyncio.Protocol]:
    """HTTP/1.1 that closes connections whose next request's head is too long, or is not there after so many seconds
    from the connection's or its own beginning; and those where a body goes on for so long after its answer.

    connections: as many are served; requests on those that come beyond are CROWDED until one of the served ones leaves.
    """
    served: set[asyncio.Protocol] = set()
    beyond: set[asyncio.Protocol] = set()

    class Limited(HttpToolsProtocol):
        _loose = 0
        """Bytes that have come since the last head, body part or request was complete."""
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(seconds, self._too_slow)
            if not self._has_place():
                if len(beyond) < MOST_REFUSED:
                    beyond.add(self)
                else:
                    transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            self._complete()
            served.discard(self)
            beyond.discard(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._loose += len(data)
            super().data_received(data)
            if self._loose > MOST_HEAD:
                self.transport.close()
            elif self._loose and self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(seconds, self._too_slow)

        def on_headers_complete(self) -> None:
            self._complete()
            self.scope["state"][CROWDED] = not self._has_place()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self.cycle.response_complete:
                self._complete()
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._complete()
            super().on_message_complete()

        def _has_place(self) -> bool:
            """Among those that are served; takes one where one is free."""
            if self not in served and len(served) < connections:
                served.add(self)
                beyond.discard(self)
            return self in served

        def _complete(self) -> None:
            self._loose = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Limited
