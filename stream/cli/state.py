"""``intentrec state`` and ``intentrec forget``: what is held of a member, whether it is right, and its end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intentrec_core.errors import ConfigError, DataError, StateError
from stream.cli import options
from stream.cli.progress import Report, bars, results

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout, History
    from stream.repair.state_verify import Verified
    from stream.settings import Settings

group = typer.Typer(
    help="Look at members' histories as the changelog has them, and check them against the plays.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_MAX_SHOWN = 20

User = Annotated[str, typer.Argument(metavar="USER", help="The user id, as in the plays.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.add_typer(group, name="state", rich_help_panel="Repair")
    app.command(
        "forget",
        rich_help_panel="Repair",
        epilog="[bold]Examples[/bold]\n\n  intentrec forget u7 --yes --wait 30\n\n  intentrec state show u7     is gone by then",
    )(forget)


@group.callback()
def _state() -> None:
    """Look at members' histories as the changelog has them, and check them against the plays."""


@group.command(
    "show",
    epilog="[bold]Examples[/bold]\n\n  intentrec state show u7\n\n  intentrec state show u7 --json --domain video",
)
def show(
    user: User,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    broker: options.Broker = None,
    domain: options.Domain = None,
) -> None:
    """Show a member's history: the plays held, oldest first, and what is kept of
    those before.

    Ids are kept as hashes only (xxh3, 64 bits). Workers may run meanwhile; what they
    have not committed yet (some 0.1 s) is not seen.
    """
    from rich.table import Table

    settings = options.settings(broker=broker, domain=domain)
    layout = _layout(settings)
    with bars() as report:
        report(f"reading {settings.changelog_topic} on {settings.broker}", 0, 0)
        partition, history = asyncio.run(_find(settings, layout, user))
    told = _told(layout, user, partition, history)
    if as_json:
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        return
    out = results()
    for name, value in told.items():
        if name != "plays":
            out.print(f"{name:<16} {value}", markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in told["plays"][0]:
        table.add_column(column, no_wrap=True)
    for play in told["plays"]:
        table.add_row(*("–" if value is None else str(value) for value in play.values()))
    out.print(table)


@group.command(
    "verify",
    epilog="[bold]Examples[/bold]\n\n  intentrec state verify\n\n  intentrec state verify --partition 3 --json\n\n"
    "  intentrec state verify && echo exact",
)
def verify(
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this one; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a partition.")] = False,
    broker: options.Broker = None,
    domain: options.Domain = None,
) -> None:
    """Fold the plays again from the beginning of the log, and compare every history
    with the changelog, byte for byte.

    Workers may run meanwhile: the changelog as of one moment says up to which play it
    is the fold. Exit code 5 when a history differs, with the first of them and what
    differs. Where retention has deleted the beginning of the plays, members who
    played before it cannot be told, and are counted as such: unless they lack a play
    that the log still has, which is a difference.
    """
    settings = options.settings(broker=broker, domain=domain)
    layout = _layout(settings)
    with bars() as report:
        verified = asyncio.run(_verify(settings, layout, partition, report))
    out = results()
    for done in verified:
        if as_json:
            sys.stdout.write(json.dumps(dataclasses.asdict(done), ensure_ascii=False) + "\n")
        else:
            out.print(_verdict(done), soft_wrap=True)
            for user_id, what in list(done.differences.items())[:_MAX_SHOWN]:
                out.print(f"  {user_id}: {what}", markup=False, soft_wrap=True)
    num_different = sum(len(done.differences) for done in verified)
    if num_different:
        raise StateError(
            f"{num_different} members' histories are not the fold of their plays; to fold again from the beginning, "
            "run the workers under another app_id with topics of its own"
        )


def forget(
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a worker to follow the order.")] = 0,
    broker: options.Broker = None,
) -> None:
    """Have a member forgotten: an order among the plays, met in order by every worker
    and the trainer.

    The worker drops history, caches and predictions, and writes tombstones to the
    changelog; compaction then removes the bytes. The trainer drops the member's
    plays from its event log before its next run. Plays sent after the order begin a new
    history. What was sent before is removed by retention alone: the plays topic itself,
    recommendations, intents, dead letters and late plays; so are bundles, which hold
    what was learned and no ids. README.md has the table.
    """
    from stream.kafka.send_erasure import is_followed, send_forget

    settings = options.settings(broker=broker)
    if not yes and not typer.confirm(f"ErasureRequest {user!r} on {settings.broker}? This cannot be undone", err=True):
        raise ConfigError("nothing was sent")
    sent = asyncio.run(send_forget(settings, user))
    places = ", ".join(f"{settings.plays_topic}-{p} offset {offset}" for p, offset in sent.items())
    out = results()
    out.print(f"ordered: {places}", soft_wrap=True)
    if wait:
        with bars() as report:
            report("waiting for the workers", 0, 0)
            followed = asyncio.run(is_followed(settings, sent, wait))
        if not followed:
            raise DataError(
                f"no worker has got to the order within {wait:g} s; it stands, and is followed when one does"
            )
        out.print(
            "[green]followed[/green]: no worker holds a history of them; the changelog has tombstones where there was one"
        )


def _layout(settings: Settings) -> EventLayout:
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.history.history import EventLayout

    return EventLayout(load_domain(settings.domain))


async def _find(settings: Settings, layout: EventLayout, user: str) -> tuple[int, History]:
    from stream.kafka.topic_reader import TopicReader
    from stream.repair.state_view import snapshot
    from stream.wire.erasure_record import home_partition

    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(settings.changelog_topic)
        murmur2 = settings.plays_partitioner == "murmur2"
        places = [home_partition(user.encode(), num_partitions)] if murmur2 else range(num_partitions)
        for partition in places:
            found = (await snapshot(reader, layout, partition, user)).histories.get(user)
            if found is not None and found.count:
                return partition, found
    where = f"partition {places[0]}" if murmur2 else "any partition"
    raise DataError(f"{user!r} has no history in {where} of {settings.changelog_topic}: never played, or was forgotten")


def _told(layout: EventLayout, user: str, partition: int, history: History) -> dict[str, Any]:
    from stream.repair.state_view import held_plays
    from stream.wire.codec import iso_time

    num_before = len(history.evicted_items) // 8
    began_ms = history.session_start_ms(layout, history.num_events(layout) - 1)
    return {
        "user": user,
        "partition": partition,
        "plays_applied": history.count,
        "plays_held": history.num_events(layout),
        "watched_before": num_before,
        "session_began": iso_time(began_ms),
        "last_offset": history.last_offset,
        "plays": held_plays(layout, history),
    }


async def _verify(settings: Settings, layout: EventLayout, only: list[int] | None, report: Report) -> list[Verified]:
    from stream.kafka.topic_reader import TopicReader
    from stream.repair.state_verify import verify

    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(settings.changelog_topic)
        wrong = [partition for partition in only or () if partition >= num_partitions]
        if wrong:
            raise ConfigError(f"--partition {wrong[0]}; allowed: 0 to {num_partitions - 1}")
        return [await verify(reader, layout, p, report) for p in only or range(num_partitions)]


def _verdict(done: Verified) -> str:
    where = f"partition {done.partition}"
    if not (done.num_same or done.num_unknown or done.differences):
        return f"[dim]{where}: no member[/dim]"
    colour = "red" if done.differences else "yellow" if done.num_unknown else "green"
    said = f"{done.num_same:,} members exact" + (f", {len(done.differences):,} differ" if done.differences else "")
    if done.num_unknown:
        said += f", {done.num_unknown:,} cannot be told: plays before offset {done.first_offset:,} were deleted"
    return f"[{colour}]{where}: {said}[/{colour}]; {done.num_plays:,} plays folded up to offset {done.next_offset:,}"
