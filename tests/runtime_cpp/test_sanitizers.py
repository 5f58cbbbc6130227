"""The wrappers, the readers and sessions under address, undefined-behaviour, leak and thread sanitizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dibr_deploy.runtime.bundle import Bundle, entries, write_bundle
from dibr_deploy.runtime.manifest import Engine, Manifest
from runtime_cpp import sdk

ITERATIONS = {"address;undefined": 1500, "thread": 0}


@pytest.fixture(scope="module", params=list(ITERATIONS), ids=["address", "thread"])
def sanitizers(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def program(sanitizers: str) -> Path:
    return sdk.sanitized(sanitizers)


def run(program: Path, *arguments: str | Path) -> str:
    """What the program prints. Any finding of a sanitizer fails."""
    variables = {
        "ASAN_OPTIONS": "detect_leaks=1",
        "TSAN_OPTIONS": "halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return sdk.run([program, *arguments], sdk.with_onnxruntime(**variables))


@pytest.mark.parametrize("group", ["renderer", "readers"])
def test_group(program: Path, group: str) -> None:
    assert " 0 failed" in run(program, group)


@pytest.mark.parametrize(("group", "bundle_name"), [("sessions", "bundle"), ("photos", "photo_bundle")])
def test_sessions(program: Path, group: str, bundle_name: str, request: pytest.FixtureRequest) -> None:
    """Several threads run one session, sessions come and go, photos are made to fit, a renderer is opened and outlives
    its session, and nothing leaks."""
    operators = program.parents[2] / "plugins" / "onnxruntime" / "libdibr_onnxruntime.so"
    assert " 0 failed" in run(program, group, request.getfixturevalue(bundle_name), operators)


def test_hostile_files(sanitizers: str, program: Path, bundle: Path, model: Path, tmp_path: Path) -> None:
    """Thousands of damaged manifests, zip files, models and images: read or refused in one sentence."""
    if not ITERATIONS[sanitizers]:
        pytest.skip("reading files starts no threads")
    folder = tmp_path / "files"
    folder.mkdir()
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (9, 11, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(folder / "image.png", exif=exif)
    noise.convert("P").save(folder / "palette.png", interlace=1)
    noise.convert("RGB").save(folder / "image.jpg", exif=exif)
    noise.convert("RGB").save(folder / "progressive.jpg", progressive=True)
    shutil.copy(model, folder / "model.onnx")
    manifest = with_engine(Bundle(bundle).manifest)
    (folder / "manifest.json").write_text(manifest.to_json())
    write_small_bundle(folder / "stored.zip", bundle)
    deflated = tmp_path / "deflated"
    write_small_bundle(deflated, bundle)
    shutil.make_archive(str(folder / "deflated"), "zip", deflated)
    printed = run(program, "hostile", folder, str(ITERATIONS[sanitizers]))
    assert " 0 failed" in printed
    assert printed.count(" refused") == 8


def write_small_bundle(path: Path, bundle: Path) -> None:
    """A bundle whose model is a few bytes, so that damage hits what is around it."""
    manifest = Bundle(bundle).manifest
    files = {manifest.model: bytes(range(64))}
    write_bundle(path, Manifest(**{**dict(manifest), "files": entries(files)}), files)


def with_engine(manifest: Manifest) -> Manifest:
    """The manifest with an engine, of which nothing but its description is there."""
    profile = {"min": (1, 1, 3), "opt": (2, 1, 3), "max": (3, 1, 3)}
    engine = Engine.model_validate_json(
        json.dumps(
            {
                "file": manifest.model,
                "flavour": "tensorrt",
                "version": "10.16.1.11",
                "compute_capability": ["8.9"],
                "plugin_sha256": "0" * 64,
                "profiles": [{"offsets": profile}],
            }
        )
    )
    return Manifest(**{**dict(manifest), "engines": (engine,)})


def test_a_planted_fault_is_reported(sanitizers: str, program: Path, tmp_path: Path) -> None:
    """The options of run() leave the sanitizers at work."""
    source = tmp_path / "fault.cpp"
    source.write_text(
        "#include <thread>\nint shared;\nint main(int argc, char**) {\n"
        "  int* gone = new int(argc); delete gone;\n"
        "  std::thread other([] { ++shared; }); ++shared; other.join();\n"
        "  return *gone == 12345; }\n"
    )
    flag = sanitizers.replace(";", ",")
    sdk.run(["g++", f"-fsanitize={flag}", "-g", source, "-o", tmp_path / "fault"])
    with pytest.raises(AssertionError, match=r"Sanitizer: (heap-use-after-free|data race)"):
        run(tmp_path / "fault")
