"""The ONNX Runtime door on its CUDA provider: parity with the CPU provider, where arguments lie, and the stream."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnxruntime_door.graphs import one_node, open_session, run, run_in_16_bits

from gpu.pipeline import HEIGHT, WIDTH, make_mesh

CUDA = "CUDAExecutionProvider"
SLEEP_CYCLES = 1_000_000_000  # half a second and more

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in onnxruntime.get_available_providers(),
        reason=f"onnxruntime {onnxruntime.__version__} has no {CUDA}",
    ),
]

OPS = ["Rasterize", "Interpolate", "SoftMask", "Texture", "Antialias"]
ATTRIBUTES = {
    "Rasterize": {"height": HEIGHT, "width": WIDTH},
    "Interpolate": {},
    "SoftMask": {"sigmainv": 700.0},
    "Texture": {"wrap": "mirror"},
    "Antialias": {},
}


def mesh_arrays(dtype: type[np.floating]) -> dict[str, np.ndarray]:
    mesh = make_mesh(torch.device("cpu"))
    arrays = {name: value.detach().numpy() for name, value in mesh._asdict().items()}
    return {name: array if name == "faces" else array.astype(dtype) for name, array in arrays.items()}


def arguments(op: str, dtype: type[np.floating] = np.float32) -> dict[str, np.ndarray | None]:
    """What the op takes in a renderer; earlier ops of it run on the CPU."""
    mesh = mesh_arrays(dtype)
    ranges = np.array([[0, 400], [100, 250]], np.int32)
    valid = (np.arange(800).reshape(2, 400) % 7 > 0).astype(np.int32)
    geometry = {"positions": mesh["positions"], "faces": mesh["faces"]}
    rasterize = {**geometry, "face_ranges": ranges, "face_valid": valid}
    if op == "Rasterize":
        return rasterize
    raster = run("Rasterize", rasterize, **ATTRIBUTES["Rasterize"])
    covered = {"faces": mesh["faces"], "face_index": raster["face_index"], "barycentrics": raster["barycentrics"]}
    if op == "SoftMask":
        return {**geometry, "face_index": raster["face_index"], "face_ranges": ranges}
    if op == "Antialias":
        image = np.random.default_rng(0).random((*raster["face_index"].shape, 3)).astype(dtype)
        return {"image": image, "positions": mesh["positions"], **covered, "face_ranges": ranges}
    if op == "Interpolate":
        return {"attributes": mesh["uvs"], **covered}
    return {"texture": mesh["texture"], "uv": run("Interpolate", {"attributes": mesh["uvs"], **covered})["output"]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", OPS)
def test_results_are_those_of_the_cpu_provider(op: str, dtype: type[np.floating]) -> None:
    inputs = arguments(op, dtype)
    expected = run(op, inputs, **ATTRIBUTES[op])
    actual = run(op, inputs, provider=CUDA, **ATTRIBUTES[op])
    assert actual.keys() == expected.keys()
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and len(np.unique(value)) > 2
        if name == "face_index":
            assert np.array_equal(actual[name], value)
        else:
            assert np.abs(actual[name] - value).max() <= tolerance * np.abs(value).max(), name


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", ["Interpolate", "Texture", "Antialias"])
def test_sixteen_bit_attributes_and_textures(op: str, dtype: type) -> None:
    inputs = arguments(op)
    stored = next(iter(inputs))
    inputs[stored] = inputs[stored].astype(dtype)
    expected = run_in_16_bits(op, inputs)
    assert len(np.unique(expected)) > 2
    assert np.array_equal(run_in_16_bits(op, inputs, CUDA), expected)


def with_image_size(inputs: dict[str, np.ndarray | None]) -> ModelProto:
    """Rasterize with image_size as the fifth input."""
    return one_node("Rasterize", {**inputs, "image_size": np.zeros(2, np.int64)})


def kernels_run(session: onnxruntime.InferenceSession) -> list[tuple[str, str]]:
    """Op and provider of each kernel, in order, by the session's own profile."""
    events = json.loads(Path(session.end_profiling()).read_text())
    arguments = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    return [(values["op_name"], values["provider"]) for values in arguments]


def test_image_size_stays_in_host_memory(tmp_path: Path) -> None:
    """Neither it nor anything else is copied between the graph's inputs and the kernel."""
    inputs = arguments("Rasterize")
    session = open_session(with_image_size(inputs), provider=CUDA, profile=str(tmp_path / "profile"))
    for height, width in ((HEIGHT, WIDTH), (31, 17)):
        expected = run("Rasterize", inputs, height=height, width=width)["face_index"]
        (actual,) = session.run(["face_index"], {**inputs, "image_size": np.array([height, width])})
        assert np.array_equal(actual, expected)
    assert kernels_run(session) == [("Rasterize", CUDA)] * 2


def test_image_size_that_a_kernel_computed_is_brought_to_host_memory(tmp_path: Path) -> None:
    inputs = arguments("Rasterize")
    model = with_image_size(inputs)
    model.graph.node.insert(0, helper.make_node("Add", ["half", "half"], ["image_size"]))
    model.graph.input[-1].CopyFrom(helper.make_tensor_value_info("half", TensorProto.INT64, [2]))
    session = open_session(model, provider=CUDA, profile=str(tmp_path / "profile"))
    (actual,) = session.run(["face_index"], {**inputs, "half": np.array([20, 15])})
    assert np.array_equal(actual, run("Rasterize", inputs, height=40, width=30)["face_index"])
    assert kernels_run(session) == [("Add", CUDA), ("MemcpyToHost", CUDA), ("Rasterize", CUDA)]


def test_kernels_wait_for_what_the_users_stream_does_before(device: torch.device) -> None:
    """Positions are copied to where the session reads them behind a long sleep on its stream."""
    arrays = mesh_arrays(np.float32)
    expected = run("Rasterize", {name: arrays[name] for name in ("positions", "faces")}, **ATTRIBUTES["Rasterize"])
    positions, faces = (torch.from_numpy(arrays[name]).to(device) for name in ("positions", "faces"))
    read, results = torch.zeros_like(positions), torch.empty((2, HEIGHT, WIDTH), dtype=torch.int32, device=device)
    stream = torch.cuda.Stream(device)
    graph = one_node(
        "Rasterize", {"positions": arrays["positions"], "faces": arrays["faces"]}, **ATTRIBUTES["Rasterize"]
    )
    options = {"device_id": "0", "user_compute_stream": str(stream.cuda_stream)}
    session = open_session(graph, provider=CUDA, provider_options=options)
    binding = session.io_binding()
    for name, tensor, kind in (("positions", read, np.float32), ("faces", faces, np.int32)):
        binding.bind_input(name, "cuda", 0, kind, list(tensor.shape), tensor.data_ptr())
    binding.bind_output("face_index", "cuda", 0, np.int32, list(results.shape), results.data_ptr())
    for name in ("barycentrics", "depth"):
        binding.bind_output(name, "cuda")
    torch.cuda.synchronize()
    for _ in range(2):  # the first run loads the kernels
        with torch.cuda.stream(stream):
            read.zero_()
            torch.cuda._sleep(SLEEP_CYCLES)
            read.copy_(positions)
        session.run_with_iobinding(binding)
        torch.cuda.synchronize()
        assert np.array_equal(results.cpu().numpy(), expected["face_index"])
