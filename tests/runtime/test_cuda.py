"""Device memory through cuda-python and pycuda, on doubles of the driver, and DLPack with real libraries."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from cuda.core.utils import StridedMemoryView
from runtime_doubles.cuda_driver import Driver, Handle, install
from runtime_doubles.pycuda import install_pycuda

from dibr_deploy.errors import DibrError, DoorAbsent
from dibr_deploy.runtime import cuda, dlpack
from dibr_deploy.runtime.cuda import CudaDevice, open_device
from dibr_deploy.runtime.device_arrays import DeviceArray, DeviceMemory, GrowingBuffer


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return install(monkeypatch)


@pytest.fixture
def device(driver: Driver) -> CudaDevice:
    return open_device()


def round_trip(device: CudaDevice) -> None:
    """Values to the device and back, on a stream."""
    values = np.random.default_rng(0).random((3, 5), np.float32)
    copy = np.zeros_like(values)
    with device.current():
        stream, address = device.create_stream(), device.allocate(values.nbytes)
        device.copy_to_device(address, values, stream)
        device.copy_to_host(copy, address, stream)
        device.synchronize(stream)
        device.free(address)
        device.destroy_stream(stream)
    assert np.array_equal(copy, values)


def test_a_device_of_cuda_python(driver: Driver, device: CudaDevice) -> None:
    assert (device.index, device.name, device.compute_capability) == (0, "NVIDIA Double 0", (8, 9))
    assert device.supports_graphs
    round_trip(device)
    assert not driver.has_current_context()
    assert driver.live() == {"allocations": 0, "bytes": 0, "streams": 0, "graphs": 0, "contexts": 1}
    del device


def test_the_context_is_given_back(driver: Driver) -> None:
    device = open_device()
    assert driver.retained == 1
    del device
    assert driver.retained == 0


def test_another_device_of_the_machine(driver: Driver) -> None:
    driver.devices = ((7, 5), (12, 0))
    assert open_device(1).compute_capability == (12, 0)
    with pytest.raises(DoorAbsent, match="device must be from 0 to 1, got 2: this machine has 2 CUDA devices"):
        open_device(2)
    driver.devices = ()
    with pytest.raises(DoorAbsent, match=r"CUDA_ERROR_NO_DEVICE, no device\): install the NVIDIA driver, or run on"):
        open_device()


def test_what_cuda_refuses_is_a_sentence(driver: Driver, device: CudaDevice) -> None:
    driver.memory_left = 100
    with device.current(), pytest.raises(DibrError, match="CUDA refuses cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY, out of"):
        device.allocate(101)
    with pytest.raises(DibrError, match="CUDA refuses cuMemAlloc: CUDA_ERROR_INVALID_CONTEXT"):
        device.allocate(1)


def test_the_context_is_current_per_thread(driver: Driver, device: CudaDevice) -> None:
    seen = []
    with device.current():
        thread = threading.Thread(target=lambda: seen.append(driver.has_current_context()))
        thread.start()
        thread.join()
        with device.current():
            pass
        assert driver.has_current_context()
    assert seen == [False]


def test_captured_work_runs_when_it_is_launched(driver: Driver, device: CudaDevice) -> None:
    values, copy = np.arange(4.0), np.zeros(4)
    with device.current():
        stream, memory = device.create_stream(), DeviceMemory(device, values.nbytes)
        device.begin_capture(stream)
        device.copy_to_device(memory.address, values, stream)
        device.copy_to_host(copy, memory.address, stream)
        graph = device.end_capture(stream)
        device.synchronize(stream)
        assert not copy.any()
        for factor in (1, 2):
            values[:] = factor * np.arange(4.0)
            device.launch_graph(graph, stream)
            device.synchronize(stream)
            assert np.array_equal(copy, values)
        device.destroy_graph(graph)
    assert driver.live()["graphs"] == 0


def test_what_goes_away_in_a_capture_is_freed_after_it(driver: Driver, device: CudaDevice) -> None:
    """Python may collect garbage at any time, and freeing would spoil the capture."""
    with device.current():
        stream, memory = device.create_stream(), DeviceMemory(device, 8)
        device.begin_capture(stream)
        del memory
        assert driver.live()["allocations"] == 1
        device.destroy_graph(device.end_capture(stream))
    assert driver.live()["allocations"] == 0


def test_a_capture_that_fails_leaves_the_stream_usable(driver: Driver, device: CudaDevice) -> None:
    with device.current():
        stream = device.create_stream()
        device.begin_capture(stream)
        with pytest.raises(DibrError, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
            device.allocate(8)
        with pytest.raises(DibrError, match="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
            device.end_capture(stream)
    round_trip(device)


def test_buffers_grow_and_never_shrink(driver: Driver, device: CudaDevice) -> None:
    freed: list[int] = []
    buffer = GrowingBuffer(device, freed.append)
    with device.current():
        first = buffer.at_least(100)
        assert buffer.at_least(0) == buffer.at_least(100) == buffer.at_least(7) == first
        second = buffer.at_least(101)
        assert (freed, driver.live()["allocations"]) == ([first], 1)
        assert buffer.at_least(100) == second
        buffer.free()
    assert (freed, driver.live()["allocations"]) == ([first, second], 0)


def test_memory_is_freed_with_its_last_reader(driver: Driver, device: CudaDevice) -> None:
    with device.current():
        array = DeviceArray(device, (2, 3), np.dtype(np.float32))
    capsule = array.__dlpack__(stream=7)
    del array
    assert driver.live()["bytes"] == 24
    del capsule
    assert driver.live()["bytes"] == 0
    del device


def test_an_array_on_the_device_as_cuda_core_sees_it(device: CudaDevice) -> None:
    with device.current():
        array = DeviceArray(device, (2, 3, 4), np.dtype(np.float16))
    view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    assert (view.ptr, view.shape, view.dtype, view.device_id) == (array.address, (2, 3, 4), np.float16, 0)
    assert view.strides == (12, 4, 1)
    assert view.is_device_accessible
    with pytest.raises(BufferError, match="without a copy"):
        array.__dlpack__(copy=True)


class Exporter:
    """An array in host memory, shown through our DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def __dlpack__(self, **_: Any) -> Any:
        array = self.array
        return dlpack.export(array.ctypes.data, array.shape, array.dtype, self.__dlpack_device__(), self)


DTYPES = "float16 float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool".split()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)])
def test_torch_and_numpy_take_what_we_export(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    before = len(dlpack._exported)
    for take in (torch.from_dlpack, np.from_dlpack):
        taken = take(Exporter(array))
        gc.collect()
        assert np.array_equal(np.asarray(taken), array)
        assert np.asarray(taken).dtype == array.dtype
        assert array.size == 0 or np.asarray(taken).ctypes.data == array.ctypes.data
        assert len(dlpack._exported) == before + 1
        del taken
        assert len(dlpack._exported) == before


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_we_see_what_torch_exports(dtype: str) -> None:
    tensor = torch.zeros(4, 6, dtype=getattr(torch, dtype))
    for part, contiguous in ((tensor, True), (tensor[1:3], True), (tensor[:, 1:], False), (tensor.T, False)):
        view = dlpack.view(part)
        assert view.address == part.data_ptr()
        assert (view.shape, view.dtype, view.contiguous) == (tuple(part.shape), dtype, contiguous)
        assert view.device == (dlpack.CPU, 0)
    assert dlpack.view(tensor[:1].expand(1, 6)).contiguous
    assert dlpack.view(tensor[:0]).contiguous


def test_a_view_keeps_the_tensor_alive_and_no_longer() -> None:
    array = np.zeros(3)
    before = sys.getrefcount(array)
    view = dlpack.view(array)
    assert sys.getrefcount(array) > before
    del view
    assert sys.getrefcount(array) == before


def test_tensors_outlive_the_interpreter() -> None:
    """What other libraries still hold at the end of the process is given back to a module that is gone."""
    code = (
        "import builtins, numpy, torch\n"
        "from dibr_deploy.runtime import dlpack\n"
        "class Exporter:\n"
        "    array = numpy.zeros(3, 'f4')\n"
        "    def __dlpack_device__(self): return 1, 0\n"
        "    def __dlpack__(self, **_):\n"
        "        return dlpack.export(self.array.ctypes.data, (3,), self.array.dtype, (1, 0), self)\n"
        "builtins.tensor = torch.from_dlpack(Exporter())\n"
        "builtins.capsule = Exporter().__dlpack__()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_functions_of_the_double_are_those_of_cuda_python(driver: Driver) -> None:
    """Called as we call the double, each real function gets as far as looking for the driver's library."""
    device = open_device()
    round_trip(device)
    with device.current():
        stream = device.create_stream()
        device.begin_capture(stream)
        graph = device.end_capture(stream)
        device.launch_graph(graph, stream)
        device.destroy_graph(graph)
        with pytest.raises(DibrError):
            device.free(1)
    del device
    gc.collect()
    called = dict(driver.calls)
    functions = {name for name in dir(Driver) if name.startswith("cu")}
    assert set(called) == functions
    answers = real_cuda_python(called)
    if answers.pop("has a driver", False):
        pytest.skip("this machine has a CUDA driver, which would get invented handles")
    assert answers == dict.fromkeys(functions, "no driver")


REAL_CUDA_PYTHON = """
import ctypes, json, sys
from cuda.bindings import driver
try:
    driver.cuInit(0)
    print(json.dumps({"has a driver": True}))
    sys.exit()
except RuntimeError:
    pass
kinds = {"CUdevice_attribute": driver.CUdevice_attribute, "CUstreamCaptureMode": driver.CUstreamCaptureMode,
         "CUresult": driver.CUresult}
answers = {}
for name, arguments in json.load(sys.stdin).items():
    values = [getattr(kinds[one[0]], one[1]) if isinstance(one, list) else one for one in arguments]
    try:
        getattr(driver, name)(*values)
        answers[name] = "returned"
    except RuntimeError:
        answers[name] = "no driver"
    except Exception as error:
        answers[name] = repr(error)
print(json.dumps(answers))
"""


def real_cuda_python(called: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """What the real functions answer to arguments of the same types, from a process of its own."""
    import enum
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return [type(value).__name__, value.name]
        return value.value if isinstance(value, Handle) else value

    arguments = {name: [plain(value) for value in values] for name, values in called.items()}
    run = subprocess.run(
        [sys.executable, "-c", REAL_CUDA_PYTHON],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_without_a_driver_there_is_one_sentence() -> None:
    code = (
        "from dibr_deploy.runtime.cuda import open_device\n"
        "from dibr_deploy.errors import DoorAbsent\n"
        "try:\n"
        "    print(open_device().name)\n"
        "except DoorAbsent as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    if "cannot be used here" not in run.stdout:
        pytest.skip("this machine has a CUDA driver")
    [line] = run.stdout.splitlines()
    assert line.startswith("CUDA cannot be used here (")
    assert line.endswith("): install the NVIDIA driver, or run on a machine that has an NVIDIA GPU")


def test_without_a_package_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_is_installed", lambda package: False)
    with pytest.raises(DoorAbsent, match=r"neither is installed: install dibr_deploy with the extra \[cuda-python\]"):
        open_device()


def test_a_device_of_pycuda(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    install_pycuda(monkeypatch, driver)
    device = open_device()
    assert (device.name, device.compute_capability, device.supports_graphs) == ("NVIDIA Double", (8, 9), False)
    round_trip(device)
    assert driver.live() == {"allocations": 0, "bytes": 0, "streams": 0, "graphs": 0, "contexts": 1}
    driver.memory_left = 0
    with device.current(), pytest.raises(DibrError, match="CUDA refuses: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY"):
        device.allocate(1)
    with pytest.raises(DoorAbsent, match="device must be from 0 to 0, got 1"):
        open_device(1)
