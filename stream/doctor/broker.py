"""Checks of the broker: whether it answers, its topics, its clock, and the workers on it. Nothing on it is changed, but for a
topic that is made and deleted to read its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from intentrec_core.errors import BrokerError, IntentRecError
from stream.doctor.check import Checks, counted, one_line
from stream.kafka.broker_checks import supports_transactions
from stream.kafka.clients import close_consumer, close_producer, reader
from stream.kafka.topics import TopicSpec, topic_specs

if TYPE_CHECKING:
    from stream.settings import Settings

_DEADLINE_S = 30.0
#: Of the deadline, what the clock may take: a topic that takes no record must not hide what else was found.
_CLOCK_DEADLINE_S = 10.0
#: Latencies are measured from the broker's timestamp to this machine's clock.
_CLOCK_WARNS_S, _CLOCK_FAILS_S = 0.5, 60.0
#: A configuration that guarantees depend on; others are a matter of taste.
_REQUIRED = ("cleanup.policy", "message.timestamp.type")
_START = "start one (intentrec broker), or name it with --broker or INTENTREC_BROKER"
_LOOK_AT_BROKER = "see the broker's log, and which rights this user has on it"
#: Of the topic that is made to read the clock. It has one copy, so a cluster's default of two in sync would refuse its record.
_CLOCK_CONFIG = {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000", "min.insync.replicas": "1"}


async def check_broker(settings: Settings, checks: Checks, now_s: Callable[[], float] = time.time) -> frozenset[str]:
    """Adds what is found on the broker, and returns the names of its topics. ``now_s`` is this machine's clock."""
    try:
        transactions = await supports_transactions(settings)  # has a deadline of its own
        async with asyncio.timeout(_DEADLINE_S):
            admin = AIOKafkaAdminClient(**settings.connection())
            try:
                await admin.start()
                return await _check(settings, checks, admin, transactions, now_s)
            finally:
                await admin.close()
    except BrokerError as error:  # nothing answered at its address
        checks.fail("broker", one_line(error).partition("; ")[0], _START)
    except IntentRecError as error:
        checks.refused("broker", error)
    except (TimeoutError, KafkaError, OSError) as error:
        what = f"not all within {_DEADLINE_S:g} s" if isinstance(error, TimeoutError) else f"refuses: {one_line(error)}"
        checks.fail("broker", f"{settings.broker} answers, but {what}", _LOOK_AT_BROKER)
    return frozenset()


async def _check(
    settings: Settings, checks: Checks, admin: AIOKafkaAdminClient, transactions: bool, now_s: Callable[[], float]
) -> frozenset[str]:
    num_nodes = len((await admin.describe_cluster())["brokers"])
    nodes = f"{settings.broker}: {counted(num_nodes, 'node')}"
    if transactions:
        checks.ok("broker", f"{nodes}, with transactions")
    else:
        checks.warn(
            "broker",
            f"{nodes}, without transactions: state and offsets are not committed together",
            "for production use Apache Kafka; make kafka runs one here",
        )
    # Ask for all topics: the embedded broker creates a topic that is asked for by its name.
    described = {topic["topic"]: topic for topic in await admin.describe_topics()}
    specs = [spec for spec in topic_specs(settings) if spec.name in described]
    missing = [spec.name for spec in topic_specs(settings) if spec.name not in described]
    if missing:
        checks.fail("topics", f"missing: {', '.join(missing)}", "create them: intentrec topics")
    if specs:
        configs = await topic_configs(admin, [spec.name for spec in specs])
        sizes = await _sizes(settings, {spec.name: len(described[spec.name]["partitions"]) for spec in specs})
        for spec in specs:
            _check_topic(settings, checks, spec, described, configs.get(spec.name, {}), sizes[spec.name], num_nodes)
    if transactions:
        await _check_clock(settings, checks, admin, now_s)
    else:
        checks.ok("clock", "not compared: this broker sets no timestamps, and is for one machine")
    if settings.plays_topic in described and transactions:
        await _check_workers(settings, checks, admin)
    return frozenset(described)


def _check_topic(
    settings: Settings,
    checks: Checks,
    spec: TopicSpec,
    described: Mapping[str, Any],
    config: Mapping[str, str],
    num_records: int,
    num_nodes: int,
) -> None:
    area, partitions = f"topic {spec.name}", described[spec.name]["partitions"]
    plays = described.get(settings.plays_topic)
    wanted = spec.num_partitions
    if spec.name == settings.changelog_topic and plays is not None:
        wanted = len(plays["partitions"])
    elif spec.name == settings.plays_topic:
        wanted = len(partitions)  # whoever created it chose
    if spec.fixed_partitions and len(partitions) != wanted:
        remedy = "delete it if it is empty, else use another app_id; then intentrec topics"
        checks.fail(area, f"{len(partitions)} partitions, not {wanted}: state would not be where it is read", remedy)
        return
    leaderless = [partition["partition"] for partition in partitions if partition["leader"] < 0]
    if leaderless:
        checks.fail(area, f"no leader of partition {', '.join(map(str, leaderless))}", "start the broker's other nodes")
        return
    wrong = [
        (name, config[name], spec.config[name])
        for name in _REQUIRED
        if spec.config.get(name, config.get(name)) != config.get(name)
    ]
    for name, is_, should_be in wrong:
        remedy = f"kafka-configs --bootstrap-server {settings.broker} --alter --topic {spec.name} --add-config {name}={should_be}"
        report = checks.fail if name == "cleanup.policy" else checks.warn
        report(area, f"{name} is {is_}, not {should_be}", remedy)
    behind = [partition["partition"] for partition in partitions if len(partition["isr"]) < len(partition["replicas"])]
    if behind:
        checks.warn(area, f"copies of {len(behind)} partitions are behind", "start the broker's other nodes, or wait")
    copies = min(len(partition["replicas"]) for partition in partitions)
    if copies == 1 and num_nodes > 1:
        checks.warn(
            area, f"one copy on {num_nodes} nodes: a lost disk loses it", "kafka-reassign-partitions to three copies"
        )
    elif not wrong and not behind:
        held = f"{counted(len(partitions), 'partition')}, {counted(copies, 'copy', 'copies')}"
        policy = f", {config['cleanup.policy']}" if "cleanup.policy" in config else ""
        checks.ok(area, f"{held}{policy}, {counted(num_records, 'offset')} kept")


async def topic_configs(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """The configuration of each topic; empty for a broker that tells none, as the embedded one."""
    responses = await admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, None) for topic in topics]
    )
    return {
        topic: {name: value for name, value, *_ in entries if value is not None}
        for response in responses
        for error_code, _, _, topic, entries in response.resources
        if error_code == 0
    }


async def _sizes(settings: Settings, topics: Mapping[str, int]) -> dict[str, int]:
    """How many offsets each topic keeps, from its first record to its end."""
    sources = [TopicPartition(topic, number) for topic, num in topics.items() for number in range(num)]
    consumer = reader(settings, "doctor")
    try:
        await consumer.start()
        beginnings, ends = await consumer.beginning_offsets(sources), await consumer.end_offsets(sources)
    finally:
        await close_consumer(consumer)
    sizes = dict.fromkeys(topics, 0)
    for source in sources:
        sizes[source.topic] += ends[source] - beginnings[source]
    return sizes


async def _check_clock(
    settings: Settings, checks: Checks, admin: AIOKafkaAdminClient, now_s: Callable[[], float]
) -> None:
    """Compares the broker's clock with this machine's, by a record whose timestamp the broker sets, on a topic made for it."""
    name = f"{settings.app_id}-doctor-{uuid.uuid4().hex[:8]}"
    producer = AIOKafkaProducer(**settings.connection(), acks="all")
    try:
        async with asyncio.timeout(_CLOCK_DEADLINE_S):
            topic = NewTopic(name=name, num_partitions=1, replication_factor=1, topic_configs=_CLOCK_CONFIG)
            for _, code, message in (await admin.create_topics([topic])).topic_errors:
                if code:
                    raise for_code(code)(message)
            await producer.start()
            await producer.partitions_for(name)
            before_s = now_s()
            stored = await producer.send_and_wait(name, b"", partition=0, timestamp_ms=0)
            after_s = now_s()
    except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
        checks.warn(
            "clock", f"the broker's clock cannot be read: {error!r}", "compare it by hand: date on both machines"
        )
        return
    finally:
        await close_producer(producer)
        with contextlib.suppress(KafkaError):
            await admin.delete_topics([name])
    ahead_s = stored.timestamp / 1000 - (before_s + after_s) / 2
    off_s = max(0.0, abs(ahead_s) - (after_s - before_s) / 2)
    if off_s < _CLOCK_WARNS_S:
        checks.ok(
            "clock",
            f"the broker's clock and this one agree within {max(off_s, (after_s - before_s) / 2) * 1000:.0f} ms",
        )
        return
    report = checks.fail if off_s > _CLOCK_FAILS_S else checks.warn
    direction = "ahead of" if ahead_s > 0 else "behind"
    report(
        "clock",
        f"the broker's clock is {off_s:.1f} s {direction} this one: latencies are wrong by that",
        "run NTP on both machines",
    )


async def _check_workers(settings: Settings, checks: Checks, admin: AIOKafkaAdminClient) -> None:
    nobody, remedy = f"none in group {settings.app_id}: plays wait", "start one: intentrec worker"
    try:
        responses = await admin.describe_consumer_groups([settings.app_id])
    except GroupCoordinatorNotAvailableError:  # of a broker on which there never was a group
        checks.warn("workers", nobody, remedy)
        return
    for response in responses:
        for _, _, state, _, _, members, *_ in response.groups:
            if members:
                checks.ok("workers", f"{len(members)} in group {settings.app_id}, {state.lower()}")
            else:
                checks.warn("workers", nobody, remedy)
