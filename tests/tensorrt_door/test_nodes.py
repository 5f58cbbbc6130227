"""The nodes that the exporter writes are those that the creators take: name, version, namespace, attributes, types."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper
from onnx.defs import OpSchema

from dibr_deploy.export import schemas

SELECTORS = ("plugin_version", "plugin_namespace", "tensorrt_plugin_shape_input_indices")
FIELD_TYPES = {OpSchema.AttrType.INT: "INT32", OpSchema.AttrType.FLOAT: "FLOAT32", OpSchema.AttrType.STRING: "CHAR"}


@pytest.fixture(scope="module")
def creators(ask, libraries) -> dict[str, dict]:
    return ask("rtx", "fields", library=libraries["getCreators"])


def op_schemas() -> dict[str, OpSchema]:
    schemas.register()
    return {schema.name: schema for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == "ai.dibr"}


def test_every_op_has_a_creator(creators: dict[str, dict]) -> None:
    assert sorted(op_schemas()) == sorted(creators)


@pytest.mark.parametrize("op", ["Rasterize", "Interpolate", "SoftMask", "Texture", "Antialias", "Render"])
def test_schemas_agree(creators: dict[str, dict], op: str) -> None:
    schema, creator = op_schemas()[op], creators[op]
    attributes = schema.attributes
    assert helper.get_attribute_value(attributes["plugin_version"].default_value).decode() == creator["version"]
    assert helper.get_attribute_value(attributes["plugin_namespace"].default_value).decode() == creator["namespace"]
    declared = {name: FIELD_TYPES[a.type] for name, a in attributes.items() if name not in SELECTORS}
    assert declared == creator["fields"]


def test_defaults_agree(ask, libraries) -> None:
    """A plugin from no fields is the plugin from the schema's defaults."""
    cases = []
    for op, schema in op_schemas().items():
        defaults = []
        for name, attribute in schema.attributes.items():
            if name in SELECTORS:
                continue
            value = helper.get_attribute_value(attribute.default_value)
            defaults.append([name, FIELD_TYPES[attribute.type], value.decode() if isinstance(value, bytes) else value])
        cases += [{"op": op, "fields": fields, "phase": "BUILD"} for fields in ([], defaults)]
    answers = ask("rtx", "create", library=libraries["getCreators"], cases=cases)
    for bare, given in zip(answers[::2], answers[1::2], strict=True):
        assert bare["created"] and given["created"], (bare, given)
        assert bare["metadata"] == given["metadata"]
