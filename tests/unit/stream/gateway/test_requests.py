"""Where a request about a member is answered: admitted before the member is looked up, and only where its partition is ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import Response

from stream.gateway.ownership import Ownership
from stream.gateway.problems import Problem, ProblemKind
from stream.gateway.requests import at_owner, body_of


def request_of(**parts: Any) -> Any:
    ownership = Ownership("http://g1", 1)
    ownership.owners = ["http://g1"]
    gateway = SimpleNamespace(ownership=ownership, **parts)
    return SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(gateway=gateway)))


def test_what_admits_a_request_is_asked_before_the_store_is() -> None:
    looked_up: list[str] = []

    async def member(user_id: str) -> None:
        looked_up.append(user_id)

    def refuse() -> None:
        raise Problem(ProblemKind.INVALID_TICKET, "used")

    request = request_of(is_ready=lambda _: True, member=member)
    with pytest.raises(Problem, match="invalid-ticket"):
        asyncio.run(at_owner(request, "u", lambda _: Response(), admit=refuse))
    assert not looked_up
    assert asyncio.run(at_owner(request, "u", lambda _: Response())).status_code == 200
    assert looked_up == ["u"]


def test_a_partition_that_moves_while_the_store_is_asked_is_not_answered_here() -> None:
    ready = {0}

    async def member(_: str) -> None:
        ready.clear()

    request = request_of(is_ready=lambda partition: partition in ready, member=member)
    with pytest.raises(Problem, match="not-ready"):
        asyncio.run(at_owner(request, "u", lambda _: Response()))


@pytest.mark.parametrize("declared", [{}, {"Content-Length": "5"}, {"Content-Length": "101"}])
def test_a_body_that_is_too_large_is_not_read_to_its_end_whatever_it_says_of_its_length(
    declared: dict[str, str],
) -> None:
    num_read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal num_read
        while num_read < 1000:
            num_read += 10
            yield b"x" * 10

    request: Any = SimpleNamespace(headers=declared, stream=chunks)
    with pytest.raises(Problem, match="too-large"):
        asyncio.run(body_of(request, 100))
    assert num_read <= 110
