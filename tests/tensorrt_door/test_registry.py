"""Both libraries in the plugin registries of TensorRT-RTX 1.7 and of TensorRT's lean runtime 10.16."""

from __future__ import annotations

import os
import subprocess

import pytest

from tensorrt_door import environment

ALL = [[op, "1"] for op in ("Antialias", "Interpolate", "Rasterize", "Render", "SoftMask", "Texture")]

pytestmark = pytest.mark.parametrize("flavour", ["rtx", "lean"])


def test_the_registry_loads_the_library(ask, libraries, flavour) -> None:
    library = libraries["getCreators"]
    loaded, gone, again = ask(flavour, "creators", steps=[["load", library], ["deregister"], ["load", library]])
    assert loaded["succeeded"] and loaded["creators"] == ALL
    assert gone["creators"] == []
    assert again["succeeded"] and again["creators"] == ALL


def test_the_static_library_registers_itself(ask, libraries, flavour) -> None:
    first, second = ask(flavour, "creators", steps=[["dlopen", libraries["static"]]] * 2)
    assert first["creators"] == second["creators"] == ALL
    assert first["logged"] == second["logged"] == []


def test_the_static_library_leaves_what_is_registered(ask, libraries, flavour) -> None:
    loaded, both = ask(flavour, "creators", steps=[["load", libraries["getCreators"]], ["dlopen", libraries["static"]]])
    assert loaded["creators"] == both["creators"] == ALL
    assert both["logged"] == []


def test_the_registry_refuses_to_load_what_is_registered(ask, libraries, flavour) -> None:
    static, both = ask(flavour, "creators", steps=[["dlopen", libraries["static"]], ["load", libraries["getCreators"]]])
    assert static["creators"] == both["creators"] == ALL
    assert not both["succeeded"]


PRINT_OURS = """
import importlib, sys
creators = importlib.import_module(sys.argv[1]).get_plugin_registry().all_creators
print(*sorted(creator.name for creator in creators if creator.plugin_namespace == "ai.dibr"))
"""


def test_preloaded(libraries: dict[str, str], flavour: str) -> None:
    """Together with TensorRT, in either order, it registers its plugins; alone it says why it has not."""
    python = environment.python()
    files = {"rtx": "tensorrt_rtx_libs/libtensorrt_rtx.so.1", "lean": "tensorrt_lean_libs/libnvinfer_lean.so.10"}
    [tensorrt] = python.parents[1].glob(f"lib/python*/site-packages/{files[flavour]}")
    both = [str(tensorrt), libraries["static"]]
    for preloaded in (both, both[::-1], both[1:]):
        variables = {**os.environ, "LD_PRELOAD": ":".join(preloaded)}
        call = [str(python), "-c", PRINT_OURS, f"tensorrt_{flavour}_bindings"]
        done = subprocess.run(call, env=variables, capture_output=True, text=True, check=True)
        names = [name for name, _ in ALL] if len(preloaded) == 2 else []
        assert done.stdout.split() == names, (preloaded, done.stderr)
        assert ("has registered no plugins" in done.stderr) == (names == [])


def test_plugins_from_fields(ask, libraries, flavour) -> None:
    stamp = ["schema_version", "INT32", 1]
    cases = [
        {"op": "Rasterize", "fields": [["height", "INT32", 64], ["cull", "CHAR", "back"]], "phase": "BUILD"},
        {"op": "Interpolate", "fields": [], "phase": "BUILD"},
        {"op": "Interpolate", "fields": [stamp], "phase": "RUNTIME"},
        {"op": "Antialias", "fields": [], "phase": "BUILD"},
        {"op": "Antialias", "fields": [stamp], "phase": "RUNTIME"},
        {"op": "SoftMask", "fields": [["sigmainv", "FLOAT32", 100.0], ["knum", "INT64", 5]], "phase": "BUILD"},
        {
            "op": "Texture",
            "fields": [stamp, ["filter", "CHAR", "nearest"], ["wrap", "CHAR", "repeat"]],
            "phase": "RUNTIME",
        },
    ]
    for case, answer in zip(cases, ask(flavour, "create", library=libraries["getCreators"], cases=cases), strict=True):
        assert answer["created"], answer
        assert answer["core"] == [case["op"], "1", "ai.dibr"]
        assert answer["outputs"] == (3 if case["op"] == "Rasterize" else 1)
        assert answer["recorded"] == []


def test_refusals_reach_recorder_and_logger(ask, libraries, flavour) -> None:
    refused = {
        "Rasterize: field height must be one integer of 32 bits, got float32": ["Rasterize", "height", "FLOAT32", 64],
        "Rasterize: field height must be one integer of 32 bits, got 2 values": [
            "Rasterize",
            "height",
            "INT32",
            [1, 2],
        ],
        "rasterize: height must be in [1, 32768], got 40000": ["Rasterize", "height", "INT32", 40000],
        'Texture: field filter must be "nearest" or "bilinear" or "trilinear", got "cubic"': [
            "Texture",
            "filter",
            "CHAR",
            "cubic",
        ],
        'SoftMask: unknown field "sigma"': ["SoftMask", "sigma", "FLOAT32", 1.0],
        'Antialias: unknown field "height"': ["Antialias", "height", "INT32", 8],
        "Interpolate: made for op schema version 2, but this library has version 1; build the engine again, or use the "
        "dibr_deploy that built it": ["Interpolate", "schema_version", "INT32", 2],
    }
    cases = [{"op": op, "fields": [field], "phase": "BUILD"} for op, *field in refused.values()]
    answers = ask(flavour, "create", library=libraries["getCreators"], cases=cases)
    for sentence, answer in zip(refused, answers, strict=True):
        assert not answer["created"]
        assert answer["recorded"] == [sentence[:127]]  # IErrorRecorder takes no more
        # Without a device the lean runtime creates no IRuntime, and so has no logger to give.
        assert answer["logged"] == ([sentence] if flavour == "rtx" else [])
