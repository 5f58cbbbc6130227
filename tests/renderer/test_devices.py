"""What is computed lies where the arguments do: tables, losses, measures, fitted objects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from devices import MadeElsewhere
from torch import Tensor

from dibr_deploy import losses, metrics, points
from dibr_deploy.data.views import View
from dibr_deploy.evaluation import best_fixed_direction, fixed_shape_iou
from dibr_deploy.fitting import PARTS, Fit, FitSettings
from dibr_deploy.lighting import irradiance_coefficients
from dibr_deploy.mesh import Mesh, edge_faces, icosphere, unique_edges, vertex_face_table

SPHERE = icosphere(1)
VERTICES = SPHERE.vertices[None]
EDGES = unique_edges(SPHERE.faces)
IMAGE, OTHER = torch.rand(2, 2, 12, 12, 3).unbind()
MASK = torch.ones(2, 12, 12)
SOLIDS = torch.rand(3, 4, 4, 4) > 0.5
RANDOM = torch.Generator()

CALLS: dict[str, Callable[[], Tensor]] = {
    "vertex_face_table": lambda: vertex_face_table(SPHERE.faces, len(SPHERE.vertices)),
    "unique_edges": lambda: unique_edges(SPHERE.faces),
    "edge_faces": lambda: edge_faces(SPHERE.faces),
    "mask_iou_loss": lambda: losses.mask_iou_loss(MASK, MASK),
    "masked_l1_loss": lambda: losses.masked_l1_loss(IMAGE, OTHER, MASK),
    "shading_loss": lambda: losses.shading_loss(IMAGE, OTHER, MASK),
    "ssim_loss": lambda: losses.ssim_loss(IMAGE, OTHER),
    "perceptual_loss": lambda: losses.perceptual_loss(torch.sin, IMAGE, OTHER),
    "laplacian_loss": lambda: losses.laplacian_loss(VERTICES, EDGES),
    "flattening_loss": lambda: losses.flattening_loss(VERTICES, SPHERE.faces, edge_faces(SPHERE.faces)),
    "edge_length_loss": lambda: losses.edge_length_loss(VERTICES, EDGES, 0.1),
    "mask_iou": lambda: metrics.mask_iou(MASK, MASK),
    "voxel_iou": lambda: metrics.voxel_iou(SOLIDS, SOLIDS),
    "chamfer_distance": lambda: metrics.chamfer_distance(VERTICES, VERTICES + 0.1, squared=True),
    "f_score": lambda: metrics.f_score(VERTICES, VERTICES + 0.1, threshold=0.2),
    "texture_l1": lambda: metrics.texture_l1(IMAGE, OTHER),
    "light_angle": lambda: metrics.light_angle(VERTICES[0], VERTICES[0].flip(1)),
    "sample_surface": lambda: points.sample_surface(VERTICES, SPHERE.faces, 9, RANDOM.manual_seed(0)),
    "fixed_shape_iou": lambda: fixed_shape_iou(SOLIDS, SOLIDS),
    "best_fixed_direction": lambda: best_fixed_direction(VERTICES[0]),
    "irradiance_coefficients": lambda: irradiance_coefficients(torch.ones(1, 9)),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_made_on_another_device(name: str) -> None:
    expected = CALLS[name]()
    with MadeElsewhere():
        actual = CALLS[name]()
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("mesh", [None, Mesh(SPHERE.vertices, SPHERE.faces)], ids=["texture", "vertex colours"])
def test_an_object_is_fitted_where_its_views_lie(mesh: Mesh | None) -> None:
    """Whatever device the mesh and the light come from; "meta" has shapes and no values."""
    views = View(*(torch.ones(shape, device="meta") for shape in ((2, 3, 16, 16), (2, 16, 16), (2, 4, 4))))
    for light in (None, torch.ones(1, 4)):
        fit = Fit(views, mesh, FitSettings(parts=PARTS), light=light)
        free = (fit.vertices, fit.colors(), fit.light, fit.motion)
        assert all(part is not None and part.device.type == "meta" for part in free)
        for part in (fit.vertices, fit.motion):
            part.requires_grad_()
        loss = fit._loss()[0]
        loss.backward()
        assert loss.device.type == fit.vertices.grad.device.type == fit.iou().device.type == "meta"
