"""One image to a textured mesh and its light, and the same with the renderer behind it.

The mesh is a sphere template whose vertices move by bounded offsets; its texture wraps around it. Shapes are predicted
in the dataset's world frame, so one image is rendered from any camera; lights in the axes of the camera that took the
image, since how an object stands to it cannot be seen of what looks the same from many sides. Chen et al. 2019,
section 4.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..cameras import view_axes
from ..errors import DibrError
from ..renderer import MeshRenderer
from .resnet import WIDTH, Norm, ResNet18, pretrained_weights
from .sphere import (
    COARSE_TEXTURE,
    LIGHT_CHANNELS,
    MeshPrediction,
    RenderedPrediction,
    SphereNetwork,
    SphereRenderer,
    TextureHead,
    bounded_light,
    check_texture_size,
    enlarged,
    start_near_zero,
    with_light_of_one,
)

Encoder = Literal["convolution", "resnet18"]
LightAxes = Literal["camera", "world"]

_LIGHT_FEATURES = 64

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network."""

    image_size: int = 64
    """Side of the square input in pixels, a multiple of 16."""
    subdivisions: int = 3
    """Of the icosphere: 3 gives 642 vertices."""
    texture_size: int = 64
    """Side of the predicted texture in texels: 32, 64, 128, ..."""
    channels: int = 32
    """Of the first convolution; the later ones have two and four times as many."""
    features: int = 256
    """Length of the code between the encoder and the heads."""
    template_radius: float = 0.5
    """Of the undeformed sphere, world units."""
    max_offset: float = 0.6
    """Largest offset of a vertex along each axis, world units."""
    encoder: Encoder = "convolution"
    """"convolution" is the paper's: four layers, meant for images of 64 x 64; "resnet18" is meant for 224 x 224."""
    norm: Norm = "group"
    """Of resnet18: "group", or "frozen_batch", as pretrained weights need. The small encoder has group norms."""
    colour_features: int = 0
    """Length of a second code, for colours, from convolutions without norms; 0 leaves it out. The norms of the encoder
    forget how bright and how colourful an image is, and without this code textures are learned slowly."""
    light_axes: LightAxes = "camera"
    """What the network's light is given in: the axes of the camera that took the image (x to the right, y up, z towards
    the viewer); or "world", as in checkpoints that were written before there was a choice."""

    def __post_init__(self) -> None:
        choices_of = {"encoder": Encoder, "norm": Norm, "light_axes": LightAxes}
        for name, choices in ((name, get_args(kind)) for name, kind in choices_of.items()):
            if getattr(self, name) not in choices:
                raise DibrError(f"{name} must be {' or '.join(choices)}, but is {getattr(self, name)!r}")
        if self.image_size < 16 or self.image_size % 16:
            raise DibrError(f"image_size must be a positive multiple of 16, but is {self.image_size}")
        check_texture_size(self.texture_size)


class ImageToMesh(SphereNetwork):
    """Predicts vertices, texture and light from an image."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        super().__init__(config.subdivisions, config.template_radius)
        self.config = config
        self.encoder = _encoder(config)
        self.vertex_head = _vertex_head(config, len(self.template))
        self.texture_head = TextureHead(config.features, 2 * config.channels, config.texture_size)
        self.colours = ColourBranch(config) if config.colour_features else None
        # A layer before the head joins where the camera stands with what is bright in the image.
        self.light_code = nn.Sequential(nn.Linear(config.features + config.colour_features, _LIGHT_FEATURES), nn.ReLU())
        self.light_head = nn.Linear(_LIGHT_FEATURES, LIGHT_CHANNELS)
        start_near_zero(self.light_head)

    def forward(self, image: Tensor) -> MeshPrediction:
        """Shape and texture in the dataset's world frame, the light in the axes of ``config.light_axes``.

        Ambient light and source are 1 together; see ``dibr_deploy.models.sphere.with_light_of_one``.

        image: [B, 3, S, S] in 0..1, S = config.image_size. Raises DibrError for any other shape.
        """
        size = self.config.image_size
        if image.dim() != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise DibrError(f"image must have shape [B, 3, {size}, {size}], but has {list(image.shape)}")
        code = self.encoder(image * 2 - 1)
        offsets = self.config.max_offset * torch.tanh(self.vertex_head(code))
        vertices = self.template + offsets.unflatten(1, (-1, 3))
        texture = self.texture_head.logits(code)
        if self.colours is not None:
            coarse, colour_code = self.colours(image * 2 - 1)
            texture = texture + enlarged(coarse, self.config.texture_size)
            code = torch.cat([code, colour_code], dim=1)
        light = bounded_light(self.light_head(self.light_code(code)))
        return MeshPrediction(vertices, *with_light_of_one(torch.sigmoid(texture), light))

    def in_world(self, prediction: MeshPrediction, world_to_clip: Tensor) -> MeshPrediction:
        """A prediction of this network with its light in world space. Differentiable in light and camera.

        Args:
            prediction: what ``forward`` returned for B images.
            world_to_clip: [B, 4, 4], the cameras that took the images.
        """
        if self.config.light_axes == "world":
            return prediction
        ambient, source = prediction.light[:, :1], prediction.light[:, 1:]
        turned = (source.unsqueeze(1) @ view_axes(world_to_clip)).squeeze(1)
        return prediction._replace(light=torch.cat([ambient, turned], dim=1))

    def load_pretrained(self, source: str) -> None:
        """Takes ResNet-18's weights from ImageNet; see ``dibr_deploy.models.resnet.pretrained_weights``.

        Raises:
            DibrError: the encoder is not resnet18 with the norm frozen_batch, or as ``pretrained_weights``.
        """
        if (self.config.encoder, self.config.norm) != ("resnet18", "frozen_batch"):
            raise DibrError(
                f"pretrained weights are for the encoder resnet18 with the norm frozen_batch, but these are "
                f"{self.config.encoder} and {self.config.norm}"
            )
        encoder = self.encoder[1]
        assert isinstance(encoder, ResNet18)
        encoder.load_state_dict(pretrained_weights(source))


class ImageToMeshRenderer(SphereRenderer):
    """ImageToMesh and the renderer in one module: what is trained, exported and served.

    The light that is predicted stands as it does in the image where the camera is the one that took it, and then the
    light which comes out is that of the world. From another camera the mesh is seen as if that one had taken the image,
    in light from the same side of the viewer. To look from elsewhere at a mesh in the light of its world, give
    ``network.in_world`` the camera of the image and ``render`` the other one.

    Args:
        network: the predictor.
        height, width: of the rendered image in pixels; default the network's input size.
        background: colour of uncovered pixels.
        sigmainv: sharpness of the soft mask; see ``dibr_deploy.ops.soft_mask``.
    """

    network: ImageToMesh

    def __init__(
        self,
        network: ImageToMesh,
        height: int | None = None,
        width: int | None = None,
        *,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        sigmainv: float = 7000.0,
    ) -> None:
        size = network.config.image_size
        renderer = MeshRenderer(height or size, width or size, background=background, sigmainv=sigmainv)
        super().__init__(network, renderer)

    def forward(self, image: Tensor, world_to_clip: Tensor) -> RenderedPrediction:
        """image: [B, 3, S, S] in 0..1; world_to_clip: [B, 4, 4], the camera to render from."""
        return self.render(self.network.in_world(self.network(image), world_to_clip), world_to_clip)


class ColourBranch(nn.Module):
    """An image to the coarse part of its texture and to a code of its colours, by a few convolutions without norms.

    forward: [B, 3, S, S] in -1..1 -> [B, 3, 8, 8], which is added to what the texture head gives before its bounds, and
    [B, colour_features].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, 16, 32, 32)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        for layer in layers[::2]:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        side = config.image_size // 8
        cells = math.gcd(side, COARSE_TEXTURE)
        self.code = nn.Sequential(
            *layers,
            nn.AvgPool2d(side // cells),
            nn.Flatten(),
            nn.Linear(32 * cells**2, config.colour_features),
            nn.ReLU(),
        )
        self.texture = nn.Linear(config.colour_features, 3 * COARSE_TEXTURE**2)
        start_near_zero(self.texture)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        code = self.code(image)
        return self.texture(code).unflatten(1, (3, COARSE_TEXTURE, COARSE_TEXTURE)), code


def _encoder(config: ModelConfig) -> nn.Sequential:
    """[B, 3, S, S] in -1..1 -> [B, features]."""
    layers = _resnet(config) if config.encoder == "resnet18" else _convolutions(config)
    return nn.Sequential(*layers, nn.ReLU())


def _convolutions(config: ModelConfig) -> list[nn.Module]:
    widths = [3, config.channels, 2 * config.channels, 4 * config.channels, 4 * config.channels]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
    cells = (config.image_size // 16) ** 2
    return [*layers, nn.Flatten(), nn.Linear(widths[-1] * cells, config.features)]


def _resnet(config: ModelConfig) -> list[nn.Module]:
    return [_ImageNetColours(), ResNet18(config.norm), nn.Linear(WIDTH, config.features)]


class _ImageNetColours(nn.Module):
    """Colours in -1..1 to those that ImageNet's networks are trained with: zero mean, unit variance."""

    factor: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (_IMAGENET_MEAN, _IMAGENET_DEVIATION))
        self.register_buffer("factor", 0.5 / deviation, persistent=False)
        self.register_buffer("offset", (0.5 - mean) / deviation, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return image * self.factor + self.offset


def _vertex_head(config: ModelConfig, vertex_count: int) -> nn.Sequential:
    """[B, features] -> [B, V * 3]."""
    last = nn.Linear(config.features, vertex_count * 3)
    start_near_zero(last)
    return nn.Sequential(nn.Linear(config.features, config.features), nn.ReLU(), last)
