"""The files that kaolin's DIB-R tutorial reads and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dibr_deploy.kaolin as kal
from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import read_mesh

OBJ = """# a comment
v 0 0 0
v 1 0 0 0.5
vt 0 0
v 0 1 0
vt 0.25 1
vn 0 0 1
f 1/1/1 2/2/1 3/1/1
f -1/-1 -2/-2 -3/-2
"""


def test_an_obj_file_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text(OBJ)
    mesh = kal.io.obj.import_mesh(path, with_materials=True)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [2, 1, 0]]
    assert mesh.uvs.tolist() == [[0, 0], [0.25, 1]]
    assert mesh.face_uvs_idx.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert mesh.face_uvs[0].tolist() == [[0, 0], [0.25, 1], [0, 0]]
    batched = mesh.to_batched()
    assert (batched.vertices.shape, batched.faces.shape, batched.face_uvs.shape) == ((1, 3, 3), (2, 3), (1, 2, 3, 2))
    assert torch.equal(batched.to_batched().cpu().face_uvs[0], mesh.face_uvs)


def test_an_obj_file_without_texture_coordinates(tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    mesh = kal.io.obj.import_mesh(tmp_path / "mesh.obj")
    assert mesh.uvs is None and mesh.face_uvs_idx is None
    with pytest.raises(DibrError, match="no texture coordinates"):
        _ = mesh.face_uvs


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("v 0 0 x\n", "line 1: could not convert"),
        ("v 0 0 0\nf 1 1 1 1\n", "line 2: faces must be triangles, but this has 4"),
        ("v 0 0 0\nf 1 1 2\n", "that are not there"),
        ("v 0 0 0\nf 0 1 1\n", "that are not there"),
        ("v 0 0 0\nf a b c\n", "invalid literal"),
    ],
)
def test_a_damaged_obj_file_is_named(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mesh.obj").write_text(content)
    with pytest.raises(DibrError, match=f"mesh.obj.*{says}"):
        kal.io.obj.import_mesh(tmp_path / "mesh.obj")
    with pytest.raises(FileNotFoundError, match=r"nothing\.obj does not exist"):
        kal.io.obj.import_mesh(tmp_path / "nothing.obj")


def test_a_synthetic_view(tmp_path: Path) -> None:
    """90 degrees across an aperture of 2 at focal length 1; what has no file is None."""
    Image.fromarray(np.full((4, 8, 4), [255, 0, 51, 255], dtype=np.uint8)).save(tmp_path / "3_rgb.png")
    np.save(tmp_path / "3_semantic.npy", np.arange(32).reshape(4, 8))
    camera = {
        "clipping_range": [0.1, 10],
        "horizontal_aperture": 2.0,
        "focal_length": 1.0,
        "tf_mat": np.arange(16).reshape(4, 4).tolist(),
        "resolution": {"width": 8, "height": 4},
    }
    box = {"x_min": 1.0, "x_max": 3.0}
    metadata = {
        "camera_properties": camera,
        "asset_transforms": [["name", np.eye(4).tolist()]],
        "bbox_2d_tight": box,
    }
    (tmp_path / "3_metadata.json").write_text(json.dumps(metadata))
    view = kal.io.render.import_synthetic_view(tmp_path, 3, semantic=True, depth_linear=True)
    assert list(view) == ["rgb", "depth_linear", "semantic", "metadata"]
    torch.testing.assert_close(view["rgb"], torch.tensor([1.0, 0.0, 0.2]).expand(4, 8, 3))
    assert view["depth_linear"] is None
    assert view["semantic"].tolist() == np.arange(32).reshape(4, 8).tolist()
    assert view["metadata"]["cam_transform"].tolist() == [[0, 1, 2], [4, 5, 6], [8, 9, 10], [12, 13, 14]]
    torch.testing.assert_close(view["metadata"]["cam_proj"], torch.tensor([[0.5], [1.0], [-1.0]]))
    assert view["metadata"]["clipping_range"] == [0.1, 10]
    boxed = kal.io.render.import_synthetic_view(tmp_path, 3, rgb=False, bbox_2d_tight=True, bbox_2d_loose=False)
    assert list(boxed) == ["metadata", "bbox_2d_tight"]
    assert boxed["bbox_2d_tight"] == box
    with pytest.raises(FileNotFoundError):
        kal.io.render.import_synthetic_view(tmp_path, 4)


def test_a_timelapse_remembers_the_topology(tmp_path: Path) -> None:
    """One file for each iteration with vertices; v is turned, so that the texture is the right way up."""
    timelapse = kal.visualize.Timelapse(tmp_path / "logs")
    faces, uvs = torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    timelapse.add_mesh_batch(0, "fit", faces_list=[faces], uvs_list=[uvs], face_uvs_idx_list=[faces])
    assert list((tmp_path / "logs" / "fit").iterdir()) == []
    texture = torch.zeros(3, 4, 4)
    texture[0, 0] = 1
    material = {"rgb": kal.io.materials.PBRMaterial(diffuse_texture=texture)}
    for iteration in (1, 2):
        vertices = torch.eye(3) * iteration
        timelapse.add_mesh_batch(iteration, "fit", vertices_list=[vertices], materials_list=[material])
    files = sorted(file.name for file in (tmp_path / "logs" / "fit").iterdir())
    assert files == ["mesh_0_1.glb", "mesh_0_2.glb"]
    mesh = read_mesh(tmp_path / "logs" / "fit" / "mesh_0_2.glb")
    torch.testing.assert_close(mesh.vertices.sum(dim=0), torch.full((3,), 2.0))
    torch.testing.assert_close(mesh.texture, texture)
    corner = int(mesh.vertices[mesh.faces[0]].argmax(dim=1).tolist().index(2))
    torch.testing.assert_close(mesh.uvs[mesh.uv_faces[0, corner]], torch.tensor([0.0, 0.0]))
    with pytest.raises(DibrError, match="lists of one length"):
        timelapse.add_mesh_batch(3, vertices_list=[vertices], faces_list=[])
    with pytest.raises(DibrError, match="but got lengths none"):
        timelapse.add_mesh_batch(3)
