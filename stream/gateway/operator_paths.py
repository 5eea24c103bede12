"""The paths of operators: which members changed, changes of all of them, and the pipeline as seen from here."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from msgspec import Struct
from starlette.responses import Response

from intentrec_core.times import iso_time
from stream.gateway.access import Caller
from stream.gateway.answers import (
    AnnouncedBundle,
    BundleStatus,
    GatewayStatus,
    MembersAnswer,
    MemberSummary,
    StatusAnswer,
)
from stream.gateway.event_stream import EVENT_STREAM, EventStream
from stream.gateway.gateway import Gateway
from stream.gateway.member_states import Kind, MemberState
from stream.gateway.openapi import json_answer
from stream.gateway.problems import ProblemKind, statuses_of
from stream.gateway.requests import checked_caller, gateway_of
from stream.gateway.streams import RETRY, bye, events_of_all
from stream.wire.messages import PrimaryIntent

router = APIRouter(tags=["operators"])
_COMMON = (
    ProblemKind.INVALID_REQUEST,
    ProblemKind.NO_TOKEN,
    ProblemKind.INVALID_TOKEN,
    ProblemKind.OPERATORS_ONLY,
    ProblemKind.TOO_MANY_REQUESTS,
)


class _IntentHead(Struct, gc=False):
    session_id: str
    event_time: str
    primary: PrimaryIntent | None


_decode_head = msgspec.json.Decoder(_IntentHead).decode


async def operator(caller: Annotated[Caller, Depends(checked_caller)]) -> Caller:
    """A caller that reaches every member. Raises: Problem (operators_only)."""
    caller.check_operates()
    return caller


@router.get(
    "/v1/users",
    summary="Members that changed last",
    responses={200: json_answer("Members of this gateway, newest first.", MembersAnswer), **statuses_of(*_COMMON)},
)
async def users(
    request: Request,
    _: Annotated[Caller, Depends(operator)],
    limit: Annotated[int, Query(ge=1, le=500, description="At most so many members.")] = 20,
) -> Response:
    """The members of this gateway whose state changed last."""
    found = [_summary(member) for member in gateway_of(request).states.newest_first(limit)]
    return _json(MembersAnswer(users=[summary for summary in found if summary is not None]))


def _summary(member: MemberState) -> MemberSummary | None:
    """What is told of a member; None without an intent update, or with one that lacks what every worker writes."""
    message = member.newest.get(Kind.INTENTS)
    if message is None:
        return None
    try:
        head = _decode_head(message.value)
    except msgspec.DecodeError:
        return None
    return MemberSummary(
        user_id=member.user_id,
        session_id=head.session_id,
        event_time=head.event_time,
        bundle=message.bundle,
        primary=head.primary,
    )


@router.get(
    "/v1/updates",
    summary="Changes of all members, as they come",
    responses={
        200: {
            "description": "Server-sent events: intents and recommendations, whose data is the message, skipped, and bye.",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
        },
        **statuses_of(*_COMMON, ProblemKind.TOO_MANY_STREAMS),
    },
)
async def updates(
    request: Request,
    _: Annotated[Caller, Depends(operator)],
    per_s: Annotated[int, Query(ge=1, le=200, description="At most so many events a second.")] = 20,
) -> Response:
    """Of a member that changes several times between two events, the newest state is sent; skipped counts the others."""
    gateway = gateway_of(request)
    if gateway.is_ending:
        return Response(RETRY + bye("stopping"), media_type=EVENT_STREAM)
    slot = gateway.streams.open_all()
    return EventStream(
        events_of_all(slot, per_s, gateway.settings.gateway_heartbeat_s),
        on_gone=lambda: slot.end(""),
        on_end=lambda: gateway.streams.close_all(slot),
    )


@router.get(
    "/v1/status",
    summary="The pipeline as seen from here",
    responses={200: json_answer("The pipeline.", StatusAnswer), **statuses_of(*_COMMON)},
)
async def status(request: Request, _: Annotated[Caller, Depends(operator)]) -> Response:
    """This gateway, the recommendations that it reads, the announced bundle, and metrics of the processes it is told of."""
    gateway = gateway_of(request)
    bundles = gateway.bundles
    announced = bundles.announced
    return _json(
        StatusAnswer(
            time=iso_time(time.time_ns() // 1_000_000),
            gateway=_gateway(gateway),
            updates=gateway.status.updates(),
            bundle=None
            if announced is None
            else BundleStatus(
                version=announced.bundle,
                sequence=announced.sequence,
                announced_at=announced.created_at,
                reason=announced.reason,
                parent=announced.parent,
                loaded=bundles.view(announced.bundle) is not None,
            ),
            announcements=[
                AnnouncedBundle(
                    bundle=one.bundle,
                    sequence=one.sequence,
                    announced_at=one.created_at,
                    reason=one.reason,
                    parent=one.parent,
                )
                for one in bundles.announcements
            ],
            processes=await gateway.status.processes(),
        )
    )


def _gateway(gateway: Gateway) -> GatewayStatus:
    ownership, own = gateway.ownership, sorted(gateway.ownership.own)
    return GatewayStatus(
        address=ownership.address,
        ready=gateway.not_ready() is None,
        partitions=own,
        gateways=ownership.num_gateways,
        members=len(gateway.states),
        bytes=gateway.states.num_bytes,
        evicted_members=gateway.states.num_evicted,
        streams=gateway.streams.num_open,
    )


def _json(answer: Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
