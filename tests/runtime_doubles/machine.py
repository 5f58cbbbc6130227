"""A machine with a device and TensorRT, as far as the runner sees, and bundles for it."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from dibr_deploy.runtime import tensorrt_engine
from dibr_deploy.runtime.bundle import Bundle, entries, write_bundle
from dibr_deploy.runtime.manifest import Engine, Manifest, Profile, Tensor
from dibr_deploy.runtime.onnx_file import parse_interface

from .cuda_driver import install
from .tensorrt import Behaviour, engine_bytes, make_module

VERSION = "10.16.1.11"
PLUGIN = b"the plugin library"


class Machine:
    """Doubles in the places of cuda-python, TensorRT and our plugin library."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.driver = install(patch)
        self.folder = folder
        self._patch = patch
        patch.setattr(tensorrt_engine, "_listeners", {})
        for name in ("tensorrt", "tensorrt_bindings", "tensorrt_lean", "tensorrt_lean_bindings"):
            patch.delitem(sys.modules, name, raising=False)
        libraries = folder / "libraries"
        libraries.mkdir()
        self.plugin = libraries / "libdibr_tensorrt.so"
        self.plugin.write_bytes(PLUGIN)
        patch.setenv("DIBR_LIBRARY_DIR", str(libraries))

    def install(self, name: str = "tensorrt", version: str = VERSION) -> Behaviour:
        module = make_module(self.driver, name, version)
        self._patch.setitem(sys.modules, name, module)
        return module.behaviour


def entry(file: str = "model.engine", **changes: Any) -> Engine:
    settings: dict[str, Any] = {
        "file": file,
        "flavour": "tensorrt",
        "version": VERSION,
        "compute_capability": ("8.9",),
        "plugin_sha256": hashlib.sha256(PLUGIN).hexdigest(),
        **changes,
    }
    return Engine(**settings)


Ranges = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""min, opt, max by input name."""


def make_bundle(
    path: Path,
    model: bytes,
    profiles: list[Ranges],
    *,
    engines: tuple[dict[str, Any], ...] = ({},),
    shape_inputs: tuple[str, ...] = (),
    engine: bytes | None = None,
    **manifest: Any,
) -> Bundle:
    """A bundle whose engines the double loads.

    engines: changes to the manifest's entry of each.
    engine: content of the engine files, by default one that fits.
    manifest: changes to the manifest.
    """
    stated = tuple({name: Profile(min=a, opt=b, max=c) for name, (a, b, c) in profile.items()} for profile in profiles)
    on_device = [
        {name: [list(shape) for shape in shapes] for name, shapes in profile.items() if name not in shape_inputs}
        for profile in profiles
    ]
    listed = tuple(entry(**{"file": f"{index}.engine", "profiles": stated, **one}) for index, one in enumerate(engines))
    content = engine_bytes(model, on_device, shape_inputs) if engine is None else engine
    files = {"model.onnx": model, **{one.file: content for one in listed}}
    interface = parse_interface(model, path)
    settings: dict[str, Any] = {
        "schema_version": 1,
        "opset": 18,
        "onnxruntime_api": 17,
        "producer": "a test",
        "inputs": tuple(Tensor(name=info.name, dtype=info.dtype, shape=info.shape) for info in interface.inputs),
        "outputs": tuple(Tensor(name=info.name, dtype=info.dtype, shape=info.shape) for info in interface.outputs),
        "files": entries(files),
        "engines": listed,
        **manifest,
    }
    return Bundle(write_bundle(path, Manifest(**settings), files))


def affine_model() -> bytes:
    """x [batch, 3] float32 and y [batch, 3] float32 to sum = x + y and total = sum of x over its batch, [3]."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    outputs = [
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("total", TensorProto.FLOAT, [3]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    graph = helper.make_graph(nodes, "affine", inputs, outputs, [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.ModelProto.SerializeToString(model)


def batches(low: int, high: int) -> Ranges:
    """A profile of ``affine_model``."""
    return dict.fromkeys(("x", "y"), ((low, 3), (low, 3), (high, 3)))
