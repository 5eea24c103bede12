"""The published OpenAPI contract: a file that is generated from the code, and only ever grows.

python -m stream.gateway.contract     writes deploy/contracts/openapi.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stream.gateway.app import make_app
from stream.wire.schemas import FOLDER

FILE = FOLDER / "openapi.json"
_METHODS = ("get", "post", "put", "patch", "delete")


def generate() -> str:
    """The text of the contract."""
    return json.dumps(make_app().openapi(), indent=2, ensure_ascii=False) + "\n"


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The changes of a contract that a client of the old one could trip over, as lines of text.

    Paths, parameters, answers and fields are added, and texts change freely. Nothing that a client may send or read goes away or
    becomes something else, and nothing that it need not send is required.
    """
    problems = []
    for path, operations in old["paths"].items():
        for method in _METHODS:
            if method in operations:
                name, after = f"{method.upper()} {path}", new["paths"].get(path, {}).get(method)
                problems += (
                    [f"{name} is gone"] if after is None else _operation_changes(name, operations[method], after)
                )
    for name, before in old["components"]["schemas"].items():
        after = new["components"]["schemas"].get(name)
        problems += [f"{name} is gone"] if after is None else _type_changes(name, before, after)
    return problems


def _operation_changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    problems = []
    had = {(parameter["in"], parameter["name"]): parameter for parameter in before.get("parameters", ())}
    has = {(parameter["in"], parameter["name"]): parameter for parameter in after.get("parameters", ())}
    for key, parameter in had.items():
        if key not in has:
            problems.append(f"{name}: {key[1]} is gone")
        elif _without_words(parameter["schema"]) != _without_words(has[key]["schema"]):
            problems.append(f"{name}: {key[1]} has changed")
    problems += [
        f"{name}: {key[1]} is required now"
        for key, parameter in has.items()
        if parameter.get("required") and not had.get(key, {}).get("required")
    ]
    if _without_words(before.get("requestBody")) != _without_words(after.get("requestBody")):
        problems.append(f"{name}: its body has changed")
    for status, answer in before["responses"].items():
        if status not in after["responses"]:
            problems.append(f"{name}: {status} is gone")
        elif _without_words(answer.get("content")) != _without_words(after["responses"][status].get("content")):
            problems.append(f"{name}: {status} has changed")
    return problems


def _type_changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    problems = []
    for field, schema in before.get("properties", {}).items():
        if field not in after.get("properties", {}):
            problems.append(f"{name}.{field} is gone")
        elif _without_words(schema) != _without_words(after["properties"][field]):
            problems.append(f"{name}.{field} has changed")
    was, is_ = set(before.get("required", ())), set(after.get("required", ()))
    problems += [f"{name}.{field} is required now" for field in sorted(is_ - was)]
    problems += [f"{name}.{field} is optional now" for field in sorted(was - is_)]
    return problems


def _without_words(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            k: _without_words(v) for k, v in schema.items() if k not in ("description", "examples", "title", "summary")
        }
    return [_without_words(entry) for entry in schema] if isinstance(schema, list) else schema


if __name__ == "__main__":
    FILE.write_text(generate(), "utf-8")
