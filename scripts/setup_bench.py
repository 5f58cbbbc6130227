"""Install the benchmark's peers in a virtual environment of their own, beside the project's.

The project's environment supplies torch, ONNX Runtime and dibr_deploy itself: its packages are linked, not installed
again, and what is installed here goes before them. A peer that cannot be installed is named, and left out of the
benchmark; the rest goes on. llvmpipe needs Debian's libegl1 and libgl1-mesa-dri besides.

    python scripts/setup_bench.py .venv-bench
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PEERS = {
    "llvmpipe": ["moderngl==5.13.0", "glcontext==3.1.0"],
    "DEODR": ["deodr==0.2.3"],
    "Embree": ["embreex==4.4.0.post1"],
}
PLOTS = [
    "matplotlib==3.11.2",
]
STAMP = "PEERS"
LINK = "project_environment.pth"


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
    _link(folder)
    failed = [name for name, packages in {**PEERS, "plots": PLOTS}.items() if not _pip(folder, packages)]
    if not failed:
        stamp.write_text(wanted)
    return failed


def _wanted() -> str:
    return "\n".join([sys.prefix, sys.version, *PLOTS, *(line for lines in PEERS.values() for line in lines)]) + "\n"


def _link(folder: Path) -> None:
    """Append this environment's packages, editable installs included, to the new one's path.

    The link is relative to the environment where the two lie side by side, so that both can be moved together.
    """
    [packages] = folder.glob("lib/python*/site-packages")
    own = Path(sysconfig.get_path("purelib"))
    relative = os.path.relpath(own, folder.resolve())
    (packages / LINK).write_text(f"import os, site, sys; site.addsitedir(os.path.join(sys.prefix, {relative!r}))\n")


def _pip(folder: Path, packages: list[str]) -> bool:
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return subprocess.run([*pip, "--only-binary=:all:", *packages], check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the benchmark's peers.")
    parser.add_argument("folder", type=Path, help="the virtual environment to make")
    for name in install(parser.parse_args().folder):
        print(f"{name} could not be installed and will be missing", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
