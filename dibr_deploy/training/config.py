"""What a training run can be told. Imports no framework."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DibrError


class TrainingConfig(BaseModel):
    """Settings of a run; they are kept in its checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(default=2000, ge=1)
    """Optimiser steps of the whole run; learning rate and mask sharpness follow step / steps."""
    batch: int = Field(default=8, ge=1)
    """Input images per step; each is rendered from two cameras."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam at its peak; it falls along a half cosine to a twentieth."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights and of the order of the images."""
    image_size: int = Field(default=64, ge=16, multiple_of=16)
    """Side of the network's input; images of another size are resized to it, and rendered at their own."""
    texture_size: int = Field(default=64, ge=32)
    """Side of the predicted texture, a power of two."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints; each comes with sample pictures and the IoU on held-out views."""
    mask_weight: float = Field(default=1.0, ge=0)
    color_weight: float = Field(default=1.0, ge=0)
    laplacian_weight: float = Field(default=4.0, ge=0)
    flattening_weight: float = Field(default=0.02, ge=0)
    """Factors of the losses of ``dibr_deploy.losses``."""
    sigmainv_start: float = Field(default=7000.0, gt=0)
    sigmainv_end: float = Field(default=30000.0, gt=0)
    """Sharpness of the soft mask at the first and from the middle of the run, geometric in between."""


def parse_config(values: Mapping[str, object]) -> TrainingConfig:
    """A TrainingConfig from plain values. Raises DibrError, one sentence, for the first that is out of range."""
    try:
        return TrainingConfig.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise DibrError(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']}") from error
