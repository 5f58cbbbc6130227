"""Writes the model repository. Needs no torch; onnx only where an output of the model has no batch axis."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dibr_deploy.errors import DibrError
from dibr_deploy.files import write_folders_atomically
from dibr_deploy.runtime import schema
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.comparison import read_sample
from dibr_deploy.runtime.libraries import library_for
from dibr_deploy.runtime.manifest import MODEL_FILE, Engine, Tensor
from dibr_deploy.runtime.onnx_file import parse_header

from .batching import batch_axis, batched
from .configuration import WARM_UP_FOLDER, Word, model_config, to_text

CONFIG_FILE = "config.pbtxt"
MAX_BATCH, INSTANCES = 8, 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PYTHON_MODEL = Path(__file__).with_name("python_model.py")
_OPS_LIBRARY, _PLUGIN_LIBRARY, _CORE_LIBRARY = "libdibr_onnxruntime.so", "libdibr_tensorrt_static.so", "libdibr.so"
_CORE_AS_LINKED = "libdibr.so.1"


class WrittenModel(NamedTuple):
    """A model of the repository."""

    name: str
    backend: str
    """Of Triton: onnxruntime, python or tensorrt."""
    version: int
    folder: Path
    max_batch: int
    """Of requests that Triton runs together; 0 where it runs each alone."""
    note: str
    """What its server needs to be told, or ""."""


class _Source(NamedTuple):
    """What the models are written from."""

    bundle: Bundle
    seen_at: str
    largest_batch: int
    instances: int
    sample: Mapping[str, np.ndarray] | None
    """Inputs."""
    graph: bytes
    outputs: tuple[Tensor, ...]
    max_batch: int
    """Of the graph."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.bundle.manifest.inputs

    def config(self, **fields: Any) -> dict[str, Any]:
        shapes = {name: array.shape for name, array in self.sample.items()} if self.sample else None
        return model_config(inputs=self.inputs, warm_up=shapes, **fields)


class _Model(NamedTuple):
    """A model to be written."""

    config: Mapping[str, Any]
    version_files: Mapping[str, bytes | Path]
    files: Mapping[str, bytes | Path] = {}
    note: str = ""


def to_triton(
    bundle: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    seen_at: str | None = None,
    max_batch: int = MAX_BATCH,
    instances: int = INSTANCES,
) -> list[WrittenModel]:
    """Write a bundle's model into a Triton model repository, once for each backend that can run it.

    NAME_onnxruntime and NAME_python run the ONNX graph with our library of ops, which is copied beside it;
    NAME_tensorrt runs the bundle's TensorRT engine, and is left out where there is none. A model that is there gets a
    new version. All of them are written before any of them is moved into the repository.

    Args:
        bundle: as ``dibr export`` writes it. Every file that is used is checked against its manifest.
        repository: a folder; made where it does not exist, in one that does.
        name: of the model, to which the backend's is added; by default the bundle's file name.
        seen_at: the repository's path where Triton runs, such as /models in a container; by default its absolute path
            here. Triton takes the path of our library from the configuration.
        max_batch: largest batch that Triton makes of requests, where the model has a batch axis.
        instances: of the model, on every device.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: there is no such bundle, or a library of ours that the model needs is not installed.
        DibrError: the bundle is damaged, an argument is out of range, or the repository's place is none.
        ModuleNotFoundError: the graph must be given batch axes, and onnx is not installed.
    """
    opened = Bundle(bundle)
    repository = Path(repository)
    name = Path(bundle).stem if name is None else name
    _check(repository, name, max_batch, instances)
    source = _source(
        opened, str(repository.resolve()) if seen_at is None else seen_at.rstrip("/"), max_batch, instances
    )
    models = {
        f"{name}_onnxruntime": _onnxruntime(source, f"{name}_onnxruntime"),
        f"{name}_python": _python(source, f"{name}_python"),
    }
    engine = next((engine for engine in opened.manifest.engines if engine.flavour == "tensorrt"), None)
    if engine is not None:
        models[f"{name}_tensorrt"] = _tensorrt(source, engine, f"{name}_tensorrt")
    return _write(repository, models)


def _check(repository: Path, name: str, max_batch: int, instances: int) -> None:
    if not _NAME.fullmatch(name):
        raise DibrError(f"the model's name must be letters, digits, '_', '-' and '.', got {name!r}")
    if max_batch < 1:
        raise DibrError(f"max_batch must be at least 1, got {max_batch}")
    if instances < 1:
        raise DibrError(f"instances must be at least 1, got {instances}")
    if not repository.resolve().parent.is_dir():
        raise DibrError(f"repository {repository}: the folder {repository.resolve().parent} does not exist")
    if repository.exists() and not repository.is_dir():
        raise DibrError(f"repository {repository} is no folder")


def _source(bundle: Bundle, seen_at: str, max_batch: int, instances: int) -> _Source:
    manifest = bundle.manifest
    sample = read_sample(bundle)[0] if manifest.sample is not None else None
    model = bundle.read(manifest.model)
    found = batched(model, manifest.inputs, manifest.outputs)
    graph = (found.model, found.outputs, max_batch) if found else (model, manifest.outputs, 0)
    return _Source(bundle, seen_at, max_batch, instances, sample, *graph)


def _onnxruntime(source: _Source, name: str) -> _Model:
    libraries = _libraries(source, _OPS_LIBRARY)
    others = {"model_operations": {"op_library_filename": [f"{source.seen_at}/{name}/{_OPS_LIBRARY}"]}}
    config = source.config(
        name=name,
        backend="onnxruntime",
        outputs=source.outputs,
        max_batch=source.max_batch,
        instance_group={"count": source.instances, "kind": Word("KIND_AUTO")},
        **(others if libraries else {}),
    )
    return _Model(config, {MODEL_FILE: source.graph}, libraries | _warm_up_files(source, source.max_batch))


def _python(source: _Source, name: str) -> _Model:
    config = source.config(
        name=name,
        backend="python",
        outputs=source.outputs,
        max_batch=source.max_batch,
        instance_group={"count": source.instances, "kind": Word("KIND_CPU")},
        parameters=[{"key": "threads", "value": {"string_value": "0"}}],
    )
    files = {MODEL_FILE: source.graph, "model.py": _PYTHON_MODEL, **_libraries(source, _OPS_LIBRARY)}
    return _Model(config, files, _warm_up_files(source, source.max_batch))


def _tensorrt(source: _Source, engine: Engine, name: str) -> _Model:
    outputs = source.bundle.manifest.outputs
    axis = batch_axis((*source.inputs, *outputs))
    largest = [profile[source.inputs[0].name].max[0] for profile in engine.profiles] if axis else []
    max_batch = min((source.largest_batch, *largest)) if axis else 0
    # A size that is fixed needs no range: an input that has one all the same is read as a shape.
    shapes = {
        tensor.name
        for tensor in source.inputs
        if engine.profiles and tensor.name in engine.profiles[0] and all(isinstance(axis, int) for axis in tensor.shape)
    }
    config = source.config(
        name=name,
        backend="tensorrt",
        outputs=outputs,
        max_batch=max_batch,
        instance_group={
            "count": source.instances,
            "kind": Word("KIND_GPU"),
            "profile": [str(index) for index in range(len(engine.profiles))],
        },
    )
    for described in config["input"]:
        if described["name"] in shapes:
            described["is_shape_tensor"] = True
    plugin = {} if engine.carries_plugin else _libraries(source, _PLUGIN_LIBRARY)
    note = f"for TensorRT {engine.version}"
    if plugin:
        note += f"; start Triton with --backend-config=tensorrt,plugins={source.seen_at}/{name}/{_PLUGIN_LIBRARY}"
    files = plugin | _warm_up_files(source, max_batch)
    return _Model(config, {"model.plan": source.bundle.read(engine.file)}, files, note)


def _libraries(source: _Source, name: str) -> dict[str, bytes | Path]:
    """A library of ours and libdibr, which it looks for beside itself; none where the graph has none of our ops."""
    header = parse_header(io.BytesIO(source.graph), len(source.graph), source.bundle.path)
    if schema.OP_DOMAIN not in header.opsets:
        return {}
    path = source.bundle.path
    return {name: library_for(path, name), _CORE_AS_LINKED: library_for(path, _CORE_LIBRARY)}


def _warm_up_files(source: _Source, max_batch: int) -> dict[str, bytes | Path]:
    """Where Triton batches, the first item of the sample: it repeats that to the size of a warm-up."""
    arrays = source.sample or {}
    return {
        f"{WARM_UP_FOLDER}/{name}": np.ascontiguousarray(array[:1] if max_batch else array).tobytes()
        for name, array in arrays.items()
    }


def _write(repository: Path, models: Mapping[str, _Model]) -> list[WrittenModel]:
    """All of the models, or none of them."""
    made = not repository.exists()
    repository.mkdir(exist_ok=True)
    versions = {name: _next_version(repository / name) for name in models}
    try:
        # Beside the repository, since a Triton that watches it takes every folder there for a model.
        scratch = repository.resolve().parent if _same_file_system(repository) else repository
        writers: dict[Path, Callable[[Path], object]] = {
            repository / name: partial(_fill, repository / name, model, versions[name])
            for name, model in models.items()
        }
        write_folders_atomically(writers, scratch)
    except BaseException:
        if made:
            repository.rmdir()
        raise
    return [
        WrittenModel(
            name, model.config["backend"], versions[name], repository / name, model.config["max_batch_size"], model.note
        )
        for name, model in models.items()
    ]


def _same_file_system(repository: Path) -> bool:
    return repository.stat().st_dev == repository.resolve().parent.stat().st_dev


def _next_version(folder: Path) -> int:
    """1, or the one after the newest that is there. Raises DibrError where the folder is of something else."""
    if not folder.exists():
        return 1
    if not (folder / CONFIG_FILE).is_file():
        raise DibrError(f"{folder} is no model of a Triton repository: choose another name, or remove it")
    return 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)


def _fill(old: Path, model: _Model, version: int, folder: Path) -> None:
    """The folder of a model: what is in the old one, if there is one, and the new version."""
    if old.exists():
        shutil.copytree(old, folder, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    contents: dict[str, bytes | Path] = {CONFIG_FILE: to_text(model.config).encode(), **model.files}
    contents |= {f"{version}/{name}": content for name, content in model.version_files.items()}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # a link to what the old one still has
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            path.write_bytes(content)
