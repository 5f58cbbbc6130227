"""What Triton reads of a model: ``config.pbtxt``, a ModelConfig of its model_config.proto in protobuf's text format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dibr_deploy.runtime.manifest import Tensor

QUEUE_DELAY_MICROSECONDS = 1000
"""How long a request waits for others to share a batch with."""
QUEUE_LIMIT, QUEUE_TIMEOUT_MICROSECONDS = 128, 10_000_000
"""More requests than that, or older ones, are refused."""
VERSIONS_SERVED = 2
"""The newest and the one before it, so that a client of the older one is not cut off by an update."""
WARM_UP_FOLDER = "warmup"
"""Where Triton looks for the arrays of a warm-up, beside ``config.pbtxt``."""

_DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


class Word(str):
    """The name of an enum's value, which stands without quotes."""


def model_config(
    *,
    name: str,
    backend: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    max_batch: int,
    instance_group: Mapping[str, Any],
    warm_up: Mapping[str, Sequence[int]] | None,
    **others: Any,
) -> dict[str, Any]:
    """A ModelConfig.

    Args:
        name: of the model, which is that of its folder.
        backend: of Triton.
        inputs, outputs: of the model, as its manifest describes them.
        max_batch: largest batch, where axis 0 of every tensor is the batch; 0 where Triton must not batch.
        instance_group: how many instances run where.
        warm_up: shape of every input of the warm-up, whose values lie in files of the inputs' names; None where there
            is no sample, and zeros serve.
        others: further fields.
    """
    config: dict[str, Any] = {
        "name": name,
        "backend": backend,
        "max_batch_size": max_batch,
        "input": [_described(tensor, max_batch) for tensor in inputs],
        "output": [_described(tensor, max_batch) for tensor in outputs],
        "instance_group": [instance_group],
        "version_policy": {"latest": {"num_versions": VERSIONS_SERVED}},
    }
    if max_batch:
        config["dynamic_batching"] = {
            "preferred_batch_size": [max_batch],
            "max_queue_delay_microseconds": QUEUE_DELAY_MICROSECONDS,
            "default_queue_policy": {
                "timeout_action": Word("REJECT"),
                "default_timeout_microseconds": QUEUE_TIMEOUT_MICROSECONDS,
                "allow_timeout_override": True,
                "max_queue_size": QUEUE_LIMIT,
            },
        }
    config["model_warmup"] = [
        _warm_up(inputs, size, warm_up, batched=bool(max_batch)) for size in sorted({1, max_batch or 1})
    ]
    return config | others


def _described(tensor: Tensor, max_batch: int) -> dict[str, Any]:
    """A ModelInput or ModelOutput. Triton wants at least one dimension: a tensor without has one of size 1 there."""
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape][1 if max_batch else 0 :]
    described = {"name": tensor.name, "data_type": Word(_DATA_TYPES[tensor.dtype]), "dims": sizes or [1]}
    return described if sizes else described | {"reshape": {"shape": []}}


def _warm_up(
    inputs: Sequence[Tensor], size: int, shapes: Mapping[str, Sequence[int]] | None, *, batched: bool
) -> dict[str, Any]:
    """A ModelWarmup, which Triton runs before it says that the model is ready; zeros where there is no sample."""
    described = {}
    for tensor in inputs:
        shape = shapes[tensor.name] if shapes else [axis if isinstance(axis, int) else 1 for axis in tensor.shape]
        content = {"input_data_file": tensor.name} if shapes else {"zero_data": True}
        dims = list(shape)[1 if batched else 0 :]
        described[tensor.name] = {"data_type": Word(_DATA_TYPES[tensor.dtype]), "dims": dims or [1], **content}
    return {
        "name": f"batch of {size}" if batched else "one request",
        "batch_size": size if batched else 0,
        "inputs": [{"key": name, "value": value} for name, value in described.items()],
    }


def to_text(message: Mapping[str, Any]) -> str:
    """A message in protobuf's text format."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                for part in value:
                    yield from _lines({name: part}, indent)
            else:
                yield f"{indent}{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
