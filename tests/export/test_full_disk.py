"""A disk that is full at export: an error, and what was there before is what is there after."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runtime_bundles import manifest_of

from dibr_deploy.runtime.bundle import Bundle, write_bundle

LIMIT = 64 << 10
WRITE = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from runtime_bundles import manifest_of
from dibr_deploy.runtime.bundle import write_bundle

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write past the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
files = {{"model.onnx": bytes({2 * LIMIT}), "small.bin": b"small"}}
try:
    write_bundle(sys.argv[1], manifest_of(files), files)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_half_written_bundle_replaces_nothing(tmp_path: Path, name: str) -> None:
    old = {"model.onnx": b"the old one"}
    write_bundle(tmp_path / name, manifest_of(old), old)
    done = subprocess.run([sys.executable, "-c", WRITE, tmp_path / name], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n", done
    assert Bundle(tmp_path / name).read("model.onnx") == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == [name], "something half-written is left"


def test_a_full_disk_ends_the_command_in_one_sentence(tmp_path: Path) -> None:
    """`dibr export` of a model that does not fit."""
    model = tmp_path / "model.onnx"
    model.write_bytes(one_large_constant())
    command = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT})); "
        "from dibr_deploy.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["export", "--model", str(model), "--output", str(tmp_path / "b.zip")]
    done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("dibr: ") and "Traceback" not in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def one_large_constant() -> bytes:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    values = onnx.numpy_helper.from_array(np.zeros(LIMIT, np.float32), "c")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [LIMIT]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", tensors[:1], tensors[1:], [values])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
