"""The Faust app around the batch transport, with only the parts of Faust that a worker uses.

It uses group membership, rebalances, lifecycle and the consumer's thread. Web server, tables, leader topic, producer and data
folder are off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

import faust

from stream.delivery.transport import BatchTransport

if TYPE_CHECKING:
    from stream.delivery.transport import BatchConsumer, PlaysSink
    from stream.settings import Settings


class PlaysApp(faust.App):
    """A Faust app that creates no folders."""

    logger = logging.getLogger("mode")  # else mode's own lines ("Starting...") would be logged under this module's name

    async def on_first_start(self) -> None:
        """Does nothing. Faust would create a data folder here; a worker's state is in memory and on the broker."""


def create_app(settings: Settings, rebalance_timeout_s: float) -> PlaysApp:
    """An app that is subscribed to the plays topic. Call :func:`deliver_to` before it starts.

    Raises: TransportMismatch when the installed faust-streaming or aiokafka does not fit the transport.
    """
    app = PlaysApp(
        settings.app_id,
        broker=[f"kafka://{address.strip()}" for address in settings.broker.split(",")],
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=rebalance_timeout_s,
        stream_wait_empty=False,
    )
    app.transport = BatchTransport(
        app.conf.broker_consumer, app, settings=settings, rebalance_timeout_s=rebalance_timeout_s
    )
    app.boot_strategy.enable_kafka_producer = False  # outputs and changelog use other producers
    app.topics.add(app.topic(settings.plays_topic))
    return app


def source_of(app: PlaysApp) -> BatchConsumer:
    """The consumer of the plays topic."""
    return cast("BatchConsumer", app.consumer)


def deliver_to(app: PlaysApp, sink: PlaysSink) -> None:
    """Makes ``sink`` receive the fetched plays; call it before the app starts."""
    cast("BatchTransport", app.transport).sink = sink
