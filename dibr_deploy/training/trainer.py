"""Training from images, masks and cameras alone: no 3D ground truth is opened."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.opening import open_dataset
from ..data.views import View
from ..errors import DibrError
from ..losses import flattening_loss, laplacian_loss, mask_iou_loss, masked_l1_loss, shading_loss
from ..mesh import edge_faces, unique_edges
from ..metrics import mask_iou
from ..models import ImageToMesh, ImageToMeshRenderer, MeshPrediction, ModelConfig, RenderedPrediction
from ..pictures import to_bytes
from .checkpoint import model_of
from .config import TrainingConfig
from .distributed import Processes
from .runs import RunLog, TrainingRun
from .sampling import PairSampler, held_out_pairs, split_views

LOG_COLUMNS = ["step", "loss", "mask", "color", "shading", "laplacian", "flattening", "held_out_iou"]
SAMPLES = 6

_WHOLE = 0.9
"""Share of a pixel from which its colour counts as that of the object: others are mixed with their background."""


class Trainer(TrainingRun[TrainingConfig]):
    """A run that trains an image-to-mesh network; see ``TrainingRun`` for what all runs have.

    Each step predicts a mesh from one view of an object, renders it from that view's camera and from a second one's,
    and compares both pictures with the images and masks. Each picture has the light that is predicted from its own
    image, in the axes of its own camera: where an object's views have different lights, shades that are painted into
    the texture are wrong.
    """

    log_columns = LOG_COLUMNS
    model: ImageToMeshRenderer

    def __init__(
        self,
        data: str | Path,
        output: str | Path,
        config: TrainingConfig,
        *,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        """Opens the dataset and starts a run in ``output``, or takes up the one that is there.

        Args:
            data: folder of the dataset. output: of the run. config: its settings.
            resume: go on with the run in ``output``.
            processes: this process among those that share the run, and its device; see
                ``dibr_deploy.training.distributed.join_processes``. None trains alone, on the CPU.

        Raises:
            DibrError: the dataset is wrong; the batch cannot be shared evenly; ``output`` holds files but ``resume``
                is False; ``resume`` is True but there is no checkpoint, or its settings other than ``steps``,
                ``device`` and ``tensorboard`` are not those of ``config``.
        """
        super().__init__(output, config, resume, processes)
        self.processes.check_share("batch", config.batch)
        self.data = open_dataset(data)
        training_views, held_out = split_views(self.data.views_of)
        self._held_out = {name: views or training_views[name] for name, views in held_out.items()}
        self._sampler = PairSampler(training_views, config.batch, config.seed)
        content = self._kept
        self.model = self._new_model() if content is None else model_of(content, self.output)
        self.model.to(self.processes.device)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=config.lr, fused=True)
        if content is not None:
            self._optimizer.load_state_dict(content["training"]["optimizer"])
        faces = self.model.network.faces
        self._edges, self._edge_faces = unique_edges(faces), edge_faces(faces)
        self._shared_network = self.processes.together(self.model.network)

    def summary(self) -> list[str]:
        predicted, template = self.held_out_iou()
        return [f"mask IoU on held-out views: {predicted:.3f} (untouched sphere: {template:.3f})", *super().summary()]

    def _look(self, row: dict[str, Any], log: RunLog) -> None:
        super()._look(row, log)
        row["held_out_iou"] = f"{self.held_out_iou()[0]:.6g}"
        log.say(f"step {self.step}: loss {row['loss']}, held-out mask IoU {row['held_out_iou']}")

    def held_out_iou(self) -> tuple[float, float]:
        """Mean IoU of the covered pixels with the masks of held-out views: the prediction's, and the bare template's.

        The mesh is predicted from one held-out view and judged from the object's next. Where an object has too few
        views to hold one out, its training views take their place. No more of them are in memory than of a step.
        """
        inputs, targets = self._evaluation_views()
        part = self.config.batch // self.processes.count
        parts = [slice(start, start + part) for start in range(0, len(inputs), part)]
        scores = torch.cat([self._mask_ious(inputs[one], targets[one]) for one in parts], dim=1)
        predicted, template = scores.mean(dim=1).tolist()
        return predicted, template

    @torch.no_grad()
    def _mask_ious(self, inputs: list[int], targets: list[int]) -> Tensor:
        """[2, B], of what is predicted from some views, and of the template, with the masks of others."""
        seen, wanted = self._views(inputs), self._views(targets)
        prediction = self.model.network(seen.resized(self.config.image_size))
        scores = []
        for vertices in (prediction.vertices, self.model.network.template.expand(len(inputs), -1, -1)):
            rendered = self.model.render(prediction._replace(vertices=vertices), wanted.world_to_clip)
            scores.append(mask_iou((rendered.face_index >= 0).float(), wanted.mask))
        return torch.stack(scores)

    def _new_model(self) -> ImageToMeshRenderer:
        config = self.config
        sizes = ModelConfig(
            image_size=config.image_size,
            texture_size=config.texture_size,
            features=config.features,
            colour_features=config.colour_features,
            encoder=config.encoder,
            norm="group" if config.pretrained is None else "frozen_batch",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = ImageToMesh(sizes)
        if config.pretrained is not None:
            network.load_pretrained(config.pretrained)
        return ImageToMeshRenderer(network, self.data.height, self.data.width)

    def _train_step(self) -> dict[str, Any]:
        self._follow_schedule(self._optimizer)
        self._sharpen()
        inputs, targets = (self._views(self.processes.share(views)) for views in self._sampler(self.step))
        wanted = View(*(torch.cat(parts) for parts in zip(inputs, targets, strict=True)))
        predictions = self._through(self._shared_network, wanted.resized(self.config.image_size))
        predictions = self.model.network.in_world(predictions, wanted.world_to_clip)
        vertices, texture = (part[: len(inputs.mask)] for part in (predictions.vertices, predictions.texture))
        seen = MeshPrediction(torch.cat([vertices] * 2), torch.cat([texture] * 2), predictions.light)
        losses = self._losses(self.model.render(seen, wanted.world_to_clip), wanted, vertices)
        weights = self.config
        loss = (
            weights.mask_weight * losses["mask"]
            + weights.color_weight * losses["color"]
            + weights.shading_weight * losses["shading"]
            + weights.laplacian_weight * losses["laplacian"]
            + weights.flattening_weight * losses["flattening"]
        )
        means = self.processes.mean(torch.stack([loss, *losses.values()])).tolist()
        if not math.isfinite(means[0]):
            raise DibrError(f"the loss is {means[0]} at step {self.step}: lower lr, now {self.config.lr}")
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.step += 1
        values = {name: f"{value:.6g}" for name, value in zip(["loss", *losses], means, strict=True)}
        return {"step": self.step, **values, "held_out_iou": ""}

    def _views(self, indices: list[int]) -> View:
        return View(*(part.to(self.processes.device) for part in self.data.views(indices)))

    def _losses(self, rendered: RenderedPrediction, wanted: View, vertices: Tensor) -> dict[str, Tensor]:
        image, whole = wanted.image.permute(0, 2, 3, 1), (wanted.mask >= _WHOLE).float()
        # A mean over the covered pixels of all processes: each counts by how many of them it has.
        covered = whole.sum()
        share = covered / self.processes.mean(covered).clamp(min=1)
        return {
            "mask": mask_iou_loss(rendered.mask, wanted.mask),
            "color": share * masked_l1_loss(rendered.image, image, whole),
            "shading": _of_light_alone(
                shading_loss(rendered.image, image, whole * (rendered.face_index >= 0)), rendered.light
            ),
            "laplacian": laplacian_loss(vertices, self._edges),
            "flattening": flattening_loss(vertices, self.model.network.faces, self._edge_faces),
        }

    def _sharpen(self) -> None:
        config = self.config
        sharper = (config.sigmainv_end / config.sigmainv_start) ** min(1.0, 2 * self.step / config.steps)
        self.model.renderer.sigmainv = config.sigmainv_start * sharper

    def _evaluation_views(self) -> tuple[list[int], list[int]]:
        pairs = held_out_pairs(self._held_out)
        return [view for view, _ in pairs], [following for _, following in pairs]

    @torch.no_grad()
    def _samples(self) -> np.ndarray:
        """Input, held-out view, rendering and soft mask of some objects, from top to bottom, [H, W, 3] uint8."""
        inputs, targets = (self._views(views[:SAMPLES]) for views in self._evaluation_views())
        prediction = self.model.network(inputs.resized(self.config.image_size))
        rendered = self.model.render(
            self.model.network.in_world(prediction, inputs.world_to_clip), targets.world_to_clip
        )
        rows = [inputs.image.permute(0, 2, 3, 1), targets.image.permute(0, 2, 3, 1), rendered.image]
        rows.append(rendered.mask.unsqueeze(-1).expand(-1, -1, -1, 3))
        return to_bytes(torch.cat([torch.cat(list(row), dim=1) for row in rows]))

    def _state(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict()}


def _of_light_alone(loss: Tensor, light: Tensor) -> Tensor:
    """A loss with a gradient in the light and in nothing else: textures that follow it too lose their colours."""
    (slope,) = torch.autograd.grad(loss, light, retain_graph=True)
    return loss.detach() + (slope * (light - light.detach())).sum()
