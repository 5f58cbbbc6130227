"""What a project of somebody else gets: CMake's targets, pkg-config, C, a prefix that may be moved, few symbols."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime_cpp import sdk

CONSUMER = sdk.HERE / "consumer"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The consumer's project, outside of the repository."""
    return Path(shutil.copytree(CONSUMER, tmp_path / "consumer"))


def test_find_package(prefix: Path, source: Path, bundle: Path, tmp_path: Path) -> None:
    built = sdk.project(source, tmp_path / "build", prefix)
    printed = sdk.run([built / "consumer", bundle], sdk.with_onnxruntime())
    assert printed.split("\n")[0] == "16 of 32 pixels"
    shapes = {"image": "1 24 17 3", "mask": "1 24 17", "face_index": "1 24 17", "depth": "1 24 17"}
    assert printed.split("\n")[1:-1] == [f"{name} {shape}" for name, shape in shapes.items()]
    assert sdk.run([built / "consumer_c", bundle], sdk.with_onnxruntime()) == "2 inputs on cpu\n"
    assert len((source / "main.cpp").read_text().splitlines()) <= 30


def test_find_package_asks_for_the_version(prefix: Path, source: Path, tmp_path: Path) -> None:
    lists = source / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("dibr 0.1", "dibr 0.2"))
    with pytest.raises(AssertionError, match=r"compatible\s+with\s+requested\s+version"):
        sdk.project(source, tmp_path / "build", prefix)


def test_pkg_config_in_a_moved_prefix(prefix: Path, source: Path, bundle: Path, tmp_path: Path) -> None:
    """Also without LD_LIBRARY_PATH: the libraries find each other beside themselves."""
    moved = Path(shutil.copytree(prefix, tmp_path / "moved prefix", symlinks=True).rename(tmp_path / "moved"))
    for name in ("main.cpp", "main.c"):
        package = "dibr-runtime"
        sdk.compile_with_pkg_config(package, moved, source / name, tmp_path / name.replace(".", "_"))
    assert "16 of 32" in sdk.run([tmp_path / "main_cpp", bundle], sdk.with_onnxruntime())
    assert "2 inputs" in sdk.run([tmp_path / "main_c", bundle], sdk.with_onnxruntime())


def test_the_renderer_alone(prefix: Path, tmp_path: Path) -> None:
    """Links to libdibr and nothing of the runtime."""
    source = tmp_path / "alone.cpp"
    source.write_text(
        '#include "dibr/cameras.hpp"\n#include "dibr/renderer.hpp"\n'
        "int main() { dibr::Renderer64 renderer(1); return renderer.rasterize({{}, {}}, 2, 2).face_index[0] + 1; }\n"
    )
    sdk.compile_with_pkg_config("dibr", prefix, source, tmp_path / "alone")
    sdk.run([tmp_path / "alone"])
    needed = subprocess.run(["readelf", "-d", tmp_path / "alone"], capture_output=True, text=True, check=True).stdout
    assert "libdibr.so.1" in needed
    assert "runtime" not in needed


def test_the_library_exports_its_interface_alone(prefix: Path) -> None:
    library = prefix / "lib" / "libdibr_runtime.so.1"
    listed = sdk.run(["nm", "-D", "--defined-only", library])
    names = {line.split()[2].split("@")[0] for line in listed.splitlines()} - {"DIBR_RUNTIME_1"}
    header = (prefix / "include" / "dibr" / "runtime.h").read_text()
    assert names == {name for name in names if f" {name}(" in header or f"*{name}(" in header}
    assert header.count("DIBR_RUNTIME_API ") - header.count("define DIBR_RUNTIME_API ") == len(names)
    assert str(sdk.ROOT).encode() not in library.read_bytes()


def test_the_wheel_takes_nothing_of_it(prefix: Path, tmp_path: Path) -> None:
    """Its component runtime has the libraries of the Python package and dibr.h, as before."""
    build = prefix.parent
    with sdk.lock(build):
        cmake = [sdk.tool("cmake"), "--install", str(build), "--prefix", str(tmp_path), "--component", "runtime"]
        sdk.run(cmake)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"lib/libdibr.so.1", "lib/libdibr_onnxruntime.so", "include/dibr/dibr.h"}
