"""What docs/tensorrt.md says to type, typed: as far as that needs neither a GPU nor a program that is not here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_backend.host_build import ROOT
from onnxruntime_door import modules
from small_networks import coarse

from dibr_deploy.export import to_bundle
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.training.checkpoint import save_checkpoint
from tensorrt_door import environment

PAGE = (ROOT / "docs" / "tensorrt.md").read_text()


def commands() -> list[list[str]]:
    """The `dibr` commands of the page, without their remarks."""
    lines = re.findall(r"^    (dibr .*?)(?: +# .*)?$", PAGE, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, libraries: dict[str, str]) -> Path:
    """What the page takes to be there: a run, a bundle as file and as folder, a model, and the plugin libraries."""
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", coarse())
    torch.manual_seed(0)
    for name in ("bundle.zip", "bundle"):
        to_bundle(modules.SphereRenderer(), modules.inputs(2), tmp_path / name)
    (tmp_path / "model.onnx").write_bytes(Bundle(tmp_path / "bundle").read("model.onnx"))
    for library in libraries.values():
        (tmp_path / Path(library).name).symlink_to(library)
    return tmp_path


def run_python(folder: Path, *arguments: str) -> str:
    variables = {**os.environ, "DIBR_LIBRARY_DIR": str(folder)}
    call = [str(environment.python()), *arguments]
    done = subprocess.run(call, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands(folder: Path) -> None:
    """In order, as a reader would."""
    environment.python()
    typed = commands()
    assert len(typed) >= 5
    for program, *arguments in typed:
        assert program == "dibr"
        run_python(folder, "-m", "dibr_deploy.cli", *arguments)
        path = Path(arguments[arguments.index("--output" if "--output" in arguments else "--bundle") + 1])
        assert len(Bundle(folder / path).manifest.engines) >= 1, arguments


def test_python(folder: Path) -> None:
    """Blocks that start with an import are programs; TensorRT-RTX's module is called tensorrt_rtx."""
    environment.python()
    programs = [block for block in blocks("python") if re.match(r"from|import", block)]
    assert len(programs) == 2
    for program in programs:
        run_python(folder, "-c", program.replace("import tensorrt as", "import tensorrt_rtx_bindings as"))
    assert list(folder.glob("tensorrt_rtx-*.engine"))


def test_where_the_libraries_are(folder: Path) -> None:
    [line] = re.findall(r"^    python (-c .*_native.*)$", PAGE, flags=re.MULTILINE)
    assert run_python(folder, *shlex.split(line)).strip() == str(folder / "libdibr_tensorrt.so")


def test_cpp(folder: Path) -> None:
    """The lines stand in the main function of a program that links to TensorRT."""
    site_packages = environment.python().parents[1].glob("lib/python*/site-packages")
    [tensorrt] = (path / "tensorrt_lean_libs" / "libnvinfer_lean.so.10" for path in site_packages)
    [lines] = blocks("cpp")
    source = f"#include <NvInferRuntime.h>\nint main() {{\n{lines}}}\n"
    (folder / "program.cpp").write_text(source)
    include = ROOT / "third_party" / "tensorrt" / "include"
    compile_it = ["g++", "-std=c++17", f"-isystem{include}", "program.cpp", str(tensorrt), "-o", "program"]
    subprocess.run(compile_it, cwd=folder, check=True)
    variables = {**os.environ, "LD_LIBRARY_PATH": str(tensorrt.parent)}
    subprocess.run(["./program"], cwd=folder, env=variables, check=True)
