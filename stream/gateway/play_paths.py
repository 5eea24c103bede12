"""The path that sends plays."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from intentrec_core.errors import BrokerError, RejectReason
from stream.gateway.access import Caller
from stream.gateway.answers import PlayAnswer
from stream.gateway.openapi import json_answer, json_body
from stream.gateway.problems import Problem, ProblemKind, problem_response, statuses_of
from stream.gateway.requests import body_of, checked_caller, gateway_of
from stream.ops.metrics import SentPlay
from stream.settings import MAX_PLAY_BYTES
from stream.wire.codec import RejectedPlay
from stream.wire.messages import Play
from stream.wire.output_headers import TRACE_PARENT, TRACE_STATE, trace_context

router = APIRouter(tags=["plays"])
_STATUS = {RejectReason.OVERSIZED: 413, RejectReason.EMPTY: 400, RejectReason.MALFORMED: 400}


@router.post(
    "/v1/plays",
    summary="Send a play",
    status_code=202,
    openapi_extra=json_body(Play),
    responses={
        202: json_answer("The broker has it.", PlayAnswer),
        **statuses_of(
            ProblemKind.NO_TOKEN,
            ProblemKind.INVALID_TOKEN,
            ProblemKind.OTHER_MEMBER,
            ProblemKind.REJECTED_PLAY,
            ProblemKind.TOO_MANY_REQUESTS,
            ProblemKind.BROKER_AWAY,
        ),
        400: problem_response(ProblemKind.INVALID_REQUEST, ProblemKind.REJECTED_PLAY),
        413: problem_response(ProblemKind.REJECTED_PLAY, ProblemKind.TOO_LARGE),
    },
)
async def plays(request: Request, caller: Annotated[Caller, Depends(checked_caller)]) -> Response:
    """Checked as a worker checks it, and sent with its key and partition. Sent again unchanged, it changes nothing."""
    gateway = gateway_of(request)
    value = await body_of(request, MAX_PLAY_BYTES)
    play = gateway.play_check.check(value, time.time_ns() // 1_000_000)
    counted = gateway.metrics.gateway_plays
    if isinstance(play, RejectedPlay):
        counted.labels(SentPlay.REJECTED).inc()
        status = _STATUS.get(play.reason, 422)
        raise Problem(ProblemKind.REJECTED_PLAY, play.detail, status=status, reason=play.reason.value)
    caller.check_reaches(play.user_id)
    trace = [
        (name, found.encode("latin-1"))
        for name in (TRACE_PARENT, TRACE_STATE)
        for found in request.headers.getlist(name)
    ]
    try:
        sent = await gateway.plays.send(play, value, trace_context(trace))
    except BrokerError as error:
        counted.labels(SentPlay.FAILED).inc()
        raise Problem(ProblemKind.BROKER_AWAY, f"{error}; send it again: a repeat changes nothing") from None
    counted.labels(SentPlay.ACCEPTED).inc()
    return Response(msgspec.json.encode(sent), status_code=202, media_type="application/json")
