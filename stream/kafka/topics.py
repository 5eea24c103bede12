"""Creates the topics, with the partitions and cleanup policies that the guarantees depend on.

plays            any number of partitions, but never changed: a history is in the partition of its plays
<app>-history    compacted, as many partitions as plays; partition p holds the state of partition p of plays
recommendations, intents   keyed by user; the number of partitions may differ, equal numbers spread the load evenly
plays.dlq, plays.late      kept for a month
model-updates    compacted, ONE partition, so that announcements have one order
items            compacted, ONE partition: an offset says how much of the catalogue a message knows
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from intentrec_core.errors import BrokerError, StateError
from stream.wire.sizes import DEFAULT_LIMITS

if TYPE_CHECKING:
    from stream.settings import Settings

_DAY_MS = str(24 * 3600 * 1000)
_MONTH_MS = str(30 * 24 * 3600 * 1000)
#: Oversized plays must reach the worker, which dead-letters them with a reason, instead of failing unseen at the producer.
MAX_PLAY_RECORD_BYTES = 8 * 1024 * 1024
#: A dead letter has at most 1 MB of value, 64 KiB of key, 64 KiB of producer headers, and a few headers of ours.
_MAX_DEAD_LETTER_BYTES = str(DEFAULT_LIMITS.dead_letter)
#: The broker sets the timestamps of records from workers and trainers. It refuses timestamps an hour ahead of its own clock, so
#: a worker with a wrong clock could otherwise neither publish nor commit.
_WRITTEN_BY_US = {"message.timestamp.type": "LogAppendTime"}
_CREATE_DEADLINE_S = 30.0
_KNOWN_WITHIN_S, _ASK_AGAIN_S = 60.0, 0.1
#: Default replication: one copy on each node, at most three. Kafka's own default is one copy, however many nodes there are.
_MAX_COPIES = 3


@dataclass(frozen=True, kw_only=True)
class TopicSpec:
    """The required configuration of one topic."""

    name: str
    num_partitions: int
    config: dict[str, str] = field(default_factory=dict)
    #: If state or order depends on the number of partitions, an existing topic with another number is refused.
    fixed_partitions: bool = False


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """The specs of all topics of an app, in data-flow order."""
    partitions = settings.num_partitions
    kept = {**_WRITTEN_BY_US, "cleanup.policy": "delete", "retention.ms": _MONTH_MS}
    compacted = {
        **_WRITTEN_BY_US,
        "cleanup.policy": "compact",
        # A restore reads what compaction left. A dirty ratio of 0.1 keeps that near one history per member, at the cost of more
        # compaction work.
        "min.cleanable.dirty.ratio": "0.1",
        # Erasure must not wait for the ratio: compacted within a day, tombstones removed a day later.
        "max.compaction.lag.ms": _DAY_MS,
        "delete.retention.ms": _DAY_MS,
        "segment.ms": str(3600 * 1000),
        "segment.bytes": str(128 * 1024 * 1024),
    }
    return [
        TopicSpec(
            name=settings.plays_topic,
            num_partitions=partitions,
            config={"max.message.bytes": str(MAX_PLAY_RECORD_BYTES)},
            fixed_partitions=True,
        ),
        TopicSpec(name=settings.changelog_topic, num_partitions=partitions, config=compacted, fixed_partitions=True),
        TopicSpec(name=settings.recommendations_topic, num_partitions=partitions, config=_WRITTEN_BY_US),
        TopicSpec(name=settings.intents_topic, num_partitions=partitions, config=_WRITTEN_BY_US),
        TopicSpec(
            name=settings.dead_letter_topic,
            num_partitions=partitions,
            config={**kept, "max.message.bytes": _MAX_DEAD_LETTER_BYTES},
        ),
        TopicSpec(
            name=settings.late_topic,
            num_partitions=partitions,
            config={**kept, "max.message.bytes": _MAX_DEAD_LETTER_BYTES},
        ),
        TopicSpec(
            name=settings.model_updates_topic,
            num_partitions=1,
            config={**_WRITTEN_BY_US, "cleanup.policy": "compact"},
            fixed_partitions=True,
        ),
        TopicSpec(name=settings.items_topic, num_partitions=1, config=compacted, fixed_partitions=True),
    ]


async def create_topics(settings: Settings) -> list[str]:
    """Creates the missing topics and returns their names. Idempotent.

    Raises: StateError when a topic exists with a number of partitions that would break state or order; BrokerError when the
    broker cannot be reached or refuses.
    """
    try:
        async with asyncio.timeout(_CREATE_DEADLINE_S):
            return await _create_topics(settings)
    except TimeoutError:
        raise BrokerError(f"creating topics on {settings.broker} took over {_CREATE_DEADLINE_S:.0f} s") from None
    except KafkaError as error:
        raise BrokerError(f"creating topics on {settings.broker} failed: {error!r}; is the broker up?") from error


async def count_partitions(settings: Settings, *topics: str) -> dict[str, int]:
    """The number of partitions of each topic that exists.

    Raises: KafkaError when the broker cannot be reached.
    """
    admin = AIOKafkaAdminClient(**settings.connection())
    await admin.start()
    try:
        return await _counts(admin, topics)
    finally:
        await admin.close()


async def _create_topics(settings: Settings) -> list[str]:
    specs = topic_specs(settings)
    admin = AIOKafkaAdminClient(**settings.connection())
    await admin.start()
    created = []
    try:
        copies = settings.replication_factor or min(_MAX_COPIES, len((await admin.describe_cluster())["brokers"]))
        # Create them before any other request: the embedded broker creates a topic when it is only described.
        new = [
            NewTopic(
                name=spec.name,
                num_partitions=spec.num_partitions,
                replication_factor=copies,
                topic_configs=spec.config,
            )
            for spec in specs
        ]
        response = await admin.create_topics(new)
        for name, code, message in response.topic_errors:
            error = for_code(code)
            if code == 0:
                created.append(name)
            elif error is not TopicAlreadyExistsError:
                raise BrokerError(f"topic {name} cannot be created: {message or error.__name__}")
        await _wait_until_known(admin, specs)
    finally:
        await admin.close()
    return created


async def _wait_until_known(admin: AIOKafkaAdminClient, specs: list[TopicSpec]) -> None:
    names = [spec.name for spec in specs]
    deadline_s = time.monotonic() + _KNOWN_WITHIN_S
    while len(counts := await _counts(admin, names)) < len(names):
        if time.monotonic() > deadline_s:
            missing = ", ".join(name for name in names if name not in counts)
            raise BrokerError(
                f"created, but not known to the broker after {_KNOWN_WITHIN_S:.0f} s: {missing}; try again"
            )
        await asyncio.sleep(_ASK_AGAIN_S)  # Kafka does not announce when a topic has its leaders
    wanted = {spec.name: spec for spec in specs}
    # The plays topic is the reference: another team may have created it, and the other topics must match it.
    plays = specs[0]
    for name, spec in wanted.items():
        if spec.fixed_partitions and counts[name] != spec.num_partitions:
            raise StateError(
                f"topic {name} has {counts[name]} partitions, not {spec.num_partitions}: "
                + (
                    f"set num_partitions to {counts[name]} if that number is intended"
                    if counts[plays.name] == counts[name]
                    else "histories would not be in the partitions of their plays; delete the topic if it is empty, or use "
                    "another app_id"
                )
            )


async def _counts(admin: AIOKafkaAdminClient, topics: tuple[str, ...] | list[str]) -> dict[str, int]:
    described = await admin.describe_topics(list(topics))
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}
