"""The package as a whole: lazy names, where native libraries are looked for, and what imports what."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dibr_deploy
from dibr_deploy import _native


@pytest.mark.parametrize("name", dibr_deploy.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(dibr_deploy, name) is not None
    assert name in dir(dibr_deploy)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dibr_deploy' has no attribute 'rasterise'"):
        _ = dibr_deploy.rasterise


def imported_by(statement: str) -> set[str]:
    """Top-level packages and our own modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "statement", ["import dibr_deploy", "import dibr_deploy._native", "import dibr_deploy.runtime"]
)
def test_neither_the_package_nor_the_runtime_imports_torch(statement: str) -> None:
    assert "torch" not in imported_by(statement)


@pytest.mark.parametrize("module", ["renderer", "models", "training", "data"])
def test_the_package_does_not_import_export_or_runtime(module: str) -> None:
    loaded = imported_by(f"import dibr_deploy.{module}")
    assert f"dibr_deploy.{module}" in loaded
    assert not any(name.startswith(("dibr_deploy.export", "dibr_deploy.runtime")) for name in loaded)


def test_a_training_does_not_wait_for_trimesh() -> None:
    """A second of a start: nothing of it reads meshes."""
    loaded = imported_by("import dibr_deploy.training.trainer, dibr_deploy.training.adversarial")
    assert "dibr_deploy.training.adversarial" in loaded
    assert "trimesh" not in loaded


@pytest.mark.parametrize("name", ["libdibr.so", "libdibr.so.1", "libdibr_torch.so", "libdibr_onnxruntime.so"])
def test_installed_libraries_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_native.LIBRARY_DIR_VARIABLE, raising=False)
    assert _native.library_path(name).is_file()


def test_the_folder_of_the_environment_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_native.LIBRARY_DIR_VARIABLE, str(tmp_path))
    installed = _native.library_path("libdibr_torch.so")
    (tmp_path / "libdibr_torch.so").touch()
    assert installed.parent != tmp_path
    assert _native.library_path("libdibr_torch.so") == tmp_path / "libdibr_torch.so"


def test_a_library_that_was_not_built_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dibr_deploy, "__path__", [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"libdibr_torch.so is not in .*lib: .*DIBR_TORCH=ON.*DIBR_LIBRARY_DIR"):
        _native.library_path("libdibr_torch.so")


def test_the_schema_version_of_library_and_header_agree() -> None:
    import ctypes

    library = ctypes.CDLL(str(_native.library_path("libdibr.so")))
    [header] = (path for folder in dibr_deploy.__path__ for path in Path(folder).glob("include/dibr/dibr.h"))
    assert f"#define DIBR_SCHEMA_VERSION {library.dibr_schema_version()}" in header.read_text()


def test_a_torch_that_is_too_old_is_refused_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    monkeypatch.delitem(sys.modules, "dibr_deploy.ops", raising=False)
    with pytest.raises(ImportError, match=r"dibr_deploy needs torch 2.10 or newer, got 2.9.1\+cpu"):
        importlib.import_module("dibr_deploy.ops")
