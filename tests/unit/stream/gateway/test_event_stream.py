"""A stream whose reader is gone ends at once, and its slot is free: nothing else would tell it so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import Response

from stream.gateway.access import EVERYBODY
from stream.gateway.member_paths import _opened
from stream.gateway.operator_paths import updates
from stream.gateway.streams import Cursor, Streams
from tests.property.virtual_time import VirtualLoop

Opens = Callable[[Any], Any]


async def of_a_member(gateway: Any) -> Response:
    return _opened(gateway, "u", None, Cursor())


async def of_all_members(gateway: Any) -> Response:
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(gateway=gateway)))
    return await updates(request, EVERYBODY, 20)


@pytest.mark.parametrize("opens", [of_a_member, of_all_members])
def test_a_reader_who_is_gone_leaves_no_slot_behind(opens: Opens) -> None:
    """Heartbeats to a connection that is closed do not fail."""

    async def body() -> None:
        gateway = SimpleNamespace(
            streams=Streams(1), settings=SimpleNamespace(gateway_heartbeat_s=15.0), is_ending=False
        )
        response = await opens(gateway)
        assert gateway.streams.num_open == 1
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            await asyncio.sleep(1)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(60):
            await response({"type": "http"}, receive, send)
        assert gateway.streams.num_open == 0
        assert [message.get("body") for message in sent[1:]] == [b"retry: 1000\n\n", b""]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body())
