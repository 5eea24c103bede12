"""Messages that no worker writes: they end no gateway, and no request with 500."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from stream.gateway.access import EVERYBODY
from stream.gateway.member_paths import _cut
from stream.gateway.member_states import Kind, MemberStates, Newest
from stream.gateway.operator_paths import users
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.rank_paths import _queried
from stream.gateway.status import PipelineStatus
from stream.ops.metrics import ReadOutcome

HEAD = {"user_id": "u", "bundle": "b1", "source": {"topic": "plays", "partition": 0, "offset": 1}}


def message(**fields: Any) -> bytes:
    return json.dumps(HEAD | fields).encode()


def states(value: bytes, kind: Kind, status: PipelineStatus | None = None) -> MemberStates:
    def on_taken(_: Kind, __: Any, newest: Newest) -> None:
        if status is not None:
            status.read(newest)

    held = MemberStates(max_members=9, max_bytes=1 << 20, on_taken=on_taken)
    assert held.take(kind, 0, b"u", value) is ReadOutcome.TAKEN
    return held


@pytest.mark.parametrize("latency", [None, "soon", [], True])
def test_a_latency_that_is_no_number_is_left_out(latency: Any) -> None:
    status = PipelineStatus([])
    held = states(message(latency_s=latency), Kind.RECOMMENDATIONS, status)
    assert held.get("u") is not None
    assert status.updates().total == 1
    assert status.updates().latency_p50_s is None


def test_a_message_that_is_nested_too_deep_is_left_out() -> None:
    value = message(x=0).replace(b'"x": 0', b'"x": ' + b"[" * 100_000 + b"]" * 100_000)
    held = MemberStates(max_members=9, max_bytes=1 << 20)
    assert held.take(Kind.INTENTS, 0, b"u", value) is ReadOutcome.UNREADABLE


@pytest.mark.parametrize("fields", [{}, {"session_id": 1, "event_time": "", "primary": None}])
def test_an_intent_update_without_its_fields_is_no_member_of_the_list(fields: dict[str, Any]) -> None:
    held = states(message(**fields), Kind.INTENTS)
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(gateway=SimpleNamespace(states=held))))
    answer = asyncio.run(users(request, EVERYBODY, 20))
    assert json.loads(answer.body) == {"users": []}


@pytest.mark.parametrize("fields", [{}, {"event_id": "e", "event_time": "t", "query": 7}])
def test_a_recommendation_without_its_fields_ranks_nothing(fields: dict[str, Any]) -> None:
    member = states(message(**fields), Kind.RECOMMENDATIONS).get("u")
    gateway: Any = None
    with pytest.raises(Problem) as raised:
        _queried(gateway, "u", member)
    assert raised.value.kind is ProblemKind.QUERY_OFF


@pytest.mark.parametrize("value", [message(), message(items=None), message(items="i")])
def test_a_recommendation_without_a_list_is_passed_on_whole(value: bytes) -> None:
    assert _cut(value, 3) == value
