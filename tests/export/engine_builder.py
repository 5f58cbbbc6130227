"""What the tests ask of the engine builder, run as a program where TensorRT-RTX is installed.

python engine_builder.py COMMAND < arguments.json    # prints its answer as one line of JSON
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from dibr_deploy.export import tensorrt


def build(model: str, engine: str, stop: str | None = None, **options: Any) -> dict[str, Any]:
    """An engine file, and its entry in the manifest. stop: "interrupt" or "raise" at the first sign of progress."""
    seen: list[tensorrt.Progress] = []

    def progress(event: tensorrt.Progress) -> None:
        seen.append(event)
        if stop == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif stop == "raise":
            raise RuntimeError("enough")

    try:
        content, entry = tensorrt.build_engine(Path(model).read_bytes(), progress=progress, **options)
    except (Exception, KeyboardInterrupt) as error:
        return {"error": type(error).__name__, "message": str(error), "progress": seen}
    Path(engine).write_bytes(content)
    loaded = sorted({"torch", "onnx", "onnxscript"} & set(sys.modules))
    return {"entry": entry.model_dump(), "progress": seen, "loaded": loaded}


def timing_cache(path: str, damaged: bool = False) -> dict[str, Any]:
    """What lending a file to a real builder's config leaves in it, in hexadecimal digits, and the warnings."""
    _, trt = tensorrt._import_tensorrt("tensorrt_rtx")
    builder = trt.Builder(tensorrt.listener_of(trt).logger)
    if damaged:
        Path(path).write_bytes(b"no timing cache")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("always", UserWarning)
        with tensorrt._timing_cache(builder.create_builder_config(), path):
            pass
    return {"content": Path(path).read_bytes().hex(), "warnings": [str(warning.message) for warning in caught]}


def of_tensorrt(model: str, timing_cache: str) -> dict[str, Any]:
    """What the options of TensorRT, which itself needs a device, set in a real config, and the entry that they give.

    The bindings of TensorRT-RTX have them; only the build itself is left out.
    """
    _, trt = tensorrt._import_tensorrt("tensorrt_rtx")
    found: dict[str, Any] = {"order": []}

    def device() -> str:
        found["order"].append("ask the device")
        return "8.9"

    def note(trt: Any, builder: Any, network: Any, config: Any, progress: Any, listener: Any) -> bytes:
        found["order"].append("build")
        flags = trt.BuilderFlag.__members__
        found["flags"] = [name for name in ("VERSION_COMPATIBLE", "TF32") if config.get_flag(flags[name])]
        found["profiles"] = config.num_optimization_profiles
        found["has_timing_cache"] = config.get_timing_cache() is not None
        return b"engine"

    tensorrt._import_tensorrt = lambda flavour: ("tensorrt", trt)  # type: ignore[assignment]
    tensorrt._device_compute_capability = device
    tensorrt._build = note  # type: ignore[assignment]
    _, entry = tensorrt.build_engine(
        Path(model).read_bytes(),
        version_compatible=True,
        hardware_compatible="ampere_plus",
        timing_cache=timing_cache,
    )
    return {**found, "entry": entry.model_dump()}


if __name__ == "__main__":
    command = {"build": build, "timing_cache": timing_cache, "of_tensorrt": of_tensorrt}[sys.argv[1]]
    print(json.dumps(command(**json.load(sys.stdin))))
