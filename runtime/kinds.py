"""Whether a path holds a bundle or a bare ONNX file, told by a look at it: what reads manifests is not imported."""

from __future__ import annotations

from pathlib import Path

_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


def is_bundle(path: str | Path) -> bool:
    """Whether the path looks like a bundle: a folder, or a zip file by its first bytes."""
    path = Path(path)
    if not path.is_file():
        return path.is_dir()
    with path.open("rb") as file:
        return file.read(4) in _ZIP_STARTS
