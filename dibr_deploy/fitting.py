"""Fits a mesh, its surface colours, its light and its cameras to images of one object, by gradient descent through the
renderer (Chen et al. 2019, section 4.1, without a network)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .data.views import View
from .errors import DibrError
from .losses import flattening_loss, laplacian_loss, mask_iou_loss, masked_l1_loss
from .mesh import Mesh, edge_faces, icosphere, unique_edges, vertex_face_table
from .metrics import mask_iou
from .renderer import MeshRenderer, Rendering

PARTS = ("shape", "texture", "light", "camera")
"""What can be fitted."""

_START_LIGHT = (0.7, 0.0, 0.1, 0.0)
_INSIDE = 1e-3
"""Colours start this far from 0 and 1, where a sigmoid's gradient vanishes."""


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How to fit."""

    parts: tuple[str, ...] = ("shape", "texture", "light")
    """Out of PARTS; the others stay as they are given."""
    steps: int = 300
    texture_size: int = 64
    """Side of the texture in texels, where the mesh has texture coordinates but no texture."""
    shape_lr: float = 0.01
    texture_lr: float = 0.05
    light_lr: float = 0.02
    camera_lr: float = 0.01
    """Learning rates of Adam, of vertices in world units, logits of colours, light, and radians or world units."""
    laplacian_weight: float = 3.0
    flattening_weight: float = 0.03
    sigmainv_start: float = 7000.0
    sigmainv_end: float = 56000.0
    """Of the soft mask: it grows sharper, since a soft one reaches beyond the outline and the mesh would shrink."""

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise DibrError(f"parts must be out of {', '.join(PARTS)}, got {unknown[0] if unknown else 'none'}")
        if self.steps < 0 or self.texture_size < 1:
            raise DibrError(f"steps and texture_size must be positive, got {self.steps} and {self.texture_size}")


class FitLoss(NamedTuple):
    """The loss of a step and its parts."""

    total: float
    mask: float
    color: float


class Fit:
    """One object that is being fitted.

    Attributes:
        vertices: [V, 3], world space.
        light: [1, 4] as in ``dibr_deploy.lighting``; None shows the surface's own colour.
        motion: [N, 6], of each training view: an axis-angle rotation about the origin in radians, then a translation,
            both of the object before the view's camera.
    """

    def __init__(
        self,
        views: View,
        mesh: Mesh | None = None,
        settings: FitSettings | None = None,
        *,
        light: Tensor | None = None,
        background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        """
        Args:
            views: N images [N, 3, H, W], masks [N, H, W] and cameras [N, 4, 4] of the object. Where they lie, all is
                computed.
            mesh: to start from; None is a sphere of radius 0.5 around the origin. With texture coordinates its texture
                is fitted, else its vertex colours.
            settings: how to fit.
            light: [1, 4] to start from; None is nearly even light where light is fitted, else no light.
            background: of the images.

        Raises:
            DibrError: views without images, or a light of another shape or without numbers.
        """
        self.settings = settings = settings or FitSettings()
        mesh = mesh or icosphere(3, radius=0.5)
        if views.image.dim() != 4 or len(views.image) == 0:
            raise DibrError(f"views must have images [N, 3, H, W], got {list(views.image.shape)}")
        if light is not None and (tuple(light.shape) != (1, 4) or not bool(torch.isfinite(light).all())):
            raise DibrError(f"light must be [1, 4] and finite, got {light.tolist()}")
        self.views = views
        device = views.image.device
        if light is None and "light" in settings.parts:
            light = torch.tensor([_START_LIGHT])
        self._edges, self._edge_faces = unique_edges(mesh.faces).to(device), edge_faces(mesh.faces).to(device)
        self._vertex_faces = vertex_face_table(mesh.faces, len(mesh.vertices)).to(device)
        self.template = mesh = mesh.to(device)
        self.vertices = mesh.vertices.detach().clone()
        self.light = None if light is None else light.detach().clone().to(device)
        self.motion = torch.zeros(len(views.image), 6, device=device)
        self._color_logits = _first_colors(mesh, settings.texture_size).clamp(_INSIDE, 1 - _INSIDE).logit()
        self.renderer = MeshRenderer(*views.image.shape[-2:], background=background).to(device)

    def colors(self) -> Tensor:
        """The texture [1, 3, Ht, Wt], or vertex colours [1, V, 3], in 0..1."""
        return self._color_logits.sigmoid()

    def render(self, world_to_clip: Tensor) -> Rendering:
        """The object as it is now, from cameras [B, 4, 4]."""
        template = self.template
        surface: dict[str, Tensor | None] = {"vertex_colors": self.colors()}
        if template.uvs is not None:
            surface = {"texture": self.colors(), "uvs": template.uvs, "uv_faces": template.uv_faces}
        return self.renderer(
            self.vertices.unsqueeze(0),
            template.faces,
            world_to_clip,
            light=self.light,
            vertex_faces=self._vertex_faces,
            **surface,
        )

    def cameras(self) -> Tensor:
        """[N, 4, 4], the training views' cameras with the motions that were found."""
        return self.views.world_to_clip @ rigid_motion(self.motion)

    def optimize(self) -> Iterator[FitLoss]:
        """Takes the steps of the settings, one for each loss that is asked for.

        Raises:
            DibrError: the loss is not finite; nothing has been changed by it.
        """
        settings = self.settings
        groups: dict[str, tuple[Tensor | None, float]] = {
            "shape": (self.vertices, settings.shape_lr),
            "texture": (self._color_logits, settings.texture_lr),
            "light": (self.light, settings.light_lr),
            "camera": (self.motion, settings.camera_lr),
        }
        free = [(tensor, lr) for part, (tensor, lr) in groups.items() if part in settings.parts and tensor is not None]
        for tensor, _ in free:
            tensor.requires_grad_()
        optimizer = torch.optim.Adam([{"params": [tensor], "lr": lr} for tensor, lr in free])
        for step in range(settings.steps):
            done = min(1.0, step / (0.6 * settings.steps))
            self.renderer.sigmainv = settings.sigmainv_start * (settings.sigmainv_end / settings.sigmainv_start) ** done
            optimizer.zero_grad()
            parts = self._loss()
            losses = FitLoss(*(float(value.detach()) for value in parts))
            if not math.isfinite(losses.total):
                raise DibrError(f"the loss is {losses.total} at step {step}: mesh, images and cameras must be finite")
            parts[0].backward()
            optimizer.step()
            yield losses
        for tensor, _ in free:
            tensor.requires_grad_(False)

    @torch.no_grad()
    def iou(self, views: View | None = None) -> Tensor:
        """IoU of the covered pixels with every view's mask, [B]; of the training views where none are given."""
        cameras, wanted = (self.cameras(), self.views) if views is None else (views.world_to_clip, views)
        return mask_iou((self.render(cameras).face_index >= 0).float(), wanted.mask)

    def mesh(self) -> Mesh:
        """The object as it is now, with its texture or vertex colours."""
        colors = self.colors()[0].detach()
        part = "vertex_colors" if self.template.uvs is None else "texture"
        return dataclasses.replace(self.template, vertices=self.vertices.detach(), **{part: colors})

    def _loss(self) -> tuple[Tensor, Tensor, Tensor]:
        rendering = self.render(self.cameras())
        mask = mask_iou_loss(rendering.mask, self.views.mask)
        color = masked_l1_loss(rendering.image, self.views.image.permute(0, 2, 3, 1), self.views.mask)
        total = mask + color
        if "shape" in self.settings.parts:
            vertices = self.vertices.unsqueeze(0)
            total = total + self.settings.laplacian_weight * laplacian_loss(vertices, self._edges)
            flattening = flattening_loss(vertices, self.template.faces, self._edge_faces)
            total = total + self.settings.flattening_weight * flattening
        return total, mask, color


def rigid_motion(motion: Tensor) -> Tensor:
    """[N, 6], an axis-angle rotation and a translation, to [N, 4, 4]. Differentiable, at zero too."""
    turn, shift = motion[:, :3], motion[:, 3:]
    generator = motion.new_zeros(len(motion), 4, 4)
    for axis, (row, column) in enumerate(((2, 1), (0, 2), (1, 0))):
        generator[:, row, column] = turn[:, axis]
        generator[:, column, row] = -turn[:, axis]
    rotation = torch.linalg.matrix_exp(generator)
    moved = torch.cat([rotation[:, :3, :3], shift.unsqueeze(-1)], dim=-1)
    return torch.cat([moved, rotation[:, 3:]], dim=1)


def split_for_judging(views: Sequence[int], held_out: int) -> tuple[list[int], list[int]]:
    """Views to fit and views to judge by: ``held_out`` of them, evenly spread.

    Raises:
        DibrError: fewer than one would be left to fit.
    """
    if not 0 <= held_out < len(views):
        raise DibrError(f"held-out views must be fewer than the {len(views)} views, and at least 0, got {held_out}")
    places = {(2 * number + 1) * len(views) // (2 * held_out) for number in range(held_out)}
    return (
        [view for place, view in enumerate(views) if place not in places],
        [view for place, view in enumerate(views) if place in places],
    )


def _first_colors(mesh: Mesh, texture_size: int) -> Tensor:
    if mesh.uvs is None:
        colors = mesh.vertex_colors
        return torch.full_like(mesh.vertices, 0.5)[None] if colors is None else colors.detach().clone()[None]
    if mesh.texture is not None:
        return mesh.texture.detach().clone()[None]
    return torch.full((1, 3, texture_size, texture_size), 0.5, device=mesh.vertices.device)
