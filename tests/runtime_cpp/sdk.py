"""Builds of the C++ SDK, each made once for all test processes, and programs that use them."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from cuda_backend.host_build import ROOT, build, sanitizing, tool

HERE = Path(__file__).parent
EXAMPLES = ROOT / "runtime" / "cpp" / "examples"
PROGRAMS = ("preprocess", "read_image", "run_bundle", "sample_texture")
OPTIONS = {"DIBR_CUDA_ON_HOST": "OFF", "DIBR_ORT": "ON", "DIBR_RUNTIME": "ON"}


def onnxruntime_library() -> Path:
    """Of the Python package, which C++ programs use too."""
    import onnxruntime

    [path] = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    return path


def installed(name: str = "sdk", **options: str) -> Path:
    """The prefix of an installed SDK, as `cmake --install` leaves it, built in a folder of this name."""
    folder = build(name, "all", **OPTIONS, CMAKE_BUILD_TYPE="Release", DIBR_TESTS="OFF", **options)
    prefix = folder / "prefix"
    with lock(folder):
        run([tool("cmake"), "--install", str(folder), "--prefix", str(prefix)])
    return prefix


def sanitized(sanitizers: str) -> Path:
    """The program drive_runtime with these sanitizers. `make sanitize` has the same build."""
    name = f"sanitize-{sanitizers.split(';')[0]}"
    folder = build(name, "all", **OPTIONS, **sanitizing(sanitizers), DIBR_TESTS="ON")
    return folder / "tests" / "runtime_cpp" / "drive_runtime"


def project(source: Path, folder: Path, prefix: Path, *options: str) -> Path:
    """Configures and builds a CMake project against the prefix; returns the build folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        configure = [
            tool("cmake"),
            "-S",
            str(source),
            "-B",
            str(folder),
            "-G",
            "Ninja",
            f"-DCMAKE_PREFIX_PATH={prefix}",
        ]
        run([*configure, f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *options])
        run([tool("cmake"), "--build", str(folder)])
    return folder


def programs(prefix: Path) -> Path:
    """The folder of this folder's programs, built with flags from pkg-config."""
    folder = prefix.parent / "programs"
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        for source in (HERE / f"{name}.cpp" for name in PROGRAMS):
            program = folder / source.stem
            newest = max(path.stat().st_mtime for path in (source, *(prefix / "include" / "dibr").iterdir()))
            if not program.exists() or program.stat().st_mtime < newest:
                compile_with_pkg_config("dibr-runtime", prefix, source, program)
    return folder


def compile_with_pkg_config(package: str, prefix: Path, source: Path, program: Path) -> None:
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = run(["pkg-config", "--cflags", "--libs", package], environment).split()
    compiler = ["gcc", "-std=c99", "-pedantic"] if source.suffix == ".c" else ["g++", "-std=c++17"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    run([*compiler, *warnings, str(source), *flags, f"-Wl,-rpath,{prefix / 'lib'}", "-o", str(program)])


def run_bundle(
    programs: Path,
    model: Path | str,
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    threads: int = 2,
    provider: str = "cpu",
) -> dict[str, np.ndarray]:
    """Outputs of the program run_bundle, which writes them into a new folder."""
    folder.mkdir()
    arguments = []
    for name, array in arrays.items():
        array.tofile(folder / f"{name}.raw")
        sizes = ",".join(map(str, array.shape))
        arguments.append(f"{name}:{array.dtype}:{sizes}={folder / f'{name}.raw'}")
    printed = run([programs / "run_bundle", model, provider, str(threads), folder, *arguments], with_onnxruntime())
    outputs = {}
    for line in printed.splitlines():
        name, dtype, *shape = line.split()
        outputs[name] = np.fromfile(folder / name, dtype).reshape([int(size) for size in shape])
    return outputs


def with_onnxruntime(**others: str) -> dict[str, str]:
    """Variables of a program that shall find ONNX Runtime."""
    return {**os.environ, "DIBR_ONNXRUNTIME_LIBRARY": str(onnxruntime_library()), **others}


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> str:
    """What the command prints; a failure shows all of it."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """For one process of all at a time."""
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
