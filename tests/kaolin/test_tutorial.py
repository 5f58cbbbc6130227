"""What kaolin's DIB-R tutorial does, on the CPU: from views in its file format to a textured mesh.

The views are drawn by MeshRenderer with this package's cameras, so the run compares two ways to the same picture too.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import dibr_deploy.kaolin as kal
from dibr_deploy.cameras import orbit, perspective
from dibr_deploy.mesh import icosphere, read_mesh, spherical_uvs
from dibr_deploy.renderer import MeshRenderer, Rendering

SIZE, VIEWS, EPOCHS, BATCH = 48, 12, 60, 2
HELD_OUT = (3, 8)
ANGLE = 0.7


def target() -> tuple[Tensor, Tensor]:
    """An ellipsoid off the centre, and colours that vary smoothly over it."""
    sphere = icosphere(3)
    vertices = sphere.vertices * torch.tensor([0.5, 0.8, 0.6]) + torch.tensor([0.1, -0.05, 0.0])
    return vertices, 0.5 + 0.4 * torch.sin(3 * sphere.vertices)


def view(index: int) -> Tensor:
    return orbit(2 * math.pi * index / VIEWS, 0.5 * math.sin(index), 3.0)


def photograph(index: int) -> Rendering:
    vertices, colors = target()
    camera = (perspective(ANGLE) @ view(index))[None]
    return MeshRenderer(SIZE, SIZE)(vertices[None], icosphere(3).faces, camera, vertex_colors=colors[None])


def write_views(folder: Path) -> None:
    """As Omniverse Kaolin's data generator writes them."""
    folder.mkdir()
    for index in range(VIEWS):
        seen = photograph(index)
        Image.fromarray((seen.image[0] * 255).round().byte().numpy()).save(folder / f"{index}_rgb.png")
        np.save(folder / f"{index}_semantic.npy", (seen.face_index[0] >= 0).int().numpy()[..., None])
        camera = {
            "clipping_range": [0.1, 100.0],
            "focal_length": 1.0,
            "horizontal_aperture": 2 * math.tan(ANGLE / 2),
            "tf_mat": view(index).T.tolist(),
            "resolution": {"width": SIZE, "height": SIZE},
        }
        metadata = {"camera_properties": camera, "asset_transforms": [["asset", np.eye(4).tolist()]]}
        (folder / f"{index}_metadata.json").write_text(json.dumps(metadata))


def write_sphere(path: Path) -> None:
    """An OBJ file with one texture coordinate per corner across the seam, v = 0 at the bottom."""
    sphere = icosphere(2)
    uvs, uv_faces = spherical_uvs(sphere.vertices.double().numpy(), sphere.faces.numpy())
    lines = [f"v {x} {y} {z}" for x, y, z in sphere.vertices.tolist()]
    lines += [f"vt {u} {1 - v}" for u, v in np.clip(uvs, 0, 1).tolist()]
    for face, corners in zip((sphere.faces + 1).tolist(), (uv_faces + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{vertex}/{uv}" for vertex, uv in zip(face, corners, strict=True)))
    path.write_text("\n".join(lines))


class Fit:
    """The tutorial's cells; its learning rates are those of a run of a few seconds."""

    def __init__(self, folder: Path) -> None:
        write_views(folder / "views")
        write_sphere(folder / "sphere.obj")
        self.views = [
            kal.io.render.import_synthetic_view(folder / "views", index, rgb=True, semantic=True)
            for index in range(VIEWS)
        ]
        self.mesh = kal.io.obj.import_mesh(folder / "sphere.obj", with_materials=True).to_batched()
        self.mesh.vertices = self.mesh.vertices * 0.75
        self.start = self.mesh.vertices.clone()
        self.mesh.vertices.requires_grad_()
        self.shift = torch.zeros(3, requires_grad=True)
        self.texture = torch.ones(1, 3, 32, 32, requires_grad=True)
        self.laplacian = kal.ops.mesh.uniform_laplacian(self.start.shape[1], self.mesh.faces)
        self.timelapse = kal.visualize.Timelapse(folder / "logs")
        self.timelapse.add_mesh_batch(
            iteration=0,
            category="optimized_mesh",
            faces_list=[self.mesh.faces],
            uvs_list=[self.mesh.uvs[0]],
            face_uvs_idx_list=[self.mesh.face_uvs_idx[0]],
        )

    def placed(self) -> Tensor:
        return kal.ops.pointcloud.center_points(self.mesh.vertices) + self.shift

    def render(self, data: dict) -> tuple[Tensor, Tensor, Tensor]:
        batch = len(data["rgb"])
        metadata = data["metadata"]
        face_vertices_camera, face_vertices_image, face_normals = kal.render.mesh.prepare_vertices(
            self.placed().repeat(batch, 1, 1),
            self.mesh.faces,
            metadata["cam_proj"],
            camera_transform=metadata["cam_transform"],
        )
        face_attributes = [
            self.mesh.face_uvs.repeat(batch, 1, 1, 1),
            torch.ones(batch, len(self.mesh.faces), 3, 1),
        ]
        image_features, soft_mask, face_idx = kal.render.mesh.dibr_rasterization(
            SIZE,
            SIZE,
            face_vertices_camera[:, :, :, -1],
            face_vertices_image,
            face_attributes,
            face_normals[:, :, -1],
            rast_backend="cuda",
        )
        texture_coords, mask = image_features
        image = kal.render.mesh.texture_mapping(texture_coords, self.texture.repeat(batch, 1, 1, 1), mode="bilinear")
        return torch.clamp(image * mask, 0.0, 1.0), soft_mask, face_idx

    def optimize(self) -> None:
        shape = torch.optim.Adam([self.mesh.vertices, self.shift], lr=1e-2)
        colour = torch.optim.Adam([self.texture], lr=5e-2)
        training = [data for index, data in enumerate(self.views) if index not in HELD_OUT]
        loader = torch.utils.data.DataLoader(training, batch_size=BATCH, shuffle=True)
        scheduler = torch.optim.lr_scheduler.StepLR(shape, step_size=EPOCHS // 3, gamma=0.5)
        for _ in range(EPOCHS):
            for data in loader:
                shape.zero_grad()
                colour.zero_grad()
                image, soft_mask, _ = self.render(data)
                image_loss = torch.mean(torch.abs(image - data["rgb"]))
                mask_loss = kal.metrics.render.mask_iou(soft_mask, data["semantic"].squeeze(-1))
                moved = torch.matmul(self.laplacian, self.mesh.vertices - self.start)
                laplacian_loss = torch.mean(moved**2) * self.start.shape[1] * 3
                (0.1 * image_loss + mask_loss + 0.03 * laplacian_loss).backward()
                shape.step()
                colour.step()
            scheduler.step()
        material = {"rgb": kal.io.materials.PBRMaterial(diffuse_texture=self.texture[0].clamp(0, 1))}
        self.timelapse.add_mesh_batch(
            iteration=EPOCHS,
            category="optimized_mesh",
            vertices_list=[self.placed()[0]],
            materials_list=[material],
        )

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """Mask IoU and colour difference within the masks, on views that were not trained on."""
        data = torch.utils.data.default_collate([self.views[index] for index in HELD_OUT])
        image, _, face_idx = self.render(data)
        wanted, drawn = data["semantic"].squeeze(-1).bool(), face_idx >= 0
        both = wanted & drawn
        return float(both.sum() / (wanted | drawn).sum()), float((image - data["rgb"]).abs()[both].mean())


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    return Fit(tmp_path)


def test_the_tutorial_fits_shape_and_texture(fit: Fit, tmp_path: Path) -> None:
    before = fit.score()
    fit.optimize()
    after = fit.score()
    print(f"mask IoU and colour difference on held-out views: {before} before, {after} after")
    assert before[0] < 0.8
    assert before[1] > 0.3
    assert after[0] > 0.94
    assert after[1] < 0.05
    mesh = read_mesh(tmp_path / "logs" / "optimized_mesh" / f"mesh_0_{EPOCHS}.glb")
    assert (len(mesh.faces), tuple(mesh.texture.shape)) == (320, (3, 32, 32))


def test_both_ways_to_a_picture_agree(fit: Fit) -> None:
    """The target through kaolin's functions and through MeshRenderer: the same pixels are covered.

    Colours differ: kaolin's are linear in the image, MeshRenderer's perspective-correct.
    """
    vertices, colors = target()
    faces = icosphere(3).faces
    data = torch.utils.data.default_collate(fit.views)["metadata"]
    by_face, in_image, normals = kal.render.mesh.prepare_vertices(
        vertices.expand(VIEWS, -1, -1), faces, data["cam_proj"], camera_transform=data["cam_transform"]
    )
    features = kal.ops.mesh.index_vertices_by_faces(colors.expand(VIEWS, -1, -1), faces)
    image, mask, index = kal.render.mesh.dibr_rasterization(
        SIZE, SIZE, by_face[..., 2], in_image, features, normals[..., 2]
    )
    for view_index in range(VIEWS):
        seen = photograph(view_index)
        assert (index[view_index] != seen.face_index[0]).float().mean() < 1e-3
        agree = (index[view_index] == seen.face_index[0]) & (index[view_index] >= 0)
        assert (image[view_index] - seen.image[0])[agree].abs().max() < 5e-3
        torch.testing.assert_close(mask[view_index], seen.mask[0], rtol=0, atol=1e-3)
