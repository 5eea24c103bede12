"""The path that puts a client's candidates into a member's order, by the query vector of the member's newest recommendation."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import msgspec
import numpy as np
from fastapi import APIRouter, Depends, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from stream.gateway.access import Caller
from stream.gateway.answers import RankAnswer, RankRequest
from stream.gateway.bundle_view import BundleView
from stream.gateway.gateway import Gateway
from stream.gateway.member_paths import COMMON, recommended
from stream.gateway.member_states import Kind, MemberState
from stream.gateway.openapi import json_answer, json_body
from stream.gateway.problems import Problem, ProblemKind, statuses_of
from stream.gateway.requests import UserId, at_owner, body_of, checked_caller, gateway_of
from stream.wire.messages import Source

router = APIRouter(tags=["members"])
#: As many ids as may be ranked, each of the longest kind and escaped.
_MAX_BODY_BYTES = 2_000_000


class _Queried(Struct, gc=False):
    """What a recommendation says of the member's query: the vector as float32, and the values that filters read."""

    event_id: str
    event_time: str
    bundle: str
    source: Source
    query: bytes | UnsetType = UNSET
    filter_values: dict[str, float | str] | UnsetType = UNSET


_HASH = re.compile("[0-9a-f]{16}")
_decode_query = msgspec.json.Decoder(_Queried).decode
_decode_request = msgspec.json.Decoder(RankRequest).decode


@router.post(
    "/v1/users/{user_id:any}/rank",
    summary="Candidates in a member's order",
    openapi_extra=json_body(RankRequest),
    responses={
        200: json_answer("The candidates, best first.", RankAnswer),
        **statuses_of(
            *COMMON, ProblemKind.UNKNOWN_MEMBER, ProblemKind.QUERY_OFF, ProblemKind.OTHER_BUNDLE, ProblemKind.TOO_LARGE
        ),
    },
)
async def rank(request: Request, user_id: UserId, caller: Annotated[Caller, Depends(checked_caller)]) -> Response:
    """As the member's newest recommendation would have scored them. Filters apply; nothing is hidden for being watched."""
    caller.check_reaches(user_id)
    body = await body_of(request, _MAX_BODY_BYTES)
    try:
        asked = _decode_request(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(ProblemKind.INVALID_REQUEST, f"the body: {error}") from None
    gateway = gateway_of(request)

    async def answer(member: MemberState | None) -> Response:
        queried, view = _queried(gateway, user_id, member)
        async with gateway.searches:
            found = await asyncio.to_thread(ranked, user_id, queried, view, asked.items)
        return Response(msgspec.json.encode(found), media_type="application/json")

    return await at_owner(request, user_id, answer, body)


def _queried(gateway: Gateway, user_id: str, member: MemberState | None) -> tuple[_Queried, BundleView]:
    """The member's query and the bundle that gives it its meaning."""
    message = None if member is None else member.newest.get(Kind.RECOMMENDATIONS)
    if message is None:
        raise Problem(
            ProblemKind.UNKNOWN_MEMBER, f"no play of {user_id!r} has been answered, as far as this gateway knows"
        )
    try:
        queried = _decode_query(message.value)
    except msgspec.DecodeError as error:
        raise Problem(
            ProblemKind.QUERY_OFF, f"the newest recommendation is none that a worker writes: {error}; wait for another"
        ) from None
    if queried.query is UNSET:
        raise Problem(
            ProblemKind.QUERY_OFF,
            "the newest recommendation has no query vector: set INTENTREC_PUBLISH_EMBEDDING=1 for the workers and wait for the "
            "member's next play; a list of popular items (fallback) has none",
        )
    view = gateway.bundles.view(queried.bundle)
    if view is None:
        raise Problem(
            ProblemKind.OTHER_BUNDLE,
            f"bundle {queried.bundle} is not in memory: ask again after the member's next play",
        )
    return queried, view


def ranked(user_id: str, queried: _Queried, view: BundleView, items: list[str]) -> RankAnswer:
    """The candidates in the order of a query.

    Raises: Problem (other_bundle) when the query has another width than the bundle's vectors.
    """
    assert queried.query is not UNSET
    items = list(dict.fromkeys(items))
    rows = np.array([view.row(item_id) for item_id in items], dtype=np.int64)
    published = {} if queried.filter_values is UNSET else queried.filter_values
    allowed = view.allowed(view.default_values() | {key: _value(value) for key, value in published.items()})
    is_shown = allowed[rows]
    shown = rows[is_shown]
    try:
        scores = view.scores(shown, np.frombuffer(queried.query, dtype="<f4"))
    except ValueError as error:
        raise Problem(ProblemKind.OTHER_BUNDLE, f"the query of bundle {view.version}: {error}") from None
    order = np.argsort(-scores, kind="stable")
    return RankAnswer(
        user_id=user_id,
        bundle=view.version,
        event_id=queried.event_id,
        event_time=queried.event_time,
        source=queried.source,
        items=recommended(view, shown[order].tolist(), scores[order].tolist()),
        filtered=[item for item, row, shows in zip(items, rows, is_shown, strict=True) if row and not shows],
        unknown=[item for item, row in zip(items, rows, strict=True) if not row],
    )


def _value(value: float | str) -> float | int | None:
    """A published value as filters take it; None, which hides every item, for one that is none."""
    if isinstance(value, str):
        return int(value, 16) if _HASH.fullmatch(value) else None
    return value
