"""The network of the whole-model benchmark: ResNet-18 to a sphere of 1,280 faces, rendered at 256x256."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dibr_deploy import cameras, mesh, ops
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.models.resnet import ResNet18

INPUT_SIZE = 224
IMAGE_SIZE = 256
TEXTURE_SIZE = 256


def predictor() -> ImageToMesh:
    """ImageToMesh with ResNet-18 as its encoder."""
    torch.manual_seed(0)
    config = ModelConfig(image_size=INPUT_SIZE, subdivisions=3, texture_size=TEXTURE_SIZE, features=512)
    network = ImageToMesh(config)
    network.encoder = ResNet18("frozen_batch")  # 512 numbers, which are the heads' features
    return network.eval()


def whole_model() -> ImageToMeshRenderer:
    """The predictor and the renderer behind it."""
    return ImageToMeshRenderer(predictor(), IMAGE_SIZE, IMAGE_SIZE).eval()


class Chain(nn.Module):
    """Rasterize, Interpolate, Texture and SoftMask of an icosphere alone, with nothing returned but the colours and the
    mask, [B, size, size]."""

    faces: Tensor
    uvs: Tensor
    uv_faces: Tensor

    def __init__(self, subdivisions: int = 3, size: int = IMAGE_SIZE) -> None:
        super().__init__()
        ball = mesh.icosphere(subdivisions, radius=0.5)
        assert ball.uvs is not None
        assert ball.uv_faces is not None
        self.size = size
        self.register_buffer("faces", ball.faces.int())
        self.register_buffer("uvs", ball.uvs)
        self.register_buffer("uv_faces", ball.uv_faces.int())

    def forward(self, positions: Tensor, texture: Tensor) -> dict[str, Tensor]:
        """positions: [B, V, 4] clip space; texture: [B, 3, Ht, Wt]."""
        face_index, barycentrics, _ = ops.rasterize(positions, self.faces, self.size, self.size)
        uv = ops.interpolate(self.uvs[None], self.uv_faces, face_index, barycentrics)
        mask = ops.soft_mask(positions, self.faces, face_index)
        return {"image": ops.texture(texture, uv, wrap="repeat"), "mask": mask}


def camera() -> Tensor:
    """[1, 4, 4]: world to clip, the sphere over 37 % of the image."""
    return (cameras.perspective(0.72, 1.0, 0.5, 10.0) @ cameras.look_at((0.4, 0.3, 1.9)))[None]
