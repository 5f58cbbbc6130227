"""The torch door on CUDA tensors: parity with the CPU, gradients, streams, graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from dibr_deploy import ops
from gpu.pipeline import Mesh, assert_close, assert_same, gradients, make_mesh, render

pytestmark = pytest.mark.gpu

DIFFERENTIABLE = ["rasterize", "rasterize, screen space", "soft_mask", "interpolate", "texture", "antialias"]
SLEEP_CYCLES = 1_000_000_000  # half a second and more


@pytest.fixture
def deterministic_mode() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_and_gradients_are_those_of_the_cpu(device: torch.device, dtype: torch.dtype) -> None:
    meshes = [make_mesh(torch.device(kind), dtype) for kind in ("cpu", device)]
    expected, actual = [render(mesh) for mesh in meshes]
    assert all(output.device.type == device.type for output in actual)
    assert torch.equal(actual[0].cpu(), expected[0])
    assert 0.1 < (expected[0] >= 0).double().mean() < 0.9
    assert_close(actual[1:], expected[1:])
    assert_close(gradients(meshes[1], actual), gradients(meshes[0], expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_attributes_and_textures(device: torch.device, dtype: torch.dtype) -> None:
    def run(mesh: Mesh) -> list[Tensor]:
        with torch.no_grad():
            raster = ops.rasterize(mesh.positions, mesh.faces, 40, 50)
            uv = ops.interpolate(mesh.uvs.to(dtype), mesh.faces, raster.face_index, raster.barycentrics)
            image = ops.texture(mesh.texture.to(dtype), uv.float())
            return [uv, image, ops.antialias(image, mesh.positions, mesh.faces, raster.face_index, raster.barycentrics)]

    actual, expected = run(make_mesh(device)), run(make_mesh(torch.device("cpu")))
    assert all(output.dtype == dtype for output in actual)
    assert_same([output.cpu() for output in actual], expected)


def small_mesh(device: torch.device) -> tuple[Tensor, Tensor]:
    """Two overlapping triangles of different w; no pixel centre of a 5x6 image is near an edge."""
    front = [[-0.7, -0.8, 0.1], [0.81, -0.52, 0.3], [0.07, 0.9, -0.2]]
    back = [[-0.93, 0.11, 0.5], [0.52, 0.83, 0.4], [0.9, -0.97, 0.6]]
    points = torch.tensor([front + back], dtype=torch.float64)
    w = torch.tensor([1.0, 1.3, 0.8, 1.1, 0.9, 1.2], dtype=torch.float64)[None, :, None]
    positions = torch.cat([points * w, w], dim=2)
    faces = torch.tensor([[0, 1, 2], [3, 5, 4]], dtype=torch.int32)
    return positions.to(device).requires_grad_(), faces.to(device)


def differentiated(op: str, device: torch.device) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A function of what the op is differentiable in, and where to check it."""
    positions, faces = small_mesh(device)
    raster = ops.rasterize(positions.detach(), faces, 5, 6)
    assert (raster.face_index >= 0).any() and (raster.face_index < 0).any()
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).to(device).requires_grad_()

    if op == "rasterize":
        return lambda p: tuple(ops.rasterize(p, faces, 5, 6))[1:], (positions,)
    if op == "rasterize, screen space":
        return lambda p: tuple(ops.rasterize(p, faces, 5, 6, perspective_correct=False))[1:], (positions,)
    if op == "soft_mask":
        options = {"sigmainv": 3.0, "boxlen": 3.0, "knum": 2}
        return lambda p: (ops.soft_mask(p, faces, raster.face_index, **options),), (positions,)
    if op == "interpolate":
        weights = raster.barycentrics.clone().requires_grad_()
        return lambda a, b: (ops.interpolate(a, faces, raster.face_index, b),), (uniform(1, 6, 3), weights)
    if op == "antialias":
        covered = faces, raster.face_index, raster.barycentrics
        return lambda i, p: (ops.antialias(i, p, *covered),), (uniform(1, 5, 6, 2), positions)
    return lambda t, uv: (ops.texture(t, uv, wrap="mirror"),), (uniform(1, 2, 4, 3), uniform(1, 5, 6, 2))


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradcheck(device: torch.device, op: str) -> None:
    """Against finite differences in float64. Atomics add in any order: hence nondet_tol."""
    function, inputs = differentiated(op, device)
    assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-5, nondet_tol=1e-9)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradcheck_in_deterministic_mode(device: torch.device, deterministic_mode: None, op: str) -> None:
    function, inputs = differentiated(op, device)
    assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-5, nondet_tol=0.0)


def test_deterministic_mode_repeats_gradients_bit_for_bit(device: torch.device, deterministic_mode: None) -> None:
    mesh = make_mesh(device)
    first = gradients(mesh, render(mesh))
    for _ in range(5):
        assert_same(gradients(mesh, render(mesh)), first)


def test_two_side_streams_give_what_one_gives(device: torch.device, deterministic_mode: None) -> None:
    meshes = [make_mesh(device, seed=seed) for seed in (1, 2)]
    sizes = [(70, 90), (129, 257)]
    expected = []
    for mesh, size in zip(meshes, sizes, strict=True):
        outputs = render(mesh, *size)
        expected.append([*outputs, *gradients(mesh, outputs)])
    streams = [torch.cuda.Stream(device) for _ in meshes]
    torch.cuda.synchronize()
    results: list[list[list[Tensor]]] = [[], []]
    for _ in range(20):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                outputs = render(meshes[i], *sizes[i])
                results[i].append([*outputs, *gradients(meshes[i], outputs)])
    torch.cuda.synchronize()
    for i, repeats in enumerate(results):
        for result in repeats:
            assert_same(result, expected[i])


def test_calls_return_before_the_device_is_done(device: torch.device) -> None:
    """The first call loads the kernels and torch's memory; the second must wait for nothing."""
    mesh = make_mesh(device)
    gradients(mesh, render(mesh))
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(SLEEP_CYCLES)
    gradients(mesh, render(mesh))
    done.record()
    still_running = not done.query()
    torch.cuda.synchronize()
    assert still_running


def test_streams_do_not_wait_for_each_other(device: torch.device) -> None:
    mesh = make_mesh(device)
    blocked, free = torch.cuda.Stream(device), torch.cuda.Stream(device)
    torch.cuda.synchronize()
    for stream in (blocked, free):
        with torch.cuda.stream(stream):
            render(mesh)
    torch.cuda.synchronize()
    events = {stream: torch.cuda.Event() for stream in (blocked, free)}
    with torch.cuda.stream(blocked):
        torch.cuda._sleep(SLEEP_CYCLES)
        render(mesh)
        events[blocked].record(blocked)
    with torch.cuda.stream(free):
        render(mesh)
        events[free].record(free)
    events[free].synchronize()
    still_running = not events[blocked].query()
    torch.cuda.synchronize()
    assert still_running


def copy_into(target: Mesh, source: Mesh) -> None:
    with torch.no_grad():
        for old, new in zip(target, source, strict=True):
            old.copy_(new)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
def test_graph_replay_with_changed_inputs(device: torch.device, backward: bool) -> None:
    def run(mesh: Mesh) -> list[Tensor]:
        outputs = render(mesh)
        return [*outputs, *gradients(mesh, outputs)] if backward else outputs

    mesh = make_mesh(device, seed=4)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(mesh)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(mesh)
    for seed in (5, 6, 4):
        changed = make_mesh(device, seed=seed)
        copy_into(mesh, changed)
        graph.replay()
        torch.cuda.synchronize()
        expected = run(changed)
        assert_same(captured[:5], expected[:5])
        assert_close(captured[5:], expected[5:])
