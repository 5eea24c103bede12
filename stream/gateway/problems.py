"""Errors as clients get them: problem details (RFC 9457), each with a type of its own and a line that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

PROBLEM_TYPE = "application/problem+json"
_URN = "urn:intentrec:problem:"


class ProblemKind(StrEnum):
    """What is wrong. Values are part of the API: they are added, never renamed or removed."""

    INVALID_REQUEST = "invalid-request"
    REJECTED_PLAY = "rejected-play"
    NO_TOKEN = "no-token"
    INVALID_TOKEN = "invalid-token"
    INVALID_TICKET = "invalid-ticket"
    FOREIGN_PAGE = "foreign-page"
    OTHER_MEMBER = "other-member"
    OPERATORS_ONLY = "operators-only"
    UNKNOWN_MEMBER = "unknown-member"
    UNKNOWN_ITEM = "unknown-item"
    UNKNOWN_BUNDLE = "unknown-bundle"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    ROWS_OFF = "rows-off"
    QUERY_OFF = "query-off"
    OTHER_BUNDLE = "other-bundle"
    TOO_LARGE = "too-large"
    TOO_MANY_REQUESTS = "too-many-requests"
    INTERNAL = "internal"
    NOT_READY = "not-ready"
    NO_OWNER = "no-owner"
    NO_BUNDLE = "no-bundle"
    BROKER_AWAY = "broker-away"
    TOO_MANY_STREAMS = "too-many-streams"


_TITLES = {
    ProblemKind.INVALID_REQUEST: (400, "The request is not as the API declares it"),
    ProblemKind.REJECTED_PLAY: (422, "A worker would reject this play"),
    ProblemKind.NO_TOKEN: (401, "A token is needed"),
    ProblemKind.INVALID_TOKEN: (401, "The token is not valid"),
    ProblemKind.INVALID_TICKET: (401, "The ticket is not valid"),
    ProblemKind.FOREIGN_PAGE: (403, "Without a key, only this machine is answered"),
    ProblemKind.OTHER_MEMBER: (403, "The token is of another member"),
    ProblemKind.OPERATORS_ONLY: (403, "The token is not an operator's"),
    ProblemKind.UNKNOWN_MEMBER: (404, "Nothing is known of this member"),
    ProblemKind.UNKNOWN_ITEM: (404, "The bundle has no such item"),
    ProblemKind.UNKNOWN_BUNDLE: (404, "This member has no message of this bundle"),
    ProblemKind.NOT_FOUND: (404, "There is no such path"),
    ProblemKind.METHOD_NOT_ALLOWED: (405, "The path does not take this method"),
    ProblemKind.ROWS_OFF: (409, "The messages have no rows"),
    ProblemKind.QUERY_OFF: (409, "The messages have no query vector"),
    ProblemKind.OTHER_BUNDLE: (409, "The bundle of the member's message is not in memory"),
    ProblemKind.TOO_LARGE: (413, "The body is too large"),
    ProblemKind.TOO_MANY_REQUESTS: (429, "Too many requests"),
    ProblemKind.INTERNAL: (500, "The gateway failed"),
    ProblemKind.NOT_READY: (503, "The gateway is reading what is known of this member"),
    ProblemKind.NO_OWNER: (503, "No gateway has this member at the moment"),
    ProblemKind.NO_BUNDLE: (503, "No bundle is announced and loaded yet"),
    ProblemKind.BROKER_AWAY: (503, "The broker did not take the play in time"),
    ProblemKind.TOO_MANY_STREAMS: (503, "Too many streams are open"),
}


class ProblemDetails(Struct, frozen=True, omit_defaults=True, rename={"type_": "type"}):
    """What went wrong, and what to do (RFC 9457)."""

    type_: Annotated[
        str,
        Meta(description=f"{_URN} and the kind of the problem. More may be added.", examples=[_URN + "unknown-item"]),
    ]
    title: Annotated[str, Meta(description="The kind of the problem in words: the same for all of its type.")]
    status: Annotated[int, Meta(ge=400, le=599, description="The status of the response.")]
    detail: Annotated[str, Meta(description="One line on this occurrence, with the remedy where there is one.")]
    reason: Annotated[
        str | UnsetType,
        Meta(
            description="Of a rejected play: why, as in the header intentrec-error of a dead letter. More may be added."
        ),
    ] = UNSET


class Problem(Exception):
    """Ends a request with a problem. ``status`` where it is another one than the kind's usual."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        reason: str | UnsetType = UNSET,
    ) -> None:
        super().__init__(f"{kind}: {detail}")
        usual, title = _TITLES[kind]
        self.kind, self.status = kind, status or usual
        self.details = ProblemDetails(_URN + kind, title, self.status, detail, reason)
        self.headers: dict[str, str] = {}
        if retry_after_s is not None or self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers["Retry-After"] = str(max(1, -int(-(retry_after_s or 1) // 1)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = "Bearer"

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The response that tells it."""
        return Response(
            msgspec.json.encode(self.details),
            status_code=self.status,
            headers={**(headers or {}), **self.headers},
            media_type=PROBLEM_TYPE,
        )


def statuses_of(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """The responses of an OpenAPI operation for these kinds, with their names in the description."""
    by_status: dict[int, list[ProblemKind]] = {}
    for kind in kinds:
        by_status.setdefault(_TITLES[kind][0], []).append(kind)
    return {status: problem_response(*names) for status, names in sorted(by_status.items())}


def problem_response(*kinds: ProblemKind) -> dict[str, Any]:
    """One response of an OpenAPI operation: a problem of one of these kinds."""
    return {
        "description": ", ".join(kinds),
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }
