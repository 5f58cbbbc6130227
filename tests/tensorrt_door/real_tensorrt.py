"""What the tests ask of the real TensorRT libraries, run as a program with the Python of .venv-trt.

    python real_tensorrt.py FLAVOUR COMMAND < arguments.json    # prints its answer as one line of JSON

FLAVOUR is rtx (TensorRT-RTX: registry, ONNX parser, builder, no device needed) or lean (TensorRT's lean runtime: of it,
the registry needs no device). Every call is a process of its own, since TensorRT has one registry per process; COMMAND
serve goes on answering one line of arguments by one line, for many small builds.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from typing import Any

import numpy as np

# TensorRT-RTX's compiler prints warnings on stdout, where answers are read.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

BINDINGS = {"rtx": "tensorrt_rtx_bindings", "lean": "tensorrt_lean_bindings"}
trt = importlib.import_module(BINDINGS[sys.argv[1]])

DTYPES = {"INT32": np.int32, "INT64": np.int64, "FLOAT32": np.float32, "CHAR": np.int8}
NAMESPACE = "ai.dibr"
PROFILE_KINDS = ("min", "opt", "max")


class Logger(trt.ILogger):
    """Keeps warnings and errors."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.WARNING:
            self.messages.append(message)


class Recorder(trt.IErrorRecorder):
    def __init__(self) -> None:
        trt.IErrorRecorder.__init__(self)
        self.errors: list[str] = []

    def num_errors(self) -> int:
        return len(self.errors)

    def get_error_desc(self, index: int) -> str:
        return self.errors[index]

    def has_overflowed(self) -> bool:
        return False

    def clear(self) -> None:
        self.errors.clear()

    def report_error(self, code: Any, description: str) -> bool:
        self.errors.append(description)
        return False


logger = Logger()
builder = trt.Builder(logger) if hasattr(trt, "Builder") else None  # which makes ours the library's logger
registry = trt.get_plugin_registry()


def our_creators() -> list[Any]:
    return [creator for creator in registry.all_creators if creator.plugin_namespace == NAMESPACE]


def creators(steps: list[list[str]]) -> list[dict]:
    """What is registered after each step: ["load", path], ["dlopen", path] or ["deregister"]."""
    answers = []
    handle = None
    for step, *path in steps:
        succeeded = True
        if step == "load":
            handle = registry.load_library(*path)
            succeeded = handle is not None
        elif step == "dlopen":
            ctypes.CDLL(*path)
        else:
            registry.deregister_library(handle)
        names = sorted([creator.name, creator.plugin_version] for creator in our_creators())
        answers.append({"creators": names, "succeeded": succeeded, "logged": list(logger.messages)})
        logger.messages.clear()
    return answers


def fields(library: str) -> dict[str, dict]:
    """Name, version and field types of each creator."""
    registry.load_library(library)
    return {
        creator.name: {
            "version": creator.plugin_version,
            "namespace": creator.plugin_namespace,
            "fields": {field.name: field.type.name for field in creator.field_names},
        }
        for creator in our_creators()
    }


field_values: list[np.ndarray] = []
"""A PluginField does not keep the array that it points into."""


def field_collection(values: list[list]) -> Any:
    collection = []
    for name, kind, value in values:
        numbers = list(value.encode()) if isinstance(value, str) else np.ravel(value)
        field_values.append(np.array(numbers, DTYPES[kind]))
        collection.append(trt.PluginField(name, field_values[-1], getattr(trt.PluginFieldType, kind)))
    return trt.PluginFieldCollection(collection)


def create(library: str, cases: list[dict]) -> list[dict]:
    """Plugins from fields: {"op", "fields": [[name, type, value]], "phase": BUILD or RUNTIME}."""
    registry.load_library(library)
    recorder = Recorder()
    registry.error_recorder = recorder
    answers = []
    for case in cases:
        creator = registry.get_creator(case["op"], "1", NAMESPACE)
        logger.messages.clear()
        recorder.clear()
        phase = getattr(trt.TensorRTPhase, case["phase"])
        plugin = creator.create_plugin("layer", field_collection(case["fields"]), phase)
        answer = {"created": plugin is not None, "logged": list(logger.messages), "recorded": list(recorder.errors)}
        if plugin is not None:
            core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
            answer["core"] = [core.plugin_name, core.plugin_version, core.plugin_namespace]
            build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
            answer["outputs"] = build.num_outputs
            answer["metadata"] = build.metadata_string
        answers.append(answer)
        del plugin
    registry.error_recorder = None
    return answers


def build(library: str, model: str, engine: str, profile: dict[str, list], embed: bool = False) -> dict:
    """ONNX -> parser -> builder -> engine file. profile: for each dynamic input its smallest, usual and largest."""
    registry.load_library(library)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        return {"parsed": False, "errors": parser_errors(parser)}
    config = builder.create_builder_config()
    if embed:
        config.plugins_to_serialize = [library]
    ranges = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            ranges.set_shape_input(tensor.name, *profile[tensor.name])
        elif -1 in tensor.shape:
            ranges.set_shape(tensor.name, *profile[tensor.name])
    config.add_optimization_profile(ranges)
    described = [
        [[list(layer.get_output(i).shape), layer.get_output(i).dtype.name] for i in range(layer.num_outputs)]
        for layer in plugin_layers(network)
    ]
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        return {"parsed": True, "built": False, "errors": logger.messages}
    with open(engine, "wb") as file:
        file.write(bytes(serialized))
    return {"parsed": True, "built": True, "plugins": described, "errors": logger.messages}


def parser_errors(parser: Any) -> list[str]:
    return [parser.get_error(index).desc() for index in range(parser.num_errors)] + logger.messages


def plugin_layers(network: Any) -> list[Any]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    plugins = [layer for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]
    for layer in plugins:
        layer.__class__ = trt.IPluginV3Layer  # the bindings' way of casting down
    return plugins


SIZES = {"batch": (1, 2, 4)}
OTHER_SIZES = (1, 8, 64)
"""Smallest, usual and largest size of a dynamic axis, by its name."""


def engines(model: str) -> dict:
    """Names of the plugins in the engine for the model's dynamic axes, and in one with the usual size of each."""
    logger.messages.clear()
    answers = {kind: engine(model, kind == "static") for kind in ("dynamic", "static")}
    failed = [f"{kind}: {error}" for kind, answer in answers.items() for error in answer.get("errors", [])]
    return {"errors": failed, **{kind: answer.get("plugins") for kind, answer in answers.items()}}


def engine(model: str, static: bool) -> dict:
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(model):
        return {"errors": parser_errors(parser) or ["the parser refuses the model and says nothing"]}
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        ranges = [
            SIZES.get(tensor.get_dimension_name(axis), OTHER_SIZES) if size < 0 else (size,) * 3
            for axis, size in enumerate(tensor.shape)
        ]
        shapes = list(zip(*ranges, strict=True)) if ranges else [(), (), ()]
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *([size] * shapes[1][0] for size in OTHER_SIZES))
        elif static:
            tensor.shape = shapes[1]
        else:
            profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        return {"errors": logger.messages or ["no engine, and TensorRT says nothing"]}
    content = bytes(serialized)
    cores = [layer.plugin.get_capability_interface(trt.PluginCapabilityType.CORE) for layer in plugin_layers(network)]
    return {"plugins": [core.plugin_name for core in cores if core.plugin_name.encode() in content]}


def serve(library: str) -> None:
    """Answers with the fields of the creators, then line by line with the engines of the model named there."""
    answer(fields(library))
    for line in sys.stdin:
        answer(engines(**json.loads(line)))


def answer(value: Any) -> None:
    print(json.dumps(value), file=ANSWERS, flush=True)


COMMANDS = {"creators": creators, "fields": fields, "create": create, "build": build, "serve": serve}

if __name__ == "__main__":
    command = COMMANDS[sys.argv[2]]
    result = command(**json.loads(sys.stdin.readline() if command is serve else sys.stdin.read()))
    if command is not serve:
        answer(result)
