"""ResNet-18 (He et al., Deep Residual Learning for Image Recognition, 2016), with the parameter names of torchvision.

Batch statistics would make a step depend on how a batch is shared between processes. So the norms are either group
norms, or batch norms whose statistics and factors stay as they are, which is what pretrained weights need.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DibrError

Norm = Literal["group", "frozen_batch"]

WIDTH = 512
"""Length of what ResNet18 returns."""
_GROUPS = 32
_CLASSIFIER = ("fc.weight", "fc.bias")


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm that is never trained: its statistics and factors change by load_state_dict alone."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stays in evaluation mode."""
        super().train(False)
        return self


class ResNet18(nn.Module):
    """[B, 3, H, W] -> [B, 512]: without the classifier.

    Args:
        norm: "group" (32 groups) or "frozen_batch".
    """

    def __init__(self, norm: Norm = "group") -> None:
        super().__init__()
        make = _norms(norm)
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), make(64)
        self.layer1 = _stage(64, 64, 1, make)
        self.layer2 = _stage(64, 128, 2, make)
        self.layer3 = _stage(128, 256, 2, make)
        self.layer4 = _stage(256, WIDTH, 2, make)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, before: int, after: int, stride: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), make(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), make(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), make(after))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + (x if self.downsample is None else self.downsample(x)))


def _stage(before: int, after: int, stride: int, make: Callable[[int], nn.Module]) -> nn.Sequential:
    return nn.Sequential(_Block(before, after, stride, make), _Block(after, after, 1, make))


def _norms(norm: Norm) -> Callable[[int], nn.Module]:
    if norm == "group":
        return lambda channels: nn.GroupNorm(_GROUPS, channels)
    if norm == "frozen_batch":
        return FrozenBatchNorm
    raise DibrError(f"norm must be group or frozen_batch, got {norm!r}")


def pretrained_weights(source: str) -> dict[str, Tensor]:
    """Weights of ResNet-18, trained on ImageNet, for a ``ResNet18("frozen_batch")``.

    Args:
        source: "torchvision" or "timm", which download them; or a file with a state dict, as both of them keep it.

    Raises:
        DibrError: the library is not installed or cannot be imported, the file is not there, or what it holds is not
            a ResNet-18.
    """
    weights = _LOAD[source]() if source in _LOAD else _from_file(Path(source))
    weights = {name: value for name, value in weights.items() if name not in _CLASSIFIER}
    wanted = ResNet18("frozen_batch").state_dict()
    for name, value in wanted.items():
        if name not in weights or weights[name].shape != value.shape:
            raise DibrError(f"weights of {source} are not those of a ResNet-18: {name} is not {list(value.shape)}")
    return {name: weights[name] for name in wanted}


def _from_torchvision() -> dict[str, Tensor]:
    models = _imported("torchvision.models")
    return models.resnet18(weights="IMAGENET1K_V1").state_dict()


def _from_timm() -> dict[str, Tensor]:
    return _imported("timm").create_model("resnet18", pretrained=True).state_dict()


def _imported(module: str) -> Any:
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == package:
            raise DibrError(
                f"pretrained weights of {package} need the package, which is not installed: "
                f"pip install 'dibr_deploy[{package}]'"
            ) from error
        raise DibrError(f"{package} cannot be imported: {error}") from error
    except (ImportError, RuntimeError, OSError) as error:  # built for another torch
        raise DibrError(f"{package} cannot be imported beside torch {torch.__version__}: {error}") from error


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DibrError(f"pretrained must be torchvision, timm or a file of weights, but {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise DibrError(f"{path} is cut off or holds no weights") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DibrError(f"{path} holds no weights by name")
    return content


_LOAD: dict[str, Callable[[], dict[str, Tensor]]] = {"torchvision": _from_torchvision, "timm": _from_timm}
