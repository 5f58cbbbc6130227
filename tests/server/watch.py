"""Which files and folders this process touches, by Python's audit events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FILES = (
    "open", "os.", "glob.", "pathlib.", "shutil.", "tempfile.", "import", "exec", "compile", "ctypes.dlopen",
    "subprocess.", "urllib.", "pickle.", "marshal.",
)  # fmt: skip


class Watch:
    """Names of files and folders that this process touches while somebody watches."""

    def __init__(self) -> None:
        self._seen: list[str] | None = None
        sys.addaudithook(self._event)  # for good: Python does not take it back

    def _event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is not None and name.startswith(FILES):
            self._seen.append(f"{name}{arguments}")

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        self._seen = seen = []
        try:
            yield seen
        finally:
            self._seen = None
