"""What the adversarial training of a mesh generator can be told. Imports no framework."""

from __future__ import annotations

from pydantic import Field

from .config import Count, RunConfig, Weight


class AdversarialConfig(RunConfig):
    """Settings of the training of a generator; ``lr`` is that of its Adam and of the critic's."""

    steps: Count = 5000
    """Updates of the generator."""
    checkpoint_every: Count = 500
    objects: Count = 8
    """Generated per update over all processes, a multiple of their number."""
    views: Count = 2
    """Random training cameras that each is rendered from; the critic sees objects x views pictures, and as many real
    ones."""
    critic_steps: Count = 2
    """Updates of the critic before each of the generator."""
    penalty_weight: Weight = 10.0
    """Of the gradient penalty."""
    latent: Count = 32
    """Length of the code."""
    texture_size: int = Field(default=32, ge=32)
    """Side of the generated texture, a power of two."""
    critic_channels: Count = 16
    """Of the critic's first convolution; the later ones have two and four times as many."""
    laplacian_weight: Weight = 30.0
    flattening_weight: Weight = 0.3
    """Factors of the losses of ``dibr_deploy.losses``."""
    sigmainv: float = Field(default=7000.0, gt=0)
    """Sharpness of the soft mask that the critic sees."""
