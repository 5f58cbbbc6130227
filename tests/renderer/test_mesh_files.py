"""Meshes through files and back, and files that are no meshes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_meshes import box, cube

from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import Mesh, icosphere, read_mesh, write_mesh


def triangles(mesh: Mesh) -> torch.Tensor:
    """The corners of all faces, [F, 3, 3], whatever the vertices' order."""
    return mesh.vertices[mesh.faces]


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".stl", ".off"])
def test_geometry_survives_every_format(suffix: str, tmp_path: Path) -> None:
    sphere = icosphere(1)
    write_mesh(Mesh(sphere.vertices, sphere.faces), tmp_path / f"mesh{suffix}")
    again = read_mesh(tmp_path / f"mesh{suffix}")
    torch.testing.assert_close(triangles(again), triangles(sphere), rtol=0, atol=1e-6)
    assert len(again.vertices) == len(sphere.vertices)
    assert again.uvs is None
    assert again.texture is None
    assert again.vertex_colors is None


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_vertex_colors_survive(suffix: str, tmp_path: Path) -> None:
    write_mesh(box(), tmp_path / f"mesh{suffix}")
    again = read_mesh(tmp_path / f"mesh{suffix}")
    assert again.vertex_colors is not None
    torch.testing.assert_close(again.vertex_colors, torch.tensor([0.1, 0.2, 0.9]).expand(8, 3), rtol=0, atol=1 / 255)


def test_texture_and_seam_survive_in_a_glb(tmp_path: Path) -> None:
    sphere, texture = icosphere(1), torch.rand(3, 32, 64)
    write_mesh(Mesh(sphere.vertices, sphere.faces, sphere.uvs, sphere.uv_faces, texture), tmp_path / "mesh.glb")
    again = read_mesh(tmp_path / "mesh.glb")
    assert again.texture is not None
    assert again.uvs is not None
    assert again.uv_faces is not None
    assert sphere.uvs is not None
    assert sphere.uv_faces is not None
    torch.testing.assert_close(again.texture, texture, rtol=0, atol=1 / 255)
    torch.testing.assert_close(again.uvs[again.uv_faces], sphere.uvs[sphere.uv_faces], rtol=0, atol=1e-5)
    torch.testing.assert_close(triangles(again), triangles(sphere), rtol=0, atol=1e-6)
    assert len(again.vertices) == len(sphere.vertices)


def write_textured_square(folder: Path) -> Path:
    """An OBJ as other programs write it: vt (0, 0) is the lower left corner of the picture, whose upper left is red."""
    picture = np.zeros((2, 2, 3), dtype=np.uint8)
    picture[0, 0] = [255, 0, 0]
    Image.fromarray(picture).save(folder / "picture.png")
    (folder / "square.mtl").write_text("newmtl painted\nmap_Kd picture.png\n")
    (folder / "square.obj").write_text(
        "mtllib square.mtl\nv 0 1 0\nv 0 0 0\nv 1 0 0\nv 1 1 0\nvt 0 1\nvt 0 0\nvt 1 0\nvt 1 1\n"
        "usemtl painted\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    return folder / "square.obj"


def test_an_obj_shows_its_picture_upright(tmp_path: Path) -> None:
    square = read_mesh(write_textured_square(tmp_path))
    assert square.texture is not None
    assert square.uvs is not None
    assert square.uv_faces is not None
    assert square.texture[:, 0, 0].tolist() == [1.0, 0.0, 0.0]
    upper_left = (square.vertices[square.faces] == torch.tensor([0.0, 1.0, 0.0])).all(dim=-1)
    assert torch.equal(square.uvs[square.uv_faces][upper_left], torch.zeros(2, 2))


def test_vertices_split_by_uv_are_one_again(tmp_path: Path) -> None:
    """Two faces that meet at an edge with different texture coordinates share its vertices."""
    path = write_textured_square(tmp_path)
    path.write_text(path.read_text().replace("f 1/1 3/3 4/4", "f 1/2 3/4 4/4"))
    square = read_mesh(path)
    assert square.uvs is not None
    assert (len(square.vertices), len(square.uvs)) == (4, 6)


def test_a_picture_that_is_not_there_leaves_the_materials_color(tmp_path: Path) -> None:
    path = write_textured_square(tmp_path)
    (tmp_path / "picture.png").unlink()
    (tmp_path / "square.mtl").write_text("newmtl painted\nKd 0.2 0.4 0.6\nmap_Kd picture.png\n")
    square = read_mesh(path)
    assert square.texture is None
    assert square.vertex_colors is not None
    torch.testing.assert_close(square.vertex_colors[0], torch.tensor([0.2, 0.4, 0.6]), rtol=0, atol=1 / 255)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("suffix", [".ply", ".glb", ".stl", ".off"])
def test_a_file_that_is_cut_off_is_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"mesh{suffix}"
    write_mesh(icosphere(2), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DibrError, match=f"mesh file .*mesh{suffix} is cut off"):
        read_mesh(path)


@pytest.mark.parametrize("encoding", ["ply", "stl"])
def test_a_text_file_that_is_cut_off_is_refused(encoding: str, tmp_path: Path) -> None:
    import trimesh

    mesh = trimesh.Trimesh(*(part.numpy() for part in (cube().vertices, cube().faces)))
    text = mesh.export(file_type="stl_ascii") if encoding == "stl" else mesh.export(file_type="ply", encoding="ascii")
    path = tmp_path / f"mesh.{encoding}"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert len(read_mesh(path).faces) == 12
    path.write_bytes(path.read_bytes().rsplit(b"\n", 4)[0])
    with pytest.raises(DibrError, match="is cut off"):
        read_mesh(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2", "cut off"),
        ("v 0 0 0\nv 1 0 0\nf 1 2 3\n", "cut off"),
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "not finite"),
    ],
)
def test_an_obj_that_is_no_mesh_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text(text)
    with pytest.raises(DibrError, match=f"mesh file .*mesh.obj .*{says}"):
        read_mesh(path)


def test_missing_files_and_unknown_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=r"nothing\.ply does not exist"):
        read_mesh(tmp_path / "nothing.ply")
    for refuse in (lambda: read_mesh(tmp_path / "mesh.doc"), lambda: write_mesh(cube(), tmp_path / "mesh.doc")):
        with pytest.raises(DibrError, match=r"mesh\.doc must end in one of \.obj"):
            refuse()


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DibrError, match=r"folder .* does not exist"):
        write_mesh(cube(), tmp_path / "missing" / "mesh.ply")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_mesh(cube(), tmp_path / "mesh.ply")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vertices": torch.zeros(42, 4)}, r"vertices must have shape \[42, 3\], but has \[42, 4\]"),
        ({"faces": torch.zeros(80, 2)}, r"faces must have shape \[80, 3\], but has \[80, 2\]"),
        ({"vertex_colors": torch.zeros(41, 3)}, r"vertex_colors must have shape \[42, 3\], but has \[41, 3\]"),
        ({"uv_faces": torch.zeros(79, 3)}, r"uv_faces must have shape \[80, 3\], but has \[79, 3\]"),
        ({"texture": torch.zeros(8, 8, 3)}, r"texture must have shape \[3, any, any\], but has \[8, 8, 3\]"),
    ],
)
def test_tensors_that_do_not_fit_together_are_named(changes: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(DibrError, match=f"the mesh's {says}"):
        write_mesh(dataclasses.replace(icosphere(1), **changes), tmp_path / "mesh.glb")
    assert list(tmp_path.iterdir()) == []
