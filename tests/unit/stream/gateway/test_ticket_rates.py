"""Whom a request counts for: its member, wherever it comes from; a wrong ticket counts by address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from stream.gateway.access import Caller, Tickets
from stream.gateway.gateway import Gateway
from stream.gateway.member_paths import _use
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.rates import RequestRates


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


def test_members_behind_one_address_have_a_rate_each_and_an_operator_another() -> None:
    rates: Any = SimpleNamespace(member_rates=RequestRates(0.01), operator_rates=RequestRates(0))
    request: Any = SimpleNamespace(client=SimpleNamespace(host="203.0.113.7"))
    elsewhere: Any = SimpleNamespace(client=SimpleNamespace(host="203.0.113.8"))
    for user in ("u", "v"):
        Gateway.count(rates, Caller(user), request)
        with pytest.raises(Problem, match="too-many-requests"):
            Gateway.count(rates, Caller(user), elsewhere)
    Gateway.count(rates, Caller(), request)
    for _ in range(9):
        Gateway.count(rates, Caller("u", is_operator=True), request)
