"""Bad input through the `dibr` command: exit code 2, one sentence on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch

from dibr_deploy import cli
from dibr_deploy.mesh import icosphere, write_mesh
from dibr_deploy.runtime import schema

ROOT = Path(__file__).resolve().parents[2]
DIBR = (str(Path(sys.executable).with_name("dibr")),)

MAKE = "data make --meshes meshes --output made --views 2 --size 32"
TRAIN = "train --data dataset --output trained --steps 1 --batch 2 --image-size 32 --texture-size 32"
EXPORT = "export --checkpoint run --output exported.onnx"
VERIFY = "verify --checkpoint run --model model.onnx --count 2"
RENDER = "render --model model.onnx --image dataset/images/ball_000.png --output rendered --frames 2"


def run(folder: Path, command: str, program: tuple[str, ...] = DIBR) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the folder."""
    variables = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    arguments = [*program, *command.split()]
    return subprocess.run(
        arguments, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=240
    )


Dibr = Callable[[Path, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def dibr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Dibr:
    """The command in this process, which has imported torch already: forty processes would each import it again."""

    def call(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
        arguments = command.split()
        monkeypatch.chdir(folder)
        capfd.readouterr()
        try:
            code = cli.main(arguments)
        except SystemExit as stopped:  # argparse's way
            code = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return call


def content(folder: Path) -> dict[str, bytes | None]:
    """Every path below the folder, with the bytes of files."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def assert_refused(done: subprocess.CompletedProcess[str], says: tuple[str, ...]) -> None:
    assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stderr.count("\n") == 1, f"not one line:\n{done.stderr}"
    assert done.stderr.startswith("dibr: ")
    assert "Traceback" not in done.stdout + done.stderr
    for words in says:
        assert words in done.stderr


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound mesh, dataset, run and exported model, all but the mesh made by the command itself."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "meshes").mkdir()
    write_mesh(icosphere(2), folder / "meshes" / "ball.ply")
    commands = (MAKE.replace("made", "dataset"), TRAIN.replace("trained", "run"), EXPORT.replace("exported", "model"))
    for command in commands:
        done = run(folder, command)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def workplace(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound folder to be damaged; files are links until they are replaced."""
    return Path(shutil.copytree(sound, tmp_path / "workplace", copy_function=os.link))


def replaced(name: str, new: bytes) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(new)

    return replace


def cut_off(name: str, share: float = 0.6) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        replaced(name, whole[: int(len(whole) * share)])(folder)

    return cut


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut_off_mesh(suffix: str) -> Callable[[Path], None]:
    """The ball in another format, without its end, as the only mesh."""

    def cut(folder: Path) -> None:
        (folder / "meshes" / "ball.ply").unlink()
        write_mesh(icosphere(2), folder / "meshes" / f"ball{suffix}")
        cut_off(f"meshes/ball{suffix}")(folder)

    return cut


def newer_schema(folder: Path) -> None:
    """The exported model, made to say that it uses version 99 of our ops."""
    model = onnx.load(folder / "model.onnx")
    for opset in model.opset_import:
        if opset.domain == schema.OP_DOMAIN:
            opset.version = 99
    for entry in model.metadata_props:
        if entry.key == schema.METADATA_SCHEMA_VERSION:
            entry.value = "99"
    replaced("model.onnx", model.SerializeToString())(folder)


def newer_checkpoint(folder: Path) -> None:
    path = folder / "run" / "checkpoint.pt"
    newer = {**torch.load(path, weights_only=True), "version": 99}
    path.unlink()
    torch.save(newer, path)


def other_model(folder: Path) -> None:
    """A model that turns a number into itself."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    replaced("model.onnx", model.SerializeToString())(folder)


def nothing(folder: Path) -> None:
    pass


class Case(NamedTuple):
    name: str
    command: str
    damage: Callable[[Path], None]
    says: tuple[str, ...]


CASES = [
    Case("mesh folder missing", MAKE.replace("--meshes meshes", "--meshes nowhere"), nothing, ("nowhere", "not exist")),
    Case("mesh cut off, PLY", MAKE, cut_off("meshes/ball.ply"), ("ball.ply", "cut off")),
    Case("mesh cut off, GLB", MAKE, cut_off_mesh(".glb"), ("ball.glb",)),
    Case("mesh cut off, OBJ", MAKE, cut_off_mesh(".obj"), ("ball.obj", "cut off")),
    Case("mesh is text", MAKE, replaced("meshes/ball.ply", b"not a mesh"), ("ball.ply",)),
    Case("no views", MAKE.replace("--views 2", "--views 0"), nothing, ("views", "0")),
    Case("dataset there already", MAKE.replace("made", "dataset"), nothing, ("dataset", "exists")),
    Case("unknown object", "data fetch --objects teapot --output fetched", nothing, ("teapot", "duck")),
    Case("dataset missing", TRAIN.replace("--data dataset", "--data nowhere"), nothing, ("nowhere", "not exist")),
    Case("cameras cut off", TRAIN, cut_off("dataset/transforms.json"), ("transforms.json", "cut off")),
    Case("image cut off", TRAIN, cut_off("dataset/images/ball_001.png"), ("ball_001.png", "cut off")),
    Case("image missing", TRAIN, missing("dataset/images/ball_001.png"), ("ball_001.png", "missing")),
    Case("no steps", TRAIN.replace("--steps 1", "--steps 0"), nothing, ("steps", "0")),
    Case("run there already", TRAIN.replace("trained", "run"), nothing, ("run", "exists")),
    Case("nothing to resume", f"{TRAIN} --resume", nothing, ("trained", "not exist")),
    Case(
        "run cut off",
        "train --data dataset --output run --resume",
        cut_off("run/checkpoint.pt"),
        ("checkpoint.pt", "cut off"),
    ),
    Case("run missing", EXPORT.replace("checkpoint run", "checkpoint nowhere"), nothing, ("nowhere", "not exist")),
    Case("checkpoint cut off", EXPORT, cut_off("run/checkpoint.pt"), ("checkpoint.pt", "cut off")),
    Case("checkpoint is text", EXPORT, replaced("run/checkpoint.pt", b"weights"), ("not a checkpoint",)),
    Case("checkpoint of a newer version", EXPORT, newer_checkpoint, ("version 99", "up to version 1")),
    Case("folder to export to missing", EXPORT.replace("exported", "nowhere/exported"), nothing, ("nowhere",)),
    Case("opset too old", f"{EXPORT} --opset 11", nothing, ("opset", "18", "11")),
    Case("model to verify missing", VERIFY.replace("model.onnx", "nothing.onnx"), nothing, ("nothing.onnx",)),
    Case("model to verify cut off", VERIFY, cut_off("model.onnx"), ("model.onnx", "cut off")),
    Case("pictures missing", f"{VERIFY} --images nowhere", nothing, ("nowhere", "not exist")),
    Case("another model than the run's", VERIFY, other_model, ("model", "has outputs y, but the reference has image")),
    Case("model missing", RENDER.replace("model.onnx", "nothing.onnx"), nothing, ("nothing.onnx", "not exist")),
    Case("model cut off", RENDER, cut_off("model.onnx"), ("model.onnx", "cut off")),
    Case("model cut off early", RENDER, cut_off("model.onnx", 0.001), ("model.onnx", "cut off")),
    Case("model is text", RENDER, replaced("model.onnx", b"# Models\n"), ("model.onnx", "not an ONNX file")),
    Case("model is empty", RENDER, replaced("model.onnx", b""), ("model.onnx",)),
    Case("model of a newer schema", RENDER, newer_schema, ("version 99", "up to 1", "update")),
    Case("model of another kind", RENDER, other_model, ("model.onnx", "no image-to-mesh model")),
    Case("picture missing", RENDER.replace("ball_000", "ball_999"), nothing, ("ball_999.png", "not exist")),
    Case("picture cut off", RENDER, cut_off("dataset/images/ball_000.png"), ("ball_000.png", "cut off")),
    Case("picture is text", RENDER, replaced("dataset/images/ball_000.png", b"a ball"), ("ball_000.png", "no image")),
    Case("picture is a folder", RENDER.replace("/ball_000.png", ""), nothing, ("dataset/images",)),
    Case("no frames", RENDER.replace("--frames 2", "--frames 0"), nothing, ("frames", "0")),
    Case("unknown provider", f"{RENDER} --provider abacus", nothing, ("abacus", "cpu")),
    Case("output is a file", RENDER.replace("rendered", "model.onnx"), nothing, ("model.onnx",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(case: Case, workplace: Path, dibr: Dibr) -> None:
    case.damage(workplace)
    before = content(workplace)
    assert_refused(dibr(workplace, case.command), case.says)
    assert content(workplace) == before


def test_sound_input_passes(workplace: Path) -> None:
    """What the cases above damage works when it is left alone."""
    for command in (VERIFY, RENDER):
        done = run(workplace, command)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    names = sorted(path.name for path in (workplace / "rendered").iterdir())
    assert names == ["input.png", "mask.png", "mesh.glb", "prediction.png", "turntable.gif"]


@pytest.fixture
def without_libraries(tmp_path: Path) -> tuple[str, ...]:
    """The command of a dibr_deploy that was installed without its native libraries."""
    package = tmp_path / "packages" / "dibr_deploy"
    for folder, target in (("dibr_deploy", package), ("export", package / "export"), ("runtime", package / "runtime")):
        shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__", "lib", "*.so*"))
    # An editable installation finds its package before any path: its finder goes.
    code = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r});"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'editable' not in type(finder).__module__];"
        "from dibr_deploy.cli import main; sys.exit(main())"
    )
    return (sys.executable, "-c", code)


@pytest.mark.parametrize("command", [RENDER, TRAIN], ids=["ONNX Runtime door", "torch door"])
def test_missing_library_is_named(command: str, without_libraries: tuple[str, ...], workplace: Path) -> None:
    before = content(workplace)
    who = "model model.onnx needs the ai.dibr custom ops" if command is RENDER else "libdibr_torch.so is not in"
    assert_refused(run(workplace, command, without_libraries), (who, "built without it", "DIBR_LIBRARY_DIR"))
    assert content(workplace) == before


@pytest.mark.parametrize("command", [RENDER, VERIFY], ids=["render", "verify"])
def test_damaged_library_is_named(command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom-op library that is no library, in the folder that is searched first."""
    replaced("libdibr_onnxruntime.so", b"nothing")(workplace)
    monkeypatch.setenv("DIBR_LIBRARY_DIR", str(workplace))
    before = content(workplace)
    assert_refused(run(workplace, command), ("model.onnx", "libdibr_onnxruntime.so"))
    assert content(workplace) == before
