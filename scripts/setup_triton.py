"""Install a real Triton Inference Server for the CPU, with its Python backend, in a virtual environment of its own.

The PyPI package nvidia-pytriton carries one. Of that package nothing is imported: a launcher starts the server with its
own libraries and backends, and with a Python that sees the packages of the Python that runs this, onnxruntime among
them. KServe's package lies there too, whose types describe its resources; it is only read. 75 MB to download.

    python scripts/setup_triton.py .venv-triton
    .venv-triton/bin/tritonserver --model-repository=REPOSITORY
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import venv
from pathlib import Path

from environments import pip_install, set_up

REQUIREMENTS = ("kserve==0.21.0", "numpy==1.26.4", "nvidia-pytriton==0.7.0")
STAMP = "TRITON"
LAUNCHER = """\
#!/bin/sh
# The model's Python is the first on PATH.
here=$(cd "$(dirname "$0")/.." && pwd)
export PATH="$here/bin:$PATH"
export LD_LIBRARY_PATH="$here/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
exec "$here/{server}" --backend-directory="$here/backends" "$@"
"""


def install(folder: Path) -> None:
    """Create the environment with the server. Broken off, it is made anew the next time."""
    venv.create(folder, clear=True, with_pip=True)
    if not pip_install(folder, REQUIREMENTS, "--no-deps"):
        raise SystemExit(
            f"Triton could not be installed: there is a package for Linux on x86_64, not {platform.machine()}"
        )
    [server] = folder.glob("lib/python*/site-packages/pytriton/tritonserver")
    add_python_backend(server, folder / "backends" / "python")
    libraries = (server.parents[1] / "nvidia_pytriton.libs").relative_to(folder)
    launcher = folder / "bin" / "tritonserver"
    binary = (server / "bin" / "tritonserver").relative_to(folder)
    launcher.write_text(LAUNCHER.format(libraries=libraries, server=binary))
    launcher.chmod(0o755)
    (folder / binary).chmod(0o755)


def add_python_backend(server: Path, backend: Path) -> None:
    """The backend with the stub of this Python, which the package keeps apart."""
    shutil.copytree(server / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        raise SystemExit(f"Triton's Python backend has no stub for Python {version}")
    shutil.copy(stub, backend)
    (backend / stub.name).chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install the Triton Inference Server that the tests use.")
    parser.add_argument("folder", type=Path, help="the virtual environment to make")
    set_up(parser.parse_args().folder, STAMP, REQUIREMENTS, install)


if __name__ == "__main__":
    main()
