"""Checkpoints: one file that holds a model and all that is needed to go on training it exactly."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import DibrError
from ..files import write_atomically
from ..models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from ..models.mesh_generator import GeneratorConfig, MeshGenerator, MeshGeneratorRenderer

Network = TypeVar("Network", bound=nn.Module)

FILE_NAME = "checkpoint.pt"
FORMAT = "dibr_deploy checkpoint"
VERSION = 1

_GENERATOR = "mesh generator"
"""The key ``kind`` of a generator's checkpoint; that of an image-to-mesh network has none."""
_BEFORE = {"light_axes": "world"}
"""Of image-to-mesh networks whose checkpoints do not name it."""


def save_checkpoint(
    path: str | Path, model: ImageToMeshRenderer | MeshGeneratorRenderer, training: dict[str, Any] | None = None
) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: the file.
        model: its weights, sizes and renderer settings are kept.
        training: what the trainer needs besides: tensors and plain values alone.
    """
    renderer = model.renderer
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": dataclasses.asdict(model.network.config),
        "renderer": {
            "height": renderer.height,
            "width": renderer.width,
            "background": renderer.background.tolist(),
            "sigmainv": renderer.sigmainv,
        },
        "weights": model.network.state_dict(),
        "training": training or {},
    }
    if isinstance(model, MeshGeneratorRenderer):
        content["kind"] = _GENERATOR
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_checkpoint(path: str | Path) -> ImageToMeshRenderer:
    """The image-to-mesh model of a checkpoint file, or of the run folder that holds one, on the CPU and in eval mode.

    Raises:
        DibrError: the file is missing, cut off, not a checkpoint, of a newer version, or of a generator.
    """
    return model_of(read_checkpoint(path), path).eval()


def load_generator(path: str | Path) -> MeshGeneratorRenderer:
    """The same of what ``dibr generate train`` wrote. Raises as ``load_checkpoint``, for any model but a generator."""
    return generator_of(read_checkpoint(path), path).eval()


def load_any(path: str | Path) -> ImageToMeshRenderer | MeshGeneratorRenderer:
    """Whichever of the two models a checkpoint holds. Raises as ``load_checkpoint``."""
    content = read_checkpoint(path)
    return (generator_of(content, path) if _is_generator(content) else model_of(content, path)).eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint; loads tensors and plain values, never code. Raises as ``load_checkpoint`` does."""
    path = checkpoint_path(path)
    if not path.is_file():
        raise DibrError(f"checkpoint {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        raise DibrError(f"checkpoint {path} is cut off or not a checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DibrError(f"{path} is not a checkpoint of dibr_deploy")
    if content["version"] > VERSION:
        raise DibrError(
            f"checkpoint {path} has version {content['version']}, but this dibr_deploy reads up to version {VERSION}"
        )
    return content


def model_of(content: dict[str, Any], path: str | Path) -> ImageToMeshRenderer:
    """Builds the image-to-mesh model of a checkpoint's content; ``path`` is named in errors."""
    if _is_generator(content):
        raise DibrError(f"checkpoint {path} is of a mesh generator, which takes no image")
    with _named(path):
        network = ImageToMesh(ModelConfig(**{**_BEFORE, **content["model"]}))
        return ImageToMeshRenderer(_loaded(network, content), **_settings(content))


def generator_of(content: dict[str, Any], path: str | Path) -> MeshGeneratorRenderer:
    """Builds the generator of a checkpoint's content; ``path`` is named in errors."""
    if not _is_generator(content):
        raise DibrError(f"checkpoint {path} is of an image-to-mesh network, not of a mesh generator")
    with _named(path):
        network = _loaded(MeshGenerator(GeneratorConfig(**content["model"])), content)
        return MeshGeneratorRenderer(network, **_settings(content))


def _is_generator(content: dict[str, Any]) -> bool:
    return content.get("kind") == _GENERATOR


def _loaded(network: Network, content: dict[str, Any]) -> Network:
    network.load_state_dict(content["weights"])
    return network


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """Of the renderer."""
    return {**content["renderer"], "background": tuple(content["renderer"]["background"])}


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, RuntimeError) as error:
        raise DibrError(f"checkpoint {path} does not fit this dibr_deploy's model: {error}") from error


def learned_appearance(content: dict[str, Any]) -> bool:
    """Whether the training of a checkpoint looked at colours, so that its texture and light mean something."""
    return content["training"].get("config", {}).get("color_weight", 1.0) > 0


def checkpoint_path(path: str | Path) -> Path:
    """A run folder's checkpoint, or the path itself."""
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path
