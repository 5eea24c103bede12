"""One of two gateways is cut off from the broker, and not from its clients: it answers for nobody until it is back.

The group gives its partitions to the other one and cannot tell it so. Were it to go on, its members would see a state that no
longer changes for as long as the cut lasts.
"""

from __future__ import annotations

import asyncio

import pytest

from stream.local_kafka.cluster import KafkaCluster
from stream.local_kafka.ports import HOST
from stream.wire.routing import home_partition
from tests.rigs.broker_fixtures import RigMaker
from tests.rigs.gateway_rig import RunningGateway, messages, running, stream, until
from tests.rigs.rig import NUM_PARTITIONS
from tests.rigs.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def test_a_gateway_that_is_cut_off_answers_for_nobody_and_another_takes_its_members_over(
    proxied_cluster: KafkaCluster, proxy: TcpProxy, make_rig: RigMaker
) -> None:
    rig = make_rig(proxied_cluster)

    async def body() -> None:
        async with (
            messages(rig.settings) as written,
            running(rig.settings) as other,
            running(rig.settings, broker=f"{HOST}:{proxy.port}") as cut_off,
        ):
            for gateway in (other, cut_off):
                await until(lambda gateway=gateway: _has(gateway, NUM_PARTITIONS // 2))
            taken = set(await cut_off.partitions())
            user = next(name for n in range(99) if home_partition((name := f"u{n}").encode(), NUM_PARTITIONS) in taken)
            await written.answer(user)
            path = f"/v1/users/{user}/intents"
            await until(lambda: cut_off.answers(path, "e0"))
            async with stream(cut_off, f"/v1/users/{user}/stream") as events:
                assert {(await events.next()).kind, (await events.next()).kind} == {"intents", "recommendations"}
                proxy.cut()
                last = await events.next()
                assert last is not None
                assert (last.kind, last.data) == ("bye", {"reason": "moved"})
            status, found = await cut_off.ask(path)
            assert (status, found["type"]) == (503, "urn:intentrec:problem:not-ready")
            assert cut_off.process is not None
            assert "no answer of the broker" in (cut_off.process.not_ready() or "")
            await until(lambda: _has(other, NUM_PARTITIONS))
            offset = await written.answer(user)
            await until(lambda: other.answers(path, f"e{offset}"))
            assert (await cut_off.ask(path))[0] == 503
            proxy.heal()
            while True:  # the broker answers before the group has said whose the member is
                status, found = await cut_off.ask(path)
                assert status == 503 or found["event_id"] == f"e{offset}"
                if status == 200:
                    break
                await asyncio.sleep(0.005)
            for gateway in (other, cut_off):
                await until(lambda gateway=gateway: _has(gateway, NUM_PARTITIONS // 2))
                await until(lambda gateway=gateway: gateway.answers(path, f"e{offset}"))

    asyncio.run(body())


async def _has(gateway: RunningGateway, num: int) -> bool:
    return len(await gateway.partitions()) == num
