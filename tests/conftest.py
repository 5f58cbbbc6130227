"""What all tests share: the path that test helpers are imported from, a fixed seed, and what becomes of the models that
they export."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Appended, so that no folder of tests can hide an installed package.
TESTS = str(Path(__file__).parent)
if TESTS not in sys.path:
    sys.path.append(TESTS)

from tensorrt_door import environment  # noqa: E402
from tensorrt_door.watch import Watch  # noqa: E402

WATCH = Watch()
WATCH.start()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test draws the same numbers, whatever ran before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_report_header() -> str:
    """A check that is not made must not read as one that passes."""
    if environment.PYTHON.exists():
        return "TensorRT: every exported model is held against TensorRT-RTX's parser and builder"
    return "TensorRT: exported models are NOT held against it, and its tests are skipped: `make setup-trt`"


@pytest.fixture(autouse=True)
def exported_models_build_in_tensorrt(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test fails where TensorRT would not take a model that it has exported: its nodes, parser and builder."""
    yield
    models = WATCH.take()
    if not models or not environment.is_there():
        return
    from tensorrt_door import exported

    found = [exported.problems(model) for model in models if exported.is_exported(model)]
    refused = exported.REFUSED.get(request.node.nodeid)
    if refused is None:
        assert not any(found), f"TensorRT would refuse an exported model: {found}"
    else:
        assert found and all(refused in " ".join(problems) for problems in found), f"not refused for {refused}: {found}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a CUDA device is reported as skipped, by name, where there is none."""
    of_a_device = [item for item in items if item.get_closest_marker("gpu")]
    if not of_a_device:
        return
    from gpu.driver import has_device

    if not has_device():
        for item in of_a_device:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
