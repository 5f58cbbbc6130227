"""Provider tensorrt, on doubles of TensorRT and CUDA that execute engines with ONNX Runtime on the CPU."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_backend.host_build import build
from onnxruntime_door import modules
from runtime_doubles import real_bindings
from runtime_doubles.cuda_driver import Driver
from runtime_doubles.device_tensor import DeviceTensor
from runtime_doubles.machine import VERSION, Machine, affine_model, batches, make_bundle
from runtime_doubles.pycuda import install_pycuda
from runtime_doubles.tensorrt import CLASSES, ENUMERATIONS, Behaviour
from tensorrt_door import environment
from tensorrt_door.handmade import VERTICES, textured_mesh

from dibr_deploy.errors import DibrError, DoorAbsent
from dibr_deploy.export import to_onnx
from dibr_deploy.runtime import Session, dlpack
from dibr_deploy.runtime.bundle import Bundle
from dibr_deploy.runtime.cuda_graphs import MAX_GRAPHS
from dibr_deploy.runtime.tensorrt_backend import TensorRtBackend
from dibr_deploy.runtime.tensorrt_engine import Complaints

NOTHING = {"allocations": 0, "bytes": 0, "streams": 0, "graphs": 0, "contexts": 0}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


@pytest.fixture
def driver(machine: Machine) -> Driver:
    return machine.driver


@pytest.fixture
def trt(machine: Machine) -> Behaviour:
    return machine.install()


@pytest.fixture
def affine(machine: Machine) -> Bundle:
    """sum = x + y and total = x summed over the batch, for 1 to 8 rows."""
    return make_bundle(machine.folder / "affine", affine_model(), [batches(1, 8)])


@pytest.fixture(scope="module")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Of all ops."""
    path = to_onnx(modules.SphereRenderer(), modules.inputs(1), tmp_path_factory.mktemp("model") / "model.onnx")
    return path.read_bytes()


def rows(batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.random((batch, 3), np.float32) for name in ("x", "y")}


def is_right(outputs: dict[str, np.ndarray], feed: dict[str, np.ndarray]) -> bool:
    total = np.abs(outputs["total"] - feed["x"].astype(np.float64).sum(axis=0)).max()
    return list(outputs) == ["sum", "total"] and np.array_equal(outputs["sum"], feed["x"] + feed["y"]) and total < 1e-5


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_gives_what_onnx_runtime_gives(machine: Machine, trt: Behaviour, sphere: bytes, cuda_graphs: bool) -> None:
    profile = {"offsets": ((1, 1, 3), (2, 1, 3), (5, 1, 3)), "world_to_clip": ((1, 4, 4), (2, 4, 4), (5, 4, 4))}
    bundle = make_bundle(machine.folder / "sphere", sphere, [profile])
    with Session(bundle.path, "tensorrt", cuda_graphs=cuda_graphs) as session:
        reference = Session(bundle.path, "cpu", threads=1)
        assert (session.inputs, session.outputs) == (reference.inputs, reference.outputs)
        for index, batch in enumerate((2, 2, 2, 5, 1, 1, 2, 2, 5, 5, 5)):
            torch.manual_seed(index)
            arrays = [tensor.numpy() for tensor in modules.inputs(batch)]
            actual, expected = session.run(*arrays), reference.run(*arrays)
            assert list(actual) == list(expected)
            assert all(np.array_equal(actual[name], expected[name]) for name in expected)
        assert (actual["face_index"] >= 0).any()
        assert (machine.driver.count("cuGraphLaunch") > 0) is cuda_graphs
    assert machine.driver.faults == []


def test_two_threads_on_two_contexts(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine, instances=2)
    inside = threading.Barrier(2, timeout=30)
    synchronize = backend._device.synchronize
    meet = threading.local()

    def synchronize_together(stream: int) -> None:
        """Each thread's first run waits for the other's: both are on the device at the same time."""
        if not getattr(meet, "met", False):
            meet.met = True
            inside.wait()
        synchronize(stream)

    backend._device.synchronize = synchronize_together  # type: ignore[method-assign]

    def work(seed: int) -> bool:
        return all(
            is_right(backend.run(rows(1 + index % 3, seed + index)), rows(1 + index % 3, seed + index))
            for index in range(60)
        )

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, (0, 1000))) == [True, True]
    streams = {arguments[-1] for name, arguments in driver.calls if name == "cuStreamSynchronize"}
    assert len(streams) == 2
    assert trt.count("create_execution_context") == 2
    assert trt.count("deserialize_cuda_engine") == 1
    backend.close()
    assert driver.faults == []


def test_more_threads_than_contexts_wait(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine, instances=1)
    with ThreadPoolExecutor(5) as pool:
        feeds = [rows(1 + seed % 4, seed) for seed in range(40)]
        assert all(is_right(outputs, feed) for outputs, feed in zip(pool.map(backend.run, feeds), feeds, strict=True))
    assert driver.live()["streams"] == 1
    backend.close()


def test_a_thousand_runs_allocate_nothing(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    backend.run(rows(8))
    before = driver.live()
    allocations = driver.count("cuMemAlloc")
    for seed in range(1000):
        feed = rows(1 + seed // 200, seed)
        assert is_right(backend.run(feed), feed)
    assert driver.count("cuMemAlloc") == allocations
    after = driver.live()
    assert after.pop("graphs") == 5
    assert after == {name: count for name, count in before.items() if name != "graphs"}
    backend.close()


def test_a_shape_runs_once_is_recorded_once_and_replays(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    for seed in range(100):
        assert is_right(backend.run(rows(4, seed)), rows(4, seed))
    assert trt.count("execute_async_v3") == 2
    assert driver.count("cuStreamBeginCapture") == 1
    assert driver.count("cuGraphLaunch") == 99
    assert trt.executions == [(4, 4)] * 100
    backend.close()


def test_without_graphs_every_run_is_an_ordinary_one(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine, cuda_graphs=False)
    for seed in range(10):
        assert is_right(backend.run(rows(4, seed)), rows(4, seed))
    assert trt.count("execute_async_v3") == 10
    assert driver.count("cuStreamBeginCapture") == 0
    backend.close()


def test_with_pycuda_there_are_no_graphs(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, trt: Behaviour, affine: Bundle
) -> None:
    install_pycuda(monkeypatch, driver)
    backend = TensorRtBackend(affine, instances=2)
    tensor = DeviceTensor(driver, rows(4)["x"])
    for seed in range(5):
        assert is_right(backend.run(rows(4, seed)), rows(4, seed))
        assert is_right(backend.run({**rows(4), "x": tensor}), rows(4))
        outputs = backend.run_on_device(rows(4, seed))
        assert is_right({name: values_of(driver, output) for name, output in outputs.items()}, rows(4, seed))
    assert driver.count("cuStreamBeginCapture") == 0
    backend.close()
    del outputs
    assert driver.live() == {**NOTHING, "contexts": 1}


def test_a_graph_waits_for_an_ordinary_run_of_its_shapes(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    """The double refuses graphs of a context that has gone on to other shapes; those that exist are used again."""
    backend = TensorRtBackend(affine)
    backend.run(rows(8))
    order = [2, 2, 2, 3, 3, 3, 2, 3, 2, 2, 3, 3]
    for seed, batch in enumerate(order):
        assert is_right(backend.run(rows(batch, seed)), rows(batch, seed))
    assert driver.count("cuStreamBeginCapture") == 2
    assert driver.count("cuGraphLaunch") == 6
    assert driver.faults == []
    backend.close()


def test_contexts_keep_to_their_shapes(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    """So that two shapes that come in any order both replay."""
    backend = TensorRtBackend(affine, instances=2)
    order = np.random.default_rng(0).integers(2, 4, 40)
    for seed, batch in enumerate(order):
        assert is_right(backend.run(rows(batch, seed)), rows(batch, seed))
    assert trt.count("execute_async_v3") == 4
    assert driver.count("cuGraphLaunch") == 38
    backend.close()


def test_a_capture_that_fails_is_no_error_and_is_tried_once(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    trt.capturable = False
    backend = TensorRtBackend(affine)
    for seed in range(10):
        assert is_right(backend.run(rows(4, seed)), rows(4, seed))
    assert driver.count("cuStreamBeginCapture") == 1
    assert driver.count("cuGraphLaunch") == 0
    assert driver.live()["graphs"] == 0
    backend.close()


def test_a_buffer_that_grows_takes_its_graphs_along(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    for batch in (2, 2, 2):
        backend.run(rows(batch))
    assert driver.live()["graphs"] == 1
    backend.run(rows(7))
    assert driver.live()["graphs"] == 0
    for seed, batch in enumerate((2, 2, 2, 7, 7, 7)):
        assert is_right(backend.run(rows(batch, seed)), rows(batch, seed))
    assert driver.live()["graphs"] == 2
    assert driver.faults == []
    backend.close()


def test_graphs_are_bounded(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    """Tensors at ever new addresses make ever new graphs."""
    backend = TensorRtBackend(affine)
    feed = rows(4)
    tensors = [{name: DeviceTensor(driver, value) for name, value in feed.items()} for _ in range(MAX_GRAPHS + 5)]
    for one in tensors:
        for _ in range(3):
            assert is_right(backend.run(one), feed)
    assert driver.live()["graphs"] == MAX_GRAPHS
    backend.close()
    assert driver.live()["graphs"] == 0


def addresses(trt: Behaviour) -> dict[str, int]:
    """That TensorRT was told last."""
    return {arguments[0]: arguments[1] for _, name, arguments in trt.calls if name == "set_tensor_address"}


def test_device_tensors_are_read_in_place(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    feed = rows(3)
    tensors = {name: DeviceTensor(driver, value) for name, value in feed.items()}
    for _ in range(3):
        assert is_right(backend.run(tensors), feed)
    assert {name: addresses(trt)[name] for name in feed} == {name: one.address for name, one in tensors.items()}
    assert driver.count("cuMemcpyHtoDAsync") == 0
    [stream] = driver.streams
    assert all(one.streams == [stream] * 3 for one in tensors.values())
    mixed = {"x": tensors["x"], "y": feed["y"]}
    assert is_right(backend.run(mixed), feed)
    assert driver.count("cuMemcpyHtoDAsync") == 1
    backend.close()


class NeedsGradient:
    shape = (3, 3)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int) -> Any:
        return torch.zeros(3, 3, requires_grad=True).__dlpack__()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda driver, x: DeviceTensor(driver, x, device=1),
            "input x must be on CUDA device 0 or in host memory",
        ),
        (
            lambda driver, x: DeviceTensor(driver, x, transposed=True),
            r"input x must be contiguous: call \.contiguous\(\)",
        ),
        (
            lambda driver, x: DeviceTensor(driver, x, offset=12),
            r"input x must start at a multiple of 256 bytes.*\.clone",
        ),
        (lambda driver, x: DeviceTensor(driver, x.astype(np.float64)), "input x must be float32, got float64"),
        (
            lambda driver, x: NeedsGradient(),
            "input x cannot be taken through DLPack: Can't export tensors that require",
        ),
    ],
)
def test_device_tensors_that_cannot_be_read(
    driver: Driver, trt: Behaviour, affine: Bundle, make: Callable[..., Any], sentence: str
) -> None:
    backend = TensorRtBackend(affine)
    feed = rows(3)
    with pytest.raises(DibrError, match=sentence):
        backend.run({"x": make(driver, feed["x"]), "y": feed["y"]})
    assert is_right(backend.run(feed), feed)
    backend.close()


def values_of(driver: Driver, output: Any) -> np.ndarray:
    size = int(np.prod(output.shape)) * output.dtype.itemsize
    return driver.bytes_at(output.address, size).view(output.dtype).reshape(output.shape).copy()


def test_outputs_on_the_device_are_the_callers(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    """Later runs, closing and the end of the session leave them; without their last reader they are gone."""
    backend = TensorRtBackend(affine)
    feeds = [rows(4, seed) for seed in range(5)]
    held = [backend.run_on_device(feed) for feed in feeds]
    assert driver.count("cuMemcpyDtoHAsync") == 0
    backend.run(feeds[0])
    backend.close()
    del backend
    for outputs, feed in zip(held, feeds, strict=True):
        assert is_right({name: values_of(driver, output) for name, output in outputs.items()}, feed)
    assert driver.live() == {**NOTHING, "allocations": 10, "bytes": 5 * (48 + 12), "contexts": 1}
    del held, outputs
    gc.collect()
    assert driver.live() == NOTHING


def test_device_outputs_do_not_pile_up_and_replay(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    allocations = []
    for seed in range(30):
        outputs = backend.run_on_device(rows(4, seed))
        assert is_right({name: values_of(driver, output) for name, output in outputs.items()}, rows(4, seed))
        allocations.append(driver.live()["allocations"])
    assert max(allocations) <= 2 + 2 * 2
    backend.close()


class OnTheCpu:
    """What the double calls device memory, shown as the host memory that it is."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        output = self.output
        return dlpack.export(output.address, output.shape, output.dtype, (dlpack.CPU, 0), output)


def test_torch_takes_outputs_without_a_copy(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    feed = rows(4)
    outputs = backend.run_on_device(feed)
    assert outputs["sum"].__dlpack_device__() == (dlpack.CUDA, 0)
    address = outputs["sum"].address
    taken = torch.from_dlpack(OnTheCpu(outputs.pop("sum")))
    gc.collect()
    assert taken.data_ptr() == address
    assert np.array_equal(taken.numpy(), feed["x"] + feed["y"])
    del outputs
    backend.close()
    assert driver.live()["allocations"] == 1
    del taken
    assert driver.live()["allocations"] == 0


def test_closing_gives_everything_back(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine, instances=3)
    for seed in range(6):
        backend.run(rows(4, seed))
    assert trt.alive == ["Runtime", "ICudaEngine", *["IExecutionContext"] * 3]
    backend.close()
    assert (driver.live(), trt.alive) == ({**NOTHING, "contexts": 1}, [])
    assert trt.gone == [*["IExecutionContext"] * 3, "ICudaEngine", "Runtime"]
    with pytest.raises(DibrError, match="the TensorRT engine is closed: open the bundle again"):
        backend.run(rows(4))
    backend.close()
    del backend
    assert driver.live() == NOTHING


def test_what_is_not_closed_is_given_back_too(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine, instances=2)
    for _ in range(3):
        backend.run(rows(4))
    del backend
    gc.collect()
    assert (driver.live(), trt.alive) == (NOTHING, [])


def test_closing_waits_for_a_run(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    running, go_on = threading.Event(), threading.Event()
    synchronize = backend._device.synchronize

    def slow(stream: int) -> None:
        running.set()
        assert go_on.wait(30)
        synchronize(stream)

    backend._device.synchronize = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(3) as pool:
        run = pool.submit(backend.run, rows(2))
        assert running.wait(30)
        waiting = pool.submit(backend.run, rows(2))
        closing = pool.submit(backend.close)
        with pytest.raises(DibrError, match="closed"):
            waiting.result(30)
        assert not closing.done()
        go_on.set()
        closing.result(30)
        assert is_right(run.result(30), rows(2))


def test_the_end_of_the_process_without_close(machine: Machine, affine: Bundle) -> None:
    code = (
        "import builtins, sys\n"
        f"sys.path.append({str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\n"
        "import numpy, pytest\n"
        "from runtime_doubles.machine import Machine\n"
        "from dibr_deploy.runtime import Session\n"
        f"Path({str(machine.folder / 'other')!r}).mkdir()\n"
        f"machine = Machine(pytest.MonkeyPatch(), Path({str(machine.folder / 'other')!r}))\n"
        "machine.install()\n"
        f"session = Session({str(affine.path)!r}, 'tensorrt', instances=2)\n"
        "x = numpy.zeros((2, 3), 'f4')\n"
        "builtins.kept = [session.run_on_device(x, x) for _ in range(3)], session\n"
        "print('ran')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "ran\n", "")


@pytest.mark.parametrize(
    ("engine", "capability", "sentence"),
    [
        (
            {"version": "10.16.1.10"},
            (8, 9),
            r"needs TensorRT 10.16.1.10, but tensorrt 10.16.1.11 is installed: install ",
        ),
        ({"version": "10.17"}, (8, 9), r"needs TensorRT 10.17, but tensorrt 10.16.1.11 is installed"),
        ({"version": "10.17", "version_compatible": True}, (8, 9), r"needs TensorRT 10.17 or a later 10\.x, but"),
        ({"version": "9.3.0", "version_compatible": True}, (8, 9), r"needs TensorRT 9.3.0 or a later 9\.x, but"),
        (
            {"flavour": "tensorrt_rtx"},
            (8, 9),
            "needs TensorRT-RTX 10.16.1.11, and the Python package tensorrt_rtx is not",
        ),
        (
            {},
            (9, 0),
            r"was built for devices of compute capability 8\.9, and this one has 9\.0: build the engine again",
        ),
        ({"hardware_compatible": "same_compute_capability"}, (8, 6), r"was built for .* 8\.9, and this one has 8\.6"),
        ({"hardware_compatible": "ampere_plus"}, (7, 5), r"was built for .* 8\.0 and later, and this one has 7\.5"),
        ({"compute_capability": ()}, (7, 5), r"was built for .* 8\.0 and later, and this one has 7\.5"),
        (
            {"plugin_sha256": "0" * 64},
            (8, 9),
            r"was built with another libdibr_tensorrt\.so than .* \(SHA-256 000000000000",
        ),
    ],
)
def test_engines_of_other_machines_are_refused_unopened(
    machine: Machine, trt: Behaviour, engine: dict[str, Any], capability: tuple[int, int], sentence: str
) -> None:
    machine.driver.devices = (capability,)
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], engines=(engine,))
    with pytest.raises(DoorAbsent, match=f"^engine 0.engine of bundle .*/b {sentence}") as raised:
        TensorRtBackend(bundle)
    assert f"`dibr export --bundle {bundle.path} --tensorrt`" in str(raised.value)
    assert trt.calls == []


@pytest.mark.parametrize(
    ("engine", "capability", "installed"),
    [
        ({"version": "10.16"}, (8, 9), ("tensorrt", VERSION)),
        ({"version": "10.9.0", "version_compatible": True}, (8, 9), ("tensorrt", VERSION)),
        ({"version": "10.9.0", "version_compatible": True}, (8, 9), ("tensorrt_lean", VERSION)),
        ({"compute_capability": ("7.5", "9.0")}, (9, 0), ("tensorrt", VERSION)),
        ({"hardware_compatible": "ampere_plus"}, (12, 0), ("tensorrt", VERSION)),
        ({"hardware_compatible": "same_compute_capability"}, (8, 9), ("tensorrt", VERSION)),
        ({"plugin_sha256": "0" * 64, "carries_plugin": True}, (8, 9), ("tensorrt", VERSION)),
        (
            {"flavour": "tensorrt_rtx", "version": "1.7.1", "compute_capability": ()},
            (12, 1),
            ("tensorrt_rtx", "1.7.1.116"),
        ),
    ],
)
def test_engines_for_this_machine_run(
    machine: Machine, engine: dict[str, Any], capability: tuple[int, int], installed: tuple[str, str]
) -> None:
    machine.driver.devices = (capability,)
    behaviour = machine.install(*installed)
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], engines=(engine,))
    backend = TensorRtBackend(bundle)
    assert is_right(backend.run(rows(2)), rows(2))
    assert behaviour.count("load_library") == (0 if engine.get("carries_plugin") else 1)
    backend.close()


def test_a_lean_runtime_is_no_choice_for_an_engine_of_one_version(machine: Machine) -> None:
    machine.install("tensorrt_lean")
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)])
    with pytest.raises(DoorAbsent, match=r"needs TensorRT 10\.16\.1\.11, and the Python package tensorrt is not"):
        TensorRtBackend(bundle)


def test_code_in_an_engine_is_allowed_where_the_engine_has_some(machine: Machine, trt: Behaviour) -> None:
    for engine, allowed in (({}, False), ({"carries_plugin": True}, True), ({"version_compatible": True}, True)):
        bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], engines=(engine,))
        backend = TensorRtBackend(bundle)
        assert backend._closer.peek()[2][2].runtime.engine_host_code_allowed is allowed
        backend.close()


def test_a_plugin_library_that_is_missing(machine: Machine, trt: Behaviour, affine: Bundle) -> None:
    machine.plugin.unlink()
    with pytest.raises(DoorAbsent, match=r"needs the ai\.dibr plugins, but libdibr_tensorrt\.so is not in .*build it"):
        TensorRtBackend(affine)
    assert trt.calls == []


def test_a_damaged_engine_is_refused_unopened(trt: Behaviour, affine: Bundle) -> None:
    file = affine.path / "0.engine"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DibrError, match=r"0\.engine is not the file that manifest\.json describes") as raised:
        TensorRtBackend(affine)
    assert not isinstance(raised.value, DoorAbsent)
    assert trt.calls == []


def test_ops_that_are_newer_than_this_installation(machine: Machine, trt: Behaviour) -> None:
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], schema_version=1000)
    with pytest.raises(DibrError, match=r"uses version 1000 of the ai\.dibr ops.*update dibr_deploy"):
        TensorRtBackend(bundle)
    assert trt.calls == []


def test_the_first_engine_that_fits_is_loaded(machine: Machine, trt: Behaviour) -> None:
    engines = ({"version": "10.0"}, {"compute_capability": ("9.0",)}, {}, {})
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], engines=engines)
    TensorRtBackend(bundle).close()
    assert trt.count("deserialize_cuda_engine") == 1
    machine.driver.devices = ((7, 5),)
    with pytest.raises(DoorAbsent) as raised:
        TensorRtBackend(bundle)
    reasons = str(raised.value).split("; ")
    assert [reason.split()[1] for reason in reasons] == ["0.engine", "1.engine", "2.engine", "3.engine"]
    without = make_bundle(machine.folder / "without", affine_model(), [], engines=())
    with pytest.raises(
        DoorAbsent, match=r"has no TensorRT engine: build one here with `dibr export --bundle .*without"
    ):
        TensorRtBackend(without)


def test_the_plugins_are_loaded_once(trt: Behaviour, affine: Bundle, machine: Machine) -> None:
    for _ in range(2):
        TensorRtBackend(affine).close()
    assert [arguments for _, name, arguments in trt.calls if name == "load_library"] == [(str(machine.plugin),)]


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"profiles": ()}},
        {"engine": {"profiles": "of others"}},
        {"inputs": {"dtype": "float64"}},
        {"inputs": {"shape": ("batch", 4)}},
        {"inputs": {"name": "z"}},
        {"outputs": {"name": "difference"}},
    ],
)
def test_an_engine_of_another_model(machine: Machine, trt: Behaviour, changes: dict[str, Any]) -> None:
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)])
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    if changes.get("engine") == {"profiles": "of others"}:
        changes = {"engine": {"profiles": [{name: {"min": [1, 3], "opt": [1, 3], "max": [9, 3]} for name in "xy"}]}}
    manifest["engines"][0] |= changes.pop("engine", {})
    for part, values in changes.items():
        manifest[part][0] |= values
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DibrError, match="is not what the manifest describes"):
        TensorRtBackend(Bundle(bundle.path))
    gc.collect()
    assert (machine.driver.live(), trt.alive) == (NOTHING, [])


def test_profiles_are_chosen_by_shape(machine: Machine, trt: Behaviour) -> None:
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 2), batches(4, 8)])
    backend = TensorRtBackend(bundle)
    order = [1, 2, 5, 5, 8, 2, 4]
    for seed, batch in enumerate(order):
        assert is_right(backend.run(rows(batch, seed)), rows(batch, seed))
    switches = [arguments[0] for _, name, arguments in trt.calls if name == "set_optimization_profile_async"]
    assert switches == [1, 0, 1]
    with pytest.raises(
        DibrError, match=r"input x has 3 in axis 0 \(batch\), but the engine was built for 1 to 2 or 4 to"
    ):
        backend.run(rows(3))
    with pytest.raises(
        DibrError, match=r"input x has 9 in axis 0 \(batch\), but the engine was built for 1 to 2 or 4 to"
    ):
        backend.run(rows(9))
    assert is_right(backend.run(rows(5)), rows(5))
    backend.close()


def test_shape_inputs(machine: Machine, trt: Behaviour, tmp_path: Path) -> None:
    """An image size that is an input: TensorRT reads it in host memory."""
    model = textured_mesh(tmp_path / "model.onnx", "batch", None).read_bytes()
    profile = {
        "positions": ((1, VERTICES, 4), (1, VERTICES, 4), (4, VERTICES, 4)),
        "texture": ((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8)),
        "image_size": ((4, 4), (16, 16), (64, 48)),
    }
    bundle = make_bundle(machine.folder / "b", model, [profile], shape_inputs=("image_size",))
    random = np.random.default_rng(0)
    with Session(bundle.path, "tensorrt") as session:
        reference = Session(bundle.path, "cpu", threads=1)
        for batch, *size in ((1, 12, 9), (1, 12, 9), (1, 12, 9), (1, 9, 12), (3, 9, 12), (3, 64, 48), (3, 12, 9)):
            positions = random.normal(size=(batch, VERTICES, 4)).astype(np.float32)
            positions[..., 3] = 1
            feed = (positions, random.random((batch, 3, 8, 8), np.float32), np.array(size))
            actual, expected = session.run(*feed), reference.run(*feed)
            assert actual["mask"].shape == (batch, *size)
            assert all(np.array_equal(actual[name], expected[name]) for name in expected)
        assert machine.driver.count("cuGraphLaunch") == 2
        with pytest.raises(DibrError, match="input image_size has 49 in value 1, but the engine was built for 4 to 48"):
            session.run(*feed[:2], np.array([64, 49]))
        on_device = DeviceTensor(machine.driver, np.array([12, 9]))
        with pytest.raises(DibrError, match="input image_size is a shape, which must be in host memory"):
            session.run(*feed[:2], on_device)
    assert machine.driver.faults == []


def test_what_tensorrt_reports_is_in_the_error(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    feed = rows(4)
    backend.run(feed)
    trt.fails = "IPluginV3: SoftMask refuses\n its input: " + "very long " * 40
    for run, trt.has_another_logger in ((backend.run, False), (backend.run_on_device, True)):
        with pytest.raises(
            DibrError, match=r"could not run the engine: IPluginV3: SoftMask refuses its input"
        ) as raised:
            run(feed)
        assert str(raised.value).count("very long") == 40
        assert "\n" not in str(raised.value)
        assert driver.pending() == 0, "the caller may change the inputs again"
    trt.fails = ""
    for _ in range(4):
        assert is_right(backend.run(feed), feed)
    backend.close()


def test_every_thread_has_the_errors_of_its_own() -> None:
    """Two threads that fail with the same words: neither takes the other's."""
    complaints = Complaints()
    failed = threading.Barrier(2, timeout=30)

    def fail() -> list[str]:
        complaints.add("out of memory")
        complaints.add("out of memory")
        failed.wait()
        taken = complaints.take()
        failed.wait()  # or the one's end would make its errors anybody's
        return taken

    with ThreadPoolExecutor(2) as pool:
        taken = [future.result(timeout=30) for future in [pool.submit(fail) for _ in range(2)]]
    assert taken == [["out of memory"]] * 2
    assert complaints.take() == []


def test_work_that_fails_on_the_device(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    tensor = DeviceTensor(driver, rows(4)["x"])
    driver.foreign.clear()  # its library has freed it
    with pytest.raises(DibrError, match=r"could not run the engine: .*cuStreamSynchronize: CUDA_ERROR_ILLEGAL_"):
        backend.run({**rows(4), "x": tensor})
    assert is_right(backend.run(rows(4)), rows(4))
    backend.close()


def test_memory_that_runs_out(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    backend = TensorRtBackend(affine)
    backend.run(rows(1))
    driver.memory_left = 60
    with pytest.raises(DibrError, match="CUDA refuses cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY, out of memory"):
        backend.run(rows(8))
    driver.memory_left = 1 << 20
    assert is_right(backend.run(rows(8)), rows(8))
    backend.close()


def test_a_tensorrt_that_does_not_start(driver: Driver, trt: Behaviour, affine: Bundle) -> None:
    """Its Python object holds a null pointer then: nothing may be asked of it."""
    trt.starts = False
    with pytest.raises(DibrError, match=r"could not load engine 0\.engine of .*: CUDA initialization failure with"):
        TensorRtBackend(affine)
    assert [name for _, name, _ in trt.calls] == ["__init__"]


def test_an_engine_that_tensorrt_refuses(machine: Machine, trt: Behaviour) -> None:
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 8)], engine=b"no engine")
    with pytest.raises(DibrError, match=r"could not load engine .*: Serialization assertion failed\. magic tag"):
        TensorRtBackend(bundle)
    gc.collect()
    assert (machine.driver.live(), trt.alive) == (NOTHING, [])


def test_at_least_one_instance(trt: Behaviour, affine: Bundle) -> None:
    with pytest.raises(DibrError, match="instances must be at least 1, got 0"):
        TensorRtBackend(affine, instances=0)


def test_auto_takes_an_engine_that_fits(machine: Machine, trt: Behaviour, affine: Bundle) -> None:
    with Session(affine.path) as session:
        assert session.provider == "tensorrt"
    machine.driver.devices = ((9, 0),)
    with Session(affine.path) as session:
        assert session.provider == "cpu"
        assert is_right(session.run(**rows(4)), rows(4))


@pytest.mark.parametrize("flavour", ["rtx", "lean"])
def test_the_double_has_what_the_real_bindings_have(machine: Machine, trt: Behaviour, flavour: str) -> None:
    """Names, members, and every call of a whole life with the types of its arguments."""
    bundle = make_bundle(machine.folder / "b", affine_model(), [batches(1, 2), batches(4, 8)])
    backend = TensorRtBackend(bundle)
    for batch in (1, 1, 1, 5):
        backend.run(rows(batch))
    backend.close()
    names = {one.__name__: [name for name in vars(one) if not name.startswith("_")] for one in CLASSES}
    names["Runtime"] += ["error_recorder", "engine_host_code_allowed"]
    names["IExecutionContext"] += ["active_optimization_profile"]
    members = {one.__name__: list(one.__members__) for one in ENUMERATIONS}
    calls = [[kind, name, [real_bindings.kind_of(value) for value in values]] for kind, name, values in trt.calls]
    calls = [call for index, call in enumerate(calls) if call not in calls[:index]]
    assert {"set_input_shape", "set_optimization_profile_async", "load_library"} <= {name for _, name, _ in calls}
    question = {"names": names, "members": members, "calls": calls}
    script = Path(real_bindings.__file__)
    run = subprocess.run(
        [str(environment.python()), str(script), flavour],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []


REAL_TENSORRT = """
import json, sys
sys.path.append(sys.argv[1])
from pathlib import Path
from runtime_doubles.pycuda import install_pycuda
from runtime_doubles.machine import affine_model, batches, make_bundle
from dibr_deploy.errors import DibrError
from dibr_deploy.export.tensorrt import build_engine
from dibr_deploy.runtime.tensorrt_engine import LoadedEngine, check_engine
entry, content = json.loads(sys.argv[3]), b"no engine" * 99
if not entry:
    content, built = build_engine(affine_model(), flavour="tensorrt_rtx")
    entry = dict(built)
bundle = make_bundle(Path(sys.argv[2]), affine_model(), [batches(1, 32)], engines=(entry,), engine=content)
[listed] = bundle.manifest.engines
assert listed.file == entry["file"]
checked = check_engine(bundle, listed, (8, 9))
try:
    LoadedEngine(checked, bundle)
except DibrError as error:
    print(error)
"""

NO_DRIVER = "cudaError 35|error: 35|CUDA driver"


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        pytest.param({}, NO_DRIVER, id="an engine that TensorRT-RTX has just built"),
        pytest.param({"flavour": "tensorrt_rtx", "version": "1.7.1"}, "agic ?[tT]ag", id="no engine"),
        pytest.param({"version": "10.16.1", "version_compatible": True}, NO_DRIVER, id="a runtime that does not start"),
    ],
)
def test_the_real_tensorrt_without_a_device(tmp_path: Path, engine: dict[str, Any], said: str) -> None:
    """The manifest passes, and what TensorRT then says is one sentence and no crash."""
    python = environment.python()
    folder = build(target="dibr_tensorrt", DIBR_TENSORRT="ON", DIBR_TESTS="ON")
    library = folder / "plugins" / "tensorrt" / "libdibr_tensorrt.so"
    if engine:
        engine = {**engine, "file": "model.engine", "plugin_sha256": hashlib.sha256(library.read_bytes()).hexdigest()}
    call = [str(python), "-c", REAL_TENSORRT, str(Path(__file__).parents[1])]
    run = subprocess.run(
        [*call, str(tmp_path / "b"), json.dumps(engine)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DIBR_LIBRARY_DIR": str(library.parent)},
    )
    assert (run.returncode, run.stderr) == (0, "")
    if not run.stdout:
        pytest.skip("this machine has a CUDA device, on which the engine was loaded")
    [line] = run.stdout.splitlines()
    assert re.match(f"TensorRT could not load engine [\\w.-]+ of bundle {tmp_path}/b: .*({said})", line)
