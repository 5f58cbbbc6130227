"""Both doors are thin: fed the same numbers, a node in ONNX Runtime gives the bits that the torch op gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracle import scenes
from oracle.scenes import Scene

from dibr_deploy import ops
from onnxruntime_door import graphs

DTYPES = [np.float32, np.float64]
SCENES = scenes.all_scenes()


def tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array))


def assert_same_bits(actual: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.numpy().dtype, name
        assert actual[name].shape == value.shape, name
        assert actual[name].tobytes() == value.numpy().tobytes(), name


def mesh_inputs(scene: Scene) -> dict[str, np.ndarray | None]:
    valid = None if scene.face_valid is None else scene.face_valid.astype(np.int32)
    return {
        "positions": scene.positions,
        "faces": scene.faces,
        "face_ranges": scene.face_ranges,
        "face_valid": valid,
    }


def rasterized(scene: Scene, perspective_correct: bool = True) -> ops.Raster:
    return ops.rasterize(
        tensor(scene.positions),
        tensor(scene.faces),
        scene.height,
        scene.width,
        face_ranges=tensor(scene.face_ranges),
        face_valid=tensor(None if scene.face_valid is None else scene.face_valid.astype(bool)),
        perspective_correct=perspective_correct,
        cull=scene.cull,
        depth_clip=scene.depth_clip,
    )


@pytest.fixture(scope="module")
def sphere() -> Scene:
    """Covers about half of its image, with a back side."""
    return scenes.sphere_perspective().rounded_to(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_every_scene(scene: Scene, dtype: type) -> None:
    scene = scene.rounded_to(dtype)
    expected = rasterized(scene)
    actual = graphs.run(
        "Rasterize",
        mesh_inputs(scene),
        height=scene.height,
        width=scene.width,
        cull=scene.cull,
        depth_clip=int(scene.depth_clip),
    )
    assert_same_bits(actual, expected._asdict())

    mask = ops.soft_mask(
        tensor(scene.positions), tensor(scene.faces), expected.face_index, face_ranges=tensor(scene.face_ranges)
    )
    inputs = {
        "positions": scene.positions,
        "faces": scene.faces,
        "face_index": actual["face_index"],
        "face_ranges": scene.face_ranges,
    }
    assert_same_bits(graphs.run("SoftMask", inputs), {"mask": mask})

    image = np.random.default_rng(0).random((*actual["face_index"].shape, 3)).astype(dtype)
    smooth = ops.antialias(
        tensor(image),
        tensor(scene.positions),
        tensor(scene.faces),
        expected.face_index,
        expected.barycentrics,
        face_ranges=tensor(scene.face_ranges),
    )
    inputs = {
        "image": image,
        "positions": scene.positions,
        "faces": scene.faces,
        "face_index": actual["face_index"],
        "barycentrics": actual["barycentrics"],
        "face_ranges": scene.face_ranges,
    }
    assert_same_bits(graphs.run("Antialias", inputs), {"output": smooth})


@pytest.mark.parametrize(
    ("perspective_correct", "cull", "depth_clip"),
    list(itertools.product([True, False], ["none", "back"], [True, False])),
)
def test_rasterize_attributes(perspective_correct: bool, cull: str, depth_clip: bool) -> None:
    scene = scenes.soup_through_the_camera().rounded_to(np.float32)
    expected = ops.rasterize(
        tensor(scene.positions),
        tensor(scene.faces),
        scene.height,
        scene.width,
        perspective_correct=perspective_correct,
        cull=cull,
        depth_clip=depth_clip,
    )
    actual = graphs.run(
        "Rasterize",
        {"positions": scene.positions, "faces": scene.faces},
        height=scene.height,
        width=scene.width,
        perspective_correct=int(perspective_correct),
        cull=cull,
        depth_clip=int(depth_clip),
    )
    assert (actual["face_index"] >= 0).any()
    assert_same_bits(actual, expected._asdict())


def test_rasterize_attributes_default_to_those_of_the_torch_function(sphere: Scene) -> None:
    actual = graphs.run("Rasterize", mesh_inputs(sphere), height=9, width=8)
    assert_same_bits(actual, ops.rasterize(tensor(sphere.positions), tensor(sphere.faces), 9, 8)._asdict())


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_rasterize_optional_arguments(present: tuple[bool, ...]) -> None:
    """Every way to leave out face_ranges, face_valid, image_size and depth, in the middle and at the end."""
    with_ranges, with_valid, with_size, with_depth = present
    scene = scenes.packed_topologies().rounded_to(np.float32)
    batch, count = len(scene.positions), len(scene.faces)
    valid = np.ones((batch, count), np.int32)
    valid[:, ::3] = 0
    inputs = {
        "positions": scene.positions,
        "faces": scene.faces,
        "face_ranges": scene.face_ranges if with_ranges else None,
        "face_valid": valid if with_valid else None,
        "image_size": np.array([21, 34]) if with_size else None,
    }
    actual = graphs.run(
        "Rasterize",
        inputs,
        outputs=("face_index", "barycentrics", "depth")[: 3 if with_depth else 2],
        height=5,
        width=7,
    )
    height, width = (21, 34) if with_size else (5, 7)
    expected = ops.rasterize(
        tensor(scene.positions),
        tensor(scene.faces),
        height,
        width,
        face_ranges=tensor(inputs["face_ranges"]),
        face_valid=tensor(valid.astype(bool)) if with_valid else None,
    )._asdict()
    assert (actual["face_index"] >= 0).any()
    assert_same_bits(actual, {name: expected[name] for name in actual})


def test_an_optional_output_may_be_left_unnamed(sphere: Scene) -> None:
    actual = graphs.run("Rasterize", mesh_inputs(sphere), outputs=("face_index", "barycentrics", ""), height=4, width=4)
    assert list(actual) == ["face_index", "barycentrics"]


@pytest.mark.parametrize("with_ranges", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sigmainv", "boxlen", "knum"), [(7000.0, 0.02, 30), (300.1, 0.1, 3), (0.5, 0.0, 1)])
def test_soft_mask_attributes(sigmainv: float, boxlen: float, knum: int, dtype: type, with_ranges: bool) -> None:
    """Float attributes are float32 in ONNX; a decimal like 0.02 still means the same number to a float64 graph."""
    scene = scenes.packed_topologies().rounded_to(dtype)
    face_index = rasterized(scene).face_index
    ranges = scene.face_ranges if with_ranges else None
    expected = ops.soft_mask(
        tensor(scene.positions),
        tensor(scene.faces),
        face_index,
        face_ranges=tensor(ranges),
        sigmainv=sigmainv,
        boxlen=boxlen,
        knum=knum,
    )
    inputs = {
        "positions": scene.positions,
        "faces": scene.faces,
        "face_index": face_index.numpy(),
        "face_ranges": ranges,
    }
    actual = graphs.run("SoftMask", inputs, sigmainv=sigmainv, boxlen=boxlen, knum=knum)
    assert ((actual["mask"] > 0) & (actual["mask"] < 1)).any() or boxlen == 0
    assert_same_bits(actual, {"mask": expected})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("channels", [0, 1, 3, 17])
def test_interpolate(channels: int, shared: bool, dtype: type) -> None:
    scene = scenes.packed_topologies().rounded_to(dtype)
    raster = rasterized(scene)
    batch, vertices = scene.positions.shape[:2]
    attributes = np.random.default_rng(0).normal(size=(1 if shared else batch, vertices, channels)).astype(dtype)
    expected = ops.interpolate(tensor(attributes), tensor(scene.faces), raster.face_index, raster.barycentrics)
    inputs = {
        "attributes": attributes,
        "faces": scene.faces,
        "face_index": raster.face_index.numpy(),
        "barycentrics": raster.barycentrics.numpy(),
    }
    assert_same_bits(graphs.run("Interpolate", inputs), {"output": expected})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("filter", ops.FILTER)
@pytest.mark.parametrize("wrap", ops.WRAP)
def test_texture(filter: str, wrap: str, shared: bool, dtype: type) -> None:
    rng = np.random.default_rng(0)
    texture = rng.normal(size=(1 if shared else 3, 4, 7, 5)).astype(dtype)
    uv = rng.uniform(-2.5, 3.5, size=(3, 11, 13, 2)).astype(dtype)
    uv[0, 0, 0] = np.nan
    levels = rng.uniform(-1, 4, size=uv.shape[:3]).astype(dtype) if filter == "trilinear" else None
    mip_level = None if levels is None else tensor(levels)
    expected = ops.texture(tensor(texture), tensor(uv), filter=filter, wrap=wrap, mip_level=mip_level)
    inputs = {"texture": texture, "uv": uv, "mip_level": levels}
    assert_same_bits(graphs.run("Texture", inputs, filter=filter, wrap=wrap), {"output": expected})


def test_texture_attributes_default_to_those_of_the_torch_function() -> None:
    rng = np.random.default_rng(0)
    texture, uv = rng.normal(size=(1, 2, 4, 4)).astype(np.float32), rng.uniform(-1, 2, (1, 8, 8, 2)).astype(np.float32)
    expected = ops.texture(tensor(texture), tensor(uv))
    assert_same_bits(graphs.run("Texture", {"texture": texture, "uv": uv}), {"output": expected})


def test_one_session_takes_any_batch_and_size() -> None:
    """Nothing of an earlier run stays behind in a session: sizes go up and down, and an empty batch is ordinary."""
    scene = scenes.sphere_perspective().rounded_to(np.float32)
    example = {
        "positions": scene.positions,
        "faces": scene.faces,
        "face_ranges": None,
        "face_valid": None,
        "image_size": np.array([1, 1]),
    }
    session = graphs.open_session(graphs.one_node("Rasterize", example), threads=2)
    names = [output.name for output in session.get_outputs()]
    for batch, height, width in [(1, 64, 64), (5, 3, 200), (0, 8, 8), (2, 1, 1), (1, 130, 65)]:
        positions = np.repeat(scene.positions[:1], batch, axis=0)
        size = np.array([height, width])
        values = session.run(None, {"positions": positions, "faces": scene.faces, "image_size": size})
        expected = ops.rasterize(tensor(positions), tensor(scene.faces), height, width)
        assert_same_bits(dict(zip(names, values, strict=True)), expected._asdict())


def test_threads_do_not_change_a_bit() -> None:
    scene = scenes.nested_spheres().rounded_to(np.float32)
    inputs = mesh_inputs(scene)
    expected = None
    for threads in (1, 2, 7):
        raster = graphs.run("Rasterize", inputs, height=150, width=301, threads=threads)
        mask = graphs.run(
            "SoftMask",
            {"positions": scene.positions, "faces": scene.faces, "face_index": raster["face_index"]},
            threads=threads,
        )
        bits = [value.tobytes() for value in (*raster.values(), *mask.values())]
        expected = expected or bits
        assert bits == expected, f"{threads} threads"
