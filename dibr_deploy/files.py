"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from .errors import DibrError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_new_output(path: Path) -> None:
    """Before work that takes long. Raises DibrError where a new folder could not be written when it is done."""
    if path.exists():
        raise DibrError(f"output {path} exists already")
    if not path.parent.is_dir():
        raise DibrError(f"output must lie in a folder that exists, got {path}")


def write_atomically(path: str | Path, content: bytes | str | Callable[[Path], object]) -> None:
    """Writes a file beside ``path`` and moves it there, so that nobody ever sees a part of it.

    Args:
        path: in a folder that exists; an older file there is replaced.
        content: bytes, text (UTF-8), or a function that writes the file whose path it is given.
    """
    path = Path(path)
    with _named(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Writes a folder beside ``path`` and moves it there, so that nobody ever sees a part of it.

    Args:
        path: in a folder that exists; an older folder there is replaced with all that is in it.
        write: fills the empty folder whose path it is given.
    """
    write_folders_atomically({Path(path): write})


def write_folders_atomically(writers: Mapping[Path, Callable[[Path], object]], scratch: Path | None = None) -> None:
    """``write_folder_atomically`` for several folders, of which none is moved before all are written.

    ``scratch`` is where they are written, a folder on the file system of the paths; by default each beside its path.
    """
    written: dict[Path, Path] = {}
    try:
        for path, write in writers.items():
            with _named(path):
                written[path] = Path(tempfile.mkdtemp(dir=scratch or path.parent, prefix=f".{path.name}."))
            write(written[path])
            written[path].chmod(0o777 & ~_umask())
        for path, temporary in written.items():
            if path.exists():
                _exchange(temporary, path)
            else:
                temporary.rename(path)
    finally:
        for temporary in written.values():
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors name the file that was asked for, and not the one beside it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders: in one step where the system can, else in three, of which a failed one is undone."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
    except AttributeError:
        pass
    aside = new.with_name(f"{new.name}.replaced")
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)
