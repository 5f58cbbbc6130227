"""White light of two parts: ambient, the same from everywhere, and directional, from infinitely far away.

A light is a tensor ``[B, 4]`` = (ambient, x, y, z): the ambient intensity, then the vector in world space that points
*towards* the directional source and whose length is its intensity. Linear in every entry, so that a network can
predict it and an ONNX graph can carry it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import DibrError


def make_light(
    ambient: float | Tensor, direction: tuple[float, float, float] | Tensor, intensity: float | Tensor
) -> Tensor:
    """Packs a light.

    Args:
        ambient: intensity of the ambient part, [B] or a number.
        direction: towards the source, world space, any length but zero, [B, 3] or three numbers.
        intensity: of the directional part, [B] or a number.

    Returns:
        [B, 4]; B = 1 where only numbers came.

    Raises:
        DibrError: the direction has length zero.
    """
    towards = direction if isinstance(direction, Tensor) else torch.tensor(direction, dtype=torch.get_default_dtype())
    towards = towards.reshape(-1, 3)
    length = torch.linalg.vector_norm(towards, dim=-1, keepdim=True)
    if not torch.compiler.is_compiling() and bool((length == 0).any()):
        raise DibrError("direction of a light must not be the zero vector")
    factors = (torch.as_tensor(value, dtype=towards.dtype, device=towards.device) for value in (ambient, intensity))
    ambient_part, strength = (factor.reshape(-1, 1) for factor in factors)
    source = towards / length * strength
    batch = max(len(ambient_part), len(source))
    return torch.cat([ambient_part.expand(batch, 1), source.expand(batch, 3)], dim=-1)


def lambert(normals: Tensor, light: Tensor) -> Tensor:
    """Lambert's cosine law: ambient + max(0, normal . source), white.

    Args:
        normals: unit vectors in world space, [B, ..., 3].
        light: [B or 1, 4] as in the head of this module.

    Returns:
        The factor on the surface's own colour, [B, ..., 1], differentiable in both.
    """
    shape = [light.shape[0]] + [1] * (normals.dim() - 2)
    ambient = light[:, 0].reshape([*shape, 1])
    source = light[:, 1:].reshape([*shape, 3])
    return ambient + (normals * source).sum(dim=-1, keepdim=True).clamp(min=0)
