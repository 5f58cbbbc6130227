"""What the service refuses or fails at, with the status of either protocol."""

from __future__ import annotations

import enum
from typing import NamedTuple


class _Status(NamedTuple):
    http: int
    grpc: str
    """Name of a ``grpc.StatusCode``."""


class Reason(enum.Enum):
    """Why a request has no answer. The names are those of the metric's label."""

    INVALID = _Status(400, "INVALID_ARGUMENT")
    UNAUTHENTICATED = _Status(401, "UNAUTHENTICATED")
    NOT_FOUND = _Status(404, "NOT_FOUND")
    SLOW_UPLOAD = _Status(408, "DEADLINE_EXCEEDED")
    TOO_LARGE = _Status(413, "RESOURCE_EXHAUSTED")
    UNSUPPORTED_MEDIA = _Status(415, "INVALID_ARGUMENT")
    QUEUE_FULL = _Status(429, "RESOURCE_EXHAUSTED")
    CANCELLED = _Status(499, "CANCELLED")
    """The client went away; nobody reads the status."""
    FAILED = _Status(500, "INTERNAL")
    CROWDED = _Status(503, "RESOURCE_EXHAUSTED")
    """Too many connections or calls at the same time."""
    UNAVAILABLE = _Status(503, "UNAVAILABLE")
    DEADLINE = _Status(504, "DEADLINE_EXCEEDED")

    @property
    def http_status(self) -> int:
        return self.value.http

    @property
    def grpc_status(self) -> str:
        return self.value.grpc


class RequestError(Exception):
    """A request that gets no answer, and one sentence that the client is told."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
