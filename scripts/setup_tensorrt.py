"""Install the TensorRT libraries that the tests load the plugins into, in a virtual environment of their own.

TensorRT-RTX parses ONNX and builds engines without a GPU; TensorRT's lean runtime has the plugin registry of TensorRT
itself. Both come from PyPI, 140 MB in all, and are not installed again. The packages of the Python that runs this are
visible in that environment too, so that dibr_deploy and its tests run there.

    python scripts/setup_tensorrt.py .venv-trt
    python scripts/setup_tensorrt.py --rtx-here    # TensorRT-RTX alone, beside the Python that runs this
"""

from __future__ import annotations

import argparse
import sys
import venv
from pathlib import Path

from environments import pip_install, set_up

REQUIREMENTS = (
    "numpy==2.4.6",
    "tensorrt-lean-cu13-bindings==10.16.1.11",
    "tensorrt-lean-cu13-libs==10.16.1.11",
    "tensorrt-rtx-cu13-bindings==1.7.1.116",
    "tensorrt-rtx-cu13-libs==1.7.1.116",
)
RTX = tuple(package for package in REQUIREMENTS if package.startswith("tensorrt-rtx-"))
STAMP = "TENSORRT"


def install(folder: Path) -> None:
    """Create the environment with the libraries. Broken off, it is made anew the next time."""
    venv.create(folder, clear=True, with_pip=True)
    if not pip_install(folder, REQUIREMENTS, "--no-deps"):
        raise SystemExit("the TensorRT libraries could not be installed")
    link_unversioned(folder)


def install_rtx(folder: Path) -> None:
    """Into an environment that exists; a TensorRT that is there already stays. Ends the program where pip fails."""
    if not pip_install(folder, RTX, "--no-deps"):
        raise SystemExit("TensorRT-RTX could not be installed")
    link_unversioned(folder)


def link_unversioned(folder: Path) -> None:
    """TensorRT-RTX's ONNX parser opens libtensorrt_rtx.so, which the wheel lacks, and aborts the process without it."""
    [library] = folder.glob("lib/python*/site-packages/tensorrt_rtx_libs/libtensorrt_rtx.so.1")
    link = library.with_suffix("")
    if not link.is_symlink():
        link.symlink_to(library.name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install the TensorRT libraries that the tests use.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("folder", type=Path, nargs="?", help="the virtual environment to make")
    where.add_argument(
        "--rtx-here", action="store_true", help="install TensorRT-RTX into the environment that runs this"
    )
    arguments = parser.parse_args()
    if arguments.rtx_here:
        install_rtx(Path(sys.prefix))
    else:
        set_up(arguments.folder, STAMP, REQUIREMENTS, install)


if __name__ == "__main__":
    main()
