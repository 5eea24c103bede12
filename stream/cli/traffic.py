"""``intentrec replay`` and ``intentrec simulate``: sends recorded or simulated plays to Kafka."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.errors import ConfigError
from stream.cli import options
from stream.cli.progress import Report, bars, notes, results

if TYPE_CHECKING:
    from intentrec_core.plays.table import PlayRow
    from intentrec_core.simulation.simulate import World
    from stream.kafka.replay import Pace
    from stream.settings import Settings

_PANEL = "Streaming"
_REPORT_EVERY = 500

Speed = Annotated[float | None, typer.Option(help="Event-time seconds per second: 3600 replays one hour per second.")]
Rate = Annotated[
    float | None, typer.Option(help="Plays per second, evenly. Without --speed and --rate: as fast as possible.")
]
Limit = Annotated[int | None, typer.Option("--plays", min=1, help="Stop after this many plays.")]


class SimulatedDomain(StrEnum):
    """The simulated worlds."""

    VIDEO = "video"
    SHOP = "shop"


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.command(
        "replay",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec replay --rate 200                      MovieLens-100K, 200 plays/s\n\n"
        "  intentrec replay --speed 43200 --from-share 0.7  its last 30 %, half a day per second\n\n"
        "  intentrec replay --data my/folder --broker kafka:9092",
    )(replay)
    app.command(
        "simulate",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec simulate --plays 100000 --rate 5000     into Kafka\n\n"
        "  intentrec simulate --out world --plays 200000     into a folder for train, eval and replay\n\n"
        "  intentrec simulate --users 1000000 --items 100000 --plays 5000000",
    )(simulate)


def replay(
    data: options.Data = "movielens-100k",
    domain: options.Domain = None,
    broker: options.Broker = None,
    speed: Speed = None,
    rate: Rate = None,
    from_share: Annotated[
        float, typer.Option(min=0, max=1, help="Skip this share of the plays, the earliest ones.")
    ] = 0.0,
    limit: Limit = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Send recorded plays to Kafka, in the order in which they happened.

    The domain says which times are possible: a file with plays that no worker would
    take, because their times are in another unit, is refused before anything is sent.
    """
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.plays.table import play_rows
    from stream.cli.data_source import load_data
    from stream.kafka.replay import Pace

    settings = options.settings(domain=domain, broker=broker, cache_dir=cache_dir)
    pace = Pace(speed=speed, rate=rate)
    with bars() as report:
        data_set = load_data(data, settings.cache_dir, report, load_domain(settings.domain))
        table = data_set.rest(from_share)
        total = min(limit or table.num_rows, table.num_rows)
        _send(settings, pace, play_rows(table.slice(0, total)), total, data_set.title, report)


def simulate(
    domain: Annotated[SimulatedDomain, typer.Option(help="The world to simulate.")] = SimulatedDomain.VIDEO,
    users: Annotated[int, typer.Option(help="Number of members.")] = 1000,
    items: Annotated[int, typer.Option(help="Number of items in the catalogue.")] = 2000,
    seed: options.Seed = 0,
    event_rate: Annotated[
        float | None,
        typer.Option(help="Plays per second of event time, over all members. Default: 4 per member and day."),
    ] = None,
    informative: Annotated[
        bool,
        typer.Option("--informative/--uninformative", help="Whether actions, labels and durations reveal the intent."),
    ] = True,
    limit: Limit = None,
    out: Annotated[
        Path | None, typer.Option(help="Write plays.parquet, items.parquet and truth.parquet to this folder.")
    ] = None,
    broker: options.Broker = None,
    speed: Speed = None,
    rate: Rate = None,
) -> None:
    """Send the plays of a simulated world to Kafka, or write them to a folder. The hidden
    intents of its members are known.

    The same options give the same plays. Only the members are held in memory. The
    world begins in 2024, or so much earlier that --plays of it fit; it ends at the
    present, since a worker takes no plays of the future.
    """
    from intentrec_core.simulation.simulate import World, start_in_the_past
    from stream.kafka.replay import Pace

    start_ms, now_ms = start_in_the_past(limit or 0, users, event_rate), time.time_ns() // 1_000_000
    world = World(
        domain.value, users, items, seed, event_rate, informative=informative, start_ms=start_ms, end_ms=now_ms
    )
    with bars() as report:
        if out is not None:
            if broker is not None or speed is not None or rate is not None:
                raise ConfigError("--out writes to a folder: drop --broker, --speed and --rate")
            if limit is None:
                raise ConfigError("--out needs --plays: a simulated world has no end")
            from stream.cli.world_folder import write_world

            written = write_world(world, out, limit, report)
            _note_end(world, written, limit)
            results().print(
                f"{written:,} plays in {out}, their hidden intents in {out / 'truth.parquet'}; next: "
                f"intentrec train --data {out} --domain {domain.value}",
                soft_wrap=True,
            )
            return
        settings = options.settings(broker=broker)
        rows = (simulated.play for simulated in world.plays(limit))
        sent = _send(
            settings, Pace(speed=speed, rate=rate), rows, limit or 0, f"simulated {domain.value} plays", report
        )
        _note_end(world, sent, limit)


def _note_end(world: World, num_plays: int, limit: int | None) -> None:
    """Says so if the world ended before the plays that were asked for."""
    if world.has_ended and (limit is None or num_plays < limit):
        notes().print(
            "the simulated time has reached the present: for more plays, take more users, or a higher event rate"
        )


def _send(settings: Settings, pace: Pace, rows: Iterable[PlayRow], total: int, title: str, report: Report) -> int:
    from stream.kafka.replay import Replay

    run = Replay(settings, pace)

    def with_progress() -> Iterator[PlayRow]:
        bar = f"{title} to {settings.broker}"
        for number in itertools.count():
            try:
                row = next(source)
            except StopIteration:
                report(bar, number, total)
                return
            if number % _REPORT_EVERY == 0:
                report(bar, number, total)
            yield row

    async def send() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(ending, stop.set)
        return await run.run(with_progress(), stop)

    source = iter(rows)
    sent = asyncio.run(send())
    notes().print(f"{sent:,} plays sent to {settings.broker} and acknowledged")
    return sent
