"""What the adversarial training of a mesh generator can be told. Imports no framework."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AdversarialConfig(BaseModel):
    """Settings of a run; they are kept in its checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(default=5000, ge=1)
    """Updates of the generator in the whole run; the learning rates follow step / steps."""
    objects: int = Field(default=8, ge=1)
    """Generated per update."""
    views: int = Field(default=2, ge=1)
    """Random training cameras that each is rendered from; the critic sees objects x views pictures, and as many real
    ones."""
    critic_steps: int = Field(default=2, ge=1)
    """Updates of the critic before each of the generator."""
    penalty_weight: float = Field(default=10.0, ge=0)
    """Of the gradient penalty."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of both Adams; it falls along a half cosine to a twentieth."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights and of all that is drawn."""
    latent: int = Field(default=32, ge=1)
    """Length of the code."""
    texture_size: int = Field(default=32, ge=32)
    """Side of the generated texture, a power of two."""
    critic_channels: int = Field(default=16, ge=1)
    """Of the critic's first convolution; the later ones have two and four times as many."""
    laplacian_weight: float = Field(default=30.0, ge=0)
    flattening_weight: float = Field(default=0.3, ge=0)
    """Factors of the losses of ``dibr_deploy.losses``."""
    sigmainv: float = Field(default=7000.0, gt=0)
    """Sharpness of the soft mask that the critic sees."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints; each comes with sample pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU where torch sees one."""
    tensorboard: bool = False
    """Whether to write losses and sample pictures for TensorBoard too, into ``tensorboard/`` of the run."""
