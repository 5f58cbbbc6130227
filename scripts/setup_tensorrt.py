"""Install the TensorRT libraries that the tests load the plugins into, in a virtual environment of their own.

TensorRT-RTX parses ONNX and builds engines without a GPU; TensorRT's lean runtime has the plugin registry of TensorRT
itself. Both come from PyPI, 140 MB in all, and are not installed again. The packages of the Python that runs this are
visible in that environment too, so that dibr_deploy and its tests run there.

    python scripts/setup_tensorrt.py .venv-trt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

REQUIREMENTS = (
    "numpy==2.4.6",
    "tensorrt-lean-cu13-bindings==10.16.1.11",
    "tensorrt-lean-cu13-libs==10.16.1.11",
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
    "tensorrt-rtx-cu13-libs==1.7.1.116",
)
STAMP = "TENSORRT"
BESIDE = "packages_beside.pth"


def set_up(folder: Path) -> None:
    """Create the environment where it is absent or has other versions, and show it the packages beside it.

    Raises subprocess.CalledProcessError where pip fails, having printed why.
    """
    stamp = folder / STAMP
    wanted = "\n".join(REQUIREMENTS) + "\n"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        install(folder)
    show_packages(folder, Path(sysconfig.get_paths()["purelib"]))
    stamp.write_text(wanted)


def install(folder: Path) -> None:
    """Create the environment with the libraries. Broken off, it is made anew the next time."""
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--only-binary=:all:", *REQUIREMENTS], check=True)
    link_unversioned(folder)


def link_unversioned(folder: Path) -> None:
    """TensorRT-RTX's ONNX parser opens libtensorrt_rtx.so, which the wheel lacks, and aborts the process without it."""
    [library] = folder.glob("lib/python*/site-packages/tensorrt_rtx_libs/libtensorrt_rtx.so.1")
    library.with_suffix("").symlink_to(library.name)


def show_packages(folder: Path, packages: Path) -> None:
    """The packages of a site-packages folder, behind the environment's own, editable installs included."""
    [own] = folder.glob("lib/python*/site-packages")
    (own / BESIDE).write_text(f"import site; site.addsitedir({str(packages)!r})\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the TensorRT libraries that the tests use.")
    parser.add_argument("folder", type=Path, help="the virtual environment to make")
    try:
        set_up(parser.parse_args().folder)
    except subprocess.CalledProcessError as error:
        print(f"the TensorRT libraries could not be installed: pip gave {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
