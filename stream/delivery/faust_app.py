"""Faust's app around the batch transport: what of Faust a worker uses, and nothing else of it.

No web server, no tables, no leader topic, no producer, no folders: membership, rebalances, lifecycle and the consumer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import faust

from stream.delivery.transport import BatchTransport

if TYPE_CHECKING:
    from stream.delivery.transport import BatchConsumer, PlaysSink
    from stream.settings import Settings


class PlaysApp(faust.App):
    """A Faust app that leaves no folders behind."""

    async def on_first_start(self) -> None:
        """Faust would create a data folder here; the state is in memory and on the broker."""


def create_app(settings: Settings, rebalance_timeout_s: float) -> PlaysApp:
    """An app that is subscribed to the plays; :func:`deliver_to` says where their batches go, before the app starts.

    Raises: TransportMismatch when the installed faust-streaming is not the one the transport was written for.
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
    app.boot_strategy.enable_kafka_producer = False  # outputs and changelog have producers of their own
    app.topics.add(app.topic(settings.plays_topic))
    return app


def source_of(app: PlaysApp) -> BatchConsumer:
    """The consumer of the plays topic."""
    return cast("BatchConsumer", app.consumer)


def deliver_to(app: PlaysApp, sink: PlaysSink) -> None:
    """Hands the plays that the app fetches to ``sink``; to be called before the app starts."""
    cast("BatchTransport", app.transport).sink = sink
