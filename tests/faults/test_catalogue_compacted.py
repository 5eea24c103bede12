"""The items topic after Apache Kafka has compacted it: what was withdrawn leaves no trace, and is still withdrawn."""

from __future__ import annotations

import asyncio
import time

import pytest

from intentrec_core.features.catalogue import Item
from stream.kafka.clients import start_producer
from stream.kafka.items_reader import ItemsReader
from stream.kafka.items_writer import put_item, withdraw_item
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from stream.wire.catalogue_record import ItemChanges, item_hash
from tests.faults.test_forget import configure_to_compact_at_once
from tests.rigs.broker_fixtures import RigMaker

WITHDRAWN, HELD = "withdrawn", "withdrawn-by-hand"


async def _changes(settings: Settings) -> ItemChanges:
    async with ItemsReader(settings) as topic:
        return await topic.changes()


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_absence_after_compaction_is_a_withdrawal(kafka_broker: Broker, make_rig: RigMaker) -> None:
    settings = make_rig(kafka_broker).settings
    configure_to_compact_at_once(settings.broker, settings.items_topic)

    async def test() -> None:
        for item_id in (WITHDRAWN, HELD, "kept"):
            await put_item(settings, Item(item_id, item_id))
        producer = await start_producer(settings)
        sent = await producer.send_and_wait(settings.items_topic, None, key=WITHDRAWN.encode(), partition=0)
        await producer.stop()
        await withdraw_item(settings, HELD)
        deadline_s, changes = time.monotonic() + 120, await _changes(settings)
        assert changes.items[item_hash(WITHDRAWN.encode())] is None
        while item_hash(WITHDRAWN.encode()) in changes.items:
            assert time.monotonic() < deadline_s, "the broker does not compact"
            await put_item(settings, Item("kept", f"Kept at {time.monotonic()}"))  # rolls the segment
            await asyncio.sleep(0.5)
            changes = await _changes(settings)
        assert changes.offset >= sent.offset
        assert changes.items[item_hash(HELD.encode())] is None
        shown = changes.items[item_hash(b"kept")]
        assert shown is not None
        async with ItemsReader(settings) as topic:
            assert (await topic.everything())[HELD].withdrawn, "so that no file puts it again"

    asyncio.run(test())
