"""Render on both devices of one library: the ops that it fuses, bit for bit, and what it says to bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracle import oracle, scenes
from oracle.compare import assert_face_index
from oracle.scenes import Scene

from cuda_backend.abi import (
    CPU,
    CUDA,
    INVALID_ARGUMENT,
    RENDER_OUTPUTS,
    UNSUPPORTED,
    DibrFailure,
    Launch,
    Library,
    RenderAttributes,
    aligned,
    make_params,
)
from cuda_backend.ops import Device, bfloat16_bits
from cuda_backend.test_kernels import normal, soup

REALS = [np.float32, np.float64]
MASK = {"sigmainv": 300.0, "boxlen": 0.05, "knum": 4}


def surface(scene: Scene, seed: int = 0) -> dict:
    """uvs and attributes with faces of their own, of an image and shared by the batch, and a texture."""
    rng = np.random.default_rng(seed)
    batch, dtype, faces = scene.positions.shape[0], scene.positions.dtype, len(scene.faces)
    corners = rng.integers(0, 7, (faces, 3)).astype(np.int32)
    return {
        "uvs": rng.uniform(-0.5, 1.5, (1, 7, 2)).astype(dtype),
        "uv_faces": corners,
        "texture": normal(seed + 1, (batch, 3, 6, 5), dtype),
        "attributes": [(normal(seed + 2, (batch, scene.positions.shape[1], 3), dtype), scene.faces),
                       (normal(seed + 3, (1, 7, 5), dtype), corners)],
    }  # fmt: skip


def chain(device: Device, scene: Scene, surface: dict, perspective_correct: bool, filter: int, wrap: int) -> dict:
    """What Render gives, of the single ops."""
    face_index, barycentrics, depth = device.rasterize(scene, perspective_correct)
    uv = device.interpolate(surface["uvs"], surface["uv_faces"], face_index, barycentrics)
    return {
        "color": device.texture(surface["texture"], uv, filter, wrap),
        "mask": device.soft_mask(scene, face_index, **MASK),
        "face_index": face_index,
        "depth": depth,
        "barycentrics": barycentrics,
        "uv": uv,
        **{
            f"interpolated_{k}": device.interpolate(values, faces, face_index, barycentrics)
            for k, (values, faces) in enumerate(surface["attributes"])
        },
    }


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in actual.items():
        assert value.tobytes() == expected[name].tobytes(), f"{name} differs"


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("scene", scenes.all_scenes(), ids=lambda scene: scene.name)
def test_render_is_the_single_ops_bit_for_bit(cpu: Device, cuda: Device, order: str, scene: Scene, dtype: type) -> None:
    scene = scene.rounded_to(dtype)
    if len(scene.faces) > 400 and order != "random:1":
        pytest.skip("one order is enough for what the host takes long to execute")
    made = surface(scene)
    for perspective_correct, filter, wrap in ((True, 1, 1), (False, 0, 2)):
        expected = chain(cuda, scene, made, perspective_correct, filter, wrap)
        actual = cuda.render(scene, RENDER_OUTPUTS, **made, perspective_correct=perspective_correct, filter=filter,
                             wrap=wrap, **MASK)  # fmt: skip
        assert_same(actual, expected)


@pytest.mark.parametrize("size", [(1, 1), (15, 17), (64, 64), (70, 33)], ids=str)
@pytest.mark.parametrize("faces", [1, 33, 257])
def test_render_is_the_cpu_backend(cpu: Device, cuda: Device, order: str, faces: int, size: tuple[int, int]) -> None:
    """face_index and what follows from it without a sum bit for bit, the mask within the rounding of its product."""
    scene = soup(faces, size, 2, np.float32)
    made = surface(scene)
    on_cuda, on_cpu = (device.render(scene, RENDER_OUTPUTS, **made, **MASK) for device in (cuda, cpu))
    masks = on_cuda.pop("mask"), on_cpu.pop("mask")
    assert_same(on_cuda, on_cpu)
    assert np.abs(masks[0] - masks[1]).max() <= 2e-6


def test_render_agrees_with_the_oracle(cuda: Device, order: str) -> None:
    scene = scenes.soup_perspective()
    expected = oracle.rasterize(scene)
    actual = cuda.render(scene, ("face_index", "depth"), **surface(scene))
    assert_face_index(scene, expected.face_index, actual["face_index"])
    agree = actual["face_index"] == expected.face_index
    assert np.abs(actual["depth"] - np.asarray(expected.depth))[agree].max() < 1e-9


def test_nothing_is_written_that_is_not_asked_for(cpu: Device, cuda: Device, order: str) -> None:
    """Each output alone is the same as in all of them, and needs no memory for the others."""
    scene = soup(33, (15, 33), 2, np.float32)
    made = surface(scene)
    for device in (cpu, cuda):
        expected = device.render(scene, RENDER_OUTPUTS, **made, **MASK)
        for name in RENDER_OUTPUTS:
            alone = device.render(scene, (name,), **{**made, "attributes": []}, **MASK)
            assert list(alone) == [name]
            assert_same(alone, expected)
        assert_same(device.render(scene, (), **made, **MASK), expected)


@pytest.mark.parametrize(
    "narrow", [pytest.param(lambda a: a.astype(np.float16), id="float16"), pytest.param(bfloat16_bits, id="bfloat16")]
)
def test_16_bit_storage(cpu: Device, cuda: Device, narrow) -> None:
    scene = soup(33, (15, 33), 2, np.float32)
    whole = surface(scene)
    narrowed = {
        "texture": narrow(whole["texture"]),
        "attributes": [(narrow(values), faces) for values, faces in whole["attributes"]],
    }
    for changes in (narrowed, {"texture": narrowed["texture"]}, {"attributes": narrowed["attributes"]}):
        made = {**whole, **changes}
        for device in (cpu, cuda):
            actual = device.render(scene, RENDER_OUTPUTS, **made, wrap=1, **MASK)
            assert_same(actual, chain(device, scene, made, True, 1, 1))


def test_indices_out_of_range_count_as_absent_on_cuda(cuda: Device, order: str) -> None:
    """A face with a bad vertex is not drawn; one with a bad corner of its own in the attributes is drawn with zeros."""
    scene = soup(33, (31, 17), 1, np.float32)
    faces = scene.faces.copy()
    faces[3, 1], faces[7, 0] = 10_000_000, -5
    made = surface(scene)
    made["uv_faces"] = made["uv_faces"].copy()
    made["uv_faces"][5:9, 2] = [7, -1, 2**31 - 1, 0]
    broken = replace(scene, faces=faces)
    made["attributes"] = [(made["attributes"][0][0], faces), (made["attributes"][1][0], made["uv_faces"])]
    assert_same(cuda.render(broken, RENDER_OUTPUTS, **made, **MASK), chain(cuda, broken, made, True, 1, 0))


SIZES = {"batch": 2, "vertices": 4, "faces": 2, "height": 5, "width": 7}
TEXTURE = {"texture_batch": 2, "texture_channels": 3, "texture_height": 4, "texture_width": 6}
OUTPUTS = {"color": 3, "mask": 1, "face_index": 1, "depth": 1, "barycentrics": 3}


class Call:
    """A good call for everything, with arrays that live as long as it."""

    def __init__(self) -> None:
        pixels = 2 * 5 * 7
        self.arrays = {
            "positions": np.zeros((2, 4, 4), np.float32),
            "face_indices": np.zeros((2, 3), np.int32),
            "texture": np.zeros((2, 3, 4, 6), np.float32),
            **{name: aligned((pixels * channels,), np.float32) for name, channels in OUTPUTS.items()},
            "values": np.zeros((2, 4, 2), np.float32),
            "output": aligned((pixels * 2,), np.float32),
        }
        self.values: dict = {
            **SIZES,
            **TEXTURE,
            **{"sigmainv": 7000.0, "boxlen": 0.02, "knum": 30, "filter": 1, "depth_clip": 1, "outputs": 511},
            **{name: self.arrays[name] for name in ("positions", "face_indices", "texture", *OUTPUTS)},
            "uv": self.attributes(),
            "attributes": (RenderAttributes * 3)(*[self.attributes() for _ in range(3)]),
        }

    def attributes(self, **changes: object) -> RenderAttributes:
        fields = {"batch": 2, "vertices": 4, "channels": 2}
        pointers = {"values": "values", "face_indices": "face_indices", "output": "output"}
        fields |= {name: self.arrays[array].ctypes.data for name, array in pointers.items()}
        return RenderAttributes(**{**fields, **changes})

    def second(self, **changes: object) -> dict:
        """Attributes of which the second are changed."""
        return {"attributes": (RenderAttributes * 3)(self.attributes(), self.attributes(**changes), self.attributes())}

    def run(self, library: Library, device: int, dtype: int = 0, **changes: object) -> None:
        params = make_params("render", dtype, **{**self.values, **changes})
        size = library.workspace_size("render", params, device)
        workspace = aligned((size,), np.uint8)
        library.launch("render", params, Launch(device, None, None, None, workspace.ctypes.data, workspace.size))


def refusals() -> list:
    def case(status: int, message: str, change) -> object:
        return pytest.param(status, message, change, id=message.replace(" ", "-"))

    bad = INVALID_ARGUMENT
    return [
        case(bad, "outputs must be in [1, 511], got 0", lambda call: {"outputs": 0}),
        case(bad, "outputs must be in [1, 511], got 512", lambda call: {"outputs": 512}),
        case(bad, "batch of uvs must be 1 or the batch size 2, got 3", lambda call: {"uv": call.attributes(batch=3)}),
        case(bad, "vertices of uvs must be in [0, ", lambda call: {"uv": call.attributes(vertices=-1)}),
        case(bad, "channels of uvs must be in [2, 2], got 3", lambda call: {"uv": call.attributes(channels=3)}),
        case(bad, "uvs is NULL", lambda call: {"uv": call.attributes(values=None)}),
        case(bad, "uv_faces is NULL", lambda call: {"uv": call.attributes(face_indices=None)}),
        case(bad, "uv is NULL", lambda call: {"uv": call.attributes(output=None)}),
        case(bad, "uvs must be aligned to 4 bytes",
             lambda call: {"uv": call.attributes(values=call.arrays["values"].ctypes.data + 2)}),
        case(bad, "batch of attributes_1 must be 1 or the batch size 2, got 0", lambda call: call.second(batch=0)),
        case(bad, "channels of attributes_1 must be in [0, ", lambda call: call.second(channels=2**31)),
        case(bad, "attributes_1 has more than 2^40 elements", lambda call: call.second(vertices=2**30, channels=2**10)),
        case(bad, "attributes_1 is NULL", lambda call: call.second(values=None)),
        case(bad, "attribute_faces_1 is NULL", lambda call: call.second(face_indices=None)),
        case(bad, "interpolated_1 is NULL", lambda call: call.second(output=None)),
        case(bad, "texture batch must be 1 or the batch size 2, got 3", lambda call: {"texture_batch": 3}),
        case(bad, "texture height must be in [1, 32768], got 0", lambda call: {"texture_height": 0}),
        case(bad, "texture channels must be in [0, ", lambda call: {"texture_channels": -1}),
        case(bad, "texture is NULL", lambda call: {"texture": None}),
        *(case(bad, f"{name} is NULL", lambda call, name=name: {name: None}) for name in (*OUTPUTS, "positions")),
        case(bad, "filter must be in [0, 1], got 2", lambda call: {"filter": 2}),
        case(bad, "wrap must be in [0, 2], got 3", lambda call: {"wrap": 3}),
        case(bad, "cull must be in [0, 1], got 2", lambda call: {"cull": 2}),
        case(bad, "sigmainv must be above 0", lambda call: {"sigmainv": 0.0}),
        case(bad, "knum must be in [1, ", lambda call: {"knum": 0}),
        case(bad, "height must be in [1, 32768], got 0", lambda call: {"height": 0}),
        case(UNSUPPORTED, "dtype must be float32 or float64, got dtype code 2", lambda call: {"dtype": 2}),
        case(UNSUPPORTED, "dtype of texture does not go with the op's, got codes 1 and 0",
             lambda call: {"texture_dtype": 1}),
        case(UNSUPPORTED, "dtype of attributes does not go with the op's, got codes 7 and 0",
             lambda call: {"attribute_dtype": 7}),
    ]  # fmt: skip


@pytest.mark.parametrize("device", [CPU, CUDA], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("status", "message", "change"), refusals())
def test_bad_input_is_refused(library: Library, device: int, status: int, message: str, change) -> None:
    call = Call()
    call.run(library, device)
    with pytest.raises(DibrFailure) as caught:
        call.run(library, device, **change(call))
    assert str(caught.value).startswith("render: ")
    assert message in str(caught.value)
    assert caught.value.status == status


@pytest.mark.parametrize("device", [CPU, CUDA], ids=["cpu", "cuda"])
def test_what_no_output_needs_is_ignored(library: Library, device: int) -> None:
    """All but the mask may be anything at all."""
    call = Call()
    call.run(library, device, outputs=2, uv=RenderAttributes(-1, -1, -1), attributes=(RenderAttributes * 3)(),
             texture=None, texture_batch=-7, texture_dtype=99, attribute_dtype=99, face_index=None)  # fmt: skip


def test_the_mask_takes_workspace_only_where_it_is_asked_for(library: Library) -> None:
    for device in (CPU, CUDA):
        sizes = [
            library.workspace_size("render", make_params("render", 0, **{**Call().values, "outputs": outputs}), device)
            for outputs in (4, 4 | 2)
        ]
        assert 0 < sizes[0] < sizes[1]
