"""Bad input through the `dibr` command: exit code 2, one sentence, no traceback, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest

from dibr_deploy.runtime import schema

DIBR = Path(sys.executable).with_name("dibr")
SOUND_ONES = "sound"


def run(folder: Path, *arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The command in a process of its own; paths are relative to ``folder``."""
    variables = {**os.environ, "OMP_WAIT_POLICY": "passive", **(environment or {})}
    return subprocess.run(
        [DIBR, *map(str, arguments)], cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=120
    )


def content(folder: Path) -> dict[str, bytes | None]:
    """Every path below the folder, with the bytes of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound mesh, dataset, training run and exported model, all made by the command itself."""
    from dibr_deploy.mesh import icosphere, write_mesh

    folder = tmp_path_factory.mktemp(SOUND_ONES)
    (folder / "meshes").mkdir()
    write_mesh(icosphere(2), folder / "meshes" / "ball.ply")
    for command in (
        "data make --meshes meshes --output dataset --views 3 --size 32",
        "train --data dataset --output run --steps 1 --batch-size 2",
        "export --checkpoint run --output model.onnx",
    ):
        done = run(folder, *command.split())
        assert done.returncode == 0, done.stderr
    return folder


@dataclass(frozen=True)
class Case:
    """A command that must fail, and what its sentence says."""

    name: str
    command: str
    says: tuple[str, ...]
    damage: Callable[[Path], object] = lambda folder: None
    """Applied to a copy of the sound folder, in which the command then runs."""
    environment: dict[str, str] = field(default_factory=dict)


def truncate(name: str, share: float = 0.6) -> Callable[[Path], object]:
    """Cuts off the end of a file, or of the newest file that matches a pattern."""

    def cut(folder: Path) -> None:
        path = max(folder.glob(name), key=lambda found: found.stat().st_mtime)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return cut


def replace(name: str, new: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(new)


def newer_schema(folder: Path) -> None:
    """Makes the exported model say that it uses version 99 of our ops."""
    model = onnx.load(folder / "model.onnx")
    for opset in model.opset_import:
        if opset.domain == schema.OP_DOMAIN:
            opset.version = 99
    for entry in model.metadata_props:
        if entry.key == schema.METADATA_SCHEMA_VERSION:
            entry.value = "99"
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def empty_library_folder(folder: Path) -> None:
    (folder / "empty").mkdir()


MAKE = "data make --meshes meshes --output made --views 2 --size 32"
TRAIN = "train --data dataset --output trained --steps 1 --batch-size 2"
EXPORT = "export --checkpoint run --output exported.onnx"
VERIFY = "verify --checkpoint run --model model.onnx --count 2"
RENDER = "render --model model.onnx --image dataset/images/ball_000.png --output rendered --frames 2"

CASES = [
    Case("mesh cut off", MAKE, ("ball.ply", "cut off"), truncate("meshes/ball.ply")),
    Case("mesh is text", MAKE, ("ball.ply",), replace("meshes/ball.ply", b"not a mesh")),
]
