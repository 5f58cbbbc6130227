"""What a bundle has beside the whole network: its renderer alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dibr_deploy.models import MeshPrediction, SphereRenderer

from .views import Model, sources


class View(NamedTuple):
    """Output of ``PredictionRenderer``."""

    image: Tensor
    """[B, H, W, 3]."""
    mask: Tensor
    """[B, H, W], soft."""
    face_index: Tensor
    """[B, H, W] int32, -1 on background."""


class PredictionRenderer(nn.Module):
    """The renderer of a model, for predictions that are given."""

    def __init__(self, model: SphereRenderer) -> None:
        super().__init__()
        self.model = model

    def forward(self, vertices: Tensor, texture: Tensor, light: Tensor, world_to_clip: Tensor) -> View:
        """vertices: [B, V, 3]; texture: [B, 3, Ht, Wt]; light: [B, 4]; world_to_clip: [B, 4, 4]."""
        rendered = self.model.render(MeshPrediction(vertices, texture, light), world_to_clip)
        return View(rendered.image, rendered.mask, rendered.face_index)


def renderer_of(model: Model) -> tuple[PredictionRenderer, tuple[Tensor, ...]]:
    """As ``to_bundle`` takes it: the module and example arguments."""
    with torch.no_grad():
        prediction = model.eval().network(sources(model, 1))
    return PredictionRenderer(model), (*prediction, torch.eye(4)[None])
