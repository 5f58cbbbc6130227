"""Requests that schemathesis draws from the service's own description, on real connections."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from server.clients import Http, first
from server.gated import gated_model
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


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        model = gated_model(patch, tmp_path_factory.mktemp("described"))
        with running([model], grpc_port=None) as service:
            yield schemathesis.openapi.from_url(f"http://{service.http}/openapi.json")
            assert first(Http(service).infer(21.0)) == 42, "the service is no longer what it was"


@pytest.mark.long
def test_answers_are_as_described(described: Any, record_property: Any) -> None:
    """To good requests and bad ones: never an internal error, and a status, a type and a body that are announced."""
    counts = Counter[str]()

    @DRAWN
    def check(case: schemathesis.Case) -> None:
        response = case.call_and_validate(checks=CHECKS)
        counts["accepted" if response.status_code == 200 else "refused"] += 1

    for operation in (result.ok() for result in described.get_all_operations()):
        for mode in modes(operation):
            given(operation.as_strategy(generation_mode=mode))(check)()
    for name, count in counts.items():
        record_property(name, count)
    assert counts["accepted"] > 5 and counts["refused"] > 4 * EXAMPLES  # what has no parameters is asked for once


def modes(operation: Any) -> list[GenerationMode]:
    """What breaks the description can be drawn only where there is something to break."""
    free = list(operation.iter_parameters()) or operation.body
    return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if free else [GenerationMode.POSITIVE]
