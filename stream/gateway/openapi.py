"""The OpenAPI contract: FastAPI's, with the types of messages and answers, and without what no path ever answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.openapi.utils import get_openapi
from msgspec import Struct

from stream.gateway import answers
from stream.gateway.problems import ProblemDetails, ProblemKind, problem_response
from stream.wire.messages import IntentUpdate, Play, Recommendation

if TYPE_CHECKING:
    from fastapi import FastAPI

#: A new path or optional field raises the minor version. There is no new major version: a breaking change gets other paths.
API_VERSION = "1.0.0"
_TYPES: tuple[type[Struct], ...] = (
    Play,
    Recommendation,
    IntentUpdate,
    ProblemDetails,
    *(
        found
        for found in vars(answers).values()
        if isinstance(found, type) and issubclass(found, Struct) and found is not Struct
    ),
)
_OPEN_PATHS = ("/v1/openapi.json",)


def schema_ref(kind: type[Struct]) -> dict[str, str]:
    """The schema of a type in the contract."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def json_answer(description: str, *kinds: type[Struct]) -> dict[str, Any]:
    """A response of an operation: JSON of one of these types."""
    schemas = [schema_ref(kind) for kind in kinds]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def json_body(kind: type[Struct]) -> dict[str, Any]:
    """A body of an operation: JSON of this type."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema_ref(kind)}}}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """The contract of the app."""
    document = get_openapi(
        title="IntentRec gateway",
        version=API_VERSION,
        description="The newest intents and recommendations of each member, and their changes as events. Answers only ever gain "
        "optional fields; ignore fields that you do not know.",
        routes=app.routes,
        license_info={"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            found = (
                operation["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
            )
            # FastAPI's own; here it is a problem with status 400.
            if found.get("$ref", "").endswith("HTTPValidationError"):
                del operation["responses"]["422"]
            forbidden = operation["responses"].setdefault("403", problem_response())
            kinds = [kind for kind in (forbidden["description"], ProblemKind.FOREIGN_PAGE) if kind]
            forbidden["description"] = ", ".join(kinds)
            operation["responses"].setdefault("500", problem_response(ProblemKind.INTERNAL))
            operation["security"] = [{"token": []}, {}]
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    document["components"] = {
        "schemas": schemas,
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "sub is the user_id; scope intentrec:operator reaches every member. A gateway without a key takes "
                "none.",
            }
        },
    }
    return document
