"""The numbers in docs/performance.md: device memory from the workspace functions, and a lower bound of the time of each
kernel from what it does.

    python tests/cuda_backend/performance_model.py      # rewrites the generated parts of docs/performance.md

The kernels run on the CPU (tests/cuda_on_host), compiled so that floating-point operations are counted by the type that
computes them and loads and stores by hooks that the compiler puts at each (counting/): the kernel sources are those of
the product, unchanged."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))

from oracle import scenes  # noqa: E402
from oracle.scenes import Scene  # noqa: E402

from cuda_backend import abi, host_build  # noqa: E402
from cuda_backend.abi import CUDA, DTYPES, PARAMS, Library, aligned, make_params  # noqa: E402
from cuda_backend.ops import Device  # noqa: E402

DOCUMENT = ROOT / "docs" / "performance.md"
BUILD = ROOT / "build" / "performance_model"
COUNTING = Path(__file__).resolve().parent / "counting"
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno")
HOOKS = (
    *("-fsanitize=kernel-address", "-U__SANITIZE_ADDRESS__"),  # the shim need not know
    *("--param", "asan-instrumentation-with-call-threshold=0"),
    *("--param", "asan-stack=0"),
    *("--param", "asan-globals=0"),
)

SOURCES = {".cu", ".cuh", ".h", ".cpp"}

# --- Device memory.

MEMORY_SIZE, MEMORY_FACES = 512, 20_480
MEMORY_VERTICES, MEMORY_TEXTURE = 10_242, 512


@dataclass(frozen=True)
class Memory:
    """Workspace of one op in bytes, beyond inputs and outputs, batch 1."""

    per_pixel: float
    per_face: float
    per_vertex: float
    per_texel: float
    total: int


def workspace(library: Library, op: str, dtype: int, **sizes: int) -> int:
    """Bytes of workspace that a launch of an op needs on the CUDA device; sizes not given are those of the table."""
    known = {
        "batch": 1,
        "attribute_batch": 1,
        "texture_batch": 1,
        "vertices": MEMORY_VERTICES,
        "raster_vertices": sizes.get("vertices", MEMORY_VERTICES),
        "faces": MEMORY_FACES,
        "height": MEMORY_SIZE,
        "width": MEMORY_SIZE,
        "channels": 3,
        "texture_height": MEMORY_TEXTURE,
        "texture_width": MEMORY_TEXTURE,
        "sigmainv": 7000.0,
        "boxlen": 0.02,
        "knum": 30,
        "deterministic": 0,
        **sizes,
    }
    taken = {name: value for name, value in known.items() if name in dict(PARAMS[op]._fields_)}
    return library.workspace_size(op, make_params(op, dtype, **taken), CUDA)


def memory_of(library: Library, op: str, dtype: int = 0, deterministic: bool = False) -> Memory:
    """Total at the table's size, and what one more pixel, face, vertex or texel adds."""

    def size(**sizes: int) -> int:
        return workspace(library, op, dtype, deterministic=int(deterministic), **sizes)

    total = size()
    pixels, texels = MEMORY_SIZE**2, MEMORY_TEXTURE**2
    return Memory(
        (size(height=2 * MEMORY_SIZE) - total) / pixels,
        (size(faces=2 * MEMORY_FACES) - total) / MEMORY_FACES,
        (size(vertices=2 * MEMORY_VERTICES) - total) / MEMORY_VERTICES,
        (size(texture_height=2 * MEMORY_TEXTURE) - total) / texels,
        total,
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]], text_columns: int = 1) -> str:
    rule = "|" + "---|" * text_columns + "---:|" * (len(header) - text_columns)
    lines = ["| " + " | ".join(header) + " |", rule]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def memory_table(library: Library) -> str:
    rows = []
    for op in PARAMS:
        modes = [("atomic", False), ("deterministic", True)] if op.endswith("backward") else [("", False)]
        for mode, deterministic in modes:
            for dtype in ("float32", "float64"):
                m = memory_of(library, op, DTYPES[np.dtype(dtype)], deterministic)
                parts = (m.per_pixel, m.per_face, m.per_vertex, m.per_texel)
                rows.append([op, mode, dtype, *(f"{part:.4g}" for part in parts), f"{m.total:,}"])
    header = [
        "op",
        "mode",
        "dtype",
        "per pixel",
        "per face",
        "per vertex",
        "per texel",
        "bytes at 512x512, 20,480 faces",
    ]
    return table(header, rows, text_columns=3)


# --- Counted runs.

FACES = {3: 1_280, 5: 20_480, 6: 81_920}  # by subdivisions of the icosphere
SIZES = (256, 512)
TEXTURE_SIZE, CHANNELS = 1024, 2


@dataclass(frozen=True)
class Count:
    """What one kernel did in one call of an op."""

    launches: int
    operations: int  # float32: add, subtract, multiply, compare, fused
    special: int  # float32: divide, floor
    atomics: int
    loaded: int  # bytes that threads asked for
    stored: int
    distinct_loaded: int  # bytes of the 32-byte sectors that a launch touched
    distinct_stored: int

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class CountingLibrary(Library):
    """libdibr whose CUDA device counts; every array and workspace of a call is on the device."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._library.counting_report.restype = ctypes.c_char_p
        self.counts: dict[str, Count] = {}

    def run(self, op: str, device: int, dtype: int, **values: object) -> None:
        params = make_params(op, dtype, **values)
        memory = aligned((self.workspace_size(op, params, device),), np.uint8)
        self._library.counting_reset()
        for array in (memory, *(value for value in values.values() if isinstance(value, np.ndarray))):
            self._library.counting_track(ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(array.nbytes))
        self.launch(op, params, abi.Launch(device, None, None, None, memory.ctypes.data, memory.size))
        self.counts = {}
        for line in self._library.counting_report().decode().splitlines():
            kernel, numbers = line.split("\t")
            self.counts[re.sub(r"^\(|\)$", "", kernel)] = Count(*map(int, numbers.split()))


def counting_library() -> CountingLibrary:
    """Compiled where a source is newer. The CPU backend, which the ABI needs, is not counted."""
    plugins, shim = ROOT / "plugins", TESTS / "cuda_on_host"
    library = BUILD / "libdibr_counting.so"
    sources = [path for folder in (plugins, shim, COUNTING) for path in folder.rglob("*") if path.suffix in SOURCES]
    if library.exists() and library.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return CountingLibrary(library)
    BUILD.mkdir(parents=True, exist_ok=True)
    include = [f"-I{plugins}", f"-I{plugins / 'include'}"]
    on_host = ["-DDIBR_CUDA_ON_HOST=1", "-xc++"]
    counted = [f"-I{COUNTING}", f"-I{shim}", *include, "-include", "counted.h", *HOOKS, *on_host]
    jobs = [(source, counted) for source in sorted((plugins / "cuda").glob("*.cu"))]
    plain = [*include, "-DDIBR_WITH_CUDA=1", "-DDIBR_CPU_LEVEL=baseline"]
    for folder in (plugins / "abi", plugins / "cpu", COUNTING):
        flags = [*plain, "-O0"] if folder.name == "cpu" else plain  # which nobody runs
        jobs += [(source, flags) for source in sorted(folder.glob("*.cpp"))]
    objects = [str(BUILD / f"{source.parent.name}_{source.stem}.o") for source, _ in jobs]
    for (source, options), target in zip(jobs, objects, strict=True):
        subprocess.run(["g++", *FLAGS, *options, "-c", str(source), "-o", target], check=True)
    temporary = library.with_suffix(f".{os.getpid()}")
    subprocess.run(["g++", "-shared", *objects, "-o", str(temporary), "-lpthread"], check=True)
    temporary.replace(library)
    return CountingLibrary(library)


def sphere(subdivisions: int, size: int) -> Scene:
    """An icosphere in perspective that covers about two fifths of a square image."""
    vertices, faces = scenes.icosphere(subdivisions)
    matrix = scenes.perspective(45.0, 1.0, 0.1, 10.0)
    positions = scenes.project(vertices @ scenes.rotation(0.3, 0).T - np.array([0.0, 0.0, 3.4]), matrix)
    return Scene("sphere", np.ascontiguousarray(positions[None], np.float32), faces, size, size)


def counted_ops(library: CountingLibrary, scene: Scene) -> Iterator[tuple[str, dict[str, Count]]]:
    """(op, kernel -> count) for every op, forward and with atomics backward, float32, batch 1."""
    device = Device(library, CUDA)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    face_index, barycentrics, depth = device.rasterize(scene)
    yield "rasterize", library.counts
    device.rasterize_backward(scene, face_index, normal(*barycentrics.shape), normal(*depth.shape))
    yield "rasterize_backward", library.counts
    points = scene.positions[0, :, :2] / scene.positions[0, :, 3:] * 0.5 + 0.5
    uvs = np.ascontiguousarray(points[None], np.float32)
    uv = device.interpolate(uvs, scene.faces, face_index, barycentrics)
    yield "interpolate", library.counts
    device.interpolate_backward(uvs, scene.faces, face_index, barycentrics, normal(*uv.shape))
    yield "interpolate_backward", library.counts
    texture = normal(1, 3, TEXTURE_SIZE, TEXTURE_SIZE)
    image = device.texture(texture, uv, 1, 0)
    yield "texture", library.counts
    device.texture_backward(texture, uv, normal(*image.shape), 1, 0)
    yield "texture_backward", library.counts
    device.soft_mask(scene, face_index)
    yield "soft_mask", library.counts
    device.soft_mask_backward(scene, face_index, normal(*depth.shape))
    yield "soft_mask_backward", library.counts
    device.antialias(scene, image, face_index, barycentrics)
    yield "antialias", library.counts
    device.antialias_backward(scene, image, face_index, barycentrics, normal(*image.shape))
    yield "antialias_backward", library.counts


# --- The bound.


@dataclass(frozen=True)
class Gpu:
    """Datasheet figures. Rates are of instructions: half of the figure that datasheets print, where a fused
    multiply-add counts as two."""

    name: str
    bandwidth: float  # bytes/s
    operations: float  # float32 instructions/s

    def bound(self, count: Count) -> tuple[float, float]:
        """Seconds that the memory and that the arithmetic of a kernel take at least."""
        memory = (count.distinct_loaded + count.distinct_stored) / self.bandwidth
        return memory, (count.operations + count.special) / self.operations


GPUS = (Gpu("H100 SXM", 3.35e12, 67e12 / 2), Gpu("RTX 4090", 1.008e12, 82.6e12 / 2))


def kernel_table(results: dict[str, dict[str, Count]]) -> str:
    rows = []
    for op, kernels in results.items():
        for kernel, n in kernels.items():
            cells = [f"{v / 1e6:.2f}" for v in (n.loaded, n.stored, n.distinct_loaded, n.distinct_stored)]
            cells += [f"{v / 1e6:.2f}" for v in (n.operations, n.special, n.atomics)]
            for gpu in GPUS:
                memory, arithmetic = gpu.bound(n)
                cells.append(f"{max(memory, arithmetic) * 1e6:.2f} {'m' if memory >= arithmetic else 'a'}")
            rows.append([op, f"`{kernel}`", n.launches, *cells])
    header = ["op", "kernel", "launches", "loads MB", "stores MB", "distinct loads MB", "distinct stores MB"]
    return table(
        [*header, "10^6 operations", "10^6 special", "10^6 atomics", *(f"{gpu.name} us" for gpu in GPUS)],
        rows,
        text_columns=2,
    )


def scene_table(results: dict[tuple[int, int], dict[str, dict[str, Count]]]) -> str:
    """Bounds of whole ops: kernels run one after another, so their bounds add up."""
    rows = []
    for (faces, size), ops in results.items():
        for op, kernels in ops.items():
            total = sum(kernels.values(), Count(0, 0, 0, 0, 0, 0, 0, 0))
            cells = [f"{total.distinct_loaded / 1e6 + total.distinct_stored / 1e6:.2f}"]
            cells.append(f"{(total.operations + total.special) / 1e6:.1f}")
            cells += [f"{sum(max(gpu.bound(n)) for n in kernels.values()) * 1e6:.1f}" for gpu in GPUS]
            rows.append([f"{faces:,}", f"{size}x{size}", op, total.launches, *cells])
    header = ["faces", "image", "op", "launches", "distinct MB", "10^6 operations"]
    return table([*header, *(f"{gpu.name} us" for gpu in GPUS)], rows, text_columns=3)


def generated(text: str, name: str) -> re.Match[str]:
    """The part of a document between the markers of that name, as group 1."""
    match = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    if match is None:
        raise ValueError(f"the document has no part '{name}'")
    return match


def with_generated(text: str, name: str, part: str) -> str:
    match = generated(text, name)
    return text[: match.start(1)] + part + text[match.end(1) :]


def main() -> None:
    library = counting_library()
    results = {}
    for subdivisions, faces in FACES.items():
        for size in SIZES:
            results[faces, size] = dict(counted_ops(library, sphere(subdivisions, size)))
            print(f"{faces} faces at {size}x{size}", flush=True)
    (BUILD / "kernels.md").write_text("\n\n".join(f"{key}\n{kernel_table(ops)}" for key, ops in results.items()))
    text = DOCUMENT.read_text()
    plain = Library(host_build.build() / "plugins" / "libdibr.so")
    text = with_generated(text, "memory", memory_table(plain))
    text = with_generated(text, "kernels", kernel_table(results[20_480, 512]))
    text = with_generated(text, "scenes", scene_table(results))
    temporary = DOCUMENT.with_name(f"{DOCUMENT.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(DOCUMENT)


if __name__ == "__main__":
    main()
