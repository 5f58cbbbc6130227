"""Bundles: a folder or a zip file with ``model.onnx``, engines, a sample and ``manifest.json``.

A bundle is written whole or not at all, and each file is checked against the manifest as it is read.
"""

from __future__ import annotations

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dibr_deploy.errors import DibrError, one_line
from dibr_deploy.files import write_atomically, write_folder_atomically

from .manifest import MANIFEST_FILE, MAX_BYTES, FileEntry, Manifest, parse_manifest

ZIP_SUFFIX = ".zip"
MAX_ZIP_RATIO = 100
"""A packed file of more than UNCHECKED_BYTES may be at most this many times larger unpacked."""
UNCHECKED_BYTES = 16 << 20

_ENCRYPTED = 1
_LONGEST = 200
READ_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError, NotImplementedError,
)  # fmt: skip


class Bundle:
    """A bundle opened for reading. Opening it reads the manifest, and checks that all files are there in full length.

    Args:
        path: a folder or a .zip file that ``dibr export`` wrote.

    Raises:
        FileNotFoundError: there is nothing at the path.
        DibrError: it is no bundle, or the manifest is not valid, or a file is missing or has another length.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"bundle {self.path} does not exist")
        self.manifest: Manifest = self._checked_manifest()

    def read(self, name: str) -> bytes:
        """Content of a file that the manifest lists, once its SHA-256 is what the manifest says."""
        entry = self.manifest.files[name]
        content = self._content(name, entry.bytes + 1)
        if sha256(content) != entry.sha256:
            raise DibrError(
                f"bundle {self.path}: {name} is not the file that {MANIFEST_FILE} describes (its SHA-256 is "
                f"{sha256(content)}, not {entry.sha256}): copy or export the bundle again"
            )
        return content

    def _checked_manifest(self) -> Manifest:
        """Once all its files are there in full length; another one where the bundle is replaced meanwhile."""
        while True:
            content = self._content(MANIFEST_FILE, MAX_BYTES + 1)
            manifest = parse_manifest(content, self.path)
            try:
                for name, entry in manifest.files.items():
                    self._check_length(name, entry)
            except DibrError:
                if self._content(MANIFEST_FILE, MAX_BYTES + 1) == content:
                    raise
            else:
                return manifest

    def _check_length(self, name: str, entry: FileEntry) -> None:
        with self._open(name) as (_, length):
            if length != entry.bytes:
                raise DibrError(
                    f"bundle {self.path}: {name} has {length} bytes, but {MANIFEST_FILE} says {entry.bytes}: copy or "
                    f"export the bundle again"
                )

    def _content(self, name: str, limit: int) -> bytes:
        with self._open(name) as (file, _):
            try:
                return file.read(limit)
            except READ_ERRORS as error:
                raise self._unreadable(name, error) from error

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """A file of the bundle and its length."""
        if self.path.is_dir():
            file = self.path / name
            if not file.is_file():
                raise self._missing(name)
            with file.open("rb") as opened:
                yield opened, file.stat().st_size
            return
        with self._zip() as archive:
            info = self._member(archive, name)
            try:
                member = archive.open(info)
            except READ_ERRORS as error:
                raise self._unreadable(name, error) from error
            with member:
                yield member, info.file_size  # type: ignore[misc]

    def _member(self, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
        """Of a file, once it is known to be there once and to be no zip bomb."""
        members = [info for info in archive.infolist() if info.filename == name]
        if not members:
            raise self._missing(name)
        if len(members) > 1:
            raise DibrError(f"bundle {self.path} has {name} {len(members)} times: pack or export it again")
        [info] = members
        if info.flag_bits & _ENCRYPTED:
            raise DibrError(f"bundle {self.path}: {name} is encrypted: pack it again without a password")
        check_packed_size(info, self.path.stat().st_size, f"bundle {self.path}: {name}")
        return info

    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except READ_ERRORS as error:
            raise DibrError(f"bundle {self.path} is neither a folder nor a zip file: {words_of(error)}") from error

    def _unreadable(self, name: str, error: BaseException) -> DibrError:
        return DibrError(
            f"bundle {self.path}: {name} cannot be read: {words_of(error)}: copy or export the bundle again"
        )

    def _missing(self, name: str) -> DibrError:
        return DibrError(f"bundle {self.path} has no {name}: it must be what `dibr export` writes, with all its files")


def words_of(error: BaseException) -> str:
    """In one line, and cut: some errors repeat the bytes that they object to."""
    words = one_line(error) or type(error).__name__
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def check_packed_size(info: zipfile.ZipInfo, zip_bytes: int, what: str) -> None:
    """Refuse a member that unpacks to much more than the zip file of ``zip_bytes`` could honestly hold."""
    packed = min(info.compress_size, zip_bytes)
    if info.file_size > max(UNCHECKED_BYTES, MAX_ZIP_RATIO * packed):
        raise DibrError(
            f"{what} would unpack from {packed} to {info.file_size} bytes, more than {MAX_ZIP_RATIO} times as many: "
            f"pack it without compression (zip -0) if it is what it should be"
        )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """``Manifest.files`` for these contents."""
    return {name: FileEntry(sha256=sha256(content), bytes=len(content)) for name, content in files.items()}


def write_bundle(path: str | Path, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
    """Write a bundle: a zip file where the path ends in .zip, else a folder. A bundle that is there is replaced.

    Args:
        path: in a folder that exists.
        manifest: whose ``files`` are ``entries(files)``.
        files: content by name.

    Raises:
        DibrError: the path's folder does not exist, or something else than a bundle is at the path.
    """
    path = Path(path).resolve()
    if manifest.files != entries(files):
        raise ValueError("manifest.files does not describe files")
    check_place(path)
    contents = {MANIFEST_FILE: manifest.to_json().encode(), **files}
    if path.suffix == ZIP_SUFFIX:
        write_atomically(path, lambda temporary: _write_zip(temporary, contents))
    else:
        write_folder_atomically(path, lambda temporary: _write_files(temporary, contents))
    return path


def check_place(path: Path) -> None:
    """Raises DibrError where ``write_bundle`` could not write to the path: for who has long work to do before."""
    if not path.parent.is_dir():
        raise DibrError(f"bundle {path}: the folder {path.parent} does not exist")
    if path.exists() and not _replaceable(path):
        raise DibrError(f"bundle {path} would replace something that is no bundle: choose another name, or remove it")


def _replaceable(path: Path) -> bool:
    """Whether an older bundle of the same kind, or an empty folder for one, is at the path."""
    if path.suffix == ZIP_SUFFIX:
        try:
            with zipfile.ZipFile(path) as archive:
                return MANIFEST_FILE in archive.namelist()
        except READ_ERRORS:
            return False
    return path.is_dir() and ((path / MANIFEST_FILE).is_file() or not any(path.iterdir()))


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    """Uncompressed: weights and engines hardly get smaller, and open faster."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def _write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
