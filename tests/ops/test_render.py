"""Render against the ops that it fuses: the same bits, whatever is asked for, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from oracle import kernel, scenes
from oracle.kernel import tensor
from torch import Tensor

from dibr_deploy import DibrError, ops

DTYPES = [torch.float32, torch.float64]
OPTIONS = [
    {"filter": "bilinear", "wrap": "repeat", "perspective_correct": True, "sigmainv": 70.0, "boxlen": 0.2, "knum": 4},
    {"filter": "nearest", "wrap": "mirror", "perspective_correct": False, "sigmainv": 7000.0, "boxlen": 0.02},
]


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def corners(faces: int, vertices: int) -> Tensor:
    """Faces of vertices of their own."""
    return torch.randint(vertices, (faces, 3), generator=torch.Generator().manual_seed(1), dtype=torch.int32)


def inputs(scene: scenes.Scene, dtype: torch.dtype, stored: torch.dtype, texels: torch.dtype) -> dict:
    """Arguments of ops.render: a texture with uvs of their own, attributes of an image and shared ones."""
    batch, vertices, faces = len(scene.positions), scene.positions.shape[1], len(scene.faces)
    return {
        "positions": tensor(scene.positions).to(dtype),
        **kernel.arguments(scene),
        "uvs": random((1, 7, 2), dtype) * 3 - 1,
        "uv_faces": corners(faces, 7),
        "texture": random((batch, 3, 5, 9), texels),
        "attributes": [random((batch, vertices, 3), stored), random((1, 4, 1), stored), random((1, 4, 5), stored)],
        "attribute_faces": [tensor(scene.faces), corners(faces, 4), corners(faces, 4)],
    }


def chain(arguments: dict, perspective_correct=True, filter="bilinear", wrap="clamp", **mask) -> dict[str, Tensor]:
    """All that ops.render can return, of single ops."""
    a = arguments
    raster = ops.rasterize(
        a["positions"],
        a["faces"],
        a["height"],
        a["width"],
        face_ranges=a["face_ranges"],
        face_valid=a["face_valid"],
        perspective_correct=perspective_correct,
        cull=a["cull"],
        depth_clip=a["depth_clip"],
    )
    sampled = ops.interpolate(a["uvs"], a["uv_faces"], raster.face_index, raster.barycentrics)
    interpolated = {
        f"interpolated_{k}": ops.interpolate(values, faces, raster.face_index, raster.barycentrics)
        for k, (values, faces) in enumerate(zip(a["attributes"], a["attribute_faces"], strict=True))
    }
    return {
        "color": ops.texture(a["texture"], sampled, filter=filter, wrap=wrap),
        "mask": ops.soft_mask(a["positions"], a["faces"], raster.face_index, face_ranges=a["face_ranges"], **mask),
        **raster._asdict(),
        "uv": sampled,
        **interpolated,
    }


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in actual.items():
        assert value.dtype == expected[name].dtype, name
        assert value.shape == expected[name].shape, name
        # Every bit counts, the sign of zero too; NaN has many.
        assert torch.equal(value.nan_to_num(), expected[name].nan_to_num()), name
        assert torch.equal(value.signbit(), expected[name].signbit()), name


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options["filter"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("scene", scenes.all_scenes(), ids=lambda scene: scene.name)
def test_every_output_has_the_bits_of_the_single_ops(scene: scenes.Scene, dtype: torch.dtype, options: dict) -> None:
    arguments = inputs(scene, dtype, dtype, dtype)
    actual = ops.render(**arguments, outputs=ops.RENDER_OUTPUTS, **options)
    assert list(actual) == list(ops.ALL_RENDER_OUTPUTS)
    assert_same_bits(actual, chain(arguments, **options))


@pytest.mark.parametrize(
    ("stored", "texels"),
    list(itertools.product((torch.float32, torch.float16, torch.bfloat16), repeat=2)),
    ids=str,
)
def test_16_bit_attributes_and_textures(stored: torch.dtype, texels: torch.dtype) -> None:
    arguments = inputs(scenes.sphere_perspective(), torch.float32, stored, texels)
    actual = ops.render(**arguments, outputs=ops.RENDER_OUTPUTS)
    assert actual["color"].dtype == texels
    assert actual["interpolated_0"].dtype == stored
    assert_same_bits(actual, chain(arguments))


def test_any_choice_of_outputs() -> None:
    """Each of the 64 with and without attributes is the same as in all of them together."""
    arguments = inputs(scenes.nested_spheres(), torch.float32, torch.float32, torch.float32)
    expected = chain(arguments)
    without = {**arguments, "attributes": [], "attribute_faces": None}
    for count in range(len(ops.RENDER_OUTPUTS) + 1):
        for outputs in itertools.combinations(ops.RENDER_OUTPUTS, count):
            actual = ops.render(**arguments, outputs=outputs)
            assert set(actual) == {*outputs, *ops.INTERPOLATED}
            assert_same_bits(actual, expected)
            if outputs:
                assert_same_bits(ops.render(**without, outputs=outputs), expected)


def test_faces_default_to_those_that_are_drawn() -> None:
    arguments = inputs(scenes.sphere_perspective(), torch.float32, torch.float32, torch.float32)
    vertices = arguments["positions"].shape[1]
    arguments |= {
        "uvs": random((1, vertices, 2), torch.float32),
        "attributes": [random((1, vertices, 2), torch.float32)],
    }
    faces = {"uv_faces": arguments["faces"], "attribute_faces": [arguments["faces"]]}
    default = {"uv_faces": None, "attribute_faces": None}
    names = ("color", "uv")
    expected = ops.render(**{**arguments, **faces}, outputs=names)
    assert_same_bits(ops.render(**{**arguments, **default}, outputs=names), expected)
    assert torch.equal(expected["uv"], chain({**arguments, **faces})["uv"])


def test_uvs_that_are_not_finite_sample_zero() -> None:
    arguments = inputs(scenes.nested_spheres(), torch.float32, torch.float32, torch.float32)
    arguments["uvs"][0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])[:, None]
    actual = ops.render(**arguments, outputs=("color", "face_index"))
    expected = chain(arguments)
    assert not expected["uv"].isfinite().all()
    assert_same_bits(actual, expected)


def test_results_do_not_depend_on_threads() -> None:
    arguments = inputs(scenes.nested_spheres(), torch.float32, torch.float32, torch.float32)
    kernel.assert_same_bits_for_every_number_of_threads(
        lambda: tuple(ops.render(**arguments, outputs=ops.RENDER_OUTPUTS).values())
    )


def test_an_image_of_many_tiles() -> None:
    """Sizes that are no multiples of a tile, in both directions, and a batch that shares its texture."""
    scene = scenes.soup_perspective()
    arguments = inputs(scene, torch.float32, torch.float32, torch.float32) | {"height": 131, "width": 97}
    arguments["texture"] = arguments["texture"][:1]
    assert_same_bits(ops.render(**arguments, outputs=ops.RENDER_OUTPUTS), chain(arguments))


BASE = inputs(scenes.sphere_perspective(), torch.float32, torch.float32, torch.float32)
FACES = len(BASE["faces"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ()} | {"attributes": []}, "outputs must name at least one output where there are no attributes"),
        ({"outputs": ("image",)}, "outputs must be names out of color, mask, .*, got 'image'"),
        ({"outputs": ("color",), "uvs": None}, r"uvs must be a tensor \[B or 1, V, D\]"),
        ({"outputs": ("color",), "texture": None}, r"texture must be a tensor \[B or 1, C, Ht, Wt\]"),
        ({"outputs": ("uv",), "uvs": BASE["uvs"].expand(1, 7, 2)[..., :1]}, r"uvs must have shape \[B or 1, Vt, 2\]"),
        ({"uv_faces": BASE["uv_faces"][1:]}, rf"uv_faces must have shape \[{FACES}, 3\]"),
        ({"texture": BASE["texture"].double()}, "positions must be float64 on cpu to go with texture of float64"),
        ({"texture": BASE["texture"][:, :, :0]}, "texture must have at least one row and column"),
        ({"attributes": [BASE["uvs"]] * 4, "attribute_faces": None}, "attributes must be at most 3 tensors, got 4"),
        ({"attributes": [BASE["uvs"]] * 2}, "attribute_faces must have as many entries as attributes, 2, got 3"),
        (
            {"attributes": [BASE["uvs"], BASE["uvs"].half(), BASE["uvs"]]},
            r"attributes\[1\] must have the dtype torch.float32 of attributes\[0\], got float16",
        ),
        ({"positions": BASE["positions"].clone().requires_grad_()}, "positions must ask for no gradient"),
        ({"sigmainv": 0.0}, "sigmainv must be above 0"),
        ({"knum": 0}, "knum must be an integer of at least 1"),
        ({"filter": "trilinear"}, "filter must be one of 'nearest', 'bilinear'"),
        ({"height": 0}, "height must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(DibrError, match=f"render: {message}"):
        ops.render(**{**BASE, "outputs": ops.RENDER_OUTPUTS, **changes})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("faces", r"faces\[2, 1\] = 9999 is out of range for \d+ vertices"),
        ("uv_faces", r"uv_faces\[2, 1\] = 9999 is out of range for 7 vertices"),
        ("attribute_faces", r"attribute_faces_1\[2, 1\] = 9999 is out of range for 4 vertices"),
    ],
)
def test_indices_out_of_range_are_named(name: str, message: str) -> None:
    spoilt = [faces.clone() for faces in BASE[name]] if name == "attribute_faces" else BASE[name].clone()
    (spoilt[1] if name == "attribute_faces" else spoilt)[2, 1] = 9999
    arguments = {**BASE, name: spoilt}
    with pytest.raises(RuntimeError, match=f"render: {message}"):
        ops.render(**arguments, outputs=ops.RENDER_OUTPUTS)
    if name == "uv_faces":
        assert_same_bits(ops.render(**arguments, outputs=("mask",)), ops.render(**BASE, outputs=("mask", "depth")))


def test_it_has_no_gradient() -> None:
    arguments = {**BASE, "positions": BASE["positions"].clone().requires_grad_()}
    with torch.no_grad():
        assert not ops.render(**arguments, outputs=("depth",))["depth"].requires_grad
    sizes = (arguments["height"], arguments["width"])
    bit = 1 << ops.ALL_RENDER_OUTPUTS.index("depth")
    direct = torch.ops.dibr.render(
        *(arguments["positions"], arguments["faces"], None, None, None, None, None, [], [], *sizes),
        *(True, 0, True, 7000.0, 0.02, 30, 1, 0, bit),
    )
    with pytest.raises(RuntimeError, match="dibr::render has no gradient"):
        direct[0].sum().backward()


def test_positions_without_w() -> None:
    flat = np.random.default_rng(0).uniform(-1, 1, (2, 9, 3)).astype(np.float32)
    faces = corners(5, 9)
    raster = ops.rasterize(tensor(flat), faces, 12, 20)
    assert torch.equal(ops.render(tensor(flat), faces, 12, 20, outputs=("depth",))["depth"], raster.depth)
