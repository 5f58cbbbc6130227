"""Install the benchmark's peers in a virtual environment of their own, beside the project's.

The project's environment supplies torch, ONNX Runtime and dibr_deploy itself: its packages are linked, not installed
again, and what is installed here goes before them. A peer that cannot be installed is named, and left out of the
benchmark; the rest goes on. llvmpipe needs Debian's libegl1 and libgl1-mesa-dri besides. PyTorch3D's wheel is compiled
against one release of torch, with CUDA, without whose libraries it does not load on a CPU either: the two have an
environment of their own in this one, of some 5 GB.

    python scripts/setup_bench.py .venv-bench
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import venv
from pathlib import Path

from environments import link_packages, pip_install

PEERS = {
    "llvmpipe": ["moderngl==5.13.0", "glcontext==3.1.0"],
    "DEODR": ["deodr==0.2.3"],
    "Embree": ["embreex==4.4.0.post1"],
}
PLOTS = [
    "matplotlib==3.11.2",
]
PYTORCH3D = ["easypytorch3d==0.7.9.post1", "torch==2.12.0", f"numpy=={importlib.metadata.version('numpy')}"]
"""PyTorch3D's own sources, packed by somebody else: its project publishes no wheel for this Python."""
STAMP = "PEERS"


def install(folder: Path) -> list[str]:
    """Create the environment, or leave it alone where it already is what is wanted.

    Returns:
        What could not be installed; empty where all is there.
    """
    stamp = folder / STAMP
    wanted = _wanted()
    if stamp.is_file() and stamp.read_text() == wanted:
        return []
    venv.create(folder, clear=True, with_pip=True)
    link_packages(folder)
    failed = [name for name, packages in {**PEERS, "plots": PLOTS}.items() if not pip_install(folder, packages)]
    venv.create(folder / "pytorch3d", with_pip=True)
    # iopath, which it needs, has no wheel.
    if not pip_install(folder / "pytorch3d", PYTORCH3D, "--no-cache-dir", "--no-binary=iopath"):
        failed.append("PyTorch3D")
    if not failed:
        stamp.write_text(wanted)
    return failed


def _wanted() -> str:
    packages = [*PLOTS, *(line for lines in PEERS.values() for line in lines), *PYTORCH3D]
    return "\n".join([sys.prefix, sys.version, *packages]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the benchmark's peers.")
    parser.add_argument("folder", type=Path, help="the virtual environment to make")
    for name in install(parser.parse_args().folder):
        print(f"{name} could not be installed and will be missing", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
