"""The published OpenAPI document is what the gateway does, and only ever grows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stream.gateway.contract import FILE, breaking_changes, generate

FIRST = Path(__file__).parent / "openapi-1.0.0.json"


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def test_the_file_is_what_the_code_generates() -> None:
    assert generate() == FILE.read_text("utf-8"), "run make contracts"


def test_nothing_of_the_first_version_is_broken() -> None:
    assert breaking_changes(json.loads(FIRST.read_text("utf-8")), document()) == []


def _remove_path(new: dict[str, Any]) -> None:
    del new["paths"]["/v1/plays"]


def _remove_status(new: dict[str, Any]) -> None:
    del new["paths"]["/v1/plays"]["post"]["responses"]["202"]


def _require_parameter(new: dict[str, Any]) -> None:
    new["paths"]["/v1/items"]["get"]["parameters"][0]["required"] = True


def _narrow_parameter(new: dict[str, Any]) -> None:
    new["paths"]["/v1/items"]["get"]["parameters"][1]["schema"]["maximum"] = 10


def _remove_field(new: dict[str, Any]) -> None:
    del new["components"]["schemas"]["PlayAnswer"]["properties"]["offset"]


def _make_optional(new: dict[str, Any]) -> None:
    new["components"]["schemas"]["PlayAnswer"]["required"].remove("offset")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_remove_path, "POST /v1/plays is gone"),
        (_remove_status, "POST /v1/plays: 202 is gone"),
        (_require_parameter, "GET /v1/items: q is required now"),
        (_narrow_parameter, "GET /v1/items: limit has changed"),
        (_remove_field, "PlayAnswer.offset is gone"),
        (_make_optional, "PlayAnswer.offset is optional now"),
    ],
)
def test_a_breaking_change_is_named(change: Any, problem: str) -> None:
    new = copy.deepcopy(document())
    change(new)
    assert problem in breaking_changes(document(), new)


def test_an_optional_field_and_another_text_break_nothing() -> None:
    new = copy.deepcopy(document())
    new["components"]["schemas"]["PlayAnswer"]["properties"]["later"] = {"type": "string"}
    new["components"]["schemas"]["PlayAnswer"]["description"] = "Other words."
    new["paths"]["/v1/items"]["get"]["parameters"].append({"name": "sort", "in": "query", "schema": {"type": "string"}})
    assert breaking_changes(document(), new) == []


def test_every_schema_is_a_schema_and_every_reference_has_one() -> None:
    found = document()
    schemas = found["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for part in json.dumps(found).split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in schemas
