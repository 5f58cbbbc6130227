"""Datasets rendered from meshes: pictures and cameras belong together, and a failure leaves nothing behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from small_meshes import box, egg, write_small_meshes
from torch import Tensor

from dibr_deploy.data import PosedImages, make_dataset
from dibr_deploy.data.make import camera_ring
from dibr_deploy.data.truth import lights_of, read_truth
from dibr_deploy.errors import DibrError
from dibr_deploy.mesh import Mesh, icosphere, normalize, read_mesh, write_mesh
from dibr_deploy.metrics import mask_iou
from dibr_deploy.renderer import MeshRenderer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("make")
    return make_dataset(write_small_meshes(folder / "meshes"), folder / "dataset", views=5, size=32)


def test_every_mesh_is_an_object_with_all_its_views(made: Path) -> None:
    data = PosedImages(made)
    assert {name: len(views) for name, views in data.views_of.items()} == {"box": 5, "egg": 5}
    assert (data.height, data.width) == (32, 32)


def test_masks_are_what_the_files_cameras_see(made: Path) -> None:
    """The mesh, rendered with the cameras that the loader made, covers the masks."""
    data = PosedImages(made)
    for name, mesh in (("egg", egg()), ("box", box())):
        views = data.views(data.views_of[name])
        colors = torch.ones(1, len(mesh.vertices), 3)
        rendering = MeshRenderer(32, 32)(
            normalize(mesh.vertices)[None], mesh.faces, views.world_to_clip, vertex_colors=colors
        )
        assert mask_iou((rendering.face_index >= 0).float(), views.mask).min() > 0.97


def test_vertex_colors_are_kept(made: Path) -> None:
    """Red stays the largest part of the egg's colour and blue of the box's, in any light."""
    data = PosedImages(made)
    for name, channel in (("egg", 0), ("box", 2)):
        views = data.views(data.views_of[name])
        inside = views.image.permute(0, 2, 3, 1)[views.mask == 1]
        assert bool((inside.argmax(dim=-1) == channel).all())


def test_the_object_fills_the_image_but_stays_inside(made: Path) -> None:
    masks = PosedImages(made).views(list(range(10))).mask
    assert masks[:, [0, -1]].max() == 0
    assert masks[:, :, [0, -1]].max() == 0
    assert masks.mean(dim=(1, 2)).min() > 0.1


def test_a_texture_is_kept(tmp_path: Path) -> None:
    """A sphere that is green above and black below."""
    sphere, texture = icosphere(2), torch.zeros(3, 32, 32)
    texture[1, :16] = 1
    write_mesh(Mesh(sphere.vertices, sphere.faces, sphere.uvs, sphere.uv_faces, texture), tmp_path / "ball.glb")
    data = PosedImages(make_dataset(tmp_path / "ball.glb", tmp_path / "dataset", views=2, size=32))
    for view in (data[0], data[1]):
        rows = (view.mask == 1).any(dim=1).nonzero().squeeze(1)
        top, bottom = (view.image[1, row][view.mask[row] == 1] for row in (rows[0], rows[-1]))
        assert top.min() > 0.4
        assert bottom.max() < 0.05


def test_meshes_without_colors_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "meshes" / "more").mkdir(parents=True)
    for name in ("one.stl", "more/two.stl"):
        write_mesh(Mesh(egg().vertices, egg().faces), tmp_path / "meshes" / name)
    data = PosedImages(make_dataset(tmp_path / "meshes", tmp_path / "dataset", views=1, size=16))
    assert list(data.views_of) == ["more_two", "one"]
    colors = [view.image[:, view.mask == 1].mean(dim=1) for view in (data[0], data[1])]
    assert (colors[0] - colors[1]).abs().max() > 0.05


def test_z_upwards_is_turned(tmp_path: Path) -> None:
    tall = Mesh(egg().vertices[:, [0, 2, 1]], egg().faces.flip(1), vertex_colors=egg().vertex_colors)
    write_mesh(egg(), tmp_path / "y.ply")
    write_mesh(tall, tmp_path / "z.ply")
    made = [
        PosedImages(make_dataset(tmp_path / f"{up}.ply", tmp_path / up, views=2, size=32, up=up))[0].mask
        for up in ("y", "z")
    ]
    heights = [mask.amax(dim=1).sum() / mask.amax(dim=0).sum() for mask in made]
    assert min(heights) > 1.3


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    write_mesh(egg(), tmp_path / "egg.ply")
    first, again, other = (
        {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (
            make_dataset(tmp_path / "egg.ply", tmp_path / name, views=2, size=16, seed=seed)
            for name, seed in (("first", 0), ("again", 0), ("other", 1))
        )
    )
    assert first == again
    assert first["transforms.json"] != other["transforms.json"]


@pytest.mark.parametrize(("lights", "ambient"), [("object", 0.6), ("view", 0.25)])
def test_pictures_have_the_lights_that_the_truth_says(lights: str, ambient: float, tmp_path: Path) -> None:
    """A grey ball is as bright in each picture as under the light that is recorded for it."""
    ball = icosphere(3)
    grey = torch.full_like(ball.vertices, 0.8)
    write_mesh(dataclasses.replace(ball, uvs=None, uv_faces=None, vertex_colors=grey), tmp_path / "ball.ply")
    made = {"lights": lights, "ambient": ambient, "with_truth": True}
    folder = make_dataset(tmp_path / "ball.ply", tmp_path / lights, views=9, size=32, **made)
    entry = read_truth(folder)["ball"]
    recorded = lights_of(entry, 9)
    assert recorded is not None
    assert len(recorded.unique(dim=0)) == (9 if lights == "view" else 1)
    assert recorded[:, 2].min() >= 0  # from above
    assert recorded[:, 0].tolist() == pytest.approx([ambient] * 9)
    assert recorded[:, 1:].norm(dim=1).tolist() == pytest.approx([1 - ambient] * 9)
    views = PosedImages(folder).views(list(range(9)))

    def differences(light: Tensor) -> Tensor:
        seen = MeshRenderer(32, 32)(
            ball.vertices[None], ball.faces, views.world_to_clip, vertex_colors=grey[None], light=light
        )
        inside = (views.mask == 1).unsqueeze(-1)
        difference = (seen.image - views.image.permute(0, 2, 3, 1)).abs()
        return (difference * inside).sum(dim=(1, 2, 3)) / (3 * inside.sum(dim=(1, 2, 3)))

    assert differences(recorded).max() < 0.01
    assert (differences(recorded.roll(1, dims=0)).max() > 0.03) == (lights == "view")


def test_truth_of_folders_with_one_light_is_read(tmp_path: Path) -> None:
    """As ``truth.json`` was written when all views of an object had the same light."""
    text = '{"duck": {"mesh": "truth/duck.glb", "light": [0.6, 0.4, 0, 0], "class_name": ""}, "egg": {"mesh": "e.glb"}}'
    (tmp_path / "truth.json").write_text(text)
    truth = read_truth(tmp_path)
    recorded = lights_of(truth["duck"], 3)
    assert recorded is not None
    assert recorded.tolist() == [[pytest.approx(0.6), pytest.approx(0.4), 0, 0]] * 3
    assert lights_of(truth["egg"], 3) is None
    (tmp_path / "truth.json").write_text(text.replace('"light": [0.6', '"lights": [[0.6').replace("0],", "0]],"))
    assert read_truth(tmp_path)["duck"] == truth["duck"]
    two = truth["duck"].model_copy(update={"lights": [[0.6, 0.4, 0, 0]] * 2})
    with pytest.raises(DibrError, match=r"truth of truth/duck.glb has 2 lights, but its object 3 views"):
        lights_of(two, 3)


def test_cameras_stand_all_around_and_at_many_heights() -> None:
    rotation = camera_ring(24)[:, :3, :3]
    eyes = 3 * rotation[:, 2]
    azimuth = torch.atan2(eyes[:, 0], eyes[:, 2]).sort().values
    gaps = torch.cat([azimuth, azimuth[:1] + 2 * torch.pi]).diff()
    assert gaps.max() < 4 * 2 * torch.pi / 24
    elevation = torch.rad2deg(torch.asin(eyes[:, 1] / 3))
    assert -20.01 < elevation.min() < -14
    assert 44 < elevation.max() < 50.01


def broken_mesh(folder: Path) -> Path:
    """A folder whose last mesh is cut off, so that the failure comes when others are rendered already."""
    meshes = write_small_meshes(folder / "meshes")
    content = (meshes / "egg.ply").read_bytes()
    (meshes / "zebra.ply").write_bytes(content[: len(content) // 2])
    return meshes


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    meshes = broken_mesh(tmp_path)
    with pytest.raises(DibrError, match=r"zebra\.ply is cut off"):
        make_dataset(meshes, tmp_path / "dataset", views=2, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["meshes"]


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    write_mesh(egg(), tmp_path / "egg.ply")
    flat = dataclasses.replace(egg(), vertices=torch.zeros_like(egg().vertices))
    write_mesh(flat, tmp_path / "point.ply")
    (tmp_path / "empty").mkdir()
    same = tmp_path / "same"
    same.mkdir()
    for suffix in (".ply", ".off"):
        write_mesh(egg(), same / f"egg{suffix}")
    cases = [
        ((tmp_path / "egg.ply", tmp_path / "out"), {"views": 0}, "views and size must be at least 1, but are 0"),
        ((tmp_path / "egg.ply", tmp_path / "out"), {"up": "x"}, "up must be 'y' or 'z', but is 'x'"),
        (
            (tmp_path / "egg.ply", tmp_path / "out"),
            {"lights": "all"},
            "lights must be 'object' or 'view', but is 'all'",
        ),
        (
            (tmp_path / "egg.ply", tmp_path / "out"),
            {"ambient": 1.0},
            "ambient must be at least 0 and below 1, but is 1.0",
        ),
        ((tmp_path / "egg.ply", same), {}, "output .*same exists already"),
        ((tmp_path / "nowhere", tmp_path / "out"), {}, "nowhere does not exist"),
        ((tmp_path / "empty", tmp_path / "out"), {}, "has no file that ends in one of"),
        ((same, tmp_path / "out"), {}, "would both be object egg"),
        ((tmp_path / "point.ply", tmp_path / "out"), {}, r"point\.ply cannot be scaled to unit size"),
    ]
    for arguments, options, says in cases:
        with pytest.raises(DibrError, match=says):
            make_dataset(*arguments, **options)
    assert not (tmp_path / "out").exists()


def test_the_mesh_itself_is_not_changed(made: Path) -> None:
    again = read_mesh(made.parent / "meshes" / "egg.ply")
    torch.testing.assert_close(again.vertices[again.faces], egg().vertices[egg().faces])
