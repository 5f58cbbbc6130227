"""The page at ``/``, and the files that it consists of, which are read once: no path of a request is ever opened."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import dibr_deploy

from .errors import Reason, RequestError
from .http_body import wanted_coding

PAGE = "index.html"
VIEWER = "three"
"""Folder of three.js, which the build puts there where npm could be had; docs/serving.md says how."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Nothing but this service's own scripts, styles and data; blob: is what the page has made of the service's answers."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str
    gzip: bytes


def routes() -> list[Route]:
    """``/`` and ``/static/...``."""
    files = _read(Path(__file__).with_name("static")) | _viewer()

    async def page(request: Request) -> Response:
        return _answer(request, files[PAGE])

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["name"])
        if file is None:
            raise RequestError(Reason.NOT_FOUND, "there is no such file")
        return _answer(request, file)

    return [Route("/", page), Route("/static/{name:path}", static)]


def _answer(request: Request, file: _File) -> Response:
    headers = {**HEADERS, "etag": file.etag, "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    content = file.content
    if wanted_coding(request) == "gzip":
        content = file.gzip
        headers["content-encoding"] = "gzip"
    return Response(content, headers=headers, media_type=file.media_type)


def _viewer() -> dict[str, _File]:
    """three.js, wherever this installation has it: beside the page, or where an editable one puts what it builds."""
    for folder in dibr_deploy.__path__:
        found = Path(folder) / "runtime" / "server" / "static" / VIEWER
        if found.is_dir():
            return {f"{VIEWER}/{name}": file for name, file in _read(found).items()}
    return {}


def _read(folder: Path) -> dict[str, _File]:
    """The files of a folder by name; not those of folders in it."""
    return {path.name: _file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _file(path: Path) -> _File:
    content = path.read_bytes()
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, _TYPES[path.suffix], etag, packer.compress(content) + packer.flush())
