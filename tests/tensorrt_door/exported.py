"""Every model that a test exports, held against TensorRT: its nodes against the creators in the registry, and the whole
of it through the real ONNX parser and builder of TensorRT-RTX, with its dynamic axes and with fixed sizes.

tests/conftest.py asks for this after every test. What was built once is remembered in build/exported_models until the
model, but for the values of its weights, the plugin library, TensorRT-RTX or the script that builds changes.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from cuda_backend.host_build import ROOT, build
from onnx import TensorProto, helper

from tensorrt_door import environment

SCRIPT = Path(__file__).with_name("real_tensorrt.py")
REMEMBERED = ROOT / "build" / "exported_models"
DOMAIN = "ai.dibr"
PRODUCER = "dibr_deploy"

# What TensorRT cannot take by its nature, by the test that exports it, and the sentence that says so.
REFUSED = {
    "tests/export/test_exporter.py::test_every_option_reaches_the_graph[dtype1]": "positions must be FLOAT, got DOUBLE",
}

REAL = ("FLOAT", "FLOAT16", "BFLOAT16")
INPUTS: dict[str, dict[str, Sequence[str]]] = {
    "Rasterize": {
        "positions": ["FLOAT"],
        "faces": ["INT32"],
        "face_ranges": ["INT32"],
        "face_valid": ["INT32"],
        "image_size": ["INT64"],
    },
    "Interpolate": {"attributes": REAL, "faces": ["INT32"], "face_index": ["INT32"], "barycentrics": ["FLOAT"]},
    "SoftMask": {"positions": ["FLOAT"], "faces": ["INT32"], "face_index": ["INT32"], "face_ranges": ["INT32"]},
    "Texture": {"texture": REAL, "uv": ["FLOAT"], "mip_level": ["FLOAT"]},
    "Antialias": {
        "image": REAL,
        "positions": ["FLOAT"],
        "faces": ["INT32"],
        "face_index": ["INT32"],
        "barycentrics": ["FLOAT"],
        "face_ranges": ["INT32"],
    },
    "Render": {
        "positions": ["FLOAT"],
        "faces": ["INT32"],
        "uvs": ["FLOAT"],
        "uv_faces": ["INT32"],
        "texture": REAL,
        **{f"attribute{kind}_{k}": types for k in range(3) for kind, types in (("s", REAL), ("_faces", ["INT32"]))},
        "face_ranges": ["INT32"],
        "face_valid": ["INT32"],
        "image_size": ["INT64"],
    },
}
"""Types that the plugins take, by op and argument (docs/tensorrt.md)."""
SMALLEST_WEIGHT = 16
"""Elements of a tensor that nobody takes for a parameter of a node."""
OUTPUT_COUNTS = {"Rasterize": 3}
FIELD_TYPES = {
    onnx.AttributeProto.INT: "INT32",
    onnx.AttributeProto.FLOAT: "FLOAT32",
    onnx.AttributeProto.STRING: "CHAR",
}
SELECTORS = ("plugin_version", "plugin_namespace", "tensorrt_plugin_shape_input_indices")


def is_exported(content: bytes) -> bool:
    """Whether it is a whole model that our exporter wrote, and nothing that a test made or damaged."""
    try:
        model = onnx.load_from_string(content)
    except Exception:  # of protobuf: a file that a test has damaged
        return False
    return model.producer_name == PRODUCER and len(model.graph.node) > 0


def problems(content: bytes) -> list[str]:
    """Why TensorRT would not take the model; empty where it does, static and dynamic."""
    model = onnx.load_from_string(content)
    found = [problem for node in ours(model) for problem in node_problems(model, node)]
    return found or engine_problems(content, sorted(node.op_type for node in ours(model)))


def ours(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.domain == DOMAIN]


def node_problems(model: onnx.ModelProto, node: onnx.NodeProto) -> Iterator[str]:
    """Where a node is not what its creator in the registry takes."""
    creator = builder().creators.get(node.op_type)
    if creator is None:
        yield f"{node.op_type} has no creator"
        return
    attributes = {attribute.name: attribute for attribute in node.attribute}
    for selector, wanted in (("plugin_version", creator["version"]), ("plugin_namespace", creator["namespace"])):
        if helper.get_attribute_value(attributes[selector]).decode() != wanted:
            yield f"{node.op_type}: {selector} is not {wanted}"
    for name in attributes.keys() - set(SELECTORS):
        kind, wanted = FIELD_TYPES.get(attributes[name].type), creator["fields"].get(name)
        if kind != wanted:
            yield f"{node.op_type}: attribute {name} is {kind}, but the creator's field is {wanted}"
    if not has_all_outputs(node, attributes):
        yield f"{node.op_type} has outputs {list(node.output)}"
    types = element_types(model)
    for name, (argument, wanted_types) in zip(node.input, INPUTS[node.op_type].items(), strict=False):
        if types.get(name) not in wanted_types:
            yield f"{node.op_type}: {argument} must be {' or '.join(wanted_types)}, got {types.get(name)}"
    if len(node.input) > len(INPUTS[node.op_type]):
        yield f"{node.op_type} has {len(node.input)} inputs"
    shape_inputs = list(attributes["tensorrt_plugin_shape_input_indices"].ints) if SELECTORS[2] in attributes else []
    sized = node.op_type in ("Rasterize", "Render") and len(node.input) == len(INPUTS[node.op_type])
    if shape_inputs != ([len(node.input) - 1] if sized else []):
        yield f"{node.op_type}: its shape inputs are {shape_inputs}"


def has_all_outputs(node: onnx.NodeProto, attributes: dict[str, onnx.AttributeProto]) -> bool:
    """Whether the outputs with a name are as many as the plugin has: of Render, as its attribute lists."""
    if node.op_type == "Render":
        return len(list(filter(None, node.output))) == len(attributes["outputs"].s.split(b","))
    return len(node.output) == OUTPUT_COUNTS.get(node.op_type, 1) and all(node.output)


def element_types(model: onnx.ModelProto) -> dict[str, str]:
    """Element type of every tensor that has one, by name."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    return {name: TensorProto.DataType.Name(kind) for name, kind in types.items()}


def engine_problems(content: bytes, ops: list[str]) -> list[str]:
    """What parser and builder object to, or which of these plugins an engine does not name."""
    key = hashlib.sha256(without_weights(content) + tools_hash()).hexdigest()
    remembered = REMEMBERED / f"{key}.json"
    if remembered.exists():
        answer = json.loads(remembered.read_text())
    else:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(content)
            file.flush()
            answer = builder().engines(file.name)
        REMEMBERED.mkdir(parents=True, exist_ok=True)
        temporary = remembered.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(answer))
        temporary.replace(remembered)
    return objections(answer, ops)


def without_weights(content: bytes) -> bytes:
    """The model, its large tensors of real numbers without their values. TensorRT refuses nodes, types, shapes and
    constants that it must know, and takes seconds for each network; of weights it takes any."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if TensorProto.DataType.Name(tensor.data_type) in REAL and math.prod(tensor.dims) >= SMALLEST_WEIGHT:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return model.SerializeToString(deterministic=True)


def objections(answer: dict[str, Any], ops: list[str]) -> list[str]:
    """What an answer of real_tensorrt.engines says against a model of these ops; an engine that is not there is one."""
    found = list(answer["errors"])
    for kind in ("dynamic", "static"):
        if answer[kind] is None:
            found.append(f"there is no {kind} engine")
        elif sorted(answer[kind]) != ops:
            found.append(f"the {kind} engine names {answer[kind]}, not {ops}")
    return found


@functools.cache
def library() -> Path:
    folder = build(target="dibr_tensorrt", DIBR_TENSORRT="ON", DIBR_TESTS="ON")
    return folder / "plugins" / "tensorrt" / "libdibr_tensorrt.so"


@functools.cache
def tools_hash() -> bytes:
    """Of all that an answer depends on beside the model."""
    return hashlib.sha256(library().read_bytes() + SCRIPT.read_bytes() + environment.VERSIONS.read_bytes()).digest()


class Builder:
    """A process with TensorRT-RTX in it, which answers as long as this process lives."""

    def __init__(self) -> None:
        command = [str(environment.PYTHON), str(SCRIPT), "rtx", "serve"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._process.kill)
        self.creators: dict[str, dict] = self._ask(library=str(library()))

    def engines(self, model: str) -> dict:
        """Raises RuntimeError where the process has died."""
        return self._ask(model=model)

    def _ask(self, **arguments: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(arguments) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if line:
                return json.loads(line)
        except BrokenPipeError:
            pass
        builder.cache_clear()
        raise RuntimeError(f"TensorRT-RTX ended with {self._process.wait()} on {arguments}")


@functools.cache
def builder() -> Builder:
    return Builder()
