"""The TensorRT door on a device: built by the product's builder, run by its runner, held against the CPU door."""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime_door import modules
from tensorrt_door.handmade import VERTICES, textured_mesh
from torch import Tensor, nn

from dibr_deploy import cameras, ops
from dibr_deploy.errors import DoorAbsent
from dibr_deploy.export import bundle_model, to_bundle
from dibr_deploy.models import ImageToMesh, ImageToMeshRenderer, ModelConfig
from dibr_deploy.runtime import Session
from dibr_deploy.runtime.comparison import compare, compare_sample
from dibr_deploy.runtime.cuda import CudaDevice, open_device
from dibr_deploy.runtime.tensorrt_context import ExecutionContext
from gpu.driver import Context, driver
from gpu.pipeline import make_mesh

# Without TensorRT on a device they fail and are not skipped: the builder says what is missing.
pytestmark = pytest.mark.gpu

TABLE = Path(__file__).resolve().parents[2] / "build" / "gpu_tensorrt_throughput.md"
BATCHES = {"batch": (1, 4, 8)}
RUNS = 10_000
ALLOWED_GROWTH = 4 << 20
"""Of the device's memory in use, bytes: what other processes may take meanwhile."""
TOLERANCES = {False: 1e-4, True: 2e-2}
"""Of an image, by whether it is computed in 16 bits."""
IMAGES = ("image", "trilinear", "antialiased")

Arrays = tuple[np.ndarray, ...]


class Drawn(nn.Module):
    """Positions in clip space and a texture to pictures: no arithmetic stands before the renderer."""

    def __init__(self) -> None:
        super().__init__()
        mesh = make_mesh(torch.device("cpu"))
        self.register_buffer("faces", mesh.faces)
        self.register_buffer("uvs", mesh.uvs.detach())

    def forward(self, positions: Tensor, texture: Tensor) -> dict[str, Tensor]:
        raster = ops.rasterize(positions, self.faces, 70, 90)
        uv = ops.interpolate(self.uvs, self.faces, raster.face_index, raster.barycentrics)
        mask = ops.soft_mask(positions, self.faces, raster.face_index, sigmainv=700.0)
        image = ops.texture(texture, uv, wrap="repeat")
        levels = 5 * raster.barycentrics[..., 0] - 0.5
        mipped = ops.texture(texture, uv, filter="trilinear", wrap="repeat", mip_level=levels)
        blended = ops.antialias(image, positions, self.faces, raster.face_index, raster.barycentrics)
        pictures = {"image": image, "trilinear": mipped, "antialiased": blended, "mask": mask}
        return {**pictures, "face_index": raster.face_index, "depth": raster.depth}


def drawn_inputs(batch: int, seed: int = 0) -> Arrays:
    """Every image another mesh of 400 triangles, and a texture of its own."""
    random = np.random.default_rng(seed)
    meshes = [make_mesh(torch.device("cpu"), seed=seed + image) for image in range((batch + 1) // 2)]
    positions = torch.cat([mesh.positions for mesh in meshes]).detach().numpy()[:batch]
    return positions, random.random((batch, 3, 16, 16), np.float32)


def sized_inputs(batch: int, height: int, width: int) -> Arrays:
    return tuple(tensor.numpy() for tensor in modules.sized_inputs(batch, height, width))


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def half(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def drawn(half: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an engine for batches of 1 to 8."""
    example = tuple(map(torch.from_numpy, drawn_inputs(2)))
    path = tmp_path_factory.mktemp("drawn") / "bundle"
    return to_bundle(Drawn(), example, path, fp16=half, tensorrt={"sizes": BATCHES})


@pytest.fixture(scope="module")
def network(half: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `dibr export` writes it: photos are uint8."""
    torch.manual_seed(0)
    model = ImageToMeshRenderer(ImageToMesh(ModelConfig(image_size=64)), 64, 64)
    camera = cameras.perspective(0.7) @ cameras.orbit(0.3, 0.2, 3.0)
    example = torch.rand(4, 3, 64, 64), camera.expand(4, 4, 4).contiguous()
    path = tmp_path_factory.mktemp("network") / "bundle.zip"
    return to_bundle(model, example, path, fp16=half, photo_input="image", tensorrt={"sizes": BATCHES})


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"batch": (1, 2, 4), "height": (1, 48, 200), "width": (2, 64, 300)}
    example = tuple(map(torch.from_numpy, sized_inputs(2, 30, 40)))
    path = tmp_path_factory.mktemp("sized") / "bundle"
    options = {"dynamic_shapes": modules.SIZED_AXES, "tensorrt": {"sizes": sizes}}
    return to_bundle(modules.SizedSphereRenderer(), example, path, **options)


@pytest.fixture(scope="module")
def any_mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"batch": (1, 2, 4), "vertices": (12, 42, 162), "faces": (20, 80, 320)}
    path = tmp_path_factory.mktemp("any_mesh") / "bundle"
    options = {"dynamic_shapes": modules.MESH_AXES, "tensorrt": {"sizes": sizes}}
    return to_bundle(modules.AnyMesh(), modules.mesh_inputs(2, 1), path, **options)


@pytest.fixture(scope="module")
def image_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image size is an input that TensorRT reads as a shape."""
    folder = tmp_path_factory.mktemp("image_size")
    sizes = {"B": (1, 2, 4), "image_size": ((1, 2), (48, 64), (200, 300))}
    return bundle_model(textured_mesh(folder / "m.onnx", "B", None), folder / "bundle", tensorrt={"sizes": sizes})


def assert_same_pictures(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], half: bool = False) -> None:
    """Of the very same clip positions: the same faces everywhere, and real numbers within the tolerance."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and actual[name].shape == value.shape, name
        if value.dtype == np.int32:
            assert np.array_equal(actual[name], value), f"{name}: {np.count_nonzero(actual[name] != value)} differ"
        else:
            # The rasteriser and the soft mask stay in float32 in a network of 16 bits.
            tolerance = TOLERANCES[half and name in IMAGES]
            assert np.abs(actual[name].astype(np.float64) - value).max(initial=0.0) <= tolerance, name


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_same_positions_give_the_same_pictures(drawn: Path, half: bool, batch: int) -> None:
    """At the smallest size of the profile, between, and at the largest."""
    inputs = drawn_inputs(batch, seed=batch)
    with Session(drawn, "cpu") as cpu, Session(drawn, "tensorrt") as tensorrt:
        expected = cpu.run(*inputs)
        assert_same_pictures(tensorrt.run(*inputs), expected, half)
    assert 0.1 < (expected["face_index"] >= 0).mean() < 0.9


@pytest.mark.parametrize("size", [(1, 1, 2), (2, 48, 64), (3, 97, 31), (4, 200, 300)])
def test_height_and_width_within_the_profile(sized: Path, size: tuple[int, int, int]) -> None:
    """Here positions come out of a projection, whose last bits may differ."""
    inputs = sized_inputs(*size)
    with Session(sized, "cpu") as cpu, Session(sized, "tensorrt") as tensorrt:
        report = compare(cpu.run(*inputs), tensorrt.run(*inputs))
    assert report.passed, str(report)


@pytest.mark.parametrize(("batch", "subdivisions"), [(1, 0), (3, 1), (4, 2)])
def test_vertices_and_faces_within_the_profile(any_mesh: Path, batch: int, subdivisions: int) -> None:
    inputs = [tensor.numpy() for tensor in modules.mesh_inputs(batch, subdivisions)]
    with Session(any_mesh, "cpu") as cpu, Session(any_mesh, "tensorrt") as tensorrt:
        assert_same_pictures(tensorrt.run(*inputs), cpu.run(*inputs))


@pytest.mark.parametrize("size", [(1, 1, 2), (2, 48, 64), (3, 97, 31), (4, 200, 300)])
def test_an_image_size_that_is_an_input(image_size: Path, size: tuple[int, int, int]) -> None:
    batch, *height_and_width = size
    random = np.random.default_rng(batch)
    positions = random.uniform(-1, 1, (batch, VERTICES, 4)).astype(np.float32)
    positions[..., 3] = 1
    inputs = positions, random.random((batch, 3, 8, 8), np.float32), np.array(height_and_width)
    with Session(image_size, "cpu") as cpu, Session(image_size, "tensorrt") as tensorrt:
        for _ in range(3):  # an ordinary run, a recorded one and a replayed one
            assert_same_pictures(tensorrt.run(*inputs), cpu.run(*inputs))


def test_a_whole_network(network: Path) -> None:
    """Against torch's own outputs, as `dibr verify` compares them."""
    report = compare_sample(network, doors=["cpu", "tensorrt"])
    print(report)
    assert report.passed, str(report)
    assert report.covered is not None and report.covered > 0.1


def test_replayed_graphs_give_what_plain_runs_give(drawn: Path) -> None:
    """The first run of a shape records, later ones replay, and shapes alternate."""
    with Session(drawn, "tensorrt", cuda_graphs=True) as graphs, Session(drawn, "tensorrt", cuda_graphs=False) as plain:
        for repeat in range(6):
            for batch in (1, 4, 8):
                inputs = drawn_inputs(batch, seed=10 * repeat + batch)
                assert_equal(graphs.run(*inputs), plain.run(*inputs))
        same_shape = [drawn_inputs(4, seed=seed) for seed in range(20)]
        for inputs in same_shape:
            assert_equal(graphs.run(*inputs), plain.run(*inputs))


def test_graphs_are_recorded_and_replayed(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_device()
    if not opened.supports_graphs:
        pytest.skip(f"{type(opened).__name__} records no CUDA graphs")
    device_class, launched = type(opened), []
    launch_graph = device_class.launch_graph

    def note(self: CudaDevice, graph: int, stream: int) -> None:
        launched.append(graph)
        launch_graph(self, graph, stream)

    monkeypatch.setattr(device_class, "launch_graph", note)
    with Session(drawn, "tensorrt", cuda_graphs=True) as session:
        for _ in range(5):
            session.run(*drawn_inputs(4))
    assert len(launched) >= 3


def test_two_threads_with_two_contexts(drawn: Path) -> None:
    cases = [drawn_inputs(batch, seed=batch) for batch in (1, 3, 4, 8)]
    with Session(drawn, "tensorrt", instances=2) as session:
        expected = [session.run(*inputs) for inputs in cases]

        def work(thread: int) -> None:
            for repeat in range(50):
                index = (repeat + thread) % len(cases)
                assert_equal(session.run(*cases[index]), expected[index])

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, thread) for thread in range(2)]:
                done.result(timeout=300)


def memory_in_use() -> int:
    """Of the whole device, bytes, by the driver."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    context = Context(primary=True)
    with context.current():
        driver().call("cuCtxSynchronize")
        driver().call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    context.destroy()
    return total.value - free.value


@pytest.mark.parametrize("method", ["run", "run_on_device"])
@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "plain"])
def test_device_memory_does_not_grow(drawn: Path, cuda_graphs: bool, method: str) -> None:
    cases = [drawn_inputs(batch) for batch in (1, 2, 8)]
    with Session(drawn, "tensorrt", cuda_graphs=cuda_graphs) as session:
        run = getattr(session, method)
        for _ in range(20):
            for inputs in cases:
                run(*inputs)
        before = memory_in_use()
        for repeat in range(RUNS):
            run(*cases[repeat % len(cases)])
        assert memory_in_use() - before <= ALLOWED_GROWTH


def test_sessions_give_their_memory_back(drawn: Path) -> None:
    def open_and_close() -> None:
        with Session(drawn, "tensorrt", instances=2) as session:
            session.run(*drawn_inputs(8))

    open_and_close()
    before = memory_in_use()
    for _ in range(20):
        open_and_close()
    assert memory_in_use() - before <= ALLOWED_GROWTH


@pytest.fixture
def told_addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Addresses that TensorRT was given, by tensor."""
    told: dict[str, int] = {}
    set_address = ExecutionContext._set_address

    def note(self: ExecutionContext, name: str, address: int) -> None:
        told[name] = address
        set_address(self, name, address)

    monkeypatch.setattr(ExecutionContext, "_set_address", note)
    return told


def test_torch_tensors_are_used_where_they_are(
    drawn: Path, device: torch.device, told_addresses: dict[str, int]
) -> None:
    """DLPack in and out: TensorRT reads torch's memory, and torch reads what TensorRT wrote."""
    arrays = drawn_inputs(4)
    tensors = [torch.from_numpy(array).to(device) for array in arrays]
    with Session(drawn, "tensorrt", cuda_graphs=False) as session:
        names = [info.name for info in session.inputs]
        outputs = session.run_on_device(*tensors)
        results = {name: torch.from_dlpack(value) for name, value in outputs.items()}
        assert all(told_addresses[name] == tensor.data_ptr() for name, tensor in zip(names, tensors, strict=True))
        assert all(told_addresses[name] == result.data_ptr() for name, result in results.items())
        assert all(result.device.type == "cuda" for result in results.values())
        expected = session.run(*arrays)
        assert_equal({name: result.cpu().numpy() for name, result in results.items()}, expected)
        kept = {name: result.clone() for name, result in results.items()}
        session.run(*drawn_inputs(4, seed=5))
        assert all(torch.equal(results[name], kept[name]) for name in kept)
    assert all(torch.equal(results[name], kept[name]) for name in kept)  # outputs outlive the session


def test_tensors_that_a_stream_still_writes(drawn: Path, device: torch.device) -> None:
    """The session waits for what its inputs' stream has been given before."""
    arrays = drawn_inputs(4)
    with Session(drawn, "tensorrt") as session:
        expected = session.run(*arrays)
        with torch.cuda.stream(torch.cuda.Stream(device)):
            tensors = [torch.zeros(array.shape, device=device) for array in arrays]
            torch.cuda._sleep(100_000_000)
            for tensor, array in zip(tensors, arrays, strict=True):
                tensor.copy_(torch.from_numpy(array).pin_memory(), non_blocking=True)
            assert_equal(session.run(*tensors), expected)


def test_onnxruntime_with_tensorrt(drawn: Path, half: bool) -> None:
    inputs = drawn_inputs(4)
    try:
        session = Session(drawn, "onnxruntime-tensorrt")
    except DoorAbsent as absent:
        pytest.skip(str(absent))
    with session, Session(drawn, "cpu") as cpu:
        assert_same_pictures(session.run(*inputs), cpu.run(*inputs), half)


def milliseconds(run: Callable[[], Any], repeats: int = 50) -> float:
    """Median of single calls, after five to warm up. Each call ends when its outputs are there."""
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def throughput_rows(bundle: Path, device: torch.device) -> Iterator[tuple[str, int, float]]:
    """Way to run, batch, milliseconds."""
    for batch in (1, 4, 8):
        arrays = drawn_inputs(batch)
        tensors = [torch.from_numpy(array).to(device) for array in arrays]
        for name, graphs in (("TensorRT, graphs", True), ("TensorRT, plain", False)):
            with Session(bundle, "tensorrt", cuda_graphs=graphs) as session:
                yield f"{name}, host", batch, milliseconds(lambda s=session, a=arrays: s.run(*a))
                yield f"{name}, device", batch, milliseconds(lambda s=session, t=tensors: s.run_on_device(*t))
        for provider in ("onnxruntime-tensorrt", "cuda", "cpu"):
            try:
                opened = Session(bundle, provider)
            except DoorAbsent:
                continue
            with opened:
                yield provider, batch, milliseconds(lambda s=opened, a=arrays: s.run(*a), repeats=10)


def test_throughput_table(drawn: Path, half: bool, device: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed and kept; nothing is asserted of the speed: devices differ."""
    rows = list(throughput_rows(drawn, device))
    precision = "float16" if half else "float32"
    lines = [f"{torch.cuda.get_device_name()}: 70x90 pixels, 400 faces, {precision}", ""]
    lines += ["| door | batch | milliseconds | images per second |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {batch} | {time_:.3f} | {batch / time_ * 1e3:,.0f} |" for name, batch, time_ in rows]
    path = TABLE.with_stem(f"{TABLE.stem}_{precision}")
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(path)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert all(time_ > 0 for _, _, time_ in rows)
