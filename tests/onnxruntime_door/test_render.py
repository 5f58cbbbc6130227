"""Render in ONNX Runtime: the bits of the torch op, whatever it is asked for, and what it refuses in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from oracle import scenes
from oracle.scenes import Scene

from dibr_deploy import ops
from dibr_deploy.export.schemas import RENDER_OUTPUTS
from onnxruntime_door import graphs
from onnxruntime_door.test_parity import tensor
from onnxruntime_door.test_shape_inference import needs_safe_inference

TYPES = {torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16}


def drawing(scene: Scene) -> dict[str, np.ndarray | None]:
    """All inputs of a node, with faces of their own for uvs and attributes."""
    rng = np.random.default_rng(0)
    batch, faces, real = len(scene.positions), len(scene.faces), scene.positions.dtype
    valid = None if scene.face_valid is None else scene.face_valid.astype(np.int32)
    inputs: dict[str, np.ndarray | None] = {
        "positions": scene.positions,
        "faces": scene.faces,
        "uvs": rng.uniform(-0.5, 1.5, (1, 7, 2)).astype(real),
        "uv_faces": rng.integers(0, 7, (faces, 3)).astype(np.int32),
        "texture": rng.random((batch, 3, 6, 5)).astype(real),
    }
    for k, own_batch in enumerate((batch, 1, 1)):
        inputs[f"attributes_{k}"] = rng.random((own_batch, 4, k + 1)).astype(real)
        inputs[f"attribute_faces_{k}"] = rng.integers(0, 4, (faces, 3)).astype(np.int32)
    return inputs | {"face_ranges": scene.face_ranges, "face_valid": valid}


def in_torch(scene: Scene, inputs: dict, outputs: tuple[str, ...], **options: Any) -> dict[str, torch.Tensor]:
    wanted = [name for name in outputs if name in ops.RENDER_OUTPUTS]
    count = sum(name in ops.INTERPOLATED for name in outputs)
    valid = inputs["face_valid"]
    return ops.render(
        tensor(inputs["positions"]),
        tensor(inputs["faces"]),
        scene.height,
        scene.width,
        outputs=wanted,
        **{name: tensor(inputs[name]) for name in ("uvs", "uv_faces", "texture", "face_ranges")},
        attributes=[tensor(inputs[f"attributes_{k}"]) for k in range(count)],
        attribute_faces=[tensor(inputs[f"attribute_faces_{k}"]) for k in range(count)],
        face_valid=None if valid is None else tensor(valid.astype(bool)),
        cull=scene.cull,
        depth_clip=scene.depth_clip,
        **options,
    )


def places(outputs: tuple[str, ...]) -> list[str]:
    """Names of the node's outputs, empty where one is not wanted."""
    names = [name if name in outputs else "" for name in RENDER_OUTPUTS]
    while not names[-1]:
        names.pop()
    return names


def model_of(inputs: dict, outputs: tuple[str, ...], listed: Any = None, **options: Any) -> ModelProto:
    """listed: the attribute outputs, where it is not the list of the outputs."""
    model = graphs.one_node("Render", inputs, outputs=places(outputs), **options)
    value = ",".join(outputs) if listed is None else listed
    model.graph.node[0].attribute.append(helper.make_attribute("outputs", value))
    return model


def run_model(model: ModelProto, inputs: dict, threads: int = 1) -> dict[str, np.ndarray]:
    session = graphs.open_session(model, threads)
    names = [output.name for output in session.get_outputs()]
    feed = {name: array for name, array in inputs.items() if array is not None}
    return dict(zip(names, session.run(None, feed), strict=True))


def run(scene: Scene, inputs: dict, outputs: tuple[str, ...], **options: Any) -> dict[str, np.ndarray]:
    settings = {"height": scene.height, "width": scene.width, "cull": scene.cull, "depth_clip": int(scene.depth_clip)}
    return run_model(model_of(inputs, outputs, **settings, **options), inputs)


def assert_same_bits(actual: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.numpy().dtype, name
        assert actual[name].tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scene", scenes.all_scenes(), ids=lambda scene: scene.name)
def test_every_scene(scene: Scene, dtype: type) -> None:
    scene = scene.rounded_to(dtype)
    inputs = drawing(scene)
    options = {"wrap": "mirror", "sigmainv": 70.0, "boxlen": 0.25, "knum": 4}
    expected = in_torch(scene, inputs, RENDER_OUTPUTS, **options)
    assert_same_bits(run(scene, inputs, RENDER_OUTPUTS, **options), expected)


@pytest.fixture(scope="module")
def sphere() -> Scene:
    return scenes.sphere_perspective().rounded_to(np.float32)


@pytest.mark.parametrize(
    "outputs",
    [
        ("face_index",),
        ("mask",),
        ("color", "depth"),
        ("uv", "interpolated_0"),
        ("color", "mask", "face_index", "interpolated_0", "interpolated_1"),
    ],
    ids=",".join,
)
def test_a_part_of_the_outputs(sphere: Scene, outputs: tuple[str, ...]) -> None:
    """Inputs that only the other outputs need may be absent, or of any shape where they stand in a place."""
    inputs = drawing(sphere)
    expected = in_torch(sphere, inputs, outputs)
    assert_same_bits(run(sphere, inputs, outputs), expected)
    strange = {"uvs": np.zeros((1, 1, 9), np.float32), "texture": np.zeros((3, 0), np.float32)}
    needed = {"color": ("uvs", "uv_faces", "texture"), "uv": ("uvs", "uv_faces")}
    kept = {name for output in outputs for name in needed.get(output, ())}
    for instead in (dict.fromkeys(strange), strange):
        assert_same_bits(run(sphere, inputs | {k: v for k, v in instead.items() if k not in kept}, outputs), expected)


def test_the_image_size_may_be_an_input(sphere: Scene) -> None:
    inputs = drawing(sphere) | {"image_size": np.array([sphere.height, sphere.width])}
    expected = in_torch(sphere, inputs, ("depth",))
    settings = {"cull": sphere.cull, "depth_clip": int(sphere.depth_clip), "height": 3, "width": 4}
    assert_same_bits(run_model(model_of(inputs, ("depth",), **settings), inputs), expected)


@pytest.mark.parametrize("texels", TYPES, ids=str)
@pytest.mark.parametrize("stored", TYPES, ids=str)
def test_16_bit_attributes_and_textures(sphere: Scene, stored: torch.dtype, texels: torch.dtype) -> None:
    """Casts around a node whose texture and attributes have types of their own; the graph is float32."""
    inputs = drawing(sphere)
    outputs = ("color", "uv", "interpolated_0")
    model = model_of(inputs, outputs, height=sphere.height, width=sphere.width)
    graph, node = model.graph, model.graph.node[0]
    kinds = {"texture": texels, "color": texels, "interpolated_0": stored}
    kinds |= {f"attributes_{k}": stored for k in range(3)}
    before, after = [], []
    for names, casts, back in ((node.input, before, False), (node.output, after, True)):
        for index, name in enumerate(names):
            if name in kinds:
                names[index] = f"{name}_16"
                ends = [f"{name}_16", name] if back else [name, f"{name}_16"]
                to = TensorProto.FLOAT if back else TYPES[kinds[name]]
                casts.append(helper.make_node("Cast", ends[:1], ends[1:], to=to))
    nodes = [*before, node, *after]
    copies = [type(node).FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    narrow = {name: tensor(inputs[name]) for name in inputs}
    expected = ops.render(
        narrow["positions"],
        narrow["faces"],
        sphere.height,
        sphere.width,
        outputs=("color", "uv"),
        **{name: narrow[name] for name in ("uvs", "uv_faces")},
        texture=narrow["texture"].to(texels),
        attributes=[narrow["attributes_0"].to(stored)],
        attribute_faces=[narrow["attribute_faces_0"]],
    )
    assert_same_bits(run_model(model, inputs), {name: value.float() for name, value in expected.items()})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"outputs": "colour"},
            'attribute outputs must list outputs, each once, with commas between them, got "colour"',
        ),
        ({"outputs": "mask,mask"}, 'with commas between them, got "mask,mask"'),
        ({"outputs": ",mask"}, 'with commas between them, got ",mask"'),
        ({"outputs": 3}, "attribute outputs must be a string, got the integer 3"),
        ({"outputs": "color", "texture": None}, "texture must be given for the attribute outputs, but is absent"),
        ({"outputs": "uv", "uv_faces": None}, "uv_faces must be given for the attribute outputs, but is absent"),
        (
            {"outputs": "interpolated_1", "attribute_faces_1": None},
            "attribute_faces_1 must be given for the attribute outputs, but is absent",
        ),
        ({"height": 0}, "attributes height and width must be at least 1 where the input image_size is absent"),
        ({"knum": 0}, "attribute knum must be at least 1, got 0"),
        ({"sigmainv": 0.0}, "attribute sigmainv must be finite and greater than 0, got 0"),
        ({"filter": "trilinear"}, 'attribute filter must be one of "bilinear", "nearest", got "trilinear"'),
        ({"plugin_version": "2"}, 'attribute plugin_version must be "1"'),
    ],
)
def test_what_a_session_refuses(sphere: Scene, changes: dict, sentence: str) -> None:
    inputs = drawing(sphere)
    inputs |= {name: changes[name] for name in changes if name in inputs}
    settings = {"outputs": "mask", "height": 8, "width": 8} | {k: v for k, v in changes.items() if k not in inputs}
    listed = settings.pop("outputs")
    model = model_of(inputs, ("mask",), listed, **settings)
    with pytest.raises(Exception, match="Render") as caught:
        graphs.open_session(model)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("uvs", np.zeros((1, 7, 3), np.float32), "render: channels of uvs must be in [2, 2], got 3"),
        ("uvs", np.zeros((9, 7, 2), np.float32), "Render: uvs must have shape [1 or B, V, D] with B = "),
        ("texture", np.zeros((1, 3, 0, 4), np.float32), "render: texture height must be in [1, 32768], got 0"),
        ("attribute_faces_0", np.zeros((1, 3), np.int32), "Render: attribute_faces_0 must have shape [F, 3] with F = "),
        ("face_ranges", np.zeros((9, 2), np.int32), "Render: face_ranges must have shape [B, 2] with B = "),
    ],
)
def test_what_a_run_refuses(sphere: Scene, name: str, value: np.ndarray, sentence: str) -> None:
    with pytest.raises(Exception, match="ender: ") as caught:
        run(sphere, drawing(sphere) | {name: value}, RENDER_OUTPUTS)
    assert sentence in str(caught.value)


@needs_safe_inference
def test_shapes_are_inferred(sphere: Scene) -> None:
    inputs = drawing(sphere)
    shapes = {
        "positions": ["B", "V", 4],
        "texture": ["A", "C", "Ht", "Wt"],
        "attributes_0": [1, "n", "D"],
        "attributes_1": [1, 4, 2],
        "attributes_2": [1, 4, 3],
    }
    model = model_of(inputs, RENDER_OUTPUTS, shapes=shapes, height=5, width=6)
    actual = {output.name: output.shape for output in graphs.open_session(model).get_outputs()}
    assert actual == {
        "color": ["B", 5, 6, "C"],
        "mask": ["B", 5, 6],
        "face_index": ["B", 5, 6],
        "depth": ["B", 5, 6],
        "barycentrics": ["B", 5, 6, 3],
        "uv": ["B", 5, 6, 2],
        "interpolated_0": ["B", 5, 6, "D"],
        "interpolated_1": ["B", 5, 6, 2],
        "interpolated_2": ["B", 5, 6, 3],
    }


def test_it_runs_on_as_many_threads_as_the_session_has(sphere: Scene) -> None:
    inputs = drawing(sphere)
    model = model_of(inputs, RENDER_OUTPUTS, height=70, width=90)
    first, second = (run_model(model, inputs, threads=threads) for threads in (1, 4))
    for name, value in first.items():
        assert value.tobytes() == second[name].tobytes()
