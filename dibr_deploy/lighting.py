"""How light meets a surface: Lambert's cosine law, Phong's model and spherical harmonics.

A lit image is ``light_diffuse * albedo + light_specular`` (Chen et al. 2019, section 3.3). The functions of this module
give the two factors; they take unit normals at vertices [B, V, 3] or at pixels [B, H, W, 3] alike, and are
differentiable in every tensor. Colours are linear; nothing is clamped to 1.

A light is either a tensor ``[B, 4]`` = (ambient, x, y, z), white: the ambient intensity, then the vector in world space
that points *towards* the directional source and whose length is its intensity, linear in every entry, so that a network
can predict it and an ONNX graph can carry it; or a :class:`DirectionalLight` with colours; or nine coefficients of
spherical harmonics for light from everywhere.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DibrError
from .mesh import unit


class DirectionalLight(NamedTuple):
    """Light from infinitely far away, with a colour, and ambient light, the same from everywhere."""

    direction: Tensor
    """[B or 1, 3], towards the source in world space, any length but zero: the length has no meaning."""
    color: Tensor
    """[B or 1, C] of the directional part, C = 1 for white or as many as the image has channels."""
    ambient: Tensor
    """[B or 1, C] of the ambient part."""


class Phong(NamedTuple):
    """What Phong's model knows of a surface. Numbers, or tensors [], [B or 1] or [B or 1, C]."""

    specular: float | Tensor
    """k_s, how strongly the source is mirrored."""
    shininess: float | Tensor
    """alpha, > 0: the higher, the smaller the highlight. One number per image, so not [B, C]."""
    diffuse: float | Tensor = 1.0
    """k_d, the factor on the directional part of the diffuse light."""


def make_light(
    ambient: float | Tensor, direction: tuple[float, float, float] | Tensor, intensity: float | Tensor
) -> Tensor:
    """Packs a white light.

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


def lambert(normals: Tensor, light: Tensor | DirectionalLight) -> Tensor:
    """Lambert's cosine law: ``ambient + color * max(0, normal . direction)``.

    Args:
        normals: unit vectors in world space, [B, ..., 3].
        light: [B or 1, 4] as in the head of this module, or a DirectionalLight.

    Returns:
        light_diffuse, the factor on the surface's own colour, [B, ..., 1] or [B, ..., C].
    """
    if isinstance(light, DirectionalLight):
        ambient, color = (_over(part, normals) for part in (light.ambient, light.color))
        return ambient + color * _cosine(normals, unit(_over(light.direction, normals))).clamp(min=0)
    shape = [light.shape[0]] + [1] * (normals.dim() - 2)
    ambient = light[:, 0].reshape([*shape, 1])
    source = light[:, 1:].reshape([*shape, 3])
    return ambient + (normals * source).sum(dim=-1, keepdim=True).clamp(min=0)


def phong(
    normals: Tensor, to_viewer: Tensor, light: Tensor | DirectionalLight, material: Phong
) -> tuple[Tensor, Tensor]:
    """Phong's model (Phong 1975), the two terms apart.

    With n the normal, l the unit vector towards the source, v that towards the viewer and r = 2 (n . l) n - l:

        light_diffuse  = ambient + k_d color max(0, n . l)
        light_specular = k_s color max(0, r . v)^alpha       where n . l > 0, else 0

    Args:
        normals, to_viewer: unit vectors in world space, [B, ..., 3].
        light: as in :func:`lambert`. The length of the vector in a [B, 4] is the colour of its source.
        material: k_s, alpha and k_d.

    Returns:
        light_diffuse and light_specular, [B, ..., 1] or [B, ..., C] each.
    """
    light = light if isinstance(light, DirectionalLight) else _with_color(light)
    direction, color, ambient = (_over(part, normals) for part in (unit(light.direction), light.color, light.ambient))
    k_s, alpha, k_d = (
        _over(_per_image(value, normals), normals)
        for value in (material.specular, material.shininess, material.diffuse)
    )
    cosine = _cosine(normals, direction)
    mirrored = _cosine(2 * cosine * normals - direction, to_viewer)
    lit = (cosine > 0) & (mirrored > 0)
    # Where nothing is mirrored the power is taken of 1: at 0 its derivative is infinite for alpha < 1.
    highlight = torch.where(lit, torch.where(lit, mirrored, 1.0).pow(alpha), 0.0)
    return ambient + k_d * color * cosine.clamp(min=0), k_s * color * highlight


# The constants of the real, orthonormal spherical harmonics up to degree 2.
_Y0 = 0.5 * math.sqrt(1 / math.pi)
_Y1 = 0.5 * math.sqrt(3 / math.pi)
_Y2 = 0.5 * math.sqrt(15 / math.pi)
_Y20 = 0.25 * math.sqrt(5 / math.pi)
_COSINE_LOBE = (1.0, *[2 / 3] * 3, *[1 / 4] * 5)


def harmonic_basis(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics of degree 0 to 2 (Ramamoorthi and Hanrahan 2001, equation 3).

    They are orthonormal over the sphere, without the Condon-Shortley sign. In this order (degree l, order m):

        (0, 0)  0.282095             (1,-1)  0.488603 y           (1, 0)  0.488603 z
        (1, 1)  0.488603 x           (2,-2)  1.092548 x y         (2,-1)  1.092548 y z
        (2, 0)  0.315392 (3 z^2 - 1) (2, 1)  1.092548 x z         (2, 2)  0.546274 (x^2 - y^2)

    Args:
        directions: unit vectors, [..., 3].

    Returns:
        [..., 9].
    """
    x, y, z = directions.unbind(dim=-1)
    degree_2 = [_Y2 * x * y, _Y2 * y * z, _Y20 * (3 * z * z - 1), _Y2 * x * z, 0.5 * _Y2 * (x * x - y * y)]
    return torch.stack([torch.full_like(x, _Y0), _Y1 * y, _Y1 * z, _Y1 * x, *degree_2], dim=-1)


def spherical_harmonics(normals: Tensor, coefficients: Tensor) -> Tensor:
    """Light from everywhere: the sum of coefficients times the basis at the normal (Chen et al. 2019, section 3.3).

    Args:
        normals: unit vectors in world space, [B, ..., 3].
        coefficients: [B or 1, 9] for white or [B or 1, 9, C], in the order of :func:`harmonic_basis`.

    Returns:
        light_diffuse, [B, ..., 1] or [B, ..., C]; it may be negative where the coefficients say so.

    Raises:
        DibrError: coefficients of another shape.
    """
    white = coefficients.unsqueeze(-1) if coefficients.dim() == 2 else coefficients
    if white.dim() != 3 or white.shape[1] != 9:
        raise DibrError(f"coefficients must be [B or 1, 9] or [B or 1, 9, C], but is {list(coefficients.shape)}")
    basis = harmonic_basis(normals)
    return (basis.flatten(1, -2) @ white).unflatten(1, basis.shape[1:-1])


def irradiance_coefficients(radiance: Tensor) -> Tensor:
    """Coefficients of the light that falls in, [B, 9, ...], to those that :func:`spherical_harmonics` shades with.

    A surface that reflects evenly gathers the radiance over a half sphere, weighted with the cosine; in harmonics that
    is a factor A_l of each degree, pi, 2 pi / 3 and pi / 4, and it reflects albedo / pi of what it gathers (Ramamoorthi
    and Hanrahan 2001, section 2). The factors here are A_l / pi: where light 1 falls in from everywhere, light_diffuse
    is 1.
    """
    factors = torch.tensor(_COSINE_LOBE, dtype=radiance.dtype, device=radiance.device)
    return radiance * factors.reshape([9] + [1] * (radiance.dim() - 2))


def _with_color(light: Tensor) -> DirectionalLight:
    """A light [B, 4] as a DirectionalLight."""
    source = light[:, 1:]
    return DirectionalLight(source, torch.linalg.vector_norm(source, dim=-1, keepdim=True), light[:, :1])


def _per_image(value: float | Tensor, normals: Tensor) -> Tensor:
    """A number, [], [B], or [B, C] as [B or 1, C]."""
    tensor = torch.as_tensor(value, dtype=normals.dtype, device=normals.device)
    return tensor if tensor.dim() == 2 else tensor.reshape(-1, 1)


def _over(part: Tensor, normals: Tensor) -> Tensor:
    """[B or 1, C] as [B or 1, 1, ..., C], to go with normals [B, ..., 3]."""
    return part.reshape([part.shape[0]] + [1] * (normals.dim() - 2) + [part.shape[1]])


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(dim=-1, keepdim=True)
