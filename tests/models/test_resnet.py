"""ResNet-18 as an encoder: the published network, pretrained weights by their names, norms that see no batch."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dibr_deploy.errors import DibrError
from dibr_deploy.models import ImageToMesh, ModelConfig
from dibr_deploy.models.resnet import FrozenBatchNorm, ResNet18, pretrained_weights

SMALL = {"image_size": 32, "subdivisions": 1, "texture_size": 32, "channels": 8, "features": 32}
PUBLISHED = 11_689_512
"""Parameters of torchvision's resnet18, of which the classifier has 512 x 1000 and 1000."""


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Of a whole ResNet-18 with its classifier, drawn at random."""
    torch.manual_seed(0)
    network = ResNet18("frozen_batch")
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "bn1.weight", "bn2.weight", "downsample.1.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.2)
    return {**network.state_dict(), "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}


def resnet18(weights: dict[str, Tensor], image: Tensor) -> Tensor:
    """He et al. 2016, table 1 and figure 5, read from weights by their names in torchvision; up to the pooling."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, factor, offset = (
            weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * factor + offset

    def convolved(x: Tensor, name: str, norm_name: str, stride: int, padding: int) -> Tensor:
        return norm(F.conv2d(x, weights[f"{name}.weight"], stride=stride, padding=padding), norm_name)

    x = F.max_pool2d(F.relu(convolved(image, "conv1", "bn1", 2, 3)), 3, 2, 1)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            inner = F.relu(convolved(x, f"{name}.conv1", f"{name}.bn1", stride, 1))
            inner = convolved(inner, f"{name}.conv2", f"{name}.bn2", 1, 1)
            if stride == 2:
                x = convolved(x, f"{name}.downsample.0", f"{name}.downsample.1", stride, 0)
            x = F.relu(inner + x)
    return x.flatten(2).mean(dim=2)


def test_it_is_the_published_network(weights: dict[str, Tensor]) -> None:
    network = ResNet18("frozen_batch")
    assert sum(parameter.numel() for parameter in network.parameters()) == PUBLISHED - 512 * 1000 - 1000
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith("fc.")})
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), resnet18(weights, image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_in_training_too_an_image_does_not_see_its_batch(norm: str) -> None:
    """So that processes which share a batch train as one."""
    torch.manual_seed(0)
    network = ImageToMesh(ModelConfig(**SMALL, encoder="resnet18", norm=norm)).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    images = torch.rand(3, 3, 32, 32)
    together = network(images)
    for index in range(3):
        alone = network(images[index : index + 1])
        torch.testing.assert_close(together.texture[index], alone.texture[0], rtol=1e-4, atol=1e-5)
    for name, value in network.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_all_but_frozen_norms_learn(norm: str) -> None:
    network = ImageToMesh(ModelConfig(**SMALL, encoder="resnet18", norm=norm)).train()
    prediction = network(torch.rand(2, 3, 32, 32))
    (prediction.vertices.square().sum() + prediction.texture.sum() + prediction.light.sum()).backward()
    frozen = [module for module in network.modules() if isinstance(module, FrozenBatchNorm)]
    assert len(frozen) == (20 if norm == "frozen_batch" else 0)
    still = {id(parameter) for module in frozen for parameter in module.parameters()}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in still), name
        assert parameter.grad is None or parameter.grad.abs().max() > 0, name


@pytest.fixture
def libraries(weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """torchvision and timm as far as they are asked; what they are asked for."""
    asked: list[str] = []

    class Whole(torch.nn.Module):
        def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
            return weights

    def resnet18(*, weights: str) -> Whole:
        asked.append(f"torchvision {weights}")
        return Whole()

    def create_model(name: str, *, pretrained: bool) -> Whole:
        asked.append(f"timm {name} {pretrained}")
        return Whole()

    models = types.SimpleNamespace(resnet18=resnet18)
    for name, module in {
        "torchvision": types.SimpleNamespace(models=models),
        "torchvision.models": models,
        "timm": types.SimpleNamespace(create_model=create_model),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    return asked


@pytest.mark.parametrize("source", ["torchvision", "timm", "file"])
def test_pretrained_weights_arrive(
    source: str, weights: dict[str, Tensor], libraries: list[str], tmp_path: Path
) -> None:
    torch.save(weights, tmp_path / "resnet18.pth")
    network = ImageToMesh(ModelConfig(**SMALL, encoder="resnet18", norm="frozen_batch"))
    network.load_pretrained(str(tmp_path / "resnet18.pth") if source == "file" else source)
    assert libraries == {"torchvision": ["torchvision IMAGENET1K_V1"], "timm": ["timm resnet18 True"]}.get(source, [])
    image = torch.rand(1, 3, 32, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (image - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    with torch.no_grad():
        code = network.encoder[:2](image * 2 - 1)
        torch.testing.assert_close(code, resnet18(weights, normalized), rtol=1e-4, atol=1e-4)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(DibrError, match=rf"{name} .*not installed: pip install 'dibr_deploy\[{name}\]'"):
            pretrained_weights(name)


def test_a_library_for_another_torch_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DibrError, match=r"torchvision cannot be imported beside torch .*: operator torchvision::nms"):
        pretrained_weights("torchvision")


def test_files_without_a_resnet_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    with pytest.raises(DibrError, match=r"must be torchvision, timm or a file of weights, but .*none\.pth does not"):
        pretrained_weights(str(tmp_path / "none.pth"))
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(DibrError, match=r"cut\.pth is cut off or holds no weights"):
        pretrained_weights(str(tmp_path / "cut.pth"))
    torch.save({**weights, "layer3.0.bn1.bias": torch.zeros(3)}, tmp_path / "wide.pth")
    with pytest.raises(DibrError, match=r"are not those of a ResNet-18: layer3\.0\.bn1\.bias is not \[256\]"):
        pretrained_weights(str(tmp_path / "wide.pth"))


def test_pretrained_weights_need_their_encoder() -> None:
    for config in (ModelConfig(**SMALL), ModelConfig(**SMALL, encoder="resnet18")):
        with pytest.raises(DibrError, match="for the encoder resnet18 with the norm frozen_batch, but these are"):
            ImageToMesh(config).load_pretrained("torchvision")
    with pytest.raises(DibrError, match="encoder must be convolution or resnet18, but is 'vgg'"):
        ModelConfig(encoder="vgg")  # type: ignore[arg-type]
