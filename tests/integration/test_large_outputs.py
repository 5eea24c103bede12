"""Outputs that a broker would refuse for their size: the real worker goes on. On Apache Kafka, which enforces the limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from intentrec_core.errors import BrokerError, ConfigError, StateError
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.limits import MAX_TITLE_LENGTH
from stream.bundles.announcements import announce
from stream.kafka.clients import start_producer
from stream.kafka.topic_limits import check_changelog_limit, read_topic_limits
from stream.local_kafka.broker import Broker
from stream.settings import Settings
from stream.wire.codec import decode_recommendation
from stream.wire.sizes import DEFAULT_LIMITS, OVERHEAD_BYTES
from tests.rigs.rig import ANSWERS_WITHIN_S, Rig
from tests.rigs.serving_rig import ServingRigMaker, announce_bundle, counted, start_serving, until, world_plays
from tests.rigs.verdict import judge, read_all
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import TinyWorld

pytestmark = pytest.mark.timeout(240)


def with_titles(title: Callable[[int], str]) -> TinyWorld:
    """The small world, its items with other titles."""
    world = TinyWorld()
    world.items = [replace(item, title=title(i)) for i, item in enumerate(world.items)]
    world.catalogue = Catalogue(world.items)
    world.table = ItemTable(world.domain, world.vocabulary, world.catalogue)
    return world


def limit(settings: Settings, topic: str, max_bytes: int) -> None:
    """Sets max.message.bytes of a topic. Returns when the broker reports it: the controller knows it earlier."""
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": settings.broker, "log_level": 0})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result()
    deadline_s = time.monotonic() + 30
    while limit_of(admin, topic) != max_bytes:
        assert time.monotonic() < deadline_s, f"the broker does not report max.message.bytes {max_bytes} of {topic}"
        time.sleep(0.05)  # Kafka notifies no client of a changed limit, so poll


def limit_of(admin: AdminClient, topic: str) -> int:
    """The max.message.bytes of a topic that the broker reports."""
    (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return int(described.result()["max.message.bytes"].value)


def plays_with_long_ids(rig: Rig, num: int) -> Iterator[dict[str, Any]]:
    """Every fifth play has an event id of 250 bytes."""
    for number, play in enumerate(world_plays(rig, num)):
        yield play if number % 5 else play | {"event_id": play["event_id"].ljust(250, "x")}


@pytest.mark.kafka
def test_a_title_of_more_than_a_megabyte_costs_no_play(kafka_broker: Broker, make_serving_rig: ServingRigMaker) -> None:
    rig, _ = make_serving_rig(kafka_broker)
    world = with_titles(lambda i: "x" * 1_200_000 if i == 1 else f"Title {i}")
    bundle = make_bundle(rig.directory / "store", world, world.model(3))
    announce_bundle(rig, bundle)
    worker = start_serving(rig, INTENTREC_NUM_RECOMMENDATIONS="30")
    rig.produce(world_plays(rig, 60))
    rig.wait_for_answers(60)
    assert worker.terminate() == 0, worker.log()[-2000:]
    lists = [decode_recommendation(output.value) for output in rig.outputs(rig.settings.recommendations_topic)]
    assert {message.bundle for message in lists} == {bundle.version}
    titles = {item.title for message in lists for item in message.items if item.item_id == "item-1"}
    assert titles == {"x" * (MAX_TITLE_LENGTH - 1) + "…"}
    assert rig.state() == rig.oracle()


@pytest.mark.kafka
def test_topics_with_small_limits_get_shorter_titles_and_smaller_batches_in_transactions_too(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, _ = make_serving_rig(kafka_broker, delivery="exactly_once")
    limit(rig.settings, rig.settings.recommendations_topic, 12_000)
    limit(rig.settings, rig.settings.intents_topic, 12_000)
    world = with_titles(lambda i: "\u00e9" * 900)
    announce_bundle(rig, make_bundle(rig.directory / "store", world, world.model(3)))
    rig.produce(world_plays(rig, 400))  # before the worker starts, so that they are answered in large batches
    worker = start_serving(rig, INTENTREC_NUM_RECOMMENDATIONS="20")
    rig.wait_for_answers(400)
    until(lambda: counted(worker, "cut_lists_total") == 400, 60, worker)
    assert "titles are cut in such a list; the longest title is that of item item-" in worker.log()
    assert worker.terminate() == 0, worker.log()[-2000:]
    lists = [decode_recommendation(output.value) for output in rig.outputs(rig.settings.recommendations_topic)]
    assert all(len(message.items) > 10 for message in lists)
    assert all(0 < len(item.title) < 900 for message in lists for item in message.items)
    assert rig.state() == rig.oracle()


@pytest.mark.kafka
def test_a_bundle_whose_messages_cannot_fit_is_refused_and_the_old_one_serves(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    limit(rig.settings, rig.settings.intents_topic, 4_000)
    announce_bundle(rig, bundle)
    worker = start_serving(rig)
    until(lambda: counted(worker, "bundle_rejections_total", reason="message_size") >= 1, ANSWERS_WITHIN_S, worker)
    assert f"bundle {bundle.version}: message_size: an intent update can take " in worker.log()
    assert worker.terminate() == 0, worker.log()[-2000:]


@pytest.mark.kafka
def test_a_message_that_does_not_fit_becomes_a_dead_letter_and_the_partition_goes_on(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (bundle, _) = make_serving_rig(kafka_broker)
    settings = rig.settings
    # The messages of the long ids have some 900 bytes, the others 660.
    limit(settings, settings.intents_topic, OVERHEAD_BYTES + 780)
    announce_bundle(rig, bundle)
    worker = rig.start_worker(module="tests.faults.unchecked_worker", arguments=["worker"])
    rig.produce(plays_with_long_ids(rig, 200))
    rig.wait_for_outputs(400, settings.recommendations_topic, settings.intents_topic, settings.dead_letter_topic)
    until(lambda: counted(worker, "plays_rejected_total", reason="output_too_large") == 40, 60, worker)
    assert worker.terminate() == 0, worker.log()[-2000:]
    dead = rig.outputs(settings.dead_letter_topic)
    assert len(dead) == 40
    assert {output.headers["intentrec-error"] for output in dead} == {b"output_too_large"}
    too_large = {
        (int(output.headers["intentrec-partition"]), int(output.headers["intentrec-offset"])): [b"intent"]
        for output in dead
    }
    assert {record.value for record in read_all(settings, settings.plays_topic) if b"xxx" in record.value} == {
        output.value for output in dead
    }
    verdict = judge(settings, rig.layout, too_large=too_large)
    assert verdict.holds, verdict


def test_limits_are_those_of_the_topics(broker: Broker, make_serving_rig: ServingRigMaker) -> None:
    """The embedded broker tells them too, though it does not enforce them."""
    rig, _ = make_serving_rig(broker)
    assert asyncio.run(read_topic_limits(rig.settings)) == DEFAULT_LIMITS


@pytest.mark.kafka
def test_a_topic_that_is_too_small_to_work_with_is_refused_with_the_remedy(
    kafka_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, _ = make_serving_rig(kafka_broker)
    settings = rig.settings
    limit(settings, settings.changelog_topic, 1_000)
    limits = asyncio.run(read_topic_limits(settings))
    with pytest.raises(StateError, match=r"max.message.bytes 1000, but a history .* kafka-configs --alter"):
        check_changelog_limit(settings, rig.layout, limits)
    limit(settings, settings.late_topic, 100_000)
    with pytest.raises(
        BrokerError, match=rf"{settings.late_topic} has max.message.bytes 100000; allowed: 262144 or more"
    ):
        asyncio.run(read_topic_limits(settings))


def test_the_largest_dead_letter_can_be_sent_again(embedded_broker: Broker, make_serving_rig: ServingRigMaker) -> None:
    """A client refuses records above its own limit before it asks the broker."""
    rig, _ = make_serving_rig(embedded_broker)
    value, key, headers = b"x" * 1_000_000, b"k" * 65_536, [("h", b"y" * 65_000)]

    async def send() -> None:
        producer = await start_producer(rig.settings)
        try:
            await producer.send_and_wait(rig.settings.plays_topic, value, key=key, headers=headers, partition=0)
        finally:
            await producer.stop()

    asyncio.run(send())
    (record,) = read_all(rig.settings, rig.settings.plays_topic)
    assert (record.value, record.key) == (value, key)


def test_an_announcement_that_every_reader_would_have_to_carry_is_refused(
    embedded_broker: Broker, make_serving_rig: ServingRigMaker
) -> None:
    rig, (bundle, _) = make_serving_rig(embedded_broker)
    url = rig.settings.bundle_url
    with pytest.raises(ConfigError, match=r"allowed: 65536; shorten the URL .* or the reason \(70000 characters\)"):
        asyncio.run(announce(rig.settings, bundle=bundle.version, url=url, reason="x" * 70_000))
    assert asyncio.run(announce(rig.settings, bundle=bundle.version, url=url)).sequence == 1
