"""The gateway on a real broker: what it answers, and what its streams send."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stream.local_kafka.broker import Broker
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.gateway_rig import messages, running, stream, until
from tests.rigs.rig import Rig

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def rig(embedded_broker: Broker, make_rig: RigMaker) -> Rig:
    return make_rig(embedded_broker)


def test_the_newest_messages_of_a_member_are_answered_as_they_are(rig: Rig) -> None:
    async def body() -> None:
        async with messages(rig.settings) as written:
            await written.answer("a/ü")
            await written.answer("a/ü")
            async with running(rig.settings) as gateway:
                found = await gateway.get("/v1/users/a%2F%C3%BC/recommendations")
                assert (found["user_id"], found["event_id"], len(found["items"])) == ("a/ü", "e1", 5)
                cut = await gateway.get("/v1/users/a%2F%C3%BC/recommendations?k=2")
                assert cut == found | {"items": found["items"][:2]}
                assert (await gateway.get("/v1/users/a%2F%C3%BC/intents"))["primary"]["label"] == "drama"
                offset = await written.answer("a/ü")
                await until(lambda: _has(gateway, "/v1/users/a%2F%C3%BC/intents", f"e{offset}"))

    asyncio.run(body())


async def _has(gateway: Any, path: str, event_id: str) -> bool:
    status, found = await gateway.ask(path)
    return status == 200 and found["event_id"] == event_id


def test_a_stream_begins_with_the_state_and_goes_on_with_changes(rig: Rig) -> None:
    async def body() -> None:
        async with messages(rig.settings) as written, running(rig.settings) as gateway:
            await written.answer("u")
            await until(lambda: _has(gateway, "/v1/users/u/intents", "e0"))
            await until(lambda: _has(gateway, "/v1/users/u/recommendations", "e0"))
            async with stream(gateway, "/v1/users/u/stream") as events:
                first, second = await events.next(), await events.next()
                assert [first.kind, second.kind] == ["intents", "recommendations"]
                await written.answer("other")
                await written.answer("u")
                third, fourth = await events.next(), await events.next()
                assert {third.kind, fourth.kind} == {"intents", "recommendations"}
                assert third.data["user_id"] == fourth.data["user_id"] == "u"
                last_id = fourth.id
            async with stream(gateway, "/v1/users/u/stream", **{"Last-Event-ID": last_id}) as events:
                offset = await written.answer("u")
                assert (await events.next()).data["event_id"] == f"e{offset}"

    asyncio.run(body())
