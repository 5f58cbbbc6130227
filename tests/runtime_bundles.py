"""Bundles made by hand, so that the tests of reading them do not depend on what exports them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dibr_deploy.runtime.bundle import entries, write_bundle
from dibr_deploy.runtime.manifest import MODEL_FILE, Manifest, Tensor
from dibr_deploy.runtime.onnx_file import ValueInfo, parse_interface

SAMPLE_FILE = "sample.npz"
MODEL = b"\x08\x08not really a model" * 30


def manifest_of(files: Mapping[str, bytes], **values: Any) -> Manifest:
    """A manifest that describes the files, with other values of its fields where they are given."""
    described: dict[str, Any] = {
        "schema_version": 1,
        "opset": 18,
        "onnxruntime_api": 17,
        "producer": "a test",
        "inputs": (Tensor(name="x", dtype="float32", shape=("batch", 3)),),
        "outputs": (Tensor(name="y", dtype="float32", shape=("batch", 3), meaning="what came in"),),
        "files": entries(files),
    }
    return Manifest(**{**described, **values})


def write_model_bundle(
    path: Path,
    model: Path,
    inputs: Mapping[str, np.ndarray] | None = None,
    outputs: Mapping[str, np.ndarray] | None = None,
    others: Mapping[str, bytes] | None = None,
    **values: Any,
) -> Path:
    """A bundle of an ONNX file, with a sample where its arrays are given, and other files by name."""
    content = model.read_bytes()
    interface = parse_interface(content, model)
    files = {MODEL_FILE: content, **(others or {})}
    if inputs is not None and outputs is not None:
        files[SAMPLE_FILE] = sample(inputs, outputs)
        values.setdefault("sample", SAMPLE_FILE)
    described: dict[str, Any] = {"inputs": tensors(interface.inputs), "outputs": tensors(interface.outputs)}
    return write_bundle(path, manifest_of(files, **{**described, **values}), files)


def tensors(infos: tuple[ValueInfo, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(**info._asdict()) for info in infos)


def sample(inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    arrays = {f"input.{name}": array for name, array in inputs.items()}
    np.savez(content, **arrays, **{f"output.{name}": array for name, array in outputs.items()})
    return content.getvalue()
