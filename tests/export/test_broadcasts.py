"""Elementwise nodes over pictures: that they run along whole rows of pixels, and that no bit of any result changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import phong_sphere
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime_door import modules
from phong_sphere import PhongSphere
from small_networks import coarse
from stretches import LONGEST_ROW, stretches
from torch import nn

from dibr_deploy.export import exporter, to_onnx
from dibr_deploy.export.broadcasts import lay_out_broadcasts
from dibr_deploy.renderer import MeshRenderer
from dibr_deploy.runtime import Session

HEIGHT, WIDTH = 24, 20
BACKGROUND = (0.1, 0.2, 0.3)
LAYOUTS = {
    "pixels": ("batch", "H", "W", 3),
    "numbers": ("batch", "H", "W", 1),
    "one_pixel": (1, 1, 3),
    "one_pixel_each": ("batch", 1, 1, 3),
    "a_row": ("W", 1),
    "one_number_each": ("batch", 1, 1, 1),
    "one_number": (1,),
    "number": (),
}
SIZES = {"batch": 2, "H": 5, "W": 7}
PIXELS = 2 * 5 * 7
ARITHMETIC = ["Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]


def graph(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list]], outputs: dict[str, int]) -> onnx.ModelProto:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def results(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def concrete(shape: tuple, named: bool = False) -> list:
    return [size if named else SIZES.get(size, size) for size in shape]


def numbers(shape: tuple, dtype: type, seed: int) -> np.ndarray:
    """Positive, with infinity and NaN among them."""
    drawn = np.asarray(np.random.default_rng(seed).uniform(0.1, 3, concrete(shape)), dtype)
    if drawn.size > 40:
        drawn.flat[3:40:6], drawn.flat[4:40:7] = np.nan, np.inf
    return drawn


def pairs() -> list[tuple[str, str]]:
    """Two layouts, in both orders, that make pixels or single numbers for them."""
    found = [(big, small) for big in ("pixels", "numbers") for small in LAYOUTS if small != big]
    return sorted({*found, *(pair[::-1] for pair in found)})


@pytest.mark.parametrize("named", [False, True], ids=["fixed sizes", "symbolic sizes"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS)
def test_two_inputs(op: str, dtype: type, named: bool) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    shapes = {name: (kind, concrete(shape, named)) for name, shape in LAYOUTS.items()}
    nodes = [helper.make_node(op, pair, ["_".join(pair)], name="-".join(pair)) for pair in pairs()]
    result = kind if op in ARITHMETIC else TensorProto.BOOL
    model = graph(nodes, shapes, {node.output[0]: result for node in nodes})
    changed = lay_out_broadcasts(model)
    assert len(changed.graph.node) > len(model.graph.node)
    feed = {name: numbers(shape, dtype, seed) for seed, (name, shape) in enumerate(LAYOUTS.items())}
    for node, before, after in zip(nodes, results(model, feed), results(changed, feed), strict=True):
        assert before.dtype == after.dtype
        assert before.shape == after.shape
        np.testing.assert_array_equal(before, after, err_msg=node.name)
    if not named:
        assert min(stretches(model, PIXELS).values()) <= 3
        assert min(stretches(changed, PIXELS).values()) >= SIZES["W"]


@pytest.mark.parametrize("named", [False, True], ids=["fixed sizes", "symbolic sizes"])
def test_a_choice_keeps_what_is_not_chosen_out(named: bool) -> None:
    """Of pixels, of numbers, and of a number: NaN and infinity stay behind what covers them."""
    layouts = {"covered": (TensorProto.BOOL, concrete(LAYOUTS["numbers"], named))}
    layouts |= {name: (TensorProto.FLOAT, concrete(shape, named)) for name, shape in LAYOUTS.items()}
    choices = [("pixels", "one_pixel"), ("one_pixel_each", "pixels"), ("numbers", "number"), ("one_number", "pixels")]
    nodes = [helper.make_node("Where", ["covered", *pair], ["_".join(pair)], name="-".join(pair)) for pair in choices]
    model = graph(nodes, layouts, {node.output[0]: TensorProto.FLOAT for node in nodes})
    feed = {name: numbers(shape, np.float32, seed) for seed, (name, shape) in enumerate(LAYOUTS.items())}
    covered = np.random.default_rng(9).random(concrete(LAYOUTS["numbers"])) < 0.5
    changed = lay_out_broadcasts(model)
    for pair, result in zip(choices, results(changed, {"covered": covered, **feed}), strict=True):
        np.testing.assert_array_equal(result, np.where(covered, *(feed[name] for name in pair)))
    if not named:
        assert min(stretches(model, PIXELS).values()) <= 3
        assert min(stretches(changed, PIXELS).values()) >= SIZES["W"]


def test_what_several_nodes_read_is_made_once() -> None:
    layouts = {name: (TensorProto.FLOAT, concrete(LAYOUTS[name])) for name in ("pixels", "numbers", "one_pixel")}
    nodes = [helper.make_node(op, ["pixels", "numbers"], [op], name=op) for op in ARITHMETIC]
    nodes += [helper.make_node("Mul", ["numbers", "one_pixel"], ["outer"], name="outer")]
    changed = lay_out_broadcasts(graph(nodes, layouts, dict.fromkeys([*ARITHMETIC, "outer"], TensorProto.FLOAT)))
    assert [node.op_type for node in changed.graph.node].count("Concat") == 1


@pytest.mark.parametrize(
    ("shape", "target", "changed"),
    [
        (["batch", 5, 7, 1], ["batch", 5, 7, 3], True),
        (["batch", 5, 7, 1], [2, "batch", 5, 7, 3], False),
        (["batch", 1, 7, 1], ["batch", 5, 7, 3], False),
        (["batch", 5, 7, 1], ["batch", 5, 7, 9], False),
        (["batch", 7, 1, 1], ["batch", 7, 1, 3], False),
        (["batch", 1], ["batch", 3], False),
    ],
)
def test_expand(shape: list, target: list, changed: bool) -> None:
    """What repeats numbers alone is a Concat then, and the graph's output keeps its name."""
    sizes = [helper.make_node("Shape", ["like"], ["sizes"]), helper.make_node("Expand", ["x", "sizes"], ["y"])]
    inputs = {"x": (TensorProto.FLOAT, shape), "like": (TensorProto.FLOAT, target)}
    model = lay_out_broadcasts(graph(sizes, inputs, {"y": TensorProto.FLOAT}))
    assert ("Concat" in {node.op_type for node in model.graph.node}) == changed
    x = numbers(tuple(shape), np.float32, 0)
    like = np.zeros(concrete(tuple(target)), np.float32)
    (y,) = results(model, {"x": x, "like": like})
    np.testing.assert_array_equal(y, np.broadcast_to(x, like.shape))


def test_what_is_small_or_long_or_unknown_is_left_alone() -> None:
    inputs = {
        "matrix": ["batch", 3],
        "factor": ["batch", 1],
        "columns": ["batch", 1, 3],
        "column": ["batch", 1, 1],
        "long": ["batch", 7, 9],
        "places": ["batch", 7, 1],
        "unknown": ["batch", 7, "channels"],
    }
    read = [("matrix", "factor"), ("columns", "column"), ("long", "places"), ("long", "unknown"), ("unknown", "places")]
    nodes = [helper.make_node("Mul", pair, ["_".join(pair)], name="-".join(pair)) for pair in read]
    kinds = {name: (TensorProto.FLOAT, shape) for name, shape in inputs.items()}
    model = graph(nodes, kinds, {node.output[0]: TensorProto.FLOAT for node in nodes})
    assert lay_out_broadcasts(model).graph.node == model.graph.node


def lit_sphere() -> nn.Module:
    return PhongSphere(MeshRenderer(HEIGHT, WIDTH, background=BACKGROUND), subdivisions=2, radius=0.7)


CASES: dict[str, tuple[Any, Any]] = {
    "image to mesh": (coarse, lambda: (torch.rand(2, 3, 32, 32), modules.inputs(2)[1])),
    "phong": (lit_sphere, phong_sphere.inputs),
}


@pytest.mark.parametrize("case", CASES)
def test_shading_leaves_no_short_stretch_and_gives_the_same_bits(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, draw_inputs = CASES[case]
    module, args = make(), draw_inputs()
    path = to_onnx(module, args, tmp_path / "model.onnx")
    monkeypatch.setattr(exporter, "lay_out_broadcasts", lambda model: model)
    plain = to_onnx(module, args, tmp_path / "plain.onnx")
    pixels = len(args[0]) * HEIGHT * WIDTH
    assert min(stretches(onnx.load(plain), pixels).values()) <= 3
    assert min(stretches(onnx.load(path), pixels).values()) > LONGEST_ROW
    arrays = [arg.numpy() for arg in args]
    after, before = (Session(file, "cpu", threads=1).run(*arrays) for file in (path, plain))
    assert list(after) == list(before)
    for name, value in after.items():
        assert value.tobytes() == before[name].tobytes(), name


def test_a_texture_that_is_not_finite_stays_off_the_background(tmp_path: Path) -> None:
    world_to_clip, texture, light = phong_sphere.inputs()
    path = to_onnx(lit_sphere(), (world_to_clip, texture, light), tmp_path / "model.onnx")
    for value in (float("nan"), float("inf")):
        outputs = Session(path, "cpu", threads=1).run(
            world_to_clip.numpy(), torch.full_like(texture, value).numpy(), light.numpy()
        )
        covered = outputs["face_index"] >= 0
        assert 0 < covered.sum() < covered.size
        assert not np.isfinite(outputs["image"][covered]).any()
        assert (outputs["image"][~covered] == np.float32(BACKGROUND)).all()
