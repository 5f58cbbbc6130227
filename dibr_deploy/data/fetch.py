"""Real meshes for demos and tests, out of a PyPI package, kept in a cache folder. Sources: docs/data.md."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import torch

from ..errors import DibrError
from ..mesh import Mesh, read_mesh, write_mesh

CACHE_VARIABLE = "DIBR_CACHE"
PACKAGE = "pybullet==3.2.7"
WHEEL_TAGS = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_17_x86_64"]
WHEEL_SHA256 = "5d858abf7c12a21ef3ed351cf81dac1b5e486ec25c9ab59bfc84beb89034edff"
RANDOM_OBJECTS = 999
"""Of the package's thousand; one has no finite vertex."""

Color = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Source:
    """A mesh in the package: its file, its upward axis, and a colour where the file has neither texture nor colour."""

    file: str
    up: str
    color: Color | None = None


OBJECTS = {
    "bunny": Source("bunny.obj", "y", (0.75, 0.65, 0.55)),
    "cone": Source("racecar/meshes/cone.obj", "z"),
    "duck": Source("duck.obj", "y"),
    "lego": Source("lego/lego.obj", "y", (0.9, 0.75, 0.2)),
    "mug": Source("objects/mug.obj", "z", (1.0, 0.2, 0.2)),
    "soccerball": Source("soccerball.obj", "y"),
    "teddy": Source("teddy2_VHACD_CHs.obj", "y", (0.7, 0.45, 0.3)),
    "wheel": Source("racecar/meshes/left_front_wheel.obj", "z"),
}


def cache_folder() -> Path:
    """Where downloads are kept: ``$DIBR_CACHE``, else ``~/.cache/dibr_deploy``."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "dibr_deploy")


def fetch_meshes(output: str | Path, *, objects: list[str] | None = None, random: int = 0) -> list[Path]:
    """Writes meshes as GLB files with y upwards, textures and colours kept.

    The first call downloads the package (103 MB) with ``pip download``, checks its SHA-256 and keeps the meshes in
    the cache folder; later calls need no network.

    Args:
        output: folder for the files, made where it is missing.
        objects: names out of ``OBJECTS``; None takes all of them.
        random: how many of the package's procedurally made objects to add, the first ones whose vertices are finite.

    Returns:
        The written paths, in order: ``output/NAME.glb``, then ``output/random_NNN.glb``.

    Raises:
        DibrError: an unknown name, a number out of range, or a download that failed or is not the expected file.
    """
    names = sorted(OBJECTS) if objects is None else objects
    unknown = sorted(set(names) - set(OBJECTS))
    if unknown:
        raise DibrError(f"objects must be among {', '.join(sorted(OBJECTS))}, got {unknown[0]}")
    if not 0 <= random <= RANDOM_OBJECTS:
        raise DibrError(f"random must lie between 0 and {RANDOM_OBJECTS}, got {random}")
    package = package_data()
    sources = {name: OBJECTS[name] for name in names}
    sources.update({f"random_{i:03d}": _random_source(package, i) for i in islice(_random_numbers(package), random)})
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, source in sources.items():
        written.append(folder / f"{name}.glb")
        write_mesh(_upright(read_mesh(package / source.file), source), written[-1])
    return written


def package_data() -> Path:
    """The folder with the package's data files; downloads them where the cache does not have them."""
    folder = cache_folder() / PACKAGE.replace("==", "-")
    if folder.is_dir():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=cache_folder(), prefix=".download."))
    try:
        wheel = _download(staging)
        wanted = re.compile(r"pybullet_data/.*\.(obj|mtl|png|jpg|urdf)$")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(staging, [name for name in archive.namelist() if wanted.match(name)])
        _move_unless_there(staging / "pybullet_data", folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", *WHEEL_TAGS]
    result = subprocess.run([*command, "--dest", str(folder), PACKAGE], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip().splitlines() or ["no file came"])[-1]
        raise DibrError(f"pip could not download {PACKAGE}: {reason}")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise DibrError(f"{wheels[0].name} must have SHA-256 {WHEEL_SHA256}, got {digest}")
    return wheels[0]


def _move_unless_there(source: Path, target: Path) -> None:
    """Moves a folder; where another process was faster, its copy stays."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _random_numbers(package: Path) -> Iterator[int]:
    """Of the random objects whose vertices are finite, in ascending order."""
    for number in count():
        if "v nan" not in (package / f"{_random_name(number)}.obj").read_text():
            yield number


def _random_name(number: int) -> str:
    return f"random_urdfs/{number:03d}/{number:03d}"


def _random_source(package: Path, number: int) -> Source:
    name = _random_name(number)
    rgba = re.search(r'rgba="([^"]+)"', (package / f"{name}.urdf").read_text())
    color = tuple(float(value) for value in rgba.group(1).split()[:3]) if rgba else (0.5, 0.5, 0.5)
    return Source(f"{name}.obj", "z", (color[0], color[1], color[2]))


def _upright(mesh: Mesh, source: Source) -> Mesh:
    """y upwards, and the source's colour where the mesh has none."""
    vertices = mesh.vertices
    if source.up == "z":
        vertices = vertices[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0])
    colors = mesh.vertex_colors
    if source.color is not None and mesh.texture is None:
        colors = torch.tensor(source.color).expand(len(vertices), 3)
    return dataclasses.replace(mesh, vertices=vertices, vertex_colors=colors)
