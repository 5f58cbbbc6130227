"""The description of the HTTP endpoints that GET /openapi.json gives: for generated clients, and for fuzzers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dibr_deploy.runtime.backend import TensorInfo

from .app import service_of
from .errors import Reason
from .http_infer import InferenceRequest
from .render_route import FORM, FORMATS, Options
from .repository import Model
from .service import NAME, Service
from .tensors import DTYPES, datatype_of, metadata_shape

_REFUSALS = (
    Reason.INVALID, Reason.UNAUTHENTICATED, Reason.NOT_FOUND, Reason.SLOW_UPLOAD, Reason.TOO_LARGE,
    Reason.UNSUPPORTED_MEDIA, Reason.QUEUE_FULL, Reason.FAILED, Reason.UNAVAILABLE, Reason.DEADLINE,
)  # fmt: skip
_TEXT = {"type": "string"}
_MOST_VALUES = 1 << 14
"""Of an example: models that take more numbers have none."""


def routes() -> list[Route]:
    """``/openapi.json``."""

    async def answer(request: Request) -> Response:
        return JSONResponse(description(service_of(request)))

    return [Route("/openapi.json", answer)]


def description(service: Service) -> dict[str, Any]:
    """An OpenAPI 3.1 document. Raw tensors behind the JSON, which OpenAPI has no words for, are not in it."""
    ready = _object(ready={"type": "boolean"})
    request = InferenceRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = request.pop("$defs")
    schemas["InputTensor"]["properties"]["datatype"] = {"enum": list(DTYPES)}
    models = service.models.all()
    examples = {f"{model.name}.{model.version}": _example(model) for model in models if _is_small(model)}
    infer = {**_operation("Run a model", _answer()), "requestBody": _body(request, examples)}
    return {
        "openapi": "3.1.0",
        "info": {"title": NAME, "version": service.version, "description": "The Open Inference Protocol, version 2."},
        "paths": {
            "/v2": {"get": _operation("The service", _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)))},
            "/v2/health/live": {"get": _operation("Whether it runs", _object(live={"type": "boolean"}))},
            "/v2/health/ready": {"get": _operation("Whether it takes requests", ready)},
            "/v2/repository/index": {"post": _operation("What is served", _list(_index()))},
            **_of_model(models, "", "get", _operation("Inputs and outputs of a model", _metadata())),
            **_of_model(models, "/ready", "get", _operation("Whether a model takes requests", ready)),
            **_of_model(models, "/infer", "post", infer),
            **_of_model(models, "/render", "post", _render()),
        },
        "components": {
            "schemas": schemas,
            "examples": examples,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _of_model(models: Sequence[Model], path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """The path without and with a version of the model."""
    name, version = (
        {
            "name": key,
            "in": "path",
            "required": True,
            "schema": {"enum": sorted({getattr(model, key) for model in models})},
        }
        for key in ("name", "version")
    )
    model = "/v2/models/{name}"
    return {
        model + path: {"parameters": [name], method: operation},
        model + "/versions/{version}" + path: {"parameters": [name, version], method: operation},
    }


def _operation(summary: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _content("the answer", schema), **_refusals()}}


def _refusals() -> dict[str, Any]:
    sentence = _object(error=_TEXT)
    unready = {"anyOf": [sentence, _object(ready={"type": "boolean"})]}
    schemas = {reason: unready if reason is Reason.UNAVAILABLE else sentence for reason in _REFUSALS}
    return {
        str(reason.http_status): _content(reason.name.lower().replace("_", " "), schema)
        for reason, schema in schemas.items()
    }


def _render() -> dict[str, Any]:
    view = _object(azimuth={"type": "number"}, elevation={"type": "number"}, image=_TEXT)
    answer = _object(
        model_name=_TEXT, model_version=_TEXT, light=_list({"type": "number"}), light_can_change={"type": "boolean"},
        views=_list(view),
    )  # fmt: skip
    answer["properties"]["mesh"] = _TEXT  # not required: it can be left out
    operation = _operation("Views of the mesh in a photo, and the mesh", answer)
    for media in ("image/png", "model/gltf-binary"):
        operation["responses"]["200"]["content"][media] = {}
    options = Options.model_json_schema()["properties"]
    content: dict[str, Any] = {media: {} for media in FORMATS}
    image = {"type": "string", "format": "binary"}
    content[FORM] = {
        "schema": {"type": "object", "properties": {"image": image, **options}, "required": ["image"]},
        "encoding": {"image": {"contentType": ", ".join(FORMATS)}},
    }
    return {
        **operation,
        "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in options.items()],
        "requestBody": {"required": True, "content": content},
    }


def _metadata() -> dict[str, Any]:
    tensor = _object(name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer", "minimum": -1}))
    return _object(name=_TEXT, platform=_TEXT, versions=_list(_TEXT), inputs=_list(tensor), outputs=_list(tensor))


def _index() -> dict[str, Any]:
    return _object(name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)


def _answer() -> dict[str, Any]:
    tensor = _object(name=_TEXT, datatype=_TEXT, shape=_list({"type": "integer", "minimum": 0}))
    return _object(model_name=_TEXT, model_version=_TEXT, outputs=_list(tensor))


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _body(schema: Mapping[str, Any], examples: Iterable[str]) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/examples/{name}"} for name in examples}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": named}}}


def _is_small(model: Model) -> bool:
    return sum(math.prod(_sizes(info)) for info in model.session.inputs) <= _MOST_VALUES


def _example(model: Model) -> dict[str, Any]:
    """A request that the model answers: zeros, in a batch of one."""
    inputs = [
        {
            "name": info.name,
            "datatype": datatype_of(info.dtype),
            "shape": _sizes(info),
            "data": [False if info.dtype == np.bool_ else 0] * math.prod(_sizes(info)),
        }
        for info in model.session.inputs
    ]
    return {"summary": f"For model {model.name}, version {model.version}", "value": {"inputs": inputs}}


def _sizes(info: TensorInfo) -> list[int]:
    return [max(size, 1) for size in metadata_shape(info)]


def _content(words: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}
