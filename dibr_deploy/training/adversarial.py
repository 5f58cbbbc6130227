"""Training of a mesh generator against a critic of its renderings: WGAN-GP (Gulrajani et al. 2017).

No mesh is opened: what is real are the images and masks of a dataset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.opening import open_dataset
from ..data.views import View
from ..errors import DibrError
from ..losses import flattening_loss, laplacian_loss
from ..mesh import edge_faces, unique_edges
from ..models.mesh_generator import GeneratorConfig, ImageCritic, MeshGenerator, MeshGeneratorRenderer
from ..pictures import to_bytes
from .adversarial_config import AdversarialConfig
from .checkpoint import FILE_NAME, generator_of, save_checkpoint
from .runs import RunLog, kept_content
from .sampling import random_stream

LOG_COLUMNS = ["step", "distance", "penalty", "loss", "critic", "laplacian", "flattening"]
SAMPLES, SAMPLE_VIEWS = 8, 3

_BETAS = 0.0, 0.9
_LAST_LEARNING_RATE = 0.05
_MAY_CHANGE = ("steps", "device", "tensorboard")
"""Settings that a resumed run may have otherwise than before."""


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """The mean of (|d critic / d x| - 1)^2 between real and fake pictures (Gulrajani et al. 2017, equation 3).

    Training differentiates it once more, through the critic alone: the renderer has no second derivatives.

    Args:
        critic: pictures [B, C, H, W] to scores [B].
        real, fake: [B, C, H, W]; no gradient flows to them.
        mix: [B] in 0..1, where between fake (0) and real (1) the gradient is taken.
    """
    mix = mix.view(-1, 1, 1, 1)
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1).square().mean()


class AdversarialTrainer:
    """One run in one folder: ``checkpoint.pt``, ``losses.csv`` and ``samples/step_NNNNNN.png``.

    A step updates the critic ``critic_steps`` times and then the generator. All that is drawn depends on the seed and
    the step alone, so a run that was stopped and resumed ends with the same weights, bit for bit, as one that was not,
    on the same machine with the same number of threads.

    Attributes:
        model: what is being trained.
        critic: what it is trained against.
        step: how many steps are done.
    """

    def __init__(
        self,
        data: str | Path,
        output: str | Path,
        config: AdversarialConfig,
        *,
        resume: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """Opens the dataset and starts a run in ``output``, or takes up the one that is there.

        Args:
            data: folder of the dataset; its images must be square, their side a multiple of 16.
            output: of the run. config: its settings. resume: go on with the run in ``output``. device: to train on.

        Raises:
            DibrError: the dataset is wrong; ``output`` holds files but ``resume`` is False; ``resume`` is True but
                there is no checkpoint, or its settings other than ``steps``, ``device`` and ``tensorboard`` are not
                those of ``config``.
        """
        self.config, self.output, self._device = config, Path(output), torch.device(device)
        content = kept_content(self.output, config.model_dump(), resume=resume, may_change=_MAY_CHANGE)
        self.data = open_dataset(data)
        height, width = self.data.height, self.data.width
        if height != width or height % 16:
            raise DibrError(f"images must be square with a side that is a multiple of 16, but are {width} x {height}")
        self._cameras = self.data.world_to_clip.to(device)
        self.model, self.critic = self._new_models()
        self._optimizers = [self._adam(self.model.network), self._adam(self.critic)]
        self.step = 0
        if content is not None:
            self._take_up(content)
        faces = self.model.network.faces
        self._edges, self._edge_faces = unique_edges(faces), edge_faces(faces)

    def run(self) -> None:
        """Trains to the last step. An interrupt (Ctrl-C) leaves a checkpoint of the last whole step behind.

        Raises:
            DibrError: a loss is no longer finite.
        """
        config = self.config
        with RunLog(self.output, LOG_COLUMNS, self.step, config.steps, config.tensorboard) as log:
            if self.step == 0:
                self._save()  # so that a run that is killed before its first checkpoint can go on too
            try:
                while self.step < config.steps:
                    log.row(self._train_step())
                    if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                        log.sheet(self._samples(), self.step)
                        self._save()
            except KeyboardInterrupt:
                self._save()
                raise

    def _new_models(self) -> tuple[MeshGeneratorRenderer, ImageCritic]:
        config = self.config
        sizes = GeneratorConfig(latent=config.latent, texture_size=config.texture_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = MeshGeneratorRenderer(
                MeshGenerator(sizes), self.data.height, self.data.width, sigmainv=config.sigmainv
            )
            critic = ImageCritic(self.data.height, config.critic_channels)
        return model.to(self._device), critic.to(self._device)

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.config.lr, betas=_BETAS)

    def _train_step(self) -> dict[str, Any]:
        """Updates of the critic and one of the generator; returns the step's row of the log."""
        self._follow_schedule()
        draws = _Draws(self.config.seed, self.step)
        distance, penalty = [self._update_critic(draws) for _ in range(self.config.critic_steps)][-1]
        losses = self._update_generator(draws)
        values = {"distance": distance, "penalty": penalty, **losses}
        for name, value in values.items():
            if not math.isfinite(value):
                raise DibrError(f"{name} is {value} at step {self.step}: lower lr, now {self.config.lr}")
        self.step += 1
        return {"step": self.step, **{name: f"{value:.6g}" for name, value in values.items()}}

    def _update_critic(self, draws: _Draws) -> tuple[float, float]:
        """Returns its estimate of how far apart real and generated pictures are, and the gradient penalty."""
        real = _pictures(self._real(draws))
        with torch.no_grad():
            fake = self._generate(draws)[0]
        mix = draws.uniform(len(real)).to(self._device)
        distance = self.critic(real).mean() - self.critic(fake).mean()
        penalty = gradient_penalty(self.critic, real, fake, mix)
        self._descend(1, self.config.penalty_weight * penalty - distance)
        return distance.item(), penalty.item()

    def _update_generator(self, draws: _Draws) -> dict[str, float]:
        config = self.config
        pictures, vertices = self._generate(draws)
        parts = {
            "critic": -self.critic(pictures).mean(),
            "laplacian": laplacian_loss(vertices, self._edges),
            "flattening": flattening_loss(vertices, self.model.network.faces, self._edge_faces),
        }
        loss = (
            parts["critic"]
            + config.laplacian_weight * parts["laplacian"]
            + config.flattening_weight * parts["flattening"]
        )
        self._descend(0, loss)
        return {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}

    def _descend(self, which: int, loss: Tensor) -> None:
        optimizer = self._optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def _real(self, draws: _Draws) -> View:
        indices = draws.integers(self.config.objects * self.config.views, len(self.data))
        return View(*(part.to(self._device) for part in self.data.views(indices.tolist())))

    def _generate(self, draws: _Draws) -> tuple[Tensor, Tensor]:
        """Pictures [objects * views, 4, H, W] of new objects, and their vertices [objects, V, 3]."""
        config = self.config
        prediction = self.model.network(draws.normal(config.objects, config.latent).to(self._device))
        cameras = self._cameras[draws.integers(config.objects * config.views, len(self.data)).to(self._device)]
        seen = type(prediction)(*(part.repeat_interleave(config.views, dim=0) for part in prediction))
        rendered = self.model.render(seen, cameras)
        return _pictures(View(rendered.image.permute(0, 3, 1, 2), rendered.mask, cameras)), prediction.vertices

    def _follow_schedule(self) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.config.lr * (_LAST_LEARNING_RATE + (1 - _LAST_LEARNING_RATE) * cosine)

    @torch.no_grad()
    def _samples(self) -> np.ndarray:
        """The same objects every time, a column each, from several cameras: [H, W, 3] uint8."""
        codes = torch.randn(SAMPLES, self.config.latent, generator=torch.Generator().manual_seed(0)).to(self._device)
        prediction = self.model.network(codes)
        every = max(len(self.data) // SAMPLE_VIEWS, 1)
        rows = [
            torch.cat(list(self.model.render(prediction, camera.expand(SAMPLES, -1, -1)).image), dim=1)
            for camera in self._cameras[::every][:SAMPLE_VIEWS]
        ]
        return to_bytes(torch.cat(rows))

    def _take_up(self, content: dict[str, Any]) -> None:
        training = content["training"]
        self.model.load_state_dict(generator_of(content, self.output).state_dict())
        self.critic.load_state_dict(training["critic"])
        for optimizer, state in zip(self._optimizers, training["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step = training["step"]

    def _save(self) -> None:
        training = {
            "step": self.step,
            "config": self.config.model_dump(),
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }
        save_checkpoint(self.output / FILE_NAME, self.model, training)


class _Draws:
    """The random numbers of one step, whatever else is drawn in this process."""

    def __init__(self, seed: int, step: int) -> None:
        self._generator = random_stream(seed, step)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self._generator)

    def integers(self, count: int, limit: int) -> Tensor:
        """In 0..limit - 1."""
        return torch.randint(limit, (count,), generator=self._generator)


def _pictures(views: View) -> Tensor:
    """What the critic sees: image and mask, [B, 4, H, W]."""
    return torch.cat([views.image, views.mask.unsqueeze(1)], dim=1)
