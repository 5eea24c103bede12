"""One of two gateways stands still, as on a machine that is gone: its connections stay open, and nothing comes.

The streams that the other one passes on from it end once the group has given its members away; when it goes on, it answers for
nobody before the group has said for whom.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from stream.local_kafka.broker import Broker
from stream.wire.routing import home_partition
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.gateway_rig import RunningGateway, a_process_of_its_own, messages, running, stream, until
from tests.rigs.rig import NUM_PARTITIONS

pytestmark = pytest.mark.timeout(240)


def test_streams_that_are_passed_on_find_the_new_owner_of_a_gateway_that_stands_still(
    embedded_broker: Broker, make_rig: RigMaker
) -> None:
    rig = make_rig(embedded_broker)

    async def body() -> None:
        async with (
            messages(rig.settings) as written,
            running(rig.settings) as first,
            a_process_of_its_own(rig) as (second, process),
        ):
            await until(lambda: _shared(first, second))
            taken = set(await second.partitions())
            user = next(name for n in range(99) if home_partition((name := f"u{n}").encode(), NUM_PARTITIONS) in taken)
            await written.answer(user)
            await until(lambda: first.answers(f"/v1/users/{user}/intents", "e0"))
            async with stream(first, f"/v1/users/{user}/stream") as events:
                assert {(await events.next()).kind, (await events.next()).kind} == {"intents", "recommendations"}
                process.send(signal.SIGSTOP)
                last = await events.next()
                assert last is not None
                assert (last.kind, last.data) == ("bye", {"reason": "moved"})
            offset = await written.answer(user)
            await until(lambda: first.answers(f"/v1/users/{user}/intents", f"e{offset}"))
            process.send(signal.SIGCONT)
            while True:
                status, found = await second.ask(f"/v1/users/{user}/intents")
                assert status == 503 or found["event_id"] == f"e{offset}"
                if status == 200:
                    break
                await asyncio.sleep(0.005)

    asyncio.run(body())


async def _shared(*gateways: RunningGateway) -> bool:
    return {len(await gateway.partitions()) for gateway in gateways} == {NUM_PARTITIONS // 2}
