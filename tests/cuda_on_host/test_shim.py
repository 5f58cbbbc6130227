"""Tests of the shim itself: kernels with known results in every order, and planted faults, each of which must show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PLUGINS = HERE.parents[1] / "plugins"
ORDERS = ["forward", "reverse", "random:1", "random:2"]
POISON = -131075  # the pattern that shared memory starts with, read as int

COMPILE = [
    "g++",
    "-std=c++17",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-g",
    "-pthread",
    f"-I{HERE}",
    f"-I{PLUGINS}",
]
MODES = {
    "plain": ["-O2"],
    "ucontext": ["-O1", "-DCUDA_ON_HOST_UCONTEXT"],
    "workers": ["-O1", "-DCUDA_ON_HOST_MT"],
    # object-size would report first what the red zones of AddressSanitizer must show
    "address": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize=object-size", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-DCUDA_ON_HOST_MT", "-fsanitize=thread"],
    "library": ["-O1", "-fPIC", "-shared"],
    "library-workers": ["-O1", "-fPIC", "-shared", "-DCUDA_ON_HOST_MT"],
}
# Runs main(2, {"", fault}) of a library that the process loads late, as torch and ONNX Runtime load theirs.
RUN_LIBRARY = """
import ctypes, sys
arguments = (ctypes.c_char_p * 2)(b"", sys.argv[2].encode())
sys.exit(ctypes.CDLL(sys.argv[1]).main(2, arguments))
"""

Build = Callable[[str, str], Path]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("g++") is None, reason="the shim needs g++ on Linux"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile a driver in a mode, once for all workers of pytest-xdist; return the path of the program or library."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cuda_on_host"
    folder.mkdir(exist_ok=True)

    def compile_driver(driver: str, mode: str) -> Path:
        target = folder / f"{driver}-{mode}"
        if not target.exists():
            temporary = target.with_name(f"{target.name}.{os.getpid()}")
            command = [*COMPILE, *MODES[mode], "-x", "c++", str(HERE / f"{driver}.cu"), "-o", str(temporary)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            temporary.replace(target)
        return target

    return compile_driver


def run(program: list[str | Path], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program with no CUDA_ON_HOST_* but those given (ORDER="reverse" sets CUDA_ON_HOST_ORDER)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_ON_HOST_")}
    chosen = {f"CUDA_ON_HOST_{name}": value for name, value in environment.items()}
    return subprocess.run(program, capture_output=True, text=True, timeout=300, env=inherited | chosen)


def results(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ["plain", "ucontext", "workers", "address", "thread"])
def test_known_kernels_in_every_order(build: Build, mode: str, order: str) -> None:
    done = run([build("kernels_test", mode)], ORDER=order)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["plain", "address"])
def test_orders_counters_conversions_and_callers(build: Build, mode: str) -> None:
    done = run([build("shim_test", mode)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_known_kernels_compile_with_nvcc(tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH")
    command = [nvcc, "-std=c++17", "-arch=sm_80", f"-I{PLUGINS}", "-c", "-o", str(tmp_path / "kernels_test.o")]
    done = subprocess.run([*command, str(HERE / "kernels_test.cu")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("fault", "report"),
    [
        ("write_past_global", "heap-buffer-overflow"),
        ("write_past_static_shared", "global-buffer-overflow"),
        ("write_past_template_shared<int>", "global-buffer-overflow"),
        ("write_past_dynamic_shared", "heap-buffer-overflow"),
        ("misaligned_vector", "misaligned address"),
        ("uninitialised_flag", "not a valid value for type 'bool'"),
    ],
)
def test_address_and_undefined_behaviour_sanitizers_find(build: Build, fault: str, report: str) -> None:
    done = run([build("faults", "address"), fault])
    assert done.returncode != 0
    assert report in done.stderr
    assert "faults.cu:" in done.stderr


@pytest.mark.parametrize(
    "fault",
    [
        "missing_barrier",
        "missing_second_barrier",
        "shuffle_as_barrier",
        "last_thread_wins",
        "last_block_wins",
        "missing_atomic",
    ],
)
def test_thread_sanitizer_finds(build: Build, fault: str) -> None:
    # The sanitizer remembers few accesses: on a busy machine, where workers run one after another, a run may miss one.
    for _ in range(10):
        done = run([build("faults", "thread"), fault])
        if done.returncode != 0:
            break
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
    assert "faults.cu:" in done.stderr


@pytest.mark.parametrize(
    "fault",
    ["missing_barrier", "missing_second_barrier", "last_thread_wins", "last_block_wins", "order_dependent_atomics"],
)
def test_orders_disagree_on(build: Build, fault: str) -> None:
    by_order = [results(run([build("faults", "plain"), fault], ORDER=order)) for order in ORDERS]
    assert by_order[0] != by_order[1]
    assert by_order[2] != by_order[3]


@pytest.mark.parametrize("mode", ["plain", "workers", "address", "library", "library-workers"])
@pytest.mark.parametrize(
    "fault",
    [
        "uninitialised_static_shared",
        "uninitialised_template_shared<int>",
        "uninitialised_dynamic_shared",
        "never_written_shared",
    ],
)
def test_shared_memory_starts_poisoned_in_every_block(build: Build, fault: str, mode: str) -> None:
    binary = build("faults", mode)
    loader: list[str | Path] = [sys.executable, "-c", RUN_LIBRARY] if mode.startswith("library") else []
    for order in ORDERS[:2]:
        assert results(run([*loader, binary, fault], ORDER=order)) == [POISON] * 64


def test_device_memory_starts_poisoned(build: Build) -> None:
    assert results(run([build("faults", "plain"), "uninitialised_global"]))[0] == POISON + 1


@pytest.mark.parametrize("mode", ["plain", "workers", "address", "thread"])
@pytest.mark.parametrize(
    ("fault", "report", "lines"),
    [
        ("divergent_barrier", "divergent __syncthreads", 2),
        ("return_before_barrier", "thread exits while others wait in __syncthreads", 1),
        ("lane_never_arrives", "names a lane that never arrives", 1),
        ("lanes_in_two_operations", "names a lane that never arrives", 2),
        ("warp_waits_at_barrier", "names a lane that never arrives", 2),
        ("mask_without_caller", "a lane that its own mask leaves out", 1),
        ("mask_beyond_block", "names a lane that the block lacks", 1),
        ("shuffle_from_outside", "reads a lane that its mask leaves out", 1),
        ("shuffle_of_odd_width", "width is not a power of two up to 32", 1),
        ("misaligned_atomic", "atomic at a misaligned address", 0),
    ],
)
def test_shim_reports(build: Build, fault: str, report: str, lines: int, mode: str) -> None:
    done = run([build("faults", mode), fault])
    assert done.returncode == -6  # abort
    assert f"{report} in {fault}, block (0, 0, 0)" in done.stderr
    assert done.stderr.count("faults.cu:") == lines


@pytest.mark.parametrize(
    ("fault", "report"),
    [
        ("launch_on_another_stream", "last_thread_wins is given to stream (nil), not to CUDA_ON_HOST_STREAM"),
        ("memset_on_another_stream", "cudaMemsetAsync is given to stream (nil), not to CUDA_ON_HOST_STREAM"),
        ("allocation_beside_a_stream", "cudaMalloc is called, which no stream orders"),
        ("wait_beside_a_stream", "cudaDeviceSynchronize is called, which no stream orders"),
    ],
)
def test_what_is_not_on_the_stated_stream_is_reported(build: Build, fault: str, report: str) -> None:
    """That work on the stated stream goes on, the TensorRT plugins show: tests/tensorrt_door/lifecycle.cpp."""
    done = run([build("faults", "plain"), fault])
    assert done.returncode == -6
    assert report in done.stderr


def test_exit_before_barrier_shows_in_reverse_order_too(build: Build) -> None:
    done = run([build("faults", "plain"), "return_before_barrier"], ORDER="reverse")
    assert done.returncode == -6
    assert "__syncthreads after a thread of the block has exited in return_before_barrier" in done.stderr


def test_stripped_program_is_refused(build: Build, tmp_path: Path) -> None:
    stripped = tmp_path / "faults"
    subprocess.run(["strip", "-o", stripped, build("faults", "plain")], check=True, timeout=60)
    done = run([stripped, "uninitialised_static_shared"])
    assert done.returncode == -6
    assert "has no symbol table" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [
        ("ORDER", "backwards", "plain"),
        ("ORDER", "random", "plain"),
        ("ORDER", "random:x", "plain"),
        ("STREAM", "none", "plain"),
        ("WORKERS", "0", "workers"),
        ("WORKERS", "two", "workers"),
    ],
)
def test_bad_environment_is_refused(build: Build, name: str, value: str, mode: str) -> None:
    done = run([build("faults", mode), "last_thread_wins"], **{name: value})
    assert done.returncode == -6
    assert f"CUDA_ON_HOST_{name} must be " in done.stderr
    assert f'got "{value}"' in done.stderr


def test_any_number_of_workers_gives_the_same(build: Build) -> None:
    for workers in ["1", "2", "7"]:
        done = run([build("kernels_test", "workers")], WORKERS=workers)
        assert done.returncode == 0, done.stdout + done.stderr


def test_counters_are_written_as_json(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "counters.json"
    results(run([build("faults", "workers"), "missing_second_barrier"], COUNTERS=str(path)))
    assert json.loads(path.read_text()) == {
        "missing_second_barrier": {
            "launches": 1,
            "blocks": 1,
            "threads": 64,
            "barriers": 3,
            "warp_operations": 0,
            "atomics": 0,
            "bytes_loaded": 0,
            "bytes_stored": 0,
        }
    }


def test_a_million_threads_with_four_barriers_take_under_a_second(build: Build) -> None:
    done = run([build("shim_test", "plain"), "speed"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout) < 1.0  # processor seconds, measured: 0.2
