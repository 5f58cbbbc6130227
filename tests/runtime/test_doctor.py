"""`dibr doctor`: every state of every door, on installations in which something is missing, broken or a double."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_backend.host_build import build
from runtime_bundles import write_model_bundle
from runtime_installation.installation import Installation
from tensorrt_door import environment
from tensorrt_door.conftest import TENSORRT as PLUGIN_OPTIONS

from dibr_deploy import cli
from dibr_deploy.runtime import Session, doctor, probes, schema
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.manifest import Engine

Change = Callable[[Installation], object]

TORCH_CPU, TORCH_CUDA, ORT_CPU, ORT_CUDA, ORT_TENSORRT, TENSORRT, TENSORRT_RTX = [name for name, _, _ in doctor.DOORS]
ABORTS = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }"
PLUGIN_NAMES = ", ".join(sorted(schema.OPS))
PLUGINS = "void* getCreators(int* count) { return 0; }"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


# Changes to an installation, by what it then has or lacks.


def everything(installation: Installation) -> None:
    installation.add_everything()


def gpu(installation: Installation) -> None:
    installation.add_driver()


def cuda_kernels(installation: Installation) -> None:
    installation.add_cuda_kernels()


def without(name: str) -> Change:
    return lambda installation: installation.remove_library(name)


def double(name: str) -> Change:
    return lambda installation: installation.add_double(name)


def package(name: str, source: str) -> Change:
    return lambda installation: installation.add_package(name, source)


def library(name: str, source: str) -> Change:
    return lambda installation: installation.add_library(name, source)


def text_as_library(name: str) -> Change:
    return lambda installation: (installation.override / name).write_text("no library")


def mode(variable: str, value: str) -> Change:
    return lambda installation: installation.environment.update({variable: value})


def driver(behaviour: str) -> Change:
    return lambda installation: installation.add_driver(behaviour)


CUDA_TORCH = (double("torch"), gpu, cuda_kernels)
CUDA_ORT = (double("onnxruntime"), gpu, cuda_kernels)
STATIC_PLUGINS = library("libdibr_tensorrt_static.so", "")
TRT = (gpu, cuda_kernels, double("pycuda"), library("libdibr_tensorrt.so", PLUGINS))

CASES = [
    (TORCH_CPU, [everything], "opens", r"^torch 2\.\d+"),
    (TORCH_CPU, [], "absent", r"package torch is not installed -> pip install 'dibr_deploy\[train\]'"),
    (
        TORCH_CPU,
        [everything, without("libdibr_torch.so")],
        "absent",
        r"torch 2\S+, but libdibr_torch.so is not in .*ON",
    ),
    (
        TORCH_CPU,
        [package("torch", "raise ImportError('libc10.so: no such file')")],
        "broken",
        r"libc10.so: no such file",
    ),
    (TORCH_CPU, [package("torch", "import os; os.abort()")], "broken", r"process that tried it was ended by SIGABRT"),
    (TORCH_CPU, [package("torch", "import sys; sys.exit('bye')")], "broken", r"ended with code 1: bye"),
    (TORCH_CPU, [everything, text_as_library("libdibr_torch.so")], "broken", r"invalid ELF header|file too short"),
    (TORCH_CPU, [everything, library("libdibr_torch.so", ABORTS)], "broken", r"was ended by SIGABRT"),
    (TORCH_CUDA, [*CUDA_TORCH], "opens", r"^torch 2\S+, CUDA 13.0, Double of a GPU$"),
    (TORCH_CUDA, [], "absent", r"package torch is not installed"),
    (
        TORCH_CUDA,
        [double("torch")],
        "absent",
        r"torch 2\S+, but there is no NVIDIA driver .* -> install the NVIDIA driver",
    ),
    (
        TENSORRT,
        [double("tensorrt"), TRT[-1], driver("no GPU")],
        "absent",
        r"but the NVIDIA driver finds no GPU -> use a machine",
    ),
    (TENSORRT, [double("tensorrt"), TRT[-1], driver("empty")], "absent", r"but the NVIDIA driver finds no GPU"),
    (
        TENSORRT,
        [double("tensorrt"), TRT[-1], driver("broken")],
        "broken",
        r"driver does not start: error 999, unknown error -> reb",
    ),
    (TENSORRT, [double("tensorrt"), TRT[-1], driver("abort")], "broken", r"was ended by SIGABRT"),
    (TORCH_CUDA, [*CUDA_TORCH, mode("DIBR_TEST_TORCH", "no device")], "broken", r"cannot use Double of a GPU, which"),
    (ORT_CPU, [everything], "opens", r"^onnxruntime 1\.\d+"),
    (ORT_CPU, [], "absent", r"package onnxruntime is not installed -> pip install 'dibr_deploy\[onnxruntime\]'"),
    (ORT_CPU, [everything, without("libdibr_onnxruntime.so")], "absent", r"but .*libdibr_onnxruntime.so is not in"),
    (
        ORT_CPU,
        [package("onnxruntime", "__version__ = '1.9.2'")],
        "broken",
        r"1.9.2 is older than 1.17 -> pip install --up",
    ),
    (ORT_CPU, [everything, library("libdibr_onnxruntime.so", ABORTS)], "broken", r"was ended by SIGABRT"),
    (ORT_CPU, [everything, text_as_library("libdibr_onnxruntime.so")], "broken", r"one-triangle.onnx cannot be opened"),
    (ORT_CUDA, [*CUDA_ORT], "opens", r"^onnxruntime 1\S+, Double of a GPU$"),
    (ORT_CUDA, [everything], "absent", r"does not offer CUDAExecutionProvider -> pip .*onnxruntime-gpu"),
    (ORT_CUDA, [double("onnxruntime")], "absent", r"but there is no NVIDIA driver"),
    (
        ORT_CUDA,
        [*CUDA_ORT, mode("DIBR_TEST_LOADED", "CPUExecutionProvider")],
        "broken",
        r"libonnxruntime_providers_cuda.so",
    ),
    (ORT_TENSORRT, [*CUDA_ORT, STATIC_PLUGINS], "opens", r"^onnxruntime 1\S+, Double of a GPU$"),
    (ORT_TENSORRT, [everything], "absent", r"does not offer TensorrtExecutionProvider"),
    (
        ORT_TENSORRT,
        [*CUDA_ORT],
        "absent",
        r"libdibr_tensorrt_static.so is not in .* -> build dibr_deploy again: .*TENSORRT",
    ),
    (
        ORT_TENSORRT,
        [*CUDA_ORT, STATIC_PLUGINS, mode("DIBR_TEST_LOADED", "CUDAExecutionProvider,CPUExecutionProvider")],
        "broken",
        r"libonnxruntime_providers_tensorrt.so",
    ),
    (TENSORRT, [double("tensorrt"), *TRT], "opens", rf"^tensorrt 10.16.1.11, plugins {PLUGIN_NAMES}, Double of a GPU$"),
    (TENSORRT, [], "absent", r"packages tensorrt, .*tensorrt_lean.* is installed -> pip install tensorrt"),
    (TENSORRT, [double("tensorrt")], "absent", r"tensorrt 10\S+, but libdibr_tensorrt.so is not in .*DIBR_TENSORRT=ON"),
    (TENSORRT, [double("tensorrt"), TRT[-1]], "absent", rf"plugins {PLUGIN_NAMES}, but there is no NVIDIA driver"),
    (TENSORRT, [double("tensorrt"), gpu, TRT[-1]], "absent", r"this libdibr was built without CUDA kernels -> build"),
    (
        TENSORRT,
        [double("tensorrt"), gpu, cuda_kernels, TRT[-1]],
        "absent",
        r"cuda-python or pycuda, and neither is installed.* -> pip install 'dibr_deploy\[cuda-python\]'",
    ),
    (
        TENSORRT,
        [package("tensorrt", "import absent_of_tensorrt")],
        "broken",
        r"No module named 'absent_of_tensorrt' -> pip",
    ),
    (TENSORRT, [double("tensorrt"), library("libdibr_tensorrt.so", "")], "broken", r"has no getCreators"),
    (TENSORRT, [double("tensorrt"), library("libdibr_tensorrt.so", ABORTS)], "broken", r"was ended by SIGABRT"),
    (
        TENSORRT,
        [double("tensorrt"), TRT[-1], mode("DIBR_TEST_TENSORRT", "no plugins")],
        "broken",
        r"registry does not list Rasterize, .* -> build dibr_deploy again: .*DIBR_TENSORRT=ON",
    ),
    (
        TENSORRT,
        [double("tensorrt"), *TRT, mode("DIBR_TEST_TENSORRT", "one missing")],
        "broken",
        r"registry does not list Texture after .* -> build dibr_deploy again: .*DIBR_TENSORRT=ON",
    ),
    *[
        (door, [double(name), *TRT, mode("DIBR_TEST_TENSORRT", f"version {version}")], "broken", sentence)
        for door, name, version, sentence in (
            (TENSORRT, "tensorrt", "8.6.1", r"8\.6\.1 is not of the majors .* 10 and 11 -> install TensorRT 10 or 11"),
            (TENSORRT, "tensorrt", "12.0.0", r"12\.0\.0 is not of the majors .* 10 and 11"),
            (
                TENSORRT_RTX,
                "tensorrt_rtx",
                "1.6.9.1",
                r"1\.6\.9\.1 is not .* 1\.7 and later 1\.x -> install TensorRT-RTX",
            ),
            (TENSORRT_RTX, "tensorrt_rtx", "2.0.0", r"2\.0\.0 is not of those that the plugins serve"),
        )
    ],
    (
        TENSORRT,
        [double("tensorrt"), *TRT, mode("DIBR_TEST_TENSORRT", "version 11.1.0")],
        "opens",
        r"^tensorrt 11\.1\.0",
    ),
    (
        TENSORRT,
        [double("tensorrt"), TRT[-1], mode("DIBR_TEST_TENSORRT", "old plugins")],
        "broken",
        rf"plugins {PLUGIN_NAMES}, of version 0 of the op schema, but this libdibr has version 1 -> build",
    ),
    (
        TENSORRT,
        [double("tensorrt"), TRT[-1], mode("DIBR_TEST_TENSORRT", "refuses")],
        "broken",
        r"could not load the plugins",
    ),
    (
        TENSORRT,
        [double("tensorrt"), *TRT, mode("DIBR_TEST_TENSORRT", "no start")],
        "broken",
        r"does not start: CUDA init",
    ),
    (
        TENSORRT_RTX,
        [double("tensorrt_rtx"), *TRT],
        "opens",
        rf"^tensorrt_rtx 1.7.1.116, plugins {PLUGIN_NAMES}, Double of a GPU$",
    ),
    (TENSORRT_RTX, [double("tensorrt"), *TRT], "absent", r"packages tensorrt_rtx, .* -> pip install tensorrt-rtx"),
    (TENSORRT_RTX, [package("tensorrt_rtx", "import os; os.abort()")], "broken", r"was ended by SIGABRT"),
]


@pytest.mark.parametrize(
    ("door", "changes", "state", "sentence"),
    CASES,
    ids=[f"{door}-{state}-{index}" for index, (door, _, state, _) in enumerate(CASES)],
)
def test_every_state_of_every_door(installation: Installation, door: str, changes, state: str, sentence: str) -> None:
    for change in changes:
        change(installation)
    answer = installation.door(door)
    assert answer["state"] == state, answer
    said = answer["reason"] + (f" -> {answer['remedy']}" if answer["remedy"] else "")
    assert re.search(sentence, said), said
    assert "\n" not in said
    assert (state == "opens") == (answer["remedy"] == "")


def test_the_cases_are_complete() -> None:
    assert {(door, state) for door, _, state, _ in CASES} == {
        (door, state) for door, _, _ in doctor.DOORS for state in (doctor.OPENS, doctor.ABSENT, doctor.BROKEN)
    }


def test_cuda_access_that_is_broken(installation: Installation) -> None:
    for change in (double("tensorrt"), *TRT, mode("DIBR_TEST_PYCUDA", "broken")):
        change(installation)
    answer = installation.door(TENSORRT)
    assert answer["state"] != "opens"
    assert "cuInit failed: unknown error" in answer["reason"]
    assert "dibr_deploy[cuda-python]" in answer["remedy"]


def test_a_door_that_hangs(installation: Installation) -> None:
    installation.add_package("torch", "import time; print('loading'); time.sleep(60)")
    answer = installation.door(TORCH_CPU, seconds=4)
    assert answer["state"] == "broken"
    assert answer["reason"] == "no answer within 4 s"


def test_an_error_that_nobody_foresaw_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("what is this")

    monkeypatch.setitem(probes.PROBES, "driver", fail)
    monkeypatch.setattr(sys, "argv", ["probe", "driver"])
    monkeypatch.setattr(os, "_exit", lambda code: None)
    probes.main()
    answer = json.loads(capsys.readouterr().out)
    assert (answer["state"], answer["reason"]) == ("broken", "ZeroDivisionError: what is this")
    assert answer["remedy"].endswith("; else report this as a bug")


def test_noise_of_a_library_is_no_answer(installation: Installation) -> None:
    installation.add_package("torch", 'import os; print(\'{"state": "opens"\'); os._exit(3)')
    answer = installation.door(TORCH_CPU)
    assert (answer["state"], answer["reason"]) == ("broken", "the process that tried it ended with code 3")


def test_an_installation_with_nothing_opens_nothing(installation: Installation) -> None:
    for name in ("libdibr", "libdibr_torch", "libdibr_onnxruntime"):
        installation.remove_library(f"{name}.so")
    code, report = installation.doctor()
    assert code == 1
    assert report["healthy"] is False
    assert report["libraries"] == []
    assert {door["answer"]["state"] for door in report["doors"]} == {"absent"}
    assert report["facts"]["dibr_deploy"] == "not installed"


def test_facts(installation: Installation) -> None:
    installation.add_driver()
    runtime = "int cudaRuntimeGetVersion(int* version) { *version = 13020; return 0; }"
    installation.add_library("libcudart.so", runtime, folder=installation.system)
    installation.add_cuda_kernels()
    (installation.override / "libdibr_tensorrt.so").write_text("no library")
    code, report = installation.doctor()
    assert code == 1
    facts = report["facts"]
    assert (facts["CUDA of the driver"], facts["CUDA runtime"]) == ("13.1", "13.2")
    assert facts["GPUs"] == [{"name": "Double of a GPU", "compute_capability": "8.9"}]
    assert facts["ONNX Runtime needed"] == "1.17 or newer"
    libraries = {entry["name"]: entry for entry in report["libraries"]}
    assert (libraries["libdibr.so"]["schema_version"], libraries["libdibr.so"]["cuda_kernels"]) == (1, True)
    assert libraries["libdibr.so"]["path"] == str(installation.override / "libdibr.so")
    assert libraries["libdibr_onnxruntime.so"]["schema_version"] == 1
    assert libraries["libdibr_torch.so"]["problem"] == "the Python package torch is not installed"
    assert "libdibr_tensorrt.so cannot be loaded" in libraries["libdibr_tensorrt.so"]["problem"]


def test_this_machine() -> None:
    """What the doctor says here, in both forms, and that it loads no framework to say it."""
    code = (
        "import json, sys; from dibr_deploy.runtime import doctor\n"
        "report = doctor.examine()\n"
        "print(report); print(json.dumps(json.loads(report.to_json())))\n"
        "loaded = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'cuda'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    report = json.loads(last)
    states = {door["name"]: door["answer"]["state"] for door in report["doors"]}
    assert report["healthy"]
    assert states[TORCH_CPU] == states[ORT_CPU] == "opens"
    assert {entry["schema_version"] for entry in report["libraries"]} <= {1, None}
    names = {entry["name"] for entry in report["libraries"]}
    assert names >= {"libdibr.so", "libdibr_torch.so", "libdibr_onnxruntime.so"}
    assert report["model"] is None
    for door in report["doors"]:
        assert (door["answer"]["state"] == "opens") == (door["answer"]["remedy"] == ""), door
    for line in TABLE:
        assert [found for found in table if re.fullmatch(line, found)], (line, table)


TABLE = [
    "dibr_deploy: .+",
    "doors",
    "  torch, CPU +opens   torch 2.+",
    "  ONNX Runtime, CPU +opens   onnxruntime 1.+",
    "  libdibr.so +op schema 1, with.+",
]
"""Lines that must be there."""


def test_the_real_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor names what is installed, and the plugins that the real registries list."""
    python = environment.python()
    folder = build(target="dibr_tensorrt", **PLUGIN_OPTIONS) / "plugins" / "tensorrt"
    monkeypatch.setenv("DIBR_LIBRARY_DIR", str(folder))
    done = subprocess.run([str(python), "-m", "dibr_deploy.cli", "doctor"], capture_output=True, text=True, check=True)
    plugins = f"plugins {PLUGIN_NAMES}"
    assert re.search(rf"TensorRT-RTX +\w+ +tensorrt_rtx_bindings 1\.\d+\S+ {plugins}", done.stdout), done.stdout
    assert re.search(rf"TensorRT +\w+ +tensorrt_lean_bindings 10\.\d+\S+ {plugins}", done.stdout), done.stdout
    assert re.search(r"libdibr_tensorrt.so +loads +\S+/plugins/tensorrt/libdibr_tensorrt.so", done.stdout), done.stdout


@pytest.fixture
def folder(model: Path, session: Session, arrays: tuple, tmp_path: Path) -> Path:
    """A bundle."""
    inputs = dict(zip(("offsets", "world_to_clip"), arrays, strict=True))
    return write_model_bundle(tmp_path / "bundle", model, inputs, session.run(*arrays))


def test_a_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(folder)]) == 0
    table = capsys.readouterr().out.split(f"model {folder}\n")[1].splitlines()
    assert re.match(r"  manifest +opens   2 files are what it says", table[0])
    assert any(re.match(r"  ONNX Runtime, CPU +opens   opens with provider cpu", line) for line in table)
    assert any(re.match(r"  torch, CPU +absent  torch runs modules, not exported models", line) for line in table)


def test_a_damaged_bundle(folder: Path) -> None:
    """No door needs the sample, but the manifest lists it."""
    content = bytearray((folder / "sample.npz").read_bytes())
    content[100] ^= 1
    (folder / "sample.npz").write_bytes(content)
    code, report = doctor_without_packages(folder)
    assert code == 1
    assert report["model_answer"]["state"] == "broken"
    assert "sample.npz is not the file that manifest.json describes" in report["model_answer"]["reason"]
    assert [door["of_model"] for door in report["doors"]] == [None] * len(doctor.DOORS)


def doctor_without_packages(path: Path) -> tuple[int, dict]:
    """Exit code and report for a model where no door opens, which is soon known."""
    return Installation(path.parent / "installation").doctor(str(path))


def test_a_bundle_that_no_door_opens(folder: Path) -> None:
    code, report = doctor_without_packages(folder)
    assert code == 1
    assert report["model_answer"]["state"] == "opens"
    said = {door["name"]: door["of_model"]["reason"] for door in report["doors"]}
    assert said[ORT_CPU] == said[TENSORRT] == "this door does not open, see above"


def test_what_a_model_opens_with(model: Path, tmp_path: Path) -> None:
    assert probes.model(str(model), "cpu") == {"reason": "opens with provider cpu"}
    with pytest.raises(probes.Absent, match="is no bundle, and provider tensorrt needs an engine"):
        probes.model(str(model), "tensorrt")
    (tmp_path / "m.onnx").write_bytes(model.read_bytes()[:1000])
    with pytest.raises(probes.Broken, match=r"m.onnx is cut off"):
        probes.model(str(tmp_path / "m.onnx"), "cpu")


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"dibr: model {tmp_path}/none does not exist\n"
    assert cli.main(["doctor", "--timeout", "0"]) == 2
    assert capsys.readouterr().err == "dibr: timeout must be positive, got 0\n"


def test_engines_are_asked_for_by_flavour(model: Path, tmp_path: Path) -> None:
    engine = Engine(
        file="model.engine", flavour="tensorrt_rtx", version="99.0", compute_capability=(), plugin_sha256="0" * 64
    )
    path = write_model_bundle(tmp_path / "b.zip", model, others={"model.engine": b"engine"}, engines=(engine,))
    assert len(Bundle(path).manifest.engines) == 1
    with pytest.raises(probes.Absent, match=r"^the bundle has no engine of TensorRT$") as caught:
        probes.engine(str(path), "tensorrt")
    assert caught.value.remedy == f"build one on this machine: dibr export --bundle {path} --tensorrt"
    with pytest.raises(probes.Problem):
        probes.engine(str(path), "tensorrt_rtx")


def test_the_triangle_is_a_valid_model() -> None:
    proto = onnx.load_from_string(probes.triangle_model())
    onnx.checker.check_model(proto)
    assert [(node.op_type, node.domain) for node in proto.graph.node] == [("Rasterize", "ai.dibr")]
    shapes = [[size.dim_value for size in value.type.tensor_type.shape.dim] for value in proto.graph.output]
    assert shapes == [[1, 2, 2], [1, 2, 2, 3], [1, 2, 2]]


def test_a_picture_that_is_wrong_is_not_healthy() -> None:
    with pytest.raises(probes.Broken, match=r"x draws a triangle wrong: face_index is \[\[\[0, 0\], \[0, -1\]\]\]"):
        probes._check_picture("x", np.array([[[0, 0], [0, -1]]], np.int32))
