"""Sees the ONNX models that arrive under their final names: files, bundles, and what other processes leave."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any


class Watch:
    """Of this process, of the `dibr export` processes that it starts, and of temporary folders that it starts others
    in."""

    def __init__(self) -> None:
        self._written: dict[bytes, None] = {}
        self._expected: list[Path] = []
        self._folders: dict[Path, None] = {}

    def start(self) -> None:
        """From now on, for good: Python does not take an audit hook back."""
        sys.addaudithook(self.event)

    def take(self) -> list[bytes]:
        """The models since the last time, each once."""
        left = (path for folder in self._folders for path in folder.rglob("[!.]*"))
        for path in (*self._expected, *(path for path in left if path.is_file())):
            self._note(path, path.suffix)
        models = list(self._written)
        self._written.clear()
        self._expected.clear()
        self._folders.clear()
        return models

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        """An audit event of Python."""
        if name == "os.rename":
            source, target = (Path(os.fsdecode(path)) for path in arguments[:2])
            self._note(source, target.suffix)
        elif name == "subprocess.Popen" and isinstance(arguments[1], (list, tuple)):
            command = [os.fsdecode(word) for word in arguments[1]]
            folder = Path(os.fsdecode(arguments[2] or "."))
            if "export" in command and "--output" in command[:-1]:
                self._expected.append(folder / command[command.index("--output") + 1])
            if folder.is_relative_to(tempfile.gettempdir()):
                self._folders[folder] = None

    def _note(self, path: Path, suffix: str) -> None:
        try:
            if path.is_dir():
                models = [file.read_bytes() for file in path.glob("*.onnx")]
            elif suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    models = [archive.read(name) for name in archive.namelist() if name.endswith(".onnx")]
            else:
                models = [path.read_bytes()] if suffix == ".onnx" else []
        except (OSError, ValueError, zipfile.BadZipFile):
            return  # nothing whole
        self._written.update(dict.fromkeys(models))
