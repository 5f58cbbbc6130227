"""The device, for tests through the C ABI and for tests through torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

# Before the kernel tests are imported from there: their assertions then show values here too.
pytest.register_assert_rewrite("cuda_backend.test_kernels", "gpu.pipeline")

import torch  # noqa: E402
from cuda_backend.abi import CPU, CUDA  # noqa: E402
from cuda_backend.ops import Device  # noqa: E402

from dibr_deploy import _native  # noqa: E402
from gpu.driver import Context, DriverLibrary  # noqa: E402


@pytest.fixture(scope="session")
def library_path() -> Path:
    return _native.library_path("libdibr.so")


@pytest.fixture(scope="session")
def library(library_path: Path) -> Iterator[DriverLibrary]:
    context = Context(primary=True)
    yield DriverLibrary(library_path, context)
    context.destroy()


@pytest.fixture(scope="session")
def cpu(library: DriverLibrary) -> Device:
    return Device(library, CPU)


@pytest.fixture(scope="session")
def cuda(library: DriverLibrary) -> Device:
    return Device(library, CUDA)


@pytest.fixture(scope="session")
def deterministic(library: DriverLibrary) -> Device:
    return Device(library, CUDA, deterministic=True)


@pytest.fixture(params=["device"])
def order(request: pytest.FixtureRequest) -> str:
    """The device chooses the order of blocks and threads."""
    return str(request.param)


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} cannot use the CUDA device")
    return torch.device("cuda")
