"""What a bundle says about itself: ``manifest.json``, read and checked before anything of the bundle is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dibr_deploy.errors import DibrError

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
FORMAT_VERSION: Final = 1
"""Of the manifest itself. A reader refuses any other."""
MAX_BYTES = 1 << 20
"""Largest manifest that is read."""

_SHOWN = 60
_FORMAT = re.compile(rb'"format_version"\s*:\s*([0-9]{1,9})\b')
FLAVOURS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""One name, no folder: nothing outside of the bundle can be meant."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, lt=1 << 48)]
ComputeCapability = Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")]
TensorName = Annotated[str, Field(min_length=1, max_length=256)]
Shape = Annotated[tuple[Size, ...], Field(max_length=8)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Part):
    """A file of the bundle."""

    sha256: Sha256
    bytes: Size


class Tensor(_Part):
    """An input or output of the model."""

    name: TensorName
    dtype: Literal[
        "float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
        "uint64", "bool",
    ]  # fmt: skip
    shape: Annotated[tuple[Size | Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=8)]
    """A number, or a name that stands for one size wherever it occurs."""
    meaning: str = ""


class Profile(_Part):
    """Smallest, usual and largest shape of an input; of a shape input, its values."""

    min: Shape
    opt: Shape
    max: Shape

    @model_validator(mode="after")
    def _ordered(self) -> Profile:
        ranks = {len(self.min), len(self.opt), len(self.max)}
        ordered = all(a <= b <= c for a, b, c in zip(self.min, self.opt, self.max, strict=False))
        if len(ranks) > 1 or not ordered:
            raise ValueError(f"min {self.min} <= opt {self.opt} <= max {self.max} does not hold")
        return self


class Engine(_Part):
    """A TensorRT engine of the bundle's model."""

    file: FileName
    flavour: Literal["tensorrt", "tensorrt_rtx"]
    """TensorRT, or TensorRT-RTX, whose engines are compiled for the device when they are loaded."""
    version: Annotated[str, Field(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6}){1,3}$")]
    """Of the TensorRT that built it, for example 10.16.1.11."""
    compute_capability: Annotated[tuple[ComputeCapability, ...], Field(max_length=32)]
    """Of the devices that it was built for, for example 8.9."""
    version_compatible: bool = False
    """Later versions of the same major may load it."""
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    plugin_sha256: Sha256
    """Of the plugin library that it was built with."""
    carries_plugin: bool = False
    """The plugin library is inside of the engine."""
    profiles: tuple[dict[str, Profile], ...] = ()
    """By input name, one entry per optimization profile."""


class Manifest(_Part):
    """The whole of ``manifest.json``."""

    format_version: Literal[1] = FORMAT_VERSION
    schema_version: Annotated[int, Field(ge=1, lt=1 << 31)]
    """Of the ai.dibr ops."""
    opset: Annotated[int, Field(ge=1, lt=1 << 31)]
    """Of the standard ONNX ops."""
    onnxruntime_api: Annotated[int, Field(ge=1, lt=1 << 31)]
    """The oldest ONNX Runtime, 1.N, that can load the custom-op library."""
    producer: str
    model: FileName = MODEL_FILE
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    files: dict[FileName, FileEntry]
    """Every file of the bundle but the manifest."""
    engines: tuple[Engine, ...] = ()
    sample: FileName | None = None
    """.npz with arrays input.NAME and output.NAME: inputs, and what torch made of them."""
    preprocess: FileName | None = None
    """ONNX graph of standard ops from ``pixels``, uint8 [height, width, 3 or 4] of any size, to an input of the model,
    with a batch of one; its output has that input's name."""
    renderer: FileName | None = None
    """ONNX graph that renders a prediction: inputs that are called as outputs of the model, and ``world_to_clip``."""

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        optional = filter(None, (self.sample, self.preprocess, self.renderer))
        for name in (self.model, *(engine.file for engine in self.engines), *optional):
            if name not in self.files:
                raise ValueError(f"files does not list {name}")
        if MANIFEST_FILE in self.files:
            raise ValueError(f"files lists {MANIFEST_FILE} itself")
        return self

    def to_json(self) -> str:
        return self.model_dump_json(indent=2) + "\n"


def parse_manifest(content: bytes, where: str | Path) -> Manifest:
    """The manifest in the bytes of a ``manifest.json``.

    Args:
        content: the file's bytes.
        where: the bundle, for the error.

    Raises:
        DibrError: it is too large, of another format version, no JSON, or a value is not what it must be.
    """
    if len(content) > MAX_BYTES:
        raise DibrError(f"bundle {where}: {MANIFEST_FILE} has more than {MAX_BYTES} bytes")
    stated = _FORMAT.search(content)
    if stated and int(stated[1]) > FORMAT_VERSION:
        raise DibrError(
            f"bundle {where}: {MANIFEST_FILE} has format version {int(stated[1])}, but this dibr_deploy reads version "
            f"{FORMAT_VERSION}: update dibr_deploy, or export the model again with this one"
        )
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise DibrError(f"bundle {where}: {MANIFEST_FILE} is not valid: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(_printable(str(part)) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _printable(part: str) -> str:
    """A key of the file, which may be anything, as part of a sentence."""
    return part if part.isprintable() and len(part) <= _SHOWN else repr(part[:_SHOWN])
