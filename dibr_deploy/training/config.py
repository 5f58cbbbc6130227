"""What a training run can be told. Imports no framework."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DibrError

Config = TypeVar("Config", bound=BaseModel)


Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class RunConfig(BaseModel):
    """What every training run can be told; the settings of a run are kept in its checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: Count
    """Of the whole run; the learning rate follows step / steps."""
    checkpoint_every: Count
    """Steps between checkpoints; each comes with sample pictures."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam at its peak; it falls along a half cosine to a twentieth."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights and of all that is drawn."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where torch sees one and this package was built with CUDA kernels."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' layers under autocast; weights, optimisers and everything behind the networks stay float32."""
    tensorboard: bool = False
    """Whether to write losses and sample pictures for TensorBoard too, into ``tensorboard/`` of the run."""


class TrainingConfig(RunConfig):
    """Settings of the training of an image-to-mesh network."""

    steps: Count = 2000
    """Of the optimiser; mask sharpness follows step / steps too."""
    checkpoint_every: Count = 250
    """Each checkpoint comes with the IoU on held-out views too."""
    batch: Count = 8
    """Input images per step over all processes, a multiple of their number; each is rendered from two cameras."""
    encoder: Literal["convolution", "resnet18"] = "convolution"
    """The paper's small one, or ResNet-18, which is meant for an image_size of 224."""
    pretrained: str | None = None
    """Where resnet18's first weights come from: "torchvision" or "timm", which download those of ImageNet, or a file
    that has them. Its batch norms then keep their statistics; without, it has group norms and random weights."""
    image_size: int = Field(default=64, ge=16, multiple_of=16)
    """Side of the network's input; images of another size are resized to it, and rendered at their own."""
    texture_size: int = Field(default=64, ge=32)
    """Side of the predicted texture, a power of two."""
    features: Count = 256
    """Length of the code between the encoder and the heads: half as many make a network of about half the size."""
    colour_features: int = Field(default=64, ge=0)
    """Length of the second code, for colours; 0 leaves it out, see ``dibr_deploy.models.ModelConfig``."""
    mask_weight: Weight = 1.0
    color_weight: Weight = 1.0
    shading_weight: Weight = 0.0
    laplacian_weight: Weight = 4.0
    flattening_weight: Weight = 0.02
    """Factors of the losses of ``dibr_deploy.losses``. Shading finds lights where an object's views have different
    ones; 0.3 is a good weight then."""
    sigmainv_start: float = Field(default=7000.0, gt=0)
    sigmainv_end: float = Field(default=30000.0, gt=0)
    """Sharpness of the soft mask at the first and from the middle of the run, geometric in between."""


def parse_config(values: Mapping[str, object], kind: type[Config] = TrainingConfig) -> Config:  # type: ignore[assignment]
    """Settings of a kind from plain values. Raises DibrError, one sentence, for the first that is out of range."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DibrError(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']}") from error


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The values of a TOML or YAML file, told apart by its suffix, unchecked.

    Raises:
        DibrError: there is no such file, its suffix is neither, or it is not a table of values.
    """
    path = Path(path)
    if not path.is_file():
        raise DibrError(f"config file {path} does not exist")
    readers = {".toml": _read_toml, ".yaml": _read_yaml, ".yml": _read_yaml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DibrError(f"config file {path} must end in {', '.join(readers)}")
    values = reader(path)
    if not isinstance(values, dict):
        raise DibrError(f"config file {path} must hold names and values, got {type(values).__name__}")
    return values


def _read_toml(path: Path) -> Any:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DibrError(f"config file {path} is not TOML: {error}") from error


def _read_yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DibrError(f"config file {path} is not YAML: {' '.join(str(error).split())}") from error
