"""``intentrec state`` and ``intentrec forget``: shows, verifies and erases members' histories."""

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
from stream.cli.tables import print_table, printable

if TYPE_CHECKING:
    from intentrec_core.history.history import EventLayout, History
    from stream.repair.state_verify import VerifyResult
    from stream.settings import Settings

group = typer.Typer(
    help="Show members' histories as stored in the changelog, and verify them against the plays.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_MAX_SHOWN = 20

User = Annotated[str, typer.Argument(metavar="USER", help="The user id, as sent in the plays.")]
Escaped = Annotated[
    bool,
    typer.Option("--escaped", help="USER is written as in JSON: a\\u0000b is an id with a NUL character."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command tree."""
    app.add_typer(group, name="state", rich_help_panel="Repair")
    app.command(
        "forget",
        rich_help_panel="Repair",
        epilog="[bold]Examples[/bold]\n\n  intentrec forget u7 --yes --wait 30\n\n  intentrec state show u7     is empty by then",
    )(forget)


@group.callback()
def _state() -> None:
    """Show members' histories as stored in the changelog, and verify them against the plays."""


@group.command(
    "show",
    epilog="[bold]Examples[/bold]\n\n  intentrec state show u7\n\n  intentrec state show u7 --json --domain video",
)
def show(
    user: User,
    escaped: Escaped = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    broker: options.Broker = None,
    domain: options.Domain = None,
) -> None:
    """Show a member's history: the plays held, oldest first, and a summary of the plays
    before them.

    Only hashes of ids are stored (xxh3, 64 bits). Workers may keep running; plays that
    they have not committed yet (up to 0.5 s by default) are not shown.
    """
    from stream.repair.state_view import find_member

    settings, user = options.settings(broker=broker, domain=domain), given_user(user, escaped=escaped)
    layout = _layout(settings)
    with bars() as report:
        report(f"reading {settings.changelog_topic} on {settings.broker}", 0, 0)
        partition, history = asyncio.run(find_member(settings, layout, user))
    shown = _as_json(layout, user, partition, history)
    if as_json:
        sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
        return
    out = results()
    for name, value in shown.items():
        if name != "plays":
            out.print(f"{name:<16} {printable(str(value))}", markup=False, soft_wrap=True)
    rows = [["–" if value is None else str(value) for value in play.values()] for play in shown["plays"]]
    print_table(list(shown["plays"][0]), rows)


@group.command(
    "verify",
    epilog="[bold]Examples[/bold]\n\n  intentrec state verify\n\n  intentrec state verify --partition 3 --json\n\n"
    "  intentrec state verify && echo exact",
)
def verify(
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this partition. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per partition.")] = False,
    broker: options.Broker = None,
    domain: options.Domain = None,
) -> None:
    """Fold the plays again from the start of the log, and compare every history with the
    changelog, byte for byte.

    Workers may keep running: a marker in the changelog records the offset up to which
    plays are folded in. Exit code 5 if any history differs; the first differences are
    printed. If retention has deleted the oldest plays, members who played before the
    first remaining offset cannot be verified and are counted as unverifiable. A history
    that lacks a play which the log still holds always counts as a difference.
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
                out.print(f"  {printable(user_id)}: {what}", markup=False, soft_wrap=True)
    num_different = sum(len(done.differences) for done in verified)
    if num_different:
        raise StateError(
            f"{num_different} members' histories differ from the fold of their plays; to rebuild the state from the plays, "
            "run the workers with a new app_id and its own topics"
        )


def forget(
    user: User,
    escaped: Escaped = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until a worker has erased the state.")] = 0,
    broker: options.Broker = None,
) -> None:
    """Erase a member: send an erasure request on the plays topic, which workers and the
    trainer process in order with the plays.

    The worker drops the member's history, caches and predictions, and writes tombstones
    to the changelog; compaction then removes the bytes. The trainer drops the member's
    plays from its event log before its next run. Plays sent after the request start a
    new history. Only retention removes records that were sent earlier: plays,
    recommendations, intents, dead letters and late plays. Bundles hold learned weights
    but no user ids; they stay until they are deleted. The documentation has a table of
    every place where data is kept.
    """
    from stream.kafka.send_erasure import is_followed, send_forget

    settings, user = options.settings(broker=broker), given_user(user, escaped=escaped)
    if not yes and not typer.confirm(f"Erase {user!r} on {settings.broker}? This cannot be undone", err=True):
        raise ConfigError("not confirmed: nothing was sent")
    sent = asyncio.run(send_forget(settings, user))
    places = ", ".join(f"{settings.plays_topic}-{p} offset {offset}" for p, offset in sent.items())
    out = results()
    out.print(f"erasure requested: {places}", soft_wrap=True)
    if wait:
        with bars() as report:
            report("waiting for the workers", 0, 0)
            is_erased = asyncio.run(is_followed(settings, sent, wait))
        if not is_erased:
            raise DataError(
                f"no worker has processed the request within {wait:g} s; it stands: a worker erases the member once it gets there"
            )
        out.print(
            "[green]erased[/green]: state and changelog have no play that this member made before the request; plays after it "
            "begin a new history",
            soft_wrap=True,
        )


def given_user(given: str, *, escaped: bool) -> str:
    """The user id that an argument of the command line names.

    Raises: ConfigError when it is no text, which the id of a play always is.
    """
    if not escaped:
        if not _is_text(given):
            raise ConfigError(f"USER {given!r} is not UTF-8; write it as in JSON, with --escaped")
        return given
    try:
        user = json.loads(f'"{given}"')
    except ValueError:
        user = None
    if not isinstance(user, str) or not _is_text(user):
        raise ConfigError(
            f"USER {given!r} with --escaped; allowed: the user id as a JSON string without its quotes, such as a\\u0000b"
        )
    return user


def _is_text(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which is how Python keeps bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _layout(settings: Settings) -> EventLayout:
    from intentrec_core.domain.toml import load_domain
    from intentrec_core.history.history import EventLayout

    return EventLayout(load_domain(settings.domain))


def _as_json(layout: EventLayout, user: str, partition: int, history: History) -> dict[str, Any]:
    from intentrec_core.times import iso_time
    from stream.repair.state_view import held_plays

    num_evicted = len(history.evicted_items) // 8
    began_ms = history.session_start_ms(layout, history.num_events(layout) - 1)
    return {
        "user": user,
        "partition": partition,
        "plays_applied": history.count,
        "plays_held": history.num_events(layout),
        "watched_before": num_evicted,
        "evicted_until": iso_time(history.newest_evicted_ms) if history.anchor(layout) else None,
        "session_began": iso_time(began_ms),
        "last_offset": history.last_offset,
        "plays": held_plays(layout, history),
    }


async def _verify(
    settings: Settings, layout: EventLayout, only: list[int] | None, report: Report
) -> list[VerifyResult]:
    from stream.kafka.topic_reader import TopicReader
    from stream.repair.state_verify import verify

    async with TopicReader(settings) as reader:
        num_partitions = await reader.num_partitions(settings.changelog_topic)
        wrong = [partition for partition in only or () if partition >= num_partitions]
        if wrong:
            raise ConfigError(f"--partition {wrong[0]}; allowed: 0 to {num_partitions - 1}")
        return [await verify(reader, layout, p, report) for p in only or range(num_partitions)]


def _verdict(done: VerifyResult) -> str:
    where = f"partition {done.partition}"
    if not (done.num_same or done.num_unknown or done.differences):
        return f"[dim]{where}: no members[/dim]"
    colour = "red" if done.differences else "yellow" if done.num_unknown else "green"
    counts = f"{done.num_same:,} members exact" + (f", {len(done.differences):,} differ" if done.differences else "")
    if done.num_unknown:
        counts += f", {done.num_unknown:,} unverifiable: plays before offset {done.first_offset:,} were deleted"
    return f"[{colour}]{where}: {counts}[/{colour}]; {done.num_plays:,} plays folded, up to offset {done.next_offset:,}"
