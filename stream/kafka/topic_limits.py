"""Reads from the broker how large a record each topic takes, and refuses topics that are too small to work with."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from intentrec_core.errors import BrokerError, StateError
from intentrec_core.history.changelog_codec import largest_record
from stream.wire.sizes import MIN_DEAD_LETTER_BYTES, OVERHEAD_BYTES, TopicLimits

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout
    from stream.settings import Settings

logger = logging.getLogger(__name__)

_LIMIT = "max.message.bytes"


async def read_topic_limits(settings: Settings) -> TopicLimits:
    """The limits of the topics that a worker writes to. A limit that the broker does not report is taken to be Kafka's default.

    Raises: BrokerError when the broker cannot be reached, or the topic of dead letters or late plays takes too small records.
    """
    topics = {
        "recommendations": settings.recommendations_topic,
        "intents": settings.intents_topic,
        "dead_letter": settings.dead_letter_topic,
        "late": settings.late_topic,
        "changelog": settings.changelog_topic,
    }
    try:
        reported = await _described(settings, topics.values())
    except KafkaError as error:
        raise BrokerError(f"the limits of the topics on {settings.broker} cannot be read: {error!r}") from error
    unreported = [topic for topic in topics.values() if topic not in reported]
    if unreported:
        logger.info("the broker does not report %s for %s; using the default", _LIMIT, ", ".join(unreported))
    limits = TopicLimits(**{name: reported[topic] for name, topic in topics.items() if topic in reported})
    for name in ("dead_letter", "late"):
        if getattr(limits, name) < MIN_DEAD_LETTER_BYTES:
            raise BrokerError(
                f"topic {topics[name]} has {_LIMIT} {getattr(limits, name)}; allowed: {MIN_DEAD_LETTER_BYTES} or more, because a "
                "rejected play is kept there with its key and headers; raise it with kafka-configs --alter"
            )
    return limits


def check_changelog_limit(settings: Settings, layout: EventLayout, limits: TopicLimits) -> None:
    """Checks that the changelog takes the largest record of a history.

    Raises: StateError, with the remedy.
    """
    needed = largest_record(layout) + OVERHEAD_BYTES
    if needed > limits.changelog:
        raise StateError(
            f"topic {settings.changelog_topic} has {_LIMIT} {limits.changelog}, but a history of this domain takes records of up "
            f"to {needed} bytes: raise it with kafka-configs --alter, or lower history.watched in the domain file"
        )


async def _described(settings: Settings, topics: Collection[str]) -> dict[str, int]:
    admin = AIOKafkaAdminClient(**settings.connection())
    await admin.start()
    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic, None) for topic in topics]
        responses = await admin.describe_configs(resources)
    finally:
        await admin.close()
    found: dict[str, int] = {}
    for response in responses:
        for error_code, _, _, topic, entries in response.resources:
            for name, value, *_ in entries if error_code == 0 else ():
                if name == _LIMIT and value:
                    found[topic] = int(value)
    return found
