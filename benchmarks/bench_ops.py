"""Our torch ops beside the same in vectorised torch: `python benchmarks/bench_ops.py [--quick]`.

Spheres of 1,280, 20,480 and 81,920 faces over half of a 256x256 and a 512x512 image, forward and forward + backward.
Both implementations run in the same process, in turns; medians are compared, and only their ratio means something
across machines. The torch implementation (torch_reference.py) visits the pixels in each face's bounding box, in
chunks, with scatter operations; its texture is torch's own native grid_sample. Before anything is timed the two are
compared with each other.

Also printed: our time per face and per pixel, how it grows with faces and with pixels (the exponent e of
time ~ n^e by least squares through the fastest runs, which other programs on the machine disturb least; linear is 1),
and the peak memory above the input of forward + backward, each taken in a process of its own. `--check` fails if an
exponent exceeds 1.05. All times are CPU time, summed over threads (one unless `--threads` says otherwise): the work is
compared, not the waiting for a busy machine."""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch_reference as reference
from torch import Tensor

from dibr_deploy import cameras, mesh, ops
from dibr_deploy.files import write_atomically

SUBDIVISIONS = {1280: 3, 20480: 5, 81920: 6}
OPS = ("rasterize", "interpolate", "soft_mask", "texture", "render")
IMPLEMENTATIONS = ("ours", "torch")
LINEAR = 1.05


@dataclass(frozen=True)
class Row:
    """One line of the table; medians in seconds, memory in MiB above the input (None: not measured)."""

    op: str
    faces: int
    size: int
    backward: bool
    ours: float
    torch: float
    ours_fastest: float
    runs: int
    ours_mib: float | None = None
    torch_mib: float | None = None

    @property
    def ratio(self) -> float:
        return self.torch / self.ours


class Scene:
    """A sphere in perspective over half of the image, its rasterisation, and random attributes, uv and texture."""

    def __init__(self, faces: int, size: int) -> None:
        sphere = mesh.icosphere(SUBDIVISIONS[faces])
        generator = torch.Generator().manual_seed(0)
        world_to_clip = cameras.perspective(0.8, 1.0, 0.5, 10.0) @ cameras.look_at((0.4, 0.3, 3.2))
        self.size = size
        self.positions = cameras.project(sphere.vertices[None], world_to_clip[None]).float().contiguous()
        self.faces = sphere.faces.int()
        self.long_faces = self.faces.long()
        self.attributes = torch.rand(1, self.positions.shape[1], 3, generator=generator)
        self.texture = torch.rand(1, 3, 256, 256, generator=generator)
        self.uv = torch.rand(1, size, size, 2, generator=generator)
        raster = ops.rasterize(self.positions, self.faces, size, size)
        self.face_index, self.barycentrics = raster.face_index, raster.barycentrics

    def call(self, op: str, implementation: str) -> tuple[Callable[[], list[Tensor]], list[Tensor]]:
        """The differentiable outputs of one op as a function without arguments, and its differentiable inputs."""
        return getattr(self, f"_{op}_{implementation}")()

    def _leaves(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.detach().clone().requires_grad_() for tensor in tensors]

    def _rasterize_ours(self):
        (positions,) = leaves = self._leaves(self.positions)
        return lambda: list(ops.rasterize(positions, self.faces, self.size, self.size)[1:]), leaves

    def _rasterize_torch(self):
        (positions,) = leaves = self._leaves(self.positions[0])
        return lambda: list(reference.rasterize(positions, self.long_faces, self.size, self.size)[1:]), leaves

    def _interpolate_ours(self):
        leaves = self._leaves(self.attributes, self.barycentrics)
        return lambda: [ops.interpolate(leaves[0], self.faces, self.face_index, leaves[1])], leaves

    def _interpolate_torch(self):
        leaves = self._leaves(self.attributes[0], self.barycentrics[0])
        face_index = self.face_index[0].long()
        return lambda: [reference.interpolate(leaves[0], self.long_faces, face_index, leaves[1])], leaves

    def _soft_mask_ours(self):
        (positions,) = leaves = self._leaves(self.positions)
        return lambda: [ops.soft_mask(positions, self.faces, self.face_index)], leaves

    def _soft_mask_torch(self):
        (positions,) = leaves = self._leaves(self.positions[0])
        face_index = self.face_index[0].long()
        return lambda: [reference.soft_mask(positions, self.long_faces, face_index, 7000.0, 0.02, 30)], leaves

    def _texture_ours(self):
        leaves = self._leaves(self.texture, self.uv)
        return lambda: [ops.texture(*leaves)], leaves

    def _texture_torch(self):
        leaves = self._leaves(self.texture, self.uv)
        return lambda: [reference.texture(*leaves)], leaves

    def _render_ours(self):
        positions, attributes = leaves = self._leaves(self.positions, self.attributes)

        def run() -> list[Tensor]:
            face_index, barycentrics, _ = ops.rasterize(positions, self.faces, self.size, self.size)
            colour = ops.interpolate(attributes, self.faces, face_index, barycentrics)
            return [colour, ops.soft_mask(positions, self.faces, face_index)]

        return run, leaves

    def _render_torch(self):
        positions, attributes = leaves = self._leaves(self.positions[0], self.attributes[0])

        def run() -> list[Tensor]:
            face_index, barycentrics, _ = reference.rasterize(positions, self.long_faces, self.size, self.size)
            colour = reference.interpolate(attributes, self.long_faces, face_index, barycentrics)
            return [colour, reference.soft_mask(positions, self.long_faces, face_index, 7000.0, 0.02, 30)]

        return run, leaves


def _runner(scene: Scene, op: str, implementation: str, backward: bool) -> Callable[[], None]:
    call, leaves = scene.call(op, implementation)
    weights = [torch.rand(output.shape, generator=torch.Generator().manual_seed(1)) for output in call()]

    def run() -> None:
        if backward:
            torch.autograd.grad(call(), leaves, weights)
        else:
            with torch.no_grad():
                call()

    return run


def compare(scene: Scene) -> float:
    """Fraction of pixels on which both see another face; fails where that or the rest differs by more than float32."""
    face_index, _, _ = reference.rasterize(scene.positions[0], scene.long_faces, scene.size, scene.size)
    different = face_index != scene.face_index[0]
    for op in OPS[1:]:
        ours, yardstick = (scene.call(op, implementation)[0]() for implementation in IMPLEMENTATIONS)
        for a, b in zip(ours, yardstick, strict=True):
            gap = (a.detach().squeeze(0) - b.detach().squeeze(0)).abs()
            gap = gap.amax(-1) if gap.dim() == 3 else gap
            if gap[~different].quantile(0.999) > 1e-3:
                raise AssertionError(f"{op}: the implementations differ by {gap[~different].max():.1e}")
    fraction = different.float().mean().item()
    if fraction > 1e-3:
        raise AssertionError(f"the implementations see different faces on {fraction:.2%} of the pixels")
    return fraction


def measure(scene: Scene, op: str, faces: int, backward: bool, seconds: float) -> Row:
    """Medians of runs in turns, at least three, for about `seconds`."""
    runners = [_runner(scene, op, implementation, backward) for implementation in IMPLEMENTATIONS]
    for run in runners:
        run()
    times: list[list[float]] = [[], []]
    end = time.process_time() + seconds
    while len(times[0]) < 3 or (time.process_time() < end and len(times[0]) < 101):
        for taken, run in zip(times, runners, strict=True):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    ours, yardstick = (statistics.median(taken) for taken in times)
    return Row(op, faces, scene.size, backward, ours, yardstick, min(times[0]), len(times[0]))


def _resident_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def print_peak(op: str, implementation: str, faces: int, size: int) -> None:
    """For a process of its own: the rise of the peak resident size by one forward and backward, after a small one."""
    _runner(Scene(1280, 32), op, implementation, True)()
    scene = Scene(faces, size)
    call, leaves = scene.call(op, implementation)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _resident_mib("VmHWM")
    torch.autograd.grad(torch.stack([output.sum() for output in call()]).sum(), leaves)
    print(_resident_mib("VmHWM") - before)


def peak_mib(op: str, implementation: str, faces: int, size: int, threads: int) -> float:
    command = [sys.executable, __file__, "--peak", op, implementation, "--faces", str(faces), "--sizes", str(size)]
    done = subprocess.run([*command, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def keep_freed_memory() -> None:
    """Asks the C library (glibc, elsewhere nothing happens) to reuse large freed blocks rather than return them.

    Else every output of some MiB is mapped anew in each run, for both implementations, and clearing its pages shows as
    growth faster than linear of whatever writes it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def exponent(counts: list[int], times: list[float]) -> float:
    """e of time ~ count^e by least squares in logarithms."""
    return float(np.polyfit(np.log(counts), np.log(times), 1)[0])


def growth(rows: list[Row]) -> list[dict]:
    """Exponents of our time in faces (at each size) and in pixels (at each number of faces)."""
    found = []
    for op in OPS:
        for backward in (False, True):
            own = [row for row in rows if row.op == op and row.backward == backward]
            sizes, faces = sorted({row.size for row in own}), sorted({row.faces for row in own})
            groups = [("faces", f"{s}x{s}", [(r.faces, r.ours_fastest) for r in own if r.size == s]) for s in sizes]
            groups += [
                ("pixels", f"{f:,} faces", [(r.size**2, r.ours_fastest) for r in own if r.faces == f]) for f in faces
            ]
            for variable, at, points in groups:
                if len(points) > 1:
                    value = exponent(*(list(axis) for axis in zip(*sorted(points), strict=True)))
                    found.append({"op": op, "backward": backward, "in": variable, "at": at, "exponent": value})
    return found


def print_table(rows: list[Row], exponents: list[dict]) -> None:
    columns = (
        "op",
        "pass",
        "faces",
        "image",
        "ratio",
        "ours ms",
        "torch ms",
        "ns/face",
        "ns/pixel",
        "ours MiB",
        "torch MiB",
    )
    print("".join(f"{column:>{width}}" for column, width in zip(columns, _WIDTHS, strict=True)))
    for row in rows:
        kind = "fwd+bwd" if row.backward else "fwd"
        memory = ["-" if value is None else f"{value:.0f}" for value in (row.ours_mib, row.torch_mib)]
        cells = [row.op, kind, f"{row.faces:,}", f"{row.size}x{row.size}", f"{row.ratio:.1f}x", f"{row.ours * 1e3:.2f}"]
        cells += [f"{row.torch * 1e3:.1f}", f"{row.ours / row.faces * 1e9:.0f}", f"{row.ours / row.size**2 * 1e9:.1f}"]
        print("".join(f"{cell:>{width}}" for cell, width in zip(cells + memory, _WIDTHS, strict=True)))
    if exponents:
        print("\ngrowth of our time, time ~ n^e:")
    for op in OPS:
        for entry in (entry for entry in exponents if entry["op"] == op):
            kind = "fwd+bwd" if entry["backward"] else "fwd"
            print(f"{op:>12}{kind:>9}  in {entry['in']:<6} at {entry['at']:>12}: e = {entry['exponent']:.2f}")


_WIDTHS = (12, 9, 9, 9, 9, 10, 10, 9, 10, 10, 10)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=list(SUBDIVISIONS), choices=list(SUBDIVISIONS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="image sizes, in pixels")
    parser.add_argument("--ops", nargs="+", default=list(OPS), choices=OPS)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each line of the table")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument(
        "--quick", action="store_true", help="1,280 and 20,480 faces, 64 and 128 pixels, 0.2 s a line, no memory"
    )
    parser.add_argument("--check", action="store_true", help=f"fail if an exponent exceeds {LINEAR}")
    parser.add_argument("--output", type=Path, default=Path("build/bench_ops.json"), help="where the JSON goes")
    parser.add_argument("--peak", nargs=2, metavar=("OP", "IMPLEMENTATION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.faces, arguments.sizes, arguments.seconds = [1280, 20480], [64, 128], 0.2
        arguments.no_memory = True
    return arguments


def main() -> int:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        op, implementation = arguments.peak
        print_peak(op, implementation, arguments.faces[0], arguments.sizes[0])
        return 0
    keep_freed_memory()
    rows = []
    for faces in arguments.faces:
        for size in arguments.sizes:
            scene = Scene(faces, size)
            coverage = (scene.face_index >= 0).float().mean().item()
            print(f"{faces:,} faces at {size}x{size}: {coverage:.0%} covered, ", end="", file=sys.stderr)
            print(f"another face on {compare(scene):.3%} of the pixels", file=sys.stderr)
            for op in arguments.ops:
                memory = {}
                if not arguments.no_memory:
                    peaks = [peak_mib(op, which, faces, size, arguments.threads) for which in IMPLEMENTATIONS]
                    memory = {"ours_mib": peaks[0], "torch_mib": peaks[1]}
                for backward in (False, True):
                    row = measure(scene, op, faces, backward, arguments.seconds)
                    rows.append(Row(**{**asdict(row), **(memory if backward else {})}))
    rows.sort(key=lambda row: (OPS.index(row.op), row.backward, row.size, row.faces))
    exponents = growth(rows)
    print_table(rows, exponents)
    machine = {"machine": platform.machine(), "threads": arguments.threads, "torch": torch.__version__}
    report = {**machine, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows], "growth": exponents}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.output, json.dumps(report, indent=1))
    print(f"\nwritten to {arguments.output}")
    steep = [entry for entry in exponents if entry["exponent"] > LINEAR]
    if arguments.check and steep:
        print(f"time grows faster than linearly: {steep}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
