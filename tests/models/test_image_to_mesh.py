"""ImageToMesh and ImageToMeshRenderer: shapes, bounds, gradients, export."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from dibr_deploy.cameras import orbit, orthographic, perspective
from dibr_deploy.errors import DibrError
from dibr_deploy.lighting import lambert
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.models.sphere import TextureHead, enlarged, with_light_of_one

SMALL = ModelConfig(image_size=32, subdivisions=1, texture_size=32, channels=8, features=32)
COLOURED = dataclasses.replace(SMALL, colour_features=8)


def cameras(batch: int) -> Tensor:
    return perspective(0.7) @ orbit(torch.linspace(0.0, 2.0, batch), 0.3, 3.0)


def excited(network: ImageToMesh) -> ImageToMesh:
    """The network with weights far from its start, so that its bounds are reached."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return network


def test_prediction_has_the_documented_shapes() -> None:
    prediction = ImageToMesh()(torch.rand(2, 3, 64, 64))
    assert prediction.vertices.shape == (2, 642, 3)
    assert prediction.texture.shape == (2, 3, 64, 64)
    assert prediction.light.shape == (2, 4)


def test_rendered_prediction_names_and_shapes() -> None:
    output = ImageToMeshRenderer(ImageToMesh(SMALL), 24, 40)(torch.rand(2, 3, 32, 32), cameras(2))
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in output._asdict().items()}
    f, i = torch.float32, torch.int32
    corners = len(ImageToMesh(SMALL).uvs)
    assert shapes == {
        "image": ((2, 24, 40, 3), f),
        "mask": ((2, 24, 40), f),
        "face_index": ((2, 24, 40), i),
        "vertices": ((2, 42, 3), f),
        "texture": ((2, 3, 32, 32), f),
        "light": ((2, 4), f),
        "faces": ((80, 3), i),
        "uvs": ((corners, 2), f),
        "uv_faces": ((80, 3), i),
    }
    assert int(output.uv_faces.max()) == corners - 1


@pytest.mark.parametrize("config", [SMALL, COLOURED], ids=["plain", "coloured"])
def test_training_starts_at_the_template(config: ModelConfig) -> None:
    network = ImageToMesh(config)
    prediction = network(torch.rand(2, 3, 32, 32))
    assert (prediction.vertices - network.template).abs().max() < 0.05
    assert (prediction.texture - 0.25).abs().max() < 0.05
    torch.testing.assert_close(prediction.light[:, 0], torch.ones(2), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.linalg.vector_norm(network.template, dim=-1), torch.full((42,), 0.5))


def test_whatever_the_weights_predictions_stay_in_bounds() -> None:
    network = excited(ImageToMesh(COLOURED))
    prediction = network(torch.rand(8, 3, 32, 32))
    assert (prediction.vertices - network.template).abs().max() <= SMALL.max_offset * (1 + 1e-6)
    assert 0 <= prediction.texture.min() <= prediction.texture.max() <= 1 + 1e-6
    ambient, directional = prediction.light[:, 0], torch.linalg.vector_norm(prediction.light[:, 1:], dim=1)
    assert ambient.min() >= 0
    torch.testing.assert_close(ambient + directional, torch.ones(8))
    image = ImageToMeshRenderer(network)(torch.rand(2, 3, 32, 32), cameras(2)).image
    assert 0 <= image.min() <= image.max() <= 1 + 1e-5


def test_light_of_one_keeps_the_picture() -> None:
    """Whatever the light: with and without a source, and from all sides of it."""
    texture, light = torch.rand(3, 3, 8, 8), torch.tensor([[0.2, 0.1, 0.3, 0.2], [0.4, 0, 0, 0], [0.1, 0, -0.9, 0]])
    settled_texture, settled_light = with_light_of_one(texture, light)
    normals = torch.nn.functional.normalize(torch.randn(3, 50, 3), dim=-1)
    for texel in range(8):
        seen, again = (
            lambert(normals, from_sides) * colours[:, :, texel, texel, None].mT
            for colours, from_sides in ((texture, light), (settled_texture, settled_light))
        )
        torch.testing.assert_close(again, seen)
    torch.testing.assert_close(settled_light[:, 0] + settled_light[:, 1:].norm(dim=1), torch.ones(3))
    raw = torch.zeros(1, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(with_light_of_one(texture[:1], raw + torch.eye(4)[:1])[1].sum(), raw)
    assert bool(slope.isfinite().all())


def test_a_light_keeps_its_side_of_the_viewer() -> None:
    """A light that stands upwards to the right before the object in the image does so from every camera."""
    network = ImageToMesh(SMALL)
    light = torch.tensor([[0.3, 0.2, 0.1, 0.4]]).expand(3, 4)
    prediction = network(torch.rand(3, 3, 32, 32))._replace(light=light)
    azimuth = torch.tensor([0.0, math.pi / 2, math.pi])
    turned = network.in_world(prediction, orthographic() @ orbit(azimuth, 0.0, 3.0))
    expected = [[0.3, 0.2, 0.1, 0.4], [0.3, 0.4, 0.1, -0.2], [0.3, -0.2, 0.1, -0.4]]
    torch.testing.assert_close(turned.light, torch.tensor(expected), rtol=0, atol=1e-6)
    assert turned.vertices is prediction.vertices and turned.texture is prediction.texture
    old = ImageToMesh(dataclasses.replace(SMALL, light_axes="world"))
    assert torch.equal(old.in_world(prediction, cameras(3)).light, light)


def test_the_model_turns_its_light_by_the_camera() -> None:
    """What comes out is the light of the world, and the one that the picture is drawn in."""
    network = ImageToMesh(SMALL)
    with torch.no_grad():
        network.light_head.bias.copy_(torch.tensor([-1.0, 2.0, 0.5, 0.3]))
    model, image = ImageToMeshRenderer(network), torch.rand(3, 3, 32, 32)
    output = model(image, cameras(3))
    own = network(image)
    torch.testing.assert_close(output.light, network.in_world(own, cameras(3)).light)
    assert (output.light - own.light)[1:].abs().max() > 0.3
    again = model.render(own._replace(light=output.light), cameras(3))
    torch.testing.assert_close(again.image, output.image)
    assert (model.render(own, cameras(3)).image - output.image).abs().max() > 0.05


def test_gradients_go_through_the_turn() -> None:
    network = ImageToMesh(SMALL).double()
    prediction = network(torch.rand(2, 3, 32, 32, dtype=torch.float64))

    def turned(light: Tensor, camera: Tensor) -> Tensor:
        return network.in_world(prediction._replace(light=light), camera).light

    inputs = torch.rand(2, 4, dtype=torch.float64), cameras(2).double()
    assert torch.autograd.gradcheck(turned, [part.requires_grad_() for part in inputs])


def test_every_parameter_is_reached_by_the_gradient() -> None:
    model = ImageToMeshRenderer(ImageToMesh(COLOURED))
    output = model(torch.rand(2, 3, 32, 32), cameras(2))
    (output.image.square().mean() + output.mask.square().mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert parameter.grad.abs().max() > 0, name


def test_a_batch_is_its_images_one_by_one() -> None:
    model = ImageToMeshRenderer(ImageToMesh(COLOURED)).eval()
    images = torch.rand(3, 3, 32, 32)
    together = model(images, cameras(3))
    for index in range(3):
        alone = model(images[index : index + 1], cameras(3)[index : index + 1])
        torch.testing.assert_close(together.vertices[index], alone.vertices[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.texture[index], alone.texture[0], rtol=1e-5, atol=1e-6)


def test_the_texture_head_turns_with_its_grid() -> None:
    """A head that wraps around in u commutes with a rotation of its coarse grid, so that no seam is special."""
    head = TextureHead(SMALL.features, 2 * SMALL.channels, SMALL.texture_size).eval()
    with torch.no_grad():
        head.colour.weight.normal_()
        code = torch.rand(1, SMALL.features)
        straight = head(code)
        grid = head.start.weight.unflatten(0, (-1, 8, 8)), head.start.bias.unflatten(0, (-1, 8, 8))
        head.start.weight.copy_(grid[0].roll(3, dims=2).flatten(0, 2))
        head.start.bias.copy_(grid[1].roll(3, dims=2).flatten())
        turned = head(code)
    assert (straight - straight.roll(12, dims=-1)).abs().max() > 0.05
    torch.testing.assert_close(turned, straight.roll(12, dims=-1), rtol=0, atol=1e-5)


def test_coarse_colours_go_around_without_a_seam() -> None:
    """Turned by a cell, they give the same texture turned; what is of one colour stays so."""
    coarse = torch.rand(1, 3, 8, 8)
    texture = enlarged(coarse, 32)
    torch.testing.assert_close(enlarged(coarse.roll(1, dims=3), 32), texture.roll(4, dims=3))
    assert coarse.min() <= texture.min() <= texture.max() <= coarse.max()
    flat = enlarged(torch.full((1, 3, 8, 8), 0.7), 64)
    torch.testing.assert_close(flat, torch.full((1, 3, 64, 64), 0.7))


@pytest.mark.parametrize("size", [16, 48, 64, 224])
def test_colours_are_read_at_every_image_size(size: int) -> None:
    config = dataclasses.replace(COLOURED, image_size=size)
    assert ImageToMesh(config)(torch.rand(1, 3, size, size)).texture.shape == (1, 3, 32, 32)


def test_colours_are_learned_from_few_images_with_their_code_and_not_without() -> None:
    """The mean of the texture is to be the colour of the picture: what norms take from the encoder."""
    errors = []
    for config in (SMALL, COLOURED):
        last = []
        torch.manual_seed(0)
        network = ImageToMesh(config)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(160):
            colours = torch.rand(8, 3, 1, 1)
            error = (network(colours.expand(-1, -1, 32, 32)).texture.mean(dim=(2, 3)) - colours[..., 0, 0]).abs().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            last.append(error.item())
        errors.append(sum(last[-20:]) / 20)
    assert errors[1] < 0.1 < errors[0], errors


def test_exports_with_a_dynamic_batch() -> None:
    model = ImageToMeshRenderer(ImageToMesh(SMALL)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        model,
        (torch.rand(2, 3, 32, 32), cameras(2)),
        dynamic_shapes={"image": {0: batch}, "world_to_clip": {0: batch}},
        strict=False,
    )
    inputs = torch.rand(5, 3, 32, 32), cameras(5)
    actual, expected = program.module()(*inputs), model(*inputs)
    assert torch.equal(actual.face_index, expected.face_index)
    torch.testing.assert_close(actual.image, expected.image, rtol=0, atol=1e-5)


def test_axes_of_lights_that_there_are_not_are_named() -> None:
    with pytest.raises(DibrError, match="light_axes must be camera or world, but is 'view'"):
        ModelConfig(light_axes="view")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 32, 64)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DibrError, match=r"image must have shape \[B, 3, 32, 32\]"):
        ImageToMesh(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("sizes", [{"image_size": 40}, {"image_size": 0}, {"texture_size": 48}, {"texture_size": 16}])
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, int]) -> None:
    ((name, value),) = sizes.items()
    with pytest.raises(DibrError, match=f"{name} must be .* but is {value}"):
        ModelConfig(**sizes)
