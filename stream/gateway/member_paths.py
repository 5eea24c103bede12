"""The paths of one member: the newest messages, the stream of their changes, and tickets for it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request
from msgspec import UNSET, Raw
from starlette.responses import Response

from stream.gateway.access import TICKET_S, Caller
from stream.gateway.answers import PopularAnswer, PopularRow, PopularRowsAnswer, RowsAnswer, TicketAnswer
from stream.gateway.bundle_view import BundleView
from stream.gateway.event_stream import EVENT_STREAM, EventStream
from stream.gateway.gateway import Gateway
from stream.gateway.member_states import Kind, MemberState, Newest
from stream.gateway.openapi import json_answer
from stream.gateway.problems import Problem, ProblemKind, statuses_of
from stream.gateway.requests import Bundle, UserId, at_owner, checked_caller, current_view, gateway_of
from stream.gateway.streams import RETRY, Cursor, bye, events_of
from stream.settings import MAX_RECOMMENDATIONS
from stream.wire.messages import HiddenBy, IntentUpdate, Recommendation, RecommendedItem

router = APIRouter(tags=["members"])
DEFAULT_K = 10
#: What any path of a member can answer.
COMMON = (
    ProblemKind.INVALID_REQUEST,
    ProblemKind.NO_TOKEN,
    ProblemKind.INVALID_TOKEN,
    ProblemKind.OTHER_MEMBER,
    ProblemKind.TOO_MANY_REQUESTS,
    ProblemKind.NOT_READY,
    ProblemKind.NO_OWNER,
)
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.encode


@router.get(
    "/v1/users/{user_id:any}/intents",
    summary="The newest intent update of a member",
    responses={
        200: json_answer("The message, as it is on the topic.", IntentUpdate),
        **statuses_of(*COMMON, ProblemKind.UNKNOWN_MEMBER, ProblemKind.UNKNOWN_BUNDLE),
    },
)
async def intents(
    request: Request, user_id: UserId, caller: Annotated[Caller, Depends(checked_caller)], bundle: Bundle = None
) -> Response:
    """What the member wants now, by intent. A member nobody has seen has none: 404."""
    caller.check_reaches(user_id)

    def answer(member: MemberState | None) -> Response:
        message = None if member is None else _message(member, Kind.INTENTS, bundle)
        if message is None:
            raise _unknown(user_id)
        return _json(message.value)

    return await at_owner(request, user_id, answer)


@router.get(
    "/v1/users/{user_id:any}/recommendations",
    summary="The newest recommendation of a member",
    responses={
        200: json_answer(
            "The message, as it is on the topic; of a member nobody has seen, what is popular.",
            Recommendation,
            PopularAnswer,
        ),
        **statuses_of(*COMMON, ProblemKind.UNKNOWN_BUNDLE, ProblemKind.NO_BUNDLE),
    },
)
async def recommendations(
    request: Request,
    user_id: UserId,
    caller: Annotated[Caller, Depends(checked_caller)],
    k: Annotated[
        int | None,
        Query(ge=1, le=MAX_RECOMMENDATIONS, description="At most so many items; default: all that were published."),
    ] = None,
    bundle: Bundle = None,
) -> Response:
    """What to show the member now, best first."""
    caller.check_reaches(user_id)

    def answer(member: MemberState | None) -> Response:
        message = None if member is None else _message(member, Kind.RECOMMENDATIONS, bundle)
        if message is None:
            view = current_view(request) if bundle is None else _view(request, user_id, bundle)
            return _json(_encode(popular_answer(user_id, view, k or DEFAULT_K)))
        return _json(message.value if k is None else _cut(message.value, k))

    return await at_owner(request, user_id, answer)


@router.get(
    "/v1/users/{user_id:any}/rows",
    summary="The rows of a member's page",
    responses={
        200: json_answer(
            "The rows, and the play and bundle that they are of; of a member nobody has seen, one row of what is popular.",
            RowsAnswer,
            PopularRowsAnswer,
        ),
        **statuses_of(*COMMON, ProblemKind.ROWS_OFF, ProblemKind.NO_BUNDLE),
    },
)
async def rows(request: Request, user_id: UserId, caller: Annotated[Caller, Depends(checked_caller)]) -> Response:
    """The rows of the member's newest recommendation, as published: an open page need not follow every change."""
    caller.check_reaches(user_id)

    def answer(member: MemberState | None) -> Response:
        message = None if member is None else member.newest.get(Kind.RECOMMENDATIONS)
        if message is None:
            popular = popular_answer(user_id, current_view(request), DEFAULT_K)
            rows = [PopularRow(items=popular.items)] if popular.items else []
            return _json(_encode(PopularRowsAnswer(user_id=user_id, bundle=popular.bundle, rows=rows)))
        fields = _decode_object(message.value)
        if "rows" not in fields:
            raise Problem(
                ProblemKind.ROWS_OFF,
                "the newest recommendation has no rows: set INTENTREC_ROWS of the workers to a rows file, restart them, and "
                "wait for the member's next play",
            )
        return _json(_encode({name: fields[name] for name in RowsAnswer.__struct_fields__ if name in fields}))

    return await at_owner(request, user_id, answer)


@router.get(
    "/v1/users/{user_id:any}/stream",
    summary="Changes of a member, as they come",
    responses={
        200: {
            "description": "Server-sent events: intents and recommendations, whose data is the message of the topic, and bye.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
        **statuses_of(*COMMON, ProblemKind.INVALID_TICKET, ProblemKind.TOO_MANY_STREAMS),
    },
)
async def stream(
    request: Request,
    user_id: UserId,
    ticket: Annotated[
        str | None, Query(max_length=64, description="Instead of a token: opens this stream once.")
    ] = None,
    last_event_id: Annotated[
        str | None, Query(max_length=64, description="As the header Last-Event-ID, which wins.")
    ] = None,
    last_event_id_header: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=64, description="The last id received: what is newer is sent."),
    ] = None,
) -> Response:
    """The newest state of each kind, now and at each change. Who reads slowly gets the newest state and misses those between."""
    gateway = gateway_of(request)
    if ticket is None:
        (await checked_caller(request)).check_reaches(user_id)
    last_id = last_event_id_header or last_event_id or ""

    def admit() -> None:
        if ticket is not None:
            _use(gateway, request, ticket, user_id)

    def answer(member: MemberState | None) -> Response:
        return _opened(gateway, user_id, member, Cursor.parse(last_id))

    try:
        return await at_owner(request, user_id, answer, admit=admit)
    except Problem as problem:
        # EventSource gives up for good on any status but 200, and comes back by itself after a stream that ends.
        if problem.kind in (ProblemKind.NO_OWNER, ProblemKind.NOT_READY) and ticket is None:
            return Response(RETRY + bye("moved"), media_type=EVENT_STREAM)
        raise


@router.post(
    "/v1/users/{user_id:any}/tickets",
    summary="A ticket for the stream of a member",
    status_code=201,
    responses={201: json_answer("A ticket.", TicketAnswer), **statuses_of(*COMMON)},
)
async def tickets(request: Request, user_id: UserId, caller: Annotated[Caller, Depends(checked_caller)]) -> Response:
    """EventSource cannot send a token: open the stream with ?ticket= instead, once, and within 30 s."""
    caller.check_reaches(user_id)

    def answer(_: MemberState | None) -> Response:
        ticket = gateway_of(request).tickets.issue(user_id)
        return _json(_encode(TicketAnswer(ticket=ticket, expires_in_s=TICKET_S)), 201)

    return await at_owner(request, user_id, answer)


def popular_answer(user_id: str, view: BundleView, k: int) -> PopularAnswer:
    """What is popular, for a member nobody has seen."""
    rows, scores, hiding = view.popular(k)
    return PopularAnswer(
        user_id=user_id,
        bundle=view.version,
        items=recommended(view, rows, scores),
        hidden_by=[HiddenBy(f.kind, f.key, f.reason.value, f.event_key or UNSET) for f in hiding] or UNSET,
    )


def recommended(view: BundleView, rows: list[int], scores: list[float]) -> list[RecommendedItem]:
    """Items as lists have them."""
    ids, titles = view.vocabulary.item_ids, view.titles
    return [RecommendedItem(ids[row], titles[row], round(score, 5)) for row, score in zip(rows, scores, strict=True)]


def _unknown(user_id: str) -> Problem:
    return Problem(
        ProblemKind.UNKNOWN_MEMBER, f"no play of {user_id!r} has been answered, as far as this gateway knows"
    )


def _message(member: MemberState, kind: Kind, bundle: str | None) -> Newest | None:
    message = member.of_bundle(kind, bundle)
    if message is None and bundle is not None and kind in member.newest:
        raise Problem(ProblemKind.UNKNOWN_BUNDLE, f"{member.user_id!r} has no message of bundle {bundle}; the newest is of "
                      f"{member.newest[kind].bundle}")  # fmt: skip
    return message


def _view(request: Request, user_id: str, bundle: str) -> BundleView:
    view = gateway_of(request).bundles.view(bundle)
    if view is None:
        raise Problem(ProblemKind.UNKNOWN_BUNDLE, f"{user_id!r} has no message, and bundle {bundle} is not in memory")
    return view


def _use(gateway: Gateway, request: Request, ticket: str, user_id: str) -> None:
    """Uses a ticket up, and counts the request as one of its member; a wrong one as one of its address.

    Raises: Problem (invalid_ticket, too_many_requests).
    """
    try:
        gateway.tickets.use(ticket, user_id)
    except Problem:
        if gateway.access.needs_token:
            gateway.count(Caller(), request)
        raise
    if gateway.access.needs_token:
        gateway.count(Caller(user_id), request)


def _opened(gateway: Gateway, user_id: str, member: MemberState | None, cursor: Cursor) -> Response:
    if gateway.is_ending:
        return Response(RETRY + bye("stopping"), media_type=EVENT_STREAM)
    slot = gateway.streams.open(user_id)
    newest = [] if member is None else list(member.newest.items())
    return EventStream(
        events_of(slot, cursor, newest, gateway.settings.gateway_heartbeat_s),
        on_gone=lambda: slot.end(""),
        on_end=lambda: gateway.streams.close(user_id, slot),
    )


def _cut(value: bytes, k: int) -> bytes:
    """A recommendation with its first ``k`` items; as it is, where it has no list of items."""
    message: dict[str, Any] = _decode_object(value)
    try:
        items = _decode_list(message["items"])
    except (KeyError, msgspec.DecodeError):
        return value
    return value if len(items) <= k else _encode(message | {"items": items[:k]})


def _json(value: bytes, status: int = 200) -> Response:
    return Response(value, status_code=status, media_type="application/json")
