"""One image to a textured mesh and its light, and the same with the renderer behind it.

The mesh is a sphere template whose vertices move by bounded offsets; its texture wraps around it. Everything is
predicted in the dataset's world frame, so one image is rendered from any camera. Chen et al. 2019, section 4.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DibrError
from ..mesh import icosphere, vertex_face_table
from ..renderer import MeshRenderer
from .resnet import WIDTH, Norm, ResNet18, pretrained_weights

Encoder = Literal["convolution", "resnet18"]

LIGHT_CHANNELS = 4
_COARSE_TEXTURE = 8
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MeshPrediction(NamedTuple):
    """What ImageToMesh returns."""

    vertices: Tensor
    """[B, V, 3], world space."""
    texture: Tensor
    """[B, 3, Ht, Wt] in 0..1, row 0 at v = 0."""
    light: Tensor
    """[B, 4] as in ``dibr_deploy.lighting``; ambient plus directional intensity is at most 1."""


class RenderedPrediction(NamedTuple):
    """What ImageToMeshRenderer returns; the names are those of the exported graph's outputs."""

    image: Tensor
    """[B, H, W, 3]."""
    mask: Tensor
    """[B, H, W], soft."""
    face_index: Tensor
    """[B, H, W] int32, -1 on background."""
    vertices: Tensor
    """[B, V, 3], world space."""
    texture: Tensor
    """[B, 3, Ht, Wt]."""
    light: Tensor
    """[B, 4]."""
    faces: Tensor
    """[F, 3] int32, constant."""
    uvs: Tensor
    """[Vt, 2], constant."""
    uv_faces: Tensor
    """[F, 3] int32, constant."""


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

    def __post_init__(self) -> None:
        for name, choices in (("encoder", get_args(Encoder)), ("norm", get_args(Norm))):
            if getattr(self, name) not in choices:
                raise DibrError(f"{name} must be {' or '.join(choices)}, but is {getattr(self, name)!r}")
        if self.image_size < 16 or self.image_size % 16:
            raise DibrError(f"image_size must be a positive multiple of 16, but is {self.image_size}")
        if self.texture_size < 32 or self.texture_size & (self.texture_size - 1):
            raise DibrError(f"texture_size must be a power of two, at least 32, but is {self.texture_size}")


class ImageToMesh(nn.Module):
    """Predicts vertices, texture and light from an image."""

    template: Tensor
    faces: Tensor
    uvs: Tensor
    uv_faces: Tensor
    vertex_faces: Tensor

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        sphere = icosphere(config.subdivisions, config.template_radius)
        assert sphere.uvs is not None
        assert sphere.uv_faces is not None
        self.register_buffer("template", sphere.vertices)
        self.register_buffer("faces", sphere.faces.int())
        self.register_buffer("uvs", sphere.uvs)
        self.register_buffer("uv_faces", sphere.uv_faces.int())
        self.register_buffer("vertex_faces", vertex_face_table(sphere.faces, len(sphere.vertices)), persistent=False)
        self.encoder = _encoder(config)
        self.vertex_head = _vertex_head(config, len(sphere.vertices))
        self.texture_head = TextureHead(config)
        self.light_head = nn.Linear(config.features, LIGHT_CHANNELS)
        _start_near_zero(self.light_head)

    def forward(self, image: Tensor) -> MeshPrediction:
        """image: [B, 3, S, S] in 0..1, S = config.image_size. Raises DibrError for any other shape."""
        size = self.config.image_size
        if image.dim() != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise DibrError(f"image must have shape [B, 3, {size}, {size}], but has {list(image.shape)}")
        code = self.encoder(image * 2 - 1)
        offsets = self.config.max_offset * torch.tanh(self.vertex_head(code))
        vertices = self.template + offsets.unflatten(1, (-1, 3))
        return MeshPrediction(vertices, self.texture_head(code), _light(self.light_head(code)))

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


class ImageToMeshRenderer(nn.Module):
    """ImageToMesh and the renderer in one module: what is trained, exported and served.

    Args:
        network: the predictor.
        height, width: of the rendered image in pixels; default the network's input size.
        background: colour of uncovered pixels.
        sigmainv: sharpness of the soft mask; see ``dibr_deploy.ops.soft_mask``.
    """

    def __init__(
        self,
        network: ImageToMesh,
        height: int | None = None,
        width: int | None = None,
        *,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
        sigmainv: float = 7000.0,
    ) -> None:
        super().__init__()
        size = network.config.image_size
        self.network = network
        self.renderer = MeshRenderer(height or size, width or size, background=background, sigmainv=sigmainv)

    def forward(self, image: Tensor, world_to_clip: Tensor) -> RenderedPrediction:
        """image: [B, 3, S, S] in 0..1; world_to_clip: [B, 4, 4], the camera to render from."""
        return self.render(self.network(image), world_to_clip)

    def render(self, prediction: MeshPrediction, world_to_clip: Tensor) -> RenderedPrediction:
        """Renders a prediction for B images from B cameras [B, 4, 4]."""
        network = self.network
        image, mask, face_index, _ = self.renderer(
            prediction.vertices,
            network.faces,
            world_to_clip,
            texture=prediction.texture,
            uvs=network.uvs,
            uv_faces=network.uv_faces,
            light=prediction.light,
            vertex_faces=network.vertex_faces,
        )
        return RenderedPrediction(image, mask, face_index, *prediction, network.faces, network.uvs, network.uv_faces)


class TextureHead(nn.Module):
    """A code to a texture that is continuous across the seam: every convolution wraps around in u.

    forward: [B, features] -> [B, 3, texture_size, texture_size] in 0..1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = 2 * config.channels
        self.start = nn.Linear(config.features, channels * _COARSE_TEXTURE**2)
        steps = (config.texture_size // _COARSE_TEXTURE).bit_length() - 1
        widths = [max(channels >> step, 16) for step in range(steps + 1)]
        self.refine = nn.ModuleList(nn.Conv2d(a, b, 3) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.colour = nn.Conv2d(widths[-1], 3, 3)
        _start_near_zero(self.colour)

    def forward(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(code))

    def logits(self, code: Tensor) -> Tensor:
        """The same before the sigmoid that brings it to 0..1."""
        grid = F.relu(self.start(code)).unflatten(1, (-1, _COARSE_TEXTURE, _COARSE_TEXTURE))
        for convolution, norm in zip(self.refine, self.norms, strict=True):
            grid = F.interpolate(grid, scale_factor=2.0, mode="nearest")
            grid = F.relu(norm(convolution(_pad_sphere(grid))))
        return cast(Tensor, self.colour(_pad_sphere(grid)))


def _pad_sphere(grid: Tensor) -> Tensor:
    """One more column at either side, wrapped around, and one more row above and below, repeated: [B, C, H+2, W+2]."""
    grid = torch.cat([grid[..., -1:], grid, grid[..., :1]], dim=-1)
    return torch.cat([grid[..., :1, :], grid, grid[..., -1:, :]], dim=-2)


def _light(raw: Tensor) -> Tensor:
    """[B, 4] of any size to a light: ambient in 0..1, a source no stronger than what ambient leaves."""
    ambient = torch.sigmoid(raw[:, :1])
    source = raw[:, 1:]
    return torch.cat([ambient, (1 - ambient) * source / (1 + source.square().sum(dim=1, keepdim=True)).sqrt()], dim=1)


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
    _start_near_zero(last)
    return nn.Sequential(nn.Linear(config.features, config.features), nn.ReLU(), last)


def _start_near_zero(layer: nn.Linear | nn.Conv2d) -> None:
    """So that training starts at the template, a grey texture and an even light."""
    nn.init.normal_(layer.weight, std=1e-3)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
