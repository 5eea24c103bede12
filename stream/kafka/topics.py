"""The topics IntentRec needs, with the partitions and cleanup policies its guarantees rest on.

plays            any number of partitions, fixed for good: histories live where their plays do
<app>-history    compacted, as many partitions as plays; partition p holds the state of plays-p
recommendations, intents   keyed by user, same number for even load; the number may differ
plays.dlq, plays.late      set aside, kept for a month
model-updates    compacted, ONE partition: announcements are ordered by their place in it
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from intentrec_core.errors import BrokerError, StateError

if TYPE_CHECKING:
    from stream.settings import Settings

_DAY_MS = str(24 * 3600 * 1000)
_MONTH_MS = str(30 * 24 * 3600 * 1000)
#: Oversized plays must reach the worker to be dead-lettered with a reason, rather than fail at their producer unseen.
_MAX_PLAY_RECORD_BYTES = str(8 * 1024 * 1024)
#: A dead letter is at most 1 MB of value, 64 kB of key and 64 kB of headers, and a few headers of ours.
_MAX_DEAD_LETTER_BYTES = str(2 * 1024 * 1024)
#: What workers and trainers write is stamped by the broker: it refuses records that are an hour ahead of its own clock, so a
#: worker whose clock is wrong could publish and commit nothing.
_WRITTEN_BY_US = {"message.timestamp.type": "LogAppendTime"}
_CREATE_DEADLINE_S = 30.0
#: Unless set: a copy on each node, up to three. Kafka's own default is one, however many nodes there are.
_MAX_COPIES = 3


@dataclass(frozen=True, kw_only=True)
class TopicSpec:
    """One topic as it has to be."""

    name: str
    num_partitions: int
    config: dict[str, str] = field(default_factory=dict)
    #: A topic that exists with another number of partitions is refused, where state or order depends on the number.
    fixed_partitions: bool = False


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """All topics of an app, in data-flow order."""
    partitions = settings.num_partitions
    kept = {**_WRITTEN_BY_US, "cleanup.policy": "delete", "retention.ms": _MONTH_MS}
    compacted = {
        **_WRITTEN_BY_US,
        "cleanup.policy": "compact",
        # Restoring reads what compaction left: a tenth of dirt keeps it near one ring a member, for more cleaning.
        "min.cleanable.dirty.ratio": "0.1",
        # What was forgotten must not wait for the ratio: cleaned within a day, tombstones gone a day later.
        "max.compaction.lag.ms": _DAY_MS,
        "delete.retention.ms": _DAY_MS,
        "segment.ms": str(3600 * 1000),
        "segment.bytes": str(128 * 1024 * 1024),
    }
    return [
        TopicSpec(
            name=settings.plays_topic,
            num_partitions=partitions,
            config={"max.message.bytes": _MAX_PLAY_RECORD_BYTES},
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
    ]


async def create_topics(settings: Settings) -> list[str]:
    """Creates the topics that are missing and returns their names; calling it again does nothing.

    Raises: StateError when a topic exists with a number of partitions that state or order cannot live with;
    BrokerError when the broker cannot be reached or refuses.
    """
    try:
        async with asyncio.timeout(_CREATE_DEADLINE_S):
            return await _create_topics(settings)
    except TimeoutError:
        raise BrokerError(f"creating topics on {settings.broker} took over {_CREATE_DEADLINE_S:.0f} s") from None
    except KafkaError as error:
        raise BrokerError(f"creating topics on {settings.broker} failed: {error!r}; is the broker up?") from error


async def count_partitions(settings: Settings, *topics: str) -> dict[str, int]:
    """Partitions of the topics that exist.

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
        # Created before anything else is asked about them: the embedded broker makes up a topic that is only looked at.
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
    counts: dict[str, int] = {}
    while len(counts) < len(names):
        counts = await _counts(admin, names)
        if len(counts) < len(names):
            await asyncio.sleep(0.1)
    wanted = {spec.name: spec for spec in specs}
    # The plays topic is the reference: others may have made it, and what follows it must agree with it.
    plays = specs[0]
    for name, spec in wanted.items():
        if spec.fixed_partitions and counts[name] != spec.num_partitions:
            raise StateError(
                f"topic {name} has {counts[name]} partitions, not {spec.num_partitions}: "
                + (
                    f"set num_partitions to {counts[name]} if that is on purpose"
                    if counts[plays.name] == counts[name]
                    else "histories would not be where their plays are; delete it if it is empty, or use another app_id"
                )
            )


async def _counts(admin: AIOKafkaAdminClient, topics: tuple[str, ...] | list[str]) -> dict[str, int]:
    described = await admin.describe_topics(list(topics))
    return {topic["topic"]: len(topic["partitions"]) for topic in described if topic["error_code"] == 0}
