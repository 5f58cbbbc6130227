"""A C++ program that links to TensorRT itself loads the plugins."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cuda_backend.host_build import ROOT

from tensorrt_door import environment


def test_a_program_loads_the_plugins(libraries: dict[str, str], tmp_path: Path) -> None:
    site_packages = environment.python().parents[1].glob("lib/python*/site-packages")
    [tensorrt] = (path / "tensorrt_lean_libs" / "libnvinfer_lean.so.10" for path in site_packages)
    include = ROOT / "third_party" / "tensorrt" / "include"
    source, program = Path(__file__).with_name("load_plugins.cpp"), tmp_path / "load_plugins"
    compile_it = ["g++", "-std=c++17", f"-isystem{include}", str(source), str(tensorrt), "-o", str(program)]
    subprocess.run(compile_it, check=True)
    variables = {**os.environ, "LD_LIBRARY_PATH": str(tensorrt.parent)}
    run = [str(program), libraries["getCreators"]]
    result = subprocess.run(run, capture_output=True, text=True, env=variables)
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.split()) == ["Antialias", "Interpolate", "Rasterize", "Render", "SoftMask", "Texture"]
