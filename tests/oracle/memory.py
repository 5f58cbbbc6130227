"""Peak memory of one op, forward and backward, measured in a process of its own.

`peak_of` runs this module as a program; the program makes the input, runs the op once at a small size so that libraries
and thread pools are there, and prints by how much the real call raised the peak resident size of the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def peak_of(op: str, **sizes: float) -> float:
    """MiB that forward and backward of `op` need above their input, for the sizes that `_run` takes."""
    arguments = [f"{name}={value}" for name, value in sizes.items()]
    environment = dict(os.environ, OMP_NUM_THREADS="2", PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    done = subprocess.run(
        [sys.executable, "-m", "oracle.memory", op, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def _peak_kibibytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _prepare(op: str, faces: float, size: float, knum: float = 30, boxlen: float = 0.02):
    """A function that runs the op forward and backward on a sphere of about `faces` faces over half of the image."""
    import math

    import torch

    from dibr_deploy import ops
    from oracle.scenes import icosphere

    vertices, triangles = icosphere(round(math.log(faces / 20, 4)))
    positions = torch.from_numpy(vertices * 0.8).float()[None].requires_grad_()
    triangles, size = torch.from_numpy(triangles), int(size)
    background = torch.full((1, size, size), -1, dtype=torch.int32)

    def run() -> None:
        if op == "rasterize":
            raster = ops.rasterize(positions, triangles, size, size)
            loss = raster.barycentrics.sum() + raster.depth.sum()
        else:
            loss = ops.soft_mask(positions, triangles, background, knum=int(knum), boxlen=boxlen, sigmainv=10.0).sum()
        loss.backward()

    return run


def _main() -> None:
    op, *pairs = sys.argv[1:]
    sizes = {name: float(value) for name, value in (pair.split("=") for pair in pairs)}
    _prepare(op, faces=320, size=32)()
    run = _prepare(op, **sizes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = _peak_kibibytes()
    run()
    print((_peak_kibibytes() - before) / 1024)


if __name__ == "__main__":
    _main()
