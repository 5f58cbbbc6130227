"""Requests that schemathesis draws from the service's own description, on real connections."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import schemathesis
import urllib3
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.clients import Http
from server.photos import photo
from server.service import running

EXAMPLES = max(int(os.environ.get("DIBR_HOSTILE_ITERATIONS", "50000")) // 4000, 25)
"""Of each operation, as described and otherwise: 250 at full length."""
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance,
]  # fmt: skip
DRAWN = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


for form in ("png", "jpeg"):
    schemathesis.openapi.media_type(f"image/{form}", strategies.just(photo(form=form.upper())))


@pytest.fixture(scope="module")
def described(shape: Path) -> Iterator[Any]:
    """What a service says of itself that makes meshes of photos."""
    with running([f"shape={shape}"], grpc_port=None) as service:
        yield schemathesis.openapi.from_url(f"http://{service.http}/openapi.json")
        assert Http(service).post("/v2/models/shape/render", photo(), content_type="image/png").status == 200


@pytest.mark.long
def test_answers_are_as_described(described: Any, record_property: Any) -> None:
    """To good requests and bad ones: never an internal error, and a status, a type and a body that are announced. Every
    operation succeeds at some, the examples of the description among them."""
    counts = Counter[tuple[str, bool]]()

    def check(case: schemathesis.Case) -> None:
        response = case.call_and_validate(checks=CHECKS)
        counts[case.operation.label, response.status_code == 200] += 1

    operations = [result.ok() for result in described.get_all_operations()]
    for operation in operations:
        for strategy in operation.get_strategies_from_examples():
            settings(DRAWN, max_examples=1)(given(strategy)(check))()
        for mode in modes(operation):
            DRAWN(given(operation.as_strategy(generation_mode=mode))(check))()
    accepted, refused = (sum(n for (_, good), n in counts.items() if good == kind) for kind in (True, False))
    record_property("accepted", accepted)
    record_property("refused", refused)
    assert [operation.label for operation in operations if not counts[operation.label, True]] == []
    assert refused > 4 * EXAMPLES  # what has no parameters is asked for once


def test_examples_are_answered(described: Any) -> None:
    """Each by the model and version that it is for."""
    raw = described.raw_schema
    assert list(raw["components"]["examples"]) == ["shape.1"]
    for name, example in raw["components"]["examples"].items():
        model, _, version = name.rpartition(".")
        url = urljoin(described.location, f"/v2/models/{model}/versions/{version}/infer")
        answer = urllib3.request("POST", url, json=example["value"])
        assert answer.status == 200, answer.data


def modes(operation: Any) -> list[GenerationMode]:
    """What breaks the description can be drawn only where there is something to break."""
    free = list(operation.iter_parameters()) or operation.body
    return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if free else [GenerationMode.POSITIVE]
