"""Whom a stream with a ticket counts for: its member, wherever it comes from; a wrong ticket counts by address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream.gateway.access import Caller, Tickets
from stream.gateway.member_paths import _use
from stream.gateway.problems import Problem, ProblemKind


def test_a_ticket_counts_for_its_member_and_a_wrong_one_for_its_address() -> None:
    counted: list[Caller] = []
    gateway: Any = SimpleNamespace(
        tickets=Tickets(), access=SimpleNamespace(needs_token=True), count=lambda caller, _: counted.append(caller)
    )
    request: Any = None
    for user in ("u", "v"):
        _use(gateway, request, gateway.tickets.issue(user), user)
    with pytest.raises(Problem) as raised:
        _use(gateway, request, "wrong", "u")
    assert raised.value.kind is ProblemKind.INVALID_TICKET
    assert counted == [Caller("u"), Caller("v"), Caller()]
