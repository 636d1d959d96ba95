from __future__ import annotations

from typing import Any

import pytest

from sno_dist.config.schema import Config

TYPES = {"array", "boolean", "integer", "null", "number", "object", "string"}


@pytest.fixture
def schema() -> dict[str, Any]:
    return Config.model_json_schema()


def parts(node: Any) -> list[dict[str, Any]]:
    """All sub-schemas."""
    if isinstance(node, list):
        return [part for child in node for part in parts(child)]
    if not isinstance(node, dict):
        return []
    return [node, *(part for child in node.values() for part in parts(child))]


def test_every_reference_resolves(schema: dict[str, Any]) -> None:
    references = [part["$ref"] for part in parts(schema) if isinstance(part.get("$ref"), str)]
    assert references
    assert {r.removeprefix("#/$defs/") for r in references} == set(schema["$defs"])


def test_every_type_is_one_of_json_schema(schema: dict[str, Any]) -> None:
    named = {part["type"] for part in parts(schema) if isinstance(part.get("type"), str)}
    assert named <= TYPES


def test_every_section_is_described_and_closed(schema: dict[str, Any]) -> None:
    for name, section in schema["$defs"].items():
        assert section["description"], name
        assert section["additionalProperties"] is False, name


def test_every_member_of_a_union_is_reached_by_its_kind(schema: dict[str, Any]) -> None:
    unions = [
        part["discriminator"]
        for part in parts(schema)
        if "mapping" in part.get("discriminator", {})
    ]
    assert {len(union["mapping"]) for union in unions} == {3, 4, 5, 6, 7}
    for union in unions:
        for kind, reference in union["mapping"].items():
            section = schema["$defs"][reference.removeprefix("#/$defs/")]
            assert section["properties"]["kind"]["const"] == kind
