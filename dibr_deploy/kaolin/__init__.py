"""NVIDIA Kaolin's DIB-R interface over this renderer: ``import dibr_deploy.kaolin as kal`` for ``import kaolin``.

Names, arguments, defaults and return values are those of ``kaolin.render.mesh``, ``kaolin.render.camera`` and
``kaolin.metrics.render``, and of what kaolin's DIB-R tutorial uses besides. The parts have the paths that they have
there, and the functions of the renderer are names of this module too. Everything runs on the CPU as on CUDA.
docs/kaolin.md says where results differ.
"""

from __future__ import annotations

from . import io, metrics, ops, render, rep, visualize
from .metrics.render import mask_iou
from .render.camera import (
    generate_perspective_projection,
    generate_rotate_translate_matrices,
    generate_transformation_matrix,
    perspective_camera,
    rotate_translate_points,
)
from .render.mesh import (
    dibr_rasterization,
    dibr_soft_mask,
    prepare_vertices,
    rasterize,
    spherical_harmonic_lighting,
    texture_mapping,
)

__all__ = [
    "dibr_rasterization",
    "dibr_soft_mask",
    "generate_perspective_projection",
    "generate_rotate_translate_matrices",
    "generate_transformation_matrix",
    "io",
    "mask_iou",
    "metrics",
    "ops",
    "perspective_camera",
    "prepare_vertices",
    "rasterize",
    "render",
    "rep",
    "rotate_translate_points",
    "spherical_harmonic_lighting",
    "texture_mapping",
    "visualize",
]
