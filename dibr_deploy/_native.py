"""Where the native libraries of this installation are. Imports no framework."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import dibr_deploy

LIBRARY_DIR_VARIABLE = "DIBR_LIBRARY_DIR"


def library_folders() -> list[Path]:
    """Folders that are searched, in order: ``DIBR_LIBRARY_DIR`` where it is set, then the installed package's."""
    override = os.environ.get(LIBRARY_DIR_VARIABLE)
    installed = [Path(folder) / "lib" for folder in dibr_deploy.__path__]
    return [Path(override), *installed] if override else installed


def library_path(name: str) -> Path:
    """Path of a native library, for example ``library_path("libdibr_onnxruntime.so")``.

    ``libdibr.so`` is found under its versioned name too, which is the only one a wheel carries.
    Raises FileNotFoundError naming the library, the folders searched and what to do.
    """
    folders = library_folders()
    for folder in folders:
        versioned = sorted(folder.glob(f"{name}.[0-9]*"))
        for path in (folder / name, *versioned):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{name} is not in {' or '.join(map(str, folders))}: this dibr_deploy was built without it; "
        f"build it again with {_BUILD_OPTIONS.get(name, 'all options on')} to see what is missing, "
        f"or set {LIBRARY_DIR_VARIABLE} to the folder that has it"
    )


def has_cuda_kernels() -> bool:
    """Whether this installation's libdibr was built with CUDA kernels; says nothing of the machine.

    Raises FileNotFoundError as :func:`library_path` does, OSError where the library cannot be loaded.
    """
    return bool(ctypes.CDLL(str(library_path("libdibr.so"))).dibr_has_device(_CUDA))


_CUDA = 1  # dibr_device of dibr.h
_TENSORRT = "-C cmake.define.DIBR_CUDA=ON -C cmake.define.DIBR_TENSORRT=ON"
_BUILD_OPTIONS = {
    "libdibr_torch.so": "-C cmake.define.DIBR_TORCH=ON",
    "libdibr_onnxruntime.so": "-C cmake.define.DIBR_ORT=ON",
    "libdibr_tensorrt.so": _TENSORRT,
    "libdibr_tensorrt_static.so": _TENSORRT,
}
