"""A consumer that reads along: in no group, from the beginning of the log, only what is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer

from stream.kafka.header_names import read_any_header_name

if TYPE_CHECKING:
    from stream.settings import Settings

#: The longest a fetch waits for a record: what reads a log to its end waits so long there.
_POLL_MS = 200


def reader(settings: Settings, name: str, **options: Any) -> AIOKafkaConsumer:
    """A consumer that is not started, ``name`` behind its client id; ``options`` are aiokafka's."""
    read_any_header_name()
    return AIOKafkaConsumer(
        **settings.connection(),
        client_id=f"{settings.app_id}-{name}",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=_POLL_MS,
        **options,
    )
