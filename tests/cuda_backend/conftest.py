"""The two devices of one libdibr: the CPU backend, and the CUDA kernels executed on the CPU."""

from __future__ import annotations

import pytest

from cuda_backend.abi import CPU, CUDA, Library
from cuda_backend.host_build import build
from cuda_backend.ops import Device


@pytest.fixture(scope="session")
def library() -> Library:
    return Library(build() / "plugins" / "libdibr.so")


@pytest.fixture(scope="session")
def cpu(library: Library) -> Device:
    return Device(library, CPU)


@pytest.fixture(scope="session")
def cuda(library: Library) -> Device:
    return Device(library, CUDA)


@pytest.fixture(scope="session")
def deterministic(library: Library) -> Device:
    return Device(library, CUDA, deterministic=True)


@pytest.fixture(params=["forward", "reverse", "random:1"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The order in which blocks, and threads between two barriers, run."""
    monkeypatch.setenv("CUDA_ON_HOST_ORDER", request.param)
    return str(request.param)
