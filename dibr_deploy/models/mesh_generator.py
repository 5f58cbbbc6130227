"""A latent code to a textured mesh and its light, and the critic that it is trained against.

Chen et al. 2019, section 4.3: noise takes the place of the predictor's image, and a discriminator of rendered pictures
that of a comparison with given ones. docs/generation.md says where this differs.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn

from ..errors import DibrError
from ..renderer import MeshRenderer
from .sphere import (
    LIGHT_CHANNELS,
    MeshPrediction,
    RenderedPrediction,
    SphereNetwork,
    SphereRenderer,
    TextureHead,
    bounded_light,
    check_texture_size,
    start_near_zero,
)

_SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the generator."""

    latent: int = 32
    """Length of the code."""
    subdivisions: int = 3
    """Of the icosphere: 3 gives 642 vertices."""
    texture_size: int = 32
    """Side of the texture in texels: 32, 64, 128, ..."""
    channels: int = 32
    """Half the width of the texture's first layer."""
    features: int = 256
    """Width of the layers between code and heads."""
    template_radius: float = 0.5
    """Of the undeformed sphere, world units."""
    max_offset: float = 0.6
    """Largest offset of a vertex along each axis, world units."""

    def __post_init__(self) -> None:
        if self.latent < 1:
            raise DibrError(f"latent must be at least 1, but is {self.latent}")
        check_texture_size(self.texture_size)


class MeshGenerator(SphereNetwork):
    """Makes vertices, texture and light of a latent code."""

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        config = config or GeneratorConfig()
        super().__init__(config.subdivisions, config.template_radius)
        self.config = config
        self.trunk = _layers(config.latent, config.features, config.features)
        self.vertex_head = _layers(config.features, config.features)
        self.offsets = nn.Linear(config.features, self.template.numel())
        self.texture_head = TextureHead(config.features, 2 * config.channels, config.texture_size)
        # The norms of the texture's layers take away what is the same all over it: a colour of the whole object.
        self.tint = nn.Linear(config.features, 3)
        self.light_head = nn.Linear(config.features, LIGHT_CHANNELS)
        start_near_zero(self.offsets, 0.002)
        start_near_zero(self.light_head, 0.02)
        start_near_zero(self.texture_head.colour, 0.02)

    def forward(self, code: Tensor) -> MeshPrediction:
        """code: [B, latent], as of a standard normal distribution. Raises DibrError for any other shape."""
        if code.dim() != 2 or code.shape[1] != self.config.latent:
            raise DibrError(f"code must have shape [B, {self.config.latent}], but has {list(code.shape)}")
        features = self.trunk(code)
        offsets = self.config.max_offset * torch.tanh(self.offsets(self.vertex_head(features)))
        vertices = self.template + offsets.unflatten(1, (-1, 3))
        texture = torch.sigmoid(self.texture_head.logits(features) + self.tint(features)[..., None, None])
        return MeshPrediction(vertices, texture, bounded_light(self.light_head(features)))


class MeshGeneratorRenderer(SphereRenderer):
    """MeshGenerator and the renderer in one module: what is trained, exported and served.

    Outlines are blended as in photographs (``dibr_deploy.ops.antialias``): jags would tell a critic what is made.

    Args:
        network: the generator.
        height, width: of the rendered image in pixels.
        background: colour of uncovered pixels.
        sigmainv: sharpness of the soft mask; see ``dibr_deploy.ops.soft_mask``.
    """

    network: MeshGenerator

    def __init__(
        self,
        network: MeshGenerator,
        height: int,
        width: int,
        *,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        sigmainv: float = 7000.0,
    ) -> None:
        super().__init__(network, MeshRenderer(height, width, background=background, sigmainv=sigmainv, antialias=True))

    def forward(self, code: Tensor, world_to_clip: Tensor) -> RenderedPrediction:
        """code: [B, latent]; world_to_clip: [B, 4, 4], the camera to render from."""
        return self.render(self.network(code), world_to_clip)


class ImageCritic(nn.Module):
    """Scores pictures with their masks: higher is more real.

    No layer looks at the whole batch, since the gradient penalty is one of each picture (Gulrajani et al. 2017).

    Args:
        size: side of the pictures in pixels, a multiple of 16.
        channels: of the first convolution; the later ones have two and four times as many.
    """

    def __init__(self, size: int, channels: int = 16) -> None:
        super().__init__()
        if size < 16 or size % 16:
            raise DibrError(f"size must be a positive multiple of 16, but is {size}")
        widths = [4, channels, 2 * channels, 4 * channels, 4 * channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * (size // 16) ** 2, 1))

    def forward(self, picture: Tensor) -> Tensor:
        """picture: [B, 4, size, size] in 0..1, image and mask. Returns [B]."""
        return self.layers(picture * 2 - 1).squeeze(1)


def _layers(*widths: int) -> nn.Sequential:
    """Linear layers that keep the spread of what goes in (He et al. 2015), so that codes stay apart."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers)
