"""``intentrec topics`` and ``intentrec broker``: a place for the plays to flow."""

from __future__ import annotations

import asyncio
import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from intentrec_core.errors import BrokerError
from stream.cli import options
from stream.cli.progress import bars, results

_PANEL = "Streaming"
_LOOK_EVERY_S = 0.5


class Engine(StrEnum):
    """What kind of broker."""

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
        epilog="[bold]Examples[/bold]\n\n  intentrec broker                      an embedded one on 127.0.0.1:9092\n\n"
        "  intentrec broker --engine kafka       Apache Kafka from its jars: Java 17 and Maven\n\n"
        "  intentrec broker --port 0             any free port; it is printed",
    )(run)


def create(
    broker: options.Broker = None,
    partitions: Annotated[
        int | None, typer.Option(help="Of plays, its changelog and the outputs; fixed for good.")
    ] = None,
    replication: Annotated[int | None, typer.Option(help="Copies of each partition: 3 in production.")] = None,
) -> None:
    """Create the topics that are missing, with the cleanup policies the guarantees rest on. Doing it twice is fine."""
    from stream.topics import create_topics

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
        typer.Option(help="embedded: in memory, starts at once, no transactions. kafka: Apache Kafka, data kept."),
    ] = Engine.EMBEDDED,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0: any free one.")] = 9092,
    data_dir: Annotated[Path | None, typer.Option(help="Kafka's data and the log file.")] = None,
) -> None:
    """Run a broker on this machine until Ctrl-C."""
    from stream.broker import start_broker

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with bars() as report:
        report(f"starting the {engine.value} broker", 0, 0)
        broker = start_broker(engine=engine.value, port=port, data_dir=data_dir)
    with broker:
        results().print(f"{broker.address}", style="bold")
        while not stop.wait(_LOOK_EVERY_S):
            if not broker.running:
                raise BrokerError(f"the broker ended by itself; its log is {broker.log_path}")
