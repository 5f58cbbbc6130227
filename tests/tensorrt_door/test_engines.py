"""ONNX through the real ONNX parser and builder of TensorRT-RTX, which need no device, into engine bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto
from onnxruntime_door import modules
from small_networks import EXAMPLE, coarse

from dibr_deploy.export import to_onnx
from tensorrt_door.handmade import VERTICES, textured_mesh


@pytest.fixture
def build_engine(ask, libraries, tmp_path):
    def build(model: Path, profile: dict[str, list] | None = None, **options: Any) -> tuple[dict, bytes]:
        engine = tmp_path / "model.engine"
        answer = ask(
            "rtx",
            "build",
            library=libraries["getCreators"],
            model=str(model),
            engine=str(engine),
            profile=profile or {},
            **options,
        )
        return answer, engine.read_bytes() if engine.exists() else b""

    return build


def expect_engine(answer: dict, engine: bytes, model: Path) -> None:
    """The engine holds the plugin of each of our nodes with its fields and their stamp."""
    assert answer["parsed"] and answer["built"], answer["errors"]
    nodes = [node for node in onnx.load(model).graph.node if node.domain == "ai.dibr"]
    assert len(answer["plugins"]) == len(nodes) > 0
    for node in nodes:
        assert node.op_type.encode() in engine
        for attribute in node.attribute:
            if attribute.name not in ("plugin_version", "plugin_namespace", "tensorrt_plugin_shape_input_indices"):
                assert attribute.name.encode() in engine, f"{node.op_type}.{attribute.name}"
    assert engine.count(b"ai.dibr") >= len(nodes)
    assert engine.count(b"schema_version") >= len(nodes)


def test_static_shapes(build_engine, tmp_path: Path) -> None:
    model = textured_mesh(tmp_path / "model.onnx", 2, (16, 24))
    answer, engine = build_engine(model)
    expect_engine(answer, engine, model)
    raster = [[[2, 16, 24], "INT32"], [[2, 16, 24, 3], "FLOAT"], [[2, 16, 24], "FLOAT"]]
    image = [[[2, 16, 24, 3], "FLOAT"]]
    others = [[[[2, 16, 24, 2], "FLOAT"]], image, image, [[[2, 16, 24], "FLOAT"]]]
    assert answer["plugins"] == [raster, *others]


def test_dynamic_batch_and_texture(build_engine, tmp_path: Path) -> None:
    model = textured_mesh(tmp_path / "model.onnx", "B", (16, 24), texture=("Ht", "Wt"))
    profile = {
        "positions": [[batch, VERTICES, 4] for batch in (1, 2, 8)],
        "texture": [[1, 3, 4, 4], [2, 3, 8, 8], [8, 3, 64, 32]],
    }
    answer, engine = build_engine(model, profile)
    expect_engine(answer, engine, model)
    assert answer["plugins"][0][0] == [[-1, 16, 24], "INT32"]
    assert answer["plugins"][2] == [[[-1, 16, 24, 3], "FLOAT"]]


def test_image_size_is_a_shape_input(build_engine, tmp_path: Path) -> None:
    model = textured_mesh(tmp_path / "model.onnx", "B", None)
    profile = {
        "positions": [[batch, VERTICES, 4] for batch in (1, 2, 8)],
        "texture": [[batch, 3, 8, 8] for batch in (1, 2, 8)],
        "image_size": [[1, 1], [64, 48], [512, 256]],
    }
    answer, engine = build_engine(model, profile)
    expect_engine(answer, engine, model)
    assert answer["plugins"][0][1] == [[-1, -1, -1, 3], "FLOAT"]


@pytest.mark.parametrize(("dtype", "name"), [(TensorProto.FLOAT16, "HALF"), (TensorProto.BFLOAT16, "BF16")])
def test_16_bit_textures(build_engine, tmp_path: Path, dtype: int, name: str) -> None:
    model = textured_mesh(tmp_path / "model.onnx", 2, (16, 24), texture_type=dtype)
    answer, engine = build_engine(model)
    expect_engine(answer, engine, model)
    assert [outputs[0][1] for outputs in answer["plugins"]] == ["INT32", "FLOAT", name, name, "FLOAT"]


def test_an_engine_carries_the_library(build_engine, libraries, tmp_path: Path) -> None:
    model = textured_mesh(tmp_path / "model.onnx", 2, (16, 24))
    _, bare = build_engine(model)
    answer, engine = build_engine(model, embed=True)
    expect_engine(answer, engine, model)
    assert b"getCreators" in engine
    assert b"getCreators" not in bare


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"height": 0}, "Rasterize: field height must be at least 1 where there is no shape input image_size, got 0"),
        ({"height": -3}, "rasterize: height must be in [1, 32768], got -3"),
        ({"height": 4.0}, "Rasterize: field height must be one integer of 32 bits, got float32"),
        ({"cull": "front"}, 'Rasterize: field cull must be "none" or "back", got "front"'),
        ({"depth_clip": 7}, "Rasterize: field depth_clip must be 0 or 1, got 7"),
        ({"plugin_version": "2"}, "Plugin not found"),
    ],
)
def test_nodes_that_are_refused(build_engine, tmp_path: Path, changes: dict, sentence: str) -> None:
    answer, engine = build_engine(textured_mesh(tmp_path / "model.onnx", 2, (16, 24), changes=changes))
    assert not (answer["parsed"] and answer["built"])
    assert any(sentence in error for error in answer["errors"]), answer["errors"]
    assert engine == b""


def test_rasterize_needs_its_depth_output(build_engine, tmp_path: Path) -> None:
    """The parser wants as many outputs of a node as its plugin has, whether or not they are read."""
    answer, _ = build_engine(textured_mesh(tmp_path / "model.onnx", 2, (16, 24), depth=False))
    assert not answer["parsed"]
    assert any("expected output size is 3, actual output size is 2" in error for error in answer["errors"])


def test_an_image_size_that_is_no_shape_input_is_refused(build_engine, tmp_path: Path) -> None:
    changes = {"tensorrt_plugin_shape_input_indices": None}
    answer, _ = build_engine(textured_mesh(tmp_path / "model.onnx", 2, None, changes=changes))
    sentence = "Rasterize: the inputs must be 2 to 4, and image_size a shape input, got 5"
    assert any(sentence in error for error in answer["errors"]), answer["errors"]


def test_an_exported_module(build_engine, tmp_path: Path) -> None:
    model = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path / "model.onnx")
    profile = {"offsets": [[b, 1, 3] for b in (1, 2, 8)], "world_to_clip": [[b, 4, 4] for b in (1, 2, 8)]}
    answer, engine = build_engine(model, profile)
    expect_engine(answer, engine, model)


def test_an_exported_module_of_any_size(build_engine, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = to_onnx(
        modules.SizedSphereRenderer(), modules.sized_inputs(1, 6, 7), path, dynamic_shapes=modules.SIZED_AXES
    )
    profile = {
        "background": [[1, 3, 1, 1], [2, 3, 32, 48], [8, 3, 128, 256]],
        "offsets": [[b, 1, 3] for b in (1, 2, 8)],
        "world_to_clip": [[b, 4, 4] for b in (1, 2, 8)],
    }
    answer, engine = build_engine(model, profile)
    expect_engine(answer, engine, model)


@pytest.mark.parametrize(
    ("dynamic_batch", "parts"),
    [
        (False, {}),
        (True, {"colour_features": 8}),
        (True, {"encoder": "resnet18"}),
        (True, {"encoder": "resnet18", "norm": "frozen_batch"}),
    ],
    ids=["fixed", "colours", "resnet18", "resnet18, frozen_batch"],
)
def test_an_exported_network(build_engine, tmp_path: Path, dynamic_batch: bool, parts: dict[str, Any]) -> None:
    model = to_onnx(coarse(**parts), EXAMPLE, tmp_path / "model.onnx", dynamic_batch=dynamic_batch)
    names = [value.name for value in onnx.load(model).graph.input]
    profile = {name: [[b, *tensor.shape[1:]] for b in (1, 2, 4)] for name, tensor in zip(names, EXAMPLE, strict=True)}
    answer, engine = build_engine(model, profile if dynamic_batch else {})
    expect_engine(answer, engine, model)
