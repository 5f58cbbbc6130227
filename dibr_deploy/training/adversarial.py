"""Training of a mesh generator against a critic of its renderings: WGAN-GP (Gulrajani et al. 2017).

No mesh is opened: what is real are the images and masks of a dataset.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..data.opening import open_dataset
from ..data.views import View
from ..errors import DibrError
from ..losses import flattening_loss, laplacian_loss
from ..mesh import edge_faces, unique_edges
from ..models.mesh_generator import GeneratorConfig, ImageCritic, MeshGenerator, MeshGeneratorRenderer
from ..pictures import to_bytes
from .adversarial_config import AdversarialConfig
from .checkpoint import generator_of
from .distributed import Processes
from .runs import TrainingRun
from .sampling import random_stream

LOG_COLUMNS = ["step", "distance", "penalty", "loss", "critic", "laplacian", "flattening"]
SAMPLES, SAMPLE_VIEWS = 8, 3

_BETAS = 0.0, 0.9


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


class Judgement(NamedTuple):
    """Scalars of which the critic's loss is made."""

    distance: Tensor
    """How far apart the critic finds real and generated pictures."""
    penalty: Tensor
    """See ``gradient_penalty``."""


class CriticLoss(nn.Module):
    """All that a critic's update asks of it, as one module: DistributedDataParallel wants one forward pass for each
    backward pass."""

    def __init__(self, critic: ImageCritic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, real: Tensor, fake: Tensor, mix: Tensor) -> Judgement:
        """real, fake: [B, 4, H, W]; mix: [B], as ``gradient_penalty`` takes them."""
        distance = self._scores(real).mean() - self._scores(fake).mean()
        return Judgement(distance, gradient_penalty(self._scores, real, fake, mix))

    def _scores(self, pictures: Tensor) -> Tensor:
        return self.critic(pictures).float()  # means of scores must not be rounded as they are


class AdversarialTrainer(TrainingRun[AdversarialConfig]):
    """A run that trains a mesh generator; see ``TrainingRun`` for what all runs have.

    A step updates the critic ``critic_steps`` times and then the generator. All that is drawn depends on the seed and
    the step alone.

    Attributes:
        critic: what the model is trained against.
    """

    log_columns = LOG_COLUMNS
    model: MeshGeneratorRenderer

    def __init__(
        self,
        data: str | Path,
        output: str | Path,
        config: AdversarialConfig,
        *,
        resume: bool = False,
        processes: Processes | None = None,
    ) -> None:
        """Opens the dataset and starts a run in ``output``, or takes up the one that is there.

        Args:
            data: folder of the dataset; its images must be square, their side a multiple of 16.
            output: of the run. config: its settings. resume: go on with the run in ``output``.
            processes: this process among those that share the run, and its device; see
                ``dibr_deploy.training.distributed.join_processes``. None trains alone, on the CPU.

        Raises:
            DibrError: the dataset is wrong; the objects cannot be shared evenly; ``output`` holds files but ``resume``
                is False; ``resume`` is True but there is no checkpoint, or its settings other than ``steps``,
                ``device`` and ``tensorboard`` are not those of ``config``.
        """
        super().__init__(output, config, resume, processes)
        self.processes.check_share("objects", config.objects)
        self.data = open_dataset(data)
        height, width = self.data.height, self.data.width
        if height != width or height % 16:
            raise DibrError(f"images must be square with a side that is a multiple of 16, but are {width} x {height}")
        self._cameras = self.data.world_to_clip.to(self.processes.device)
        self.model, self.critic = self._new_models()
        self._optimizers = [self._adam(self.model.network), self._adam(self.critic)]
        if self._kept is not None:
            self._take_up(self._kept)
        faces = self.model.network.faces
        self._edges, self._edge_faces = unique_edges(faces), edge_faces(faces)
        self._shared_network = self.processes.together(self.model.network)
        self._shared_critic = self.processes.together(CriticLoss(self.critic))

    def _new_models(self) -> tuple[MeshGeneratorRenderer, ImageCritic]:
        config = self.config
        sizes = GeneratorConfig(latent=config.latent, texture_size=config.texture_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = MeshGeneratorRenderer(
                MeshGenerator(sizes), self.data.height, self.data.width, sigmainv=config.sigmainv
            )
            critic = ImageCritic(self.data.height, config.critic_channels)
        return model.to(self.processes.device), critic.to(self.processes.device)

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(module.parameters(), lr=self.config.lr, betas=_BETAS)

    def _train_step(self) -> dict[str, Any]:
        """Updates of the critic and one of the generator."""
        self._follow_schedule(*self._optimizers)
        draws = _Draws(self.config.seed, self.step)
        judgement = [self._update_critic(draws) for _ in range(self.config.critic_steps)][-1]
        losses = {**judgement._asdict(), **self._update_generator(draws)}
        means = self.processes.mean(torch.stack([loss.detach() for loss in losses.values()])).tolist()
        for name, value in zip(losses, means, strict=True):
            if not math.isfinite(value):
                raise DibrError(f"{name} is {value} at step {self.step}: lower lr, now {self.config.lr}")
        self.step += 1
        return {"step": self.step, **{name: f"{value:.6g}" for name, value in zip(losses, means, strict=True)}}

    def _update_critic(self, draws: _Draws) -> Judgement:
        real = _pictures(self._real(draws))
        with torch.no_grad():
            fake = self._generate(self.model.network, draws)[0]
        mix = self._own(draws.uniform(self._count))
        judgement: Judgement = self._through(self._shared_critic, real, fake, mix)
        self._descend(1, self.config.penalty_weight * judgement.penalty - judgement.distance)
        return judgement

    def _update_generator(self, draws: _Draws) -> dict[str, Tensor]:
        config = self.config
        pictures, vertices = self._generate(self._shared_network, draws)
        parts = {
            "critic": -self._scores(pictures).mean(),
            "laplacian": laplacian_loss(vertices, self._edges),
            "flattening": flattening_loss(vertices, self.model.network.faces, self._edge_faces),
        }
        loss = (
            parts["critic"]
            + config.laplacian_weight * parts["laplacian"]
            + config.flattening_weight * parts["flattening"]
        )
        self._descend(0, loss)
        return {"loss": loss, **parts}

    def _descend(self, which: int, loss: Tensor) -> None:
        optimizer = self._optimizers[which]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @property
    def _count(self) -> int:
        """Generated pictures per update over all processes."""
        return self.config.objects * self.config.views

    def _own(self, draws: Tensor) -> Tensor:
        """This process's part of what was drawn for all, on its device."""
        return self.processes.share(draws).to(self.processes.device)

    def _real(self, draws: _Draws) -> View:
        indices = self.processes.share(draws.integers(self._count, len(self.data)))
        return View(*(part.to(self.processes.device) for part in self.data.views(indices.tolist())))

    def _generate(self, network: nn.Module, draws: _Draws) -> tuple[Tensor, Tensor]:
        """Pictures [objects * views, 4, H, W] of this process's new objects, and their vertices [objects, V, 3]."""
        config = self.config
        prediction = self._through(network, self._own(draws.normal(config.objects, config.latent)))
        cameras = self._cameras[self._own(draws.integers(self._count, len(self.data)))]
        seen = type(prediction)(*(part.repeat_interleave(config.views, dim=0) for part in prediction))
        rendered = self.model.render(seen, cameras)
        return _pictures(View(rendered.image.permute(0, 3, 1, 2), rendered.mask, cameras)), prediction.vertices

    def _scores(self, pictures: Tensor) -> Tensor:
        """The critic's, with gradients to the pictures alone: those to its weights are of no use to the generator."""
        fixed = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        with self.processes.layers_at(self.config.precision):
            return functional_call(self.critic, fixed, (pictures,)).float()

    @torch.no_grad()
    def _samples(self) -> np.ndarray:
        """The same objects every time, a column each, from several cameras: [H, W, 3] uint8."""
        codes = torch.randn(SAMPLES, self.config.latent, generator=torch.Generator().manual_seed(0))
        codes = codes.to(self.processes.device)
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

    def _state(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }


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
