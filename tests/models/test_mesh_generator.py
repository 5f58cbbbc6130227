"""MeshGenerator, MeshGeneratorRenderer and ImageCritic: shapes, bounds, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dibr_deploy.cameras import orbit, perspective
from dibr_deploy.errors import DibrError
from dibr_deploy.models import GeneratorConfig, ImageCritic, MeshGenerator, MeshGeneratorRenderer

SMALL = GeneratorConfig(latent=6, subdivisions=2, channels=8, features=32)


def cameras(batch: int) -> Tensor:
    return perspective(0.7) @ orbit(torch.linspace(0.0, 2.0, batch), 0.3, 3.0)


def test_what_is_rendered_has_the_documented_names_and_shapes() -> None:
    output = MeshGeneratorRenderer(MeshGenerator(SMALL), 24, 40)(torch.randn(2, 6), cameras(2))
    shapes = {name: tuple(value.shape) for name, value in output._asdict().items()}
    corners = int(output.uv_faces.max()) + 1
    assert shapes == {
        "image": (2, 24, 40, 3),
        "mask": (2, 24, 40),
        "face_index": (2, 24, 40),
        "vertices": (2, 162, 3),
        "texture": (2, 3, 32, 32),
        "light": (2, 4),
        "faces": (320, 3),
        "uvs": (corners, 2),
        "uv_faces": (320, 3),
    }


def test_another_code_is_another_object_in_shape_texture_and_light() -> None:
    for part in MeshGenerator(SMALL)(torch.randn(2, 6)):
        assert (part[0] - part[1]).abs().max() > 1e-4


def test_whatever_the_weights_objects_stay_in_bounds() -> None:
    network = MeshGenerator(SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    made = network(torch.randn(8, 6))
    assert (made.vertices - network.template).abs().max() <= SMALL.max_offset * (1 + 1e-6)
    assert 0 <= made.texture.min() <= made.texture.max() <= 1
    assert (made.light[:, 0] + torch.linalg.vector_norm(made.light[:, 1:], dim=1)).max() <= 1 + 1e-6


def test_a_critics_gradient_reaches_every_parameter_of_the_generator() -> None:
    model, critic = MeshGeneratorRenderer(MeshGenerator(SMALL), 32, 32), ImageCritic(32, 8)
    made = model(torch.randn(3, 6), cameras(3))
    pictures = torch.cat([made.image, made.mask.unsqueeze(-1)], dim=-1).permute(0, 3, 1, 2)
    score = critic(pictures)
    assert score.shape == (3,)
    score.sum().backward()
    for name, parameter in [*model.named_parameters(), *critic.layers[:-1].named_parameters()]:
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert parameter.grad.abs().max() > 0, name


def test_a_critic_judges_each_picture_by_itself() -> None:
    """The gradient penalty would mean nothing otherwise."""
    critic, pictures = ImageCritic(32, 8), torch.rand(4, 4, 32, 32)
    torch.testing.assert_close(critic(pictures)[1:3], critic(pictures[1:3]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (1, 5), (1, 6, 1)])
def test_codes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DibrError, match=r"code must have shape \[B, 6\]"):
        MeshGenerator(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("sizes", [{"latent": 0}, {"texture_size": 48}, {"texture_size": 16}])
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, int]) -> None:
    ((name, value),) = sizes.items()
    with pytest.raises(DibrError, match=f"{name} must be .* but is {value}"):
        GeneratorConfig(**sizes)
    with pytest.raises(DibrError, match="size must be a positive multiple of 16, but is 40"):
        ImageCritic(40)
