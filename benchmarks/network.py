"""The network of the whole-model benchmark: ResNet-18 to a sphere of 1,280 faces, rendered at 256x256."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dibr_deploy import cameras, mesh, ops
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig

INPUT_SIZE = 224
IMAGE_SIZE = 256
TEXTURE_SIZE = 256


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., Deep Residual Learning, 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.second_norm = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 and before == after else _projection(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(inner + self.shortcut(x))


def _projection(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


def resnet18_encoder() -> nn.Sequential:
    """[B, 3, 224, 224] -> [B, 512]: ResNet-18 without its classifier, random weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [_Block(before, after, stride), _Block(after, after, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def predictor() -> ImageToMesh:
    """ImageToMesh with ResNet-18 as its encoder."""
    torch.manual_seed(0)
    config = ModelConfig(image_size=INPUT_SIZE, subdivisions=3, texture_size=TEXTURE_SIZE, features=512)
    network = ImageToMesh(config)
    network.encoder = resnet18_encoder()
    return network.eval()


def whole_model() -> ImageToMeshRenderer:
    """The predictor and the renderer behind it."""
    return ImageToMeshRenderer(predictor(), IMAGE_SIZE, IMAGE_SIZE).eval()


class Chain(nn.Module):
    """Rasterize, Interpolate, Texture and SoftMask alone, with nothing returned but the colours and the mask."""

    faces: Tensor
    uvs: Tensor
    uv_faces: Tensor

    def __init__(self) -> None:
        super().__init__()
        ball = mesh.icosphere(3, radius=0.5)
        assert ball.uvs is not None
        assert ball.uv_faces is not None
        self.register_buffer("faces", ball.faces.int())
        self.register_buffer("uvs", ball.uvs)
        self.register_buffer("uv_faces", ball.uv_faces.int())

    def forward(self, positions: Tensor, texture: Tensor) -> dict[str, Tensor]:
        """positions: [B, V, 4] clip space; texture: [B, 3, Ht, Wt]."""
        size = IMAGE_SIZE
        face_index, barycentrics, _ = ops.rasterize(positions, self.faces, size, size)
        uv = ops.interpolate(self.uvs[None], self.uv_faces, face_index, barycentrics)
        mask = ops.soft_mask(positions, self.faces, face_index)
        return {"image": ops.texture(texture, uv, wrap="repeat"), "mask": mask}


def camera() -> Tensor:
    """[1, 4, 4]: world to clip, the sphere over 37 % of the image."""
    return (cameras.perspective(0.72, 1.0, 0.5, 10.0) @ cameras.look_at((0.4, 0.3, 1.9)))[None]
