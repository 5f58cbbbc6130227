"""What the SDK refuses, with which status and in which words: bundles that are damaged, newer or incomplete, and an
ONNX Runtime that is absent, too old or none. Python's Session refuses the same bundles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from runtime_bundles import manifest_of, tensors

from dibr_deploy.errors import DibrError
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.bundle import Bundle, entries, write_bundle
from dibr_deploy.runtime.manifest import MODEL_FILE, Manifest
from dibr_deploy.runtime.onnx_file import parse_interface
from runtime_cpp import sdk

INVALID_ARGUMENT, NOT_FOUND, ABSENT, REFUSED = 1, 2, 3, 4


def refusal(programs: Path, model: Path | str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and sentence with which the C++ program refuses to open the model."""
    command = [programs / "run_bundle", model, "cpu", "1", "/nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment or sdk.with_onnxruntime(), timeout=300
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert not done.stderr
    status, _, words = done.stdout.rstrip("\n").partition(" ")
    assert "\n" not in words
    return int(status), words


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes the manifest of a bundle that is a folder."""

    def edit(bundle: Path) -> None:
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return edit


def append(bundle: Path, name: str) -> None:
    with (bundle / name).open("ab") as file:
        file.write(b"x")


def flip(bundle: Path) -> None:
    content = bytearray((bundle / MODEL_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / MODEL_FILE).write_bytes(content)


def rename_input(manifest: dict) -> None:
    manifest["inputs"][0]["name"] = "other"


BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
    "no model": (lambda b: (b / MODEL_FILE).unlink(), f"has no {MODEL_FILE}"),
    "a folder for a model": (lambda b: ((b / MODEL_FILE).unlink(), (b / MODEL_FILE).mkdir()), f"has no {MODEL_FILE}"),
    "a longer model": (lambda b: append(b, MODEL_FILE), "bytes, but manifest.json says"),
    "one bit": (flip, "is not the file that manifest.json describes"),
    "a newer format": (edited(lambda m: m.update(format_version=2)), "has format version 2"),
    "a much newer format": (edited(lambda m: (m.clear(), m.update(format_version=999))), "has format version 999"),
    "newer ops": (edited(lambda m: m.update(schema_version=2)), "uses version 2 of the ai.dibr ops"),
    "a newer ONNX Runtime": (edited(lambda m: m.update(onnxruntime_api=999)), "needs ONNX Runtime 1.999 or newer"),
    "no JSON": (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is not valid"),
    "a list": (lambda b: (b / "manifest.json").write_text("[1]"), "manifest.json is not valid"),
    "an unknown field": (edited(lambda m: m.update(more=1)), "more"),
    "no opset": (edited(lambda m: m.pop("opset")), "opset"),
    "a text for a number": (edited(lambda m: m.update(opset="18")), "opset"),
    "a truth for a number": (edited(lambda m: m.update(opset=True)), "opset"),
    "a fraction": (edited(lambda m: m.update(opset=18.5)), "opset"),
    "a path": (edited(lambda m: m["files"].update({"../x": m["files"][MODEL_FILE]})), "files"),
    "a model that is not listed": (edited(lambda m: m.update(model="other.onnx")), "files does not list other.onnx"),
    "no such type": (edited(lambda m: m["inputs"][0].update(dtype="float128")), "inputs.0.dtype"),
    "an unlisted preprocess": (edited(lambda m: m.update(preprocess="x.onnx")), "files does not list x.onnx"),
    "a short hash": (edited(lambda m: m["files"][MODEL_FILE].update(sha256="0" * 63)), f"files.{MODEL_FILE}.sha256"),
    "another input": (edited(rename_input), "are not those that its manifest names"),
    "another size": (edited(lambda m: m["outputs"][0]["shape"].append(1)), "are not those that its manifest names"),
    "a large manifest": (lambda b: (b / "manifest.json").write_text(" " * (1 << 21)), "has more than 1048576 bytes"),
}


@pytest.mark.parametrize("case", list(BUNDLES))
def test_a_bundle_is_refused(case: str, bundle: Path, programs: Path, tmp_path: Path) -> None:
    """As Python does."""
    change, words = BUNDLES[case]
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    change(copy)
    status, said = refusal(programs, copy)
    assert (status, words in said) == (REFUSED, True), said
    assert str(copy) in said
    with pytest.raises(DibrError) as refused:
        Session(copy, "cpu")
    if "valid" not in str(refused.value):  # where pydantic has other words than ours
        assert words in str(refused.value)


def packed(bundle: Path, path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in bundle.iterdir():
            archive.write(file, file.name)
    return path


def test_a_zip_file_is_refused(bundle: Path, programs: Path, tmp_path: Path) -> None:
    whole = packed(bundle, tmp_path / "whole.zip").read_bytes()
    cases = {
        "cut off": (whole[:-5], "neither a folder nor a zip file"),
        "of another kind": (packed(bundle, tmp_path / "bzip2.zip", zipfile.ZIP_BZIP2).read_bytes(), "method 12"),
        "with a wrong byte": (flipped(whole), "CRC"),
    }
    for case, (content, words) in cases.items():
        path = tmp_path / "case.zip"
        path.write_bytes(content)
        status, said = refusal(programs, path)
        assert (status, words in said) == (REFUSED, True), (case, said)


def flipped(content: bytes) -> bytes:
    """With a bit changed in the middle of the largest member, its model."""
    changed = bytearray(content)
    changed[len(content) // 2] ^= 4
    return bytes(changed)


def test_a_zip_bomb_is_refused(bundle: Path, programs: Path, tmp_path: Path) -> None:
    content = bytes(40 << 20)
    files = {MODEL_FILE: content}
    described = {key: value for key, value in dict(Bundle(bundle).manifest).items() if key != "files"}
    folder = write_bundle(tmp_path / "folder", Manifest(**described, files=entries(files)), files)
    path = packed(folder, tmp_path / "bomb.zip", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    status, said = refusal(programs, path)
    assert status == REFUSED
    assert "would unpack from" in said


def test_a_file_that_is_there_twice(bundle: Path, programs: Path, tmp_path: Path) -> None:
    path = packed(bundle, tmp_path / "twice.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("manifest.json", "{}")
    assert "manifest.json 2 times" in refusal(programs, path)[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no graph"), (b"no model at all", "is not an ONNX file"), (b"\x3a\x80\x80\x04abc", "is cut off")],
)
def test_a_bare_model_is_refused(content: bytes, words: str, programs: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    status, said = refusal(programs, path)
    assert (status, words in said) == (REFUSED, True), said


def test_a_model_with_newer_ops_inside(model: Path, programs: Path, tmp_path: Path) -> None:
    """Although the manifest, which somebody has edited, says otherwise."""
    import onnx

    newer = onnx.load(model)
    for opset in newer.opset_import:
        opset.version = 7 if opset.domain == "ai.dibr" else opset.version
    content = newer.SerializeToString()
    interface = parse_interface(content, "model")
    files = {MODEL_FILE: content}
    described = {"inputs": tensors(interface.inputs), "outputs": tensors(interface.outputs)}
    bundle = write_bundle(tmp_path / "bundle", manifest_of(files, **described), files)
    status, said = refusal(programs, bundle)
    assert status == REFUSED
    assert "uses version 7 of the ai.dibr ops" in said


def test_a_model_that_does_not_preprocess(model: Path, programs: Path, tmp_path: Path) -> None:
    Image.new("RGB", (3, 4)).save(tmp_path / "image.png")
    command = [programs / "preprocess", model, tmp_path / "image.png", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=sdk.with_onnxruntime(), timeout=300)
    assert done.returncode == 3
    assert done.stdout.startswith(f"{ABSENT} model {model} is no bundle that says how pictures become its input")


def test_a_model_without_a_renderer_of_its_own(model: Path, bundle: Path, programs: Path) -> None:
    for path in (model, bundle):
        status, said = refusal(programs, f"renderer:{path}")
        assert status == ABSENT
        assert said.startswith(f"model {path} has no renderer of its own")


def test_nothing_is_there(programs: Path) -> None:
    assert refusal(programs, "/nowhere/model.zip") == (NOT_FOUND, "model /nowhere/model.zip does not exist")


def without_onnxruntime(**variables: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "DIBR_ONNXRUNTIME_LIBRARY"} | variables


def test_onnxruntime_is_absent(bundle: Path, programs: Path, tmp_path: Path) -> None:
    status, said = refusal(programs, bundle, without_onnxruntime())
    assert status == ABSENT
    assert "libonnxruntime.so.1" in said
    assert "DIBR_ONNXRUNTIME_LIBRARY" in said
    status, said = refusal(programs, bundle, without_onnxruntime(DIBR_ONNXRUNTIME_LIBRARY=str(tmp_path)))
    assert status == ABSENT
    assert "has no libonnxruntime.so" in said


def test_onnxruntime_in_a_folder(bundle: Path, programs: Path, arrays: dict, tmp_path: Path) -> None:
    folder = str(sdk.onnxruntime_library().parent)
    status, said = refusal(programs, bundle, without_onnxruntime(DIBR_ONNXRUNTIME_LIBRARY=folder))
    assert (status, said) == (
        INVALID_ARGUMENT,
        "input offsets is missing, the model's inputs are offsets, world_to_clip",
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("int nothing;", "is no ONNX Runtime, it has no OrtGetApiBase"),
        (
            "typedef struct { const void* (*api)(unsigned); const char* (*version)(void); } Base;\n"
            "static const void* api(unsigned n) { (void)n; return 0; }\n"
            'static const char* version(void) { return "1.16.3"; }\n'
            "static const Base base = {api, version};\n"
            "const Base* OrtGetApiBase(void) { return &base; }",
            "ONNX Runtime 1.16.3 at",
        ),
    ],
    ids=["no ONNX Runtime", "too old"],
)
def test_a_wrong_onnxruntime(source: str, words: str, bundle: Path, programs: Path, tmp_path: Path) -> None:
    """Libraries in its place; the old one is a double with the version and the answer of a real one."""
    code, library = tmp_path / "library.c", tmp_path / "libonnxruntime.so"
    code.write_text(source)
    sdk.run(["gcc", "-shared", "-fPIC", code, "-o", library])
    status, said = refusal(programs, bundle, without_onnxruntime(DIBR_ONNXRUNTIME_LIBRARY=str(library)))
    assert (status, words in said) == (ABSENT, True), said
    assert "1.17 or newer" in said


def test_operators_are_absent(bundle: Path, prefix: Path, tmp_path: Path) -> None:
    """A program that was shipped without libdibr_onnxruntime.so."""
    moved = Path(shutil.copytree(prefix, tmp_path / "moved", symlinks=True))
    (moved / "lib" / "libdibr_onnxruntime.so").unlink()
    program = tmp_path / "run_bundle"
    sdk.compile_with_pkg_config("dibr-runtime", moved, sdk.HERE / "run_bundle.cpp", program)
    status, said = refusal(tmp_path, bundle)
    assert status == NOT_FOUND
    assert "needs the ai.dibr custom ops" in said


def test_an_operator_refuses_its_input(model: Path, programs: Path, tmp_path: Path) -> None:
    """Its own words reach the caller, without ONNX Runtime's codes around them."""
    import onnx

    changed = onnx.load(model)
    for initializer in changed.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if array.dtype.kind == "i" and array.ndim == 2 and array.shape[1] == 3:
            broken = array.copy()
            broken[0, 0] = 1000
            initializer.CopyFrom(onnx.numpy_helper.from_array(broken, initializer.name))
    path = tmp_path / "model.onnx"
    onnx.save(changed, path)
    (tmp_path / "zeros").write_bytes(bytes(64))
    inputs = [f":float32:1,1,3={tmp_path / 'twelve'}", f":float32:1,4,4={tmp_path / 'zeros'}"]
    (tmp_path / "twelve").write_bytes(bytes(12))
    command = [programs / "run_bundle", path, "cpu", "1", tmp_path, *inputs]
    done = subprocess.run(command, capture_output=True, text=True, env=sdk.with_onnxruntime(), timeout=300)
    assert done.returncode == 3
    assert done.stdout.startswith("5 the model could not be run: ")
    assert "1000" in done.stdout
    assert "Non-zero status code" not in done.stdout


def test_engines_need_a_build_with_tensorrt(bundle: Path, prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "engine.cpp"
    source.write_text(
        '#include "dibr/runtime.hpp"\n#include <cstdio>\nint main(int, char** argv) {\n'
        '  try { dibr::Session(argv[1], {"tensorrt"}); } catch (const dibr::RuntimeError& e) {\n'
        '    std::printf("%d %s", static_cast<int>(e.status()), e.what()); } }\n'
    )
    sdk.compile_with_pkg_config("dibr-runtime", prefix, source, tmp_path / "engine")
    said = sdk.run([tmp_path / "engine", bundle], sdk.with_onnxruntime())
    assert said.startswith(f"{ABSENT} provider tensorrt is not in this libdibr_runtime")
    assert "DIBR_TENSORRT=ON" in said
