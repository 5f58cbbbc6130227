"""check_wheel.py runtime|serve|torch FOLDER: uses the installed package, from outside of the repository.

``runtime`` runs where torch is not installed and writes what ONNX Runtime gave; ``serve`` runs there too, after the
service's packages have been installed; ``torch`` runs after torch has been installed into the same environment and
compares with it, bit for bit.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
# One triangle whose hypotenuse runs through the centres of the diagonal pixels, and a vertex that is not finite.
POSITIONS = np.array([[[-1, -1, 0, 1], [1, -1, 0.5, 1], [-1, 1, -0.5, 1], [np.nan, 0, 0, 1]]], dtype=np.float32)
FACES = np.array([[0, 1, 2], [0, 1, 3]], dtype=np.int32)
SIZE = 16


def write_model(path: Path) -> None:
    """A graph of one Rasterize node."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node(
        "Rasterize",
        ["positions", "faces"],
        ["face_index", "barycentrics", "depth"],
        domain="ai.dibr",
        height=SIZE,
        width=SIZE,
    )
    graph = helper.make_graph(
        [node],
        "triangle",
        [helper.make_tensor_value_info("positions", TensorProto.FLOAT, ["batch", 4, 4])],
        [
            helper.make_tensor_value_info("face_index", TensorProto.INT32, None),
            helper.make_tensor_value_info("barycentrics", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("depth", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor("faces", TensorProto.INT32, FACES.shape, FACES.ravel())],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.dibr", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def check_location(module: object) -> None:
    location = Path(module.__file__).resolve()
    assert REPOSITORY / "dibr_deploy" not in location.parents, f"{location} is the repository's own"


def check_command(name: str) -> None:
    command = Path(sys.executable).parent / "dibr"
    done = subprocess.run([command, *name.split()], capture_output=True, text=True)
    assert done.returncode == 0, f"dibr {name} exits with {done.returncode}: {done.stderr}"
    assert "usage: dibr" in done.stdout, f"dibr {name} prints {done.stdout!r}"


def check_demo(folder: Path) -> None:
    command = [Path(sys.executable).parent / "dibr", "demo", "--frames", "2", "--output", folder / "demo"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"dibr demo exits with {done.returncode}: {done.stderr}"
    written = {path.name for path in (folder / "demo").iterdir()}
    assert written == {"input.png", "prediction.png", "mask.png", "turntable.gif", "mesh.glb"}, written


def check_runtime(folder: Path) -> None:
    assert importlib.util.find_spec("torch") is None, "this check is for an environment without torch"
    import dibr_deploy
    from dibr_deploy.runtime import Session

    check_location(dibr_deploy)
    write_model(folder / "triangle.onnx")
    outputs = Session(folder / "triangle.onnx").run(POSITIONS)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    assert (outputs["face_index"][0] == np.where(rows >= columns, 0, -1)).all(), outputs["face_index"]
    np.savez(folder / "outputs.npz", **outputs)
    check_command("--help")
    check_command("render --help")
    check_demo(folder)
    print("runtime without torch: ok")


def check_service() -> None:
    """`dibr serve` on the wheel's own model: every door of it once."""
    assert importlib.util.find_spec("torch") is None, "this check is for an environment without torch"
    import dibr_deploy

    sys.path.append(str(REPOSITORY / "tests"))
    from server.visit import visit

    demo = Path(dibr_deploy.__file__).parent / "demo"
    program, ports = Path(sys.executable).parent / "dibr", ["--http-port", "0", "--grpc-port", "0"]
    with subprocess.Popen([program, "serve", demo / "model.zip", *ports], stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            assert line.startswith("{"), line + process.stderr.read()
            http, grpc = (f"127.0.0.1:{json.loads(line)[name]}" for name in ("http", "grpc"))
            visit(http, grpc, "model", (demo / "duck.png").read_bytes())
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0, f"dibr serve ends with {process.returncode}"
    print("service without torch: ok")


def check_torch(folder: Path) -> None:
    import torch

    import dibr_deploy

    check_location(dibr_deploy)
    positions = torch.from_numpy(POSITIONS).requires_grad_()
    raster = dibr_deploy.rasterize(positions, torch.from_numpy(FACES), SIZE, SIZE)
    expected = np.load(folder / "outputs.npz")
    for name, actual in raster._asdict().items():
        assert np.array_equal(actual.detach().numpy(), expected[name]), f"{name} differs from ONNX Runtime's"
    raster.depth.sum().backward()
    assert positions.grad[0, :3].any(), "no gradient reached the positions"
    print("torch door, bit for bit as ONNX Runtime: ok")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        check_service()
    else:
        {"runtime": check_runtime, "torch": check_torch}[sys.argv[1]](Path(sys.argv[2]))
