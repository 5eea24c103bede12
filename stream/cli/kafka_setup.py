"""``intentrec topics`` and ``intentrec broker``: creates the topics, and runs a Kafka broker on this machine."""

from __future__ import annotations

import asyncio
import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.errors import BrokerError, ConfigError
from stream.cli import options
from stream.cli.progress import bars, notes, results

if TYPE_CHECKING:
    from stream.local_kafka.broker import Broker
    from stream.local_kafka.cluster import KafkaCluster

_PANEL = "Streaming"
_CHECK_EVERY_S = 0.5


class Engine(StrEnum):
    """The kind of broker to run."""

    EMBEDDED = "embedded"
    KAFKA = "kafka"


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.command(
        "topics",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec topics --broker 127.0.0.1:9092\n\n"
        "  intentrec topics --partitions 32 --replication 3",
    )(create)
    app.command(
        "broker",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec broker                      an embedded broker on 127.0.0.1:9092\n\n"
        "  intentrec broker --engine kafka       Apache Kafka from its jars; needs Java 17 and Maven\n\n"
        "  intentrec broker --engine kafka --nodes 3    on ports 9092 to 9094; every partition on all three\n\n"
        "  intentrec broker --port 0             on any free port, which is printed",
    )(run)


def create(
    broker: options.Broker = None,
    partitions: Annotated[
        int | None,
        typer.Option(help="Partitions of the plays, their changelog and the outputs. Cannot be changed later."),
    ] = None,
    replication: Annotated[
        int | None, typer.Option(help="Copies of each partition. Default: one per node, up to 3.")
    ] = None,
) -> None:
    """Create the missing topics, with the cleanup policies that the delivery guarantees need. Safe to repeat."""
    from stream.kafka.topics import create_topics

    settings = options.settings(broker=broker, num_partitions=partitions, replication_factor=replication)
    with bars() as report:
        report(f"creating topics on {settings.broker}", 0, 0)
        created = asyncio.run(create_topics(settings))
    out = results()
    for topic in settings.topics:
        out.print(f"{'[green]created[/green]' if topic in created else '[dim]present[/dim]'}  {topic}")


def run(
    engine: Annotated[
        Engine,
        typer.Option(help="embedded: in memory, starts at once, no transactions. kafka: Apache Kafka, keeps data."),
    ] = Engine.EMBEDDED,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the first node on 127.0.0.1. 0: any free ports.")
    ] = 9092,
    nodes: Annotated[
        int, typer.Option(help="1, or 3 with kafka, where a write is acknowledged once two nodes have it.")
    ] = 1,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for Kafka's data and the log file.")] = None,
) -> None:
    """Run a broker on this machine until Ctrl-C."""
    from stream.local_kafka.broker import start_broker
    from stream.local_kafka.cluster import start_cluster

    if engine is Engine.EMBEDDED and nodes != 1:
        raise ConfigError(f"--nodes {nodes}: the embedded broker is one node; use --engine kafka")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with bars() as report:
        report(f"starting the {engine.value} broker", 0, 0)
        if engine is Engine.EMBEDDED:
            running: Broker | KafkaCluster = start_broker(port=port, data_dir=data_dir)
        else:
            running = start_cluster(num_nodes=nodes, port=port, data_dir=data_dir)
    with running:
        results().print(running.address, style="bold", soft_wrap=True)
        while not stop.wait(_CHECK_EVERY_S):
            if not running.running:
                _restart_node(running)


def _restart_node(stopped: Broker | KafkaCluster) -> None:
    """Restarts the nodes of a cluster that have ended.

    Raises: BrokerError if there is only one node, or a node does not start.
    """
    from stream.local_kafka.cluster import KafkaCluster

    brokers = stopped.brokers if isinstance(stopped, KafkaCluster) else [stopped]
    if not isinstance(stopped, KafkaCluster) or len(brokers) == 1:
        raise BrokerError(f"the broker ended by itself; see its log {brokers[0].log_path}")
    for index, broker in enumerate(brokers):
        if not broker.running:
            message = f"the node at {broker.address} ended, restarting it; its log is {broker.log_path}"
            notes().print(message, soft_wrap=True)
            stopped.restart(index)
