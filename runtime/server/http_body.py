"""Bodies of HTTP requests, read and unpacked within limits, and of answers, packed and sent in parts."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import Reason, RequestError
from .settings import Settings
from .tensors import invalid

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""Content codings by zlib's parameter."""
_FASTEST = 1
IN_THREAD = 1 << 16
"""Bytes from which on work is worth a thread."""
_AT_ONCE = 1 << 20
"""Bytes, of what the transport copies where the system does not take all of it."""

Part = bytes | memoryview


async def read_body(request: Request, settings: Settings) -> bytes:
    """The body, unpacked.

    Raises RequestError: it is too large, before or after decompression, comes too slowly, is cut off or damaged, or is
    packed in a way that is not offered.
    """
    limit = settings.max_request
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > limit:
        raise _too_large(limit)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity" and coding not in _WINDOWS:
        raise RequestError(Reason.UNSUPPORTED_MEDIA, f"Content-Encoding must be one of {', '.join(_WINDOWS)}")
    try:
        body = await asyncio.wait_for(_received(request, limit), settings.upload_timeout)
    except (TimeoutError, asyncio.TimeoutError):
        raise RequestError(Reason.SLOW_UPLOAD, "the request's body did not come in time") from None
    except ClientDisconnect:
        raise RequestError(Reason.CANCELLED, "the client went away while it sent the request") from None
    if coding == "identity":
        return body
    if len(body) < IN_THREAD:
        return _unpacked(body, _WINDOWS[coding], limit)
    return await asyncio.to_thread(_unpacked, body, _WINDOWS[coding], limit)


async def _received(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        if len(body) + len(part) > limit:
            raise _too_large(limit)
        body += part
    return bytes(body)


def _unpacked(body: bytes, window: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    try:
        content = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise invalid("the body is not packed as Content-Encoding says") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise invalid("the packed body is cut off, or something follows it")
    return content


def _too_large(limit: int) -> RequestError:
    return RequestError(Reason.TOO_LARGE, f"a request may have {limit} bytes, also after decompression")


def wanted_coding(request: Request) -> str | None:
    """gzip or deflate, where the client takes one of them."""
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in _WINDOWS and weight.replace(" ", "") not in ("q=0", "q=0.0"):
            return coding.strip().lower()
    return None


class PartsResponse(Response):
    """A body in parts, which are neither joined nor copied, and come one after another as the system takes them."""

    def __init__(self, parts: Sequence[Part], headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(headers={**headers, "content-length": str(length_of(parts))}, media_type=media_type)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            view = memoryview(part)
            for start in range(0, len(view), _AT_ONCE):
                some = view[start : start + _AT_ONCE]
                await send({"type": "http.response.body", "body": some, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def length_of(parts: Sequence[Part]) -> int:
    return sum(map(len, parts))


async def packed(parts: Sequence[Part], coding: str) -> list[Part]:
    packer: Any = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WINDOWS[coding])

    def pack() -> list[Part]:
        return [*map(packer.compress, parts), packer.flush()]

    return pack() if length_of(parts) < IN_THREAD else await asyncio.to_thread(pack)
