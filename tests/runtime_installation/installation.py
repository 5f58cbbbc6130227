"""An installation of dibr_deploy in a folder: links to this one's packages, its libraries, and doubles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dibr_deploy import _native

ROOT = Path(__file__).resolve().parents[2]
DOUBLES = Path(__file__).parent
SITE_PACKAGES = Path(np.__file__).parents[1]
NEEDED = (
    "numpy",
    "numpy.libs",
    "pydantic",
    "pydantic_core",
    "typing_extensions.py",
    "annotated_types",
    "typing_inspection",
    "PIL",
    "pillow.libs",
)
LIBRARIES = ("libdibr.so", "libdibr_torch.so", "libdibr_onnxruntime.so")
SAME_DOUBLE = {"tensorrt_rtx": "tensorrt"}
SOURCES = {"dibr_deploy": "", "export": "export", "runtime": "runtime"}


class Installation:
    """It has dibr_deploy, its libraries, numpy and what else the base package needs; every other package is absent
    until it is added. Programs run in it with a Python that sees nothing else."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "packages"
        self.libraries = self.packages / "dibr_deploy" / "lib"
        self.override = folder / "override"
        self.system = folder / "system"
        for path in (self.libraries, self.override, self.system):
            path.mkdir(parents=True)
        for source, place in SOURCES.items():
            shutil.copytree(
                ROOT / source,
                self.packages / "dibr_deploy" / place,
                copy_function=os.symlink,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("__pycache__", "cpp", "lib"),
            )
        for name in NEEDED:
            if (SITE_PACKAGES / name).exists():
                (self.packages / name).symlink_to(SITE_PACKAGES / name)
        for name in LIBRARIES:
            found = _native.library_path(name)
            shutil.copy(found, self.libraries / found.name)
        self.environment: dict[str, str] = {}
        self.behind: list[Path] = []

    def add_everything(self) -> None:
        """Every package of this Python, behind the ones that are here."""
        self.behind = [SITE_PACKAGES]

    def add_package(self, name: str, source: str) -> None:
        (self.packages / name).mkdir(parents=True)
        (self.packages / name / "__init__.py").write_text(source)

    def add_double(self, name: str) -> None:
        """One of the packages in ``packages/`` beside this file. Those of torch and onnxruntime stand in front of the
        real ones."""
        shutil.copytree(DOUBLES / "packages" / SAME_DOUBLE.get(name, name), self.packages / name)
        self.environment["DIBR_TEST_PACKAGES_BEHIND"] = str(SITE_PACKAGES)

    def add_library(self, name: str, source: str, *flags: str, folder: Path | None = None) -> Path:
        """A library compiled from C, in the folder that DIBR_LIBRARY_DIR names."""
        target = (folder or self.override) / name
        compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(target), *flags]
        subprocess.run(compiler, input=source, text=True, check=True)
        return target

    def add_driver(self, mode: str = "ok") -> None:
        """A double of libcuda.so.1 with one device; mode: see ``driver.c``."""
        source = (DOUBLES / "driver.c").read_text()
        self.add_library("libcuda.so.1", source, folder=self.system)
        self.environment["DIBR_TEST_DRIVER"] = mode

    def add_cuda_kernels(self) -> None:
        """A libdibr that says it has CUDA kernels, for who asks; the doors keep the real one."""
        source = "int dibr_schema_version(void) { return 1; } int dibr_has_device(int device) { return 1; }"
        self.add_library("libdibr.so", source)

    def remove_library(self, name: str) -> None:
        for path in self.libraries.glob(f"{name}*"):
            path.unlink()

    def python(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        base = getattr(sys, "_base_executable", sys.executable)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DIBR_", "PYTHON", "LD_"))},
            "PYTHONPATH": os.pathsep.join(map(str, (self.packages, *self.behind))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(self.system),
            _native.LIBRARY_DIR_VARIABLE: str(self.override),
            **self.environment,
        }
        command = [base, "-S", *arguments]
        return subprocess.run(
            command, cwd=self.override, capture_output=True, text=True, env=environment, timeout=timeout, check=False
        )

    def door(self, name: str, seconds: float = 100) -> dict[str, str]:
        """What the doctor says about one door here."""
        code = (
            "import dataclasses, json\n"
            "from dibr_deploy.runtime.doctor import examine_door\n"
            f"print(json.dumps(dataclasses.asdict(examine_door({name!r}, timeout={seconds}))))"
        )
        done = self.python("-c", code)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def doctor(self, *arguments: str) -> tuple[int, Any]:
        """Exit code and report of `dibr doctor --json`."""
        done = self.python("-m", "dibr_deploy.cli", "doctor", "--json", *arguments)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)
