"""``intentrec dlq``: lists and shows the plays that the worker rejected, and sends them to the plays topic again."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intentrec_core.errors import ConfigError, DataError, RejectReason
from stream.cli import options
from stream.cli.progress import Report, bars, results
from stream.cli.tables import print_table

if TYPE_CHECKING:
    from stream.repair.redrive import Redrive, Selection, StoredDeadLetter
    from stream.settings import Settings

group = typer.Typer(
    help="Inspect dead letters (plays that the worker rejected), and send them again.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_COLUMNS = ("place", "time", "reason", "key", "source", "sent again", "detail")

Reasons = Annotated[
    list[RejectReason] | None, typer.Option("--reason", help="Only dead letters with this reason. Repeatable.")
]
First = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="PARTITION:OFFSET", help="First dead letter of a partition, inclusive. Repeatable."),
]
Last = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="PARTITION:OFFSET", help="Last dead letter of a partition, inclusive. Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="dlq", rich_help_panel="Repair")


@group.callback()
def _dlq() -> None:
    """Inspect dead letters (plays that the worker rejected), and send them again."""


@group.command(
    "list",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq list\n\n  intentrec dlq list --reason wrong_partition --limit 100\n\n"
    "  intentrec dlq list --from 3:120 --json",
)
def list_dead_letters(
    reason: Reasons = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many, the newest ones.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    broker: options.Broker = None,
) -> None:
    """List dead letters: place, time, reason, and how often each was sent again.

    With --from or --to, only the partitions named there are read.
    """
    settings, selection = options.settings(broker=broker), _selection(reason, first, last)
    with bars() as report:
        newest, reasons = asyncio.run(_newest(settings, selection, limit, report))
    if as_json:
        for dead_letter in newest:
            sys.stdout.write(json.dumps(_as_json(dead_letter), ensure_ascii=False) + "\n")
        return
    if newest:
        print_table(_COLUMNS, [_table_row(dead_letter) for dead_letter in newest], right=("sent again",))
    counted = ", ".join(f"{name} {number:,}" for name, number in reasons.most_common())
    results().print(
        f"{reasons.total():,} dead letters on {settings.dead_letter_topic}{': ' if counted else ''}{counted}"
    )


@group.command(
    "show",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq show 3:120\n\n  intentrec dlq show 3:120 --raw > play.json",
)
def show(
    place: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `intentrec dlq list` prints it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Print only the play's bytes, unchanged.")] = False,
    broker: options.Broker = None,
) -> None:
    """Show one dead letter: its headers, and the play's bytes as the producer sent them."""
    from stream.repair.redrive import Selection

    settings, (partition, offset) = options.settings(broker=broker), _place("dead letter", place)
    selection = Selection(first={partition: offset}, last={partition: offset})
    with bars() as report:
        found, _ = asyncio.run(_newest(settings, selection, 1, report))
    if not found:
        raise DataError(f"no dead letter {place} on {settings.dead_letter_topic}: retention may have deleted it")
    if raw:
        sys.stdout.buffer.write(found[0].value or b"")
        return
    out = results()
    for name, value in _as_json(found[0]).items():
        out.print(f"[bold]{name:<12}[/bold] ", end="")
        out.print(value, markup=False, soft_wrap=True)
    out.print("[bold]value[/bold]")
    out.print(_as_text(found[0].value), markup=False, soft_wrap=True)


@group.command(
    "redrive",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq redrive --dry-run                    only count what would be sent\n\n"
    "  intentrec dlq redrive --reason wrong_partition    after fixing the producer's partitioner\n\n"
    "  intentrec dlq redrive --from 3:120 --to 3:180 --limit 10",
)
def redrive(
    reason: Reasons = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most this many.")] = None,
    max_redrives: Annotated[int, typer.Option(min=1, help="Skip plays that were already sent again this often.")] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only, send nothing.")] = False,
    broker: options.Broker = None,
) -> None:
    """Send dead letters to the plays topic again: the original bytes, key and headers,
    to the partition of the key.

    Fix the cause first. A play that fails again becomes a new dead letter, which
    records how often it was sent again.

    Dead letters stay on their topic until retention deletes them, so select: without
    --reason, --from or --to, everything is sent, except dead letters that have a newer
    one. Sending a play twice is safe: the second one counts as a duplicate, or goes to the
    late topic. An old play is folded in by its event time, or goes to the late topic.
    Sent plays get a new record timestamp. If the user was erased, the play starts a new history.

    Never sent: dead letters that kept only the start of the play (plays over 1 MB), and
    plays with reason inference_failed or output_too_large, which are in the member's
    history already.
    """
    from stream.repair.redrive import Redrive

    settings = options.settings(broker=broker)
    run = Redrive(settings, _selection(reason, first, last), limit, max_redrives, dry_run)
    with bars() as report:
        run.on_progress = lambda num_seen: report(f"dead letters on {settings.broker}", num_seen, 0)
        asyncio.run(_redrive(settings, run))
    out = results()
    verb = "would be sent again" if dry_run else "sent again"
    counted = ", ".join(f"{name} {number:,}" for name, number in run.sent.most_common())
    out.print(f"[bold]{run.sent.total():,}[/bold] {verb}{': ' if counted else ''}{counted}")
    for why, number in run.skipped.most_common():
        out.print(f"{number:,} left: {why.value}")
    if run.next_offsets:
        rest = " ".join(f"--from {p}:{offset}" for p, offset in run.next_offsets.items())
        out.print(f"stopped at --limit; continue with {rest}", soft_wrap=True)


async def _redrive(settings: Settings, run: Redrive) -> None:
    from stream.kafka.clients import start_producer

    producer = await start_producer(settings)
    try:
        await run.run(producer)
    finally:
        await producer.stop()


async def _newest(
    settings: Settings, selection: Selection, limit: int, report: Report
) -> tuple[list[StoredDeadLetter], Counter[str]]:
    """The newest dead letters, the newest last, and the number of all selected ones by reason."""
    from stream.kafka.topic_reader import TopicReader
    from stream.repair.redrive import dead_letters

    newest: dict[int, deque[StoredDeadLetter]] = {}
    reasons: Counter[str] = Counter()
    async with TopicReader(settings) as reader:
        async for dead_letter in dead_letters(reader, selection):
            newest.setdefault(dead_letter.partition, deque(maxlen=limit)).append(dead_letter)
            reasons[dead_letter.reason or "not a dead letter"] += 1
            report(f"dead letters on {settings.broker}", reasons.total(), 0)
    merged = sorted(
        (dead_letter for kept in newest.values() for dead_letter in kept),
        key=lambda dead_letter: dead_letter.timestamp_ms,
    )
    return merged[-limit:], reasons


def _selection(reason: list[RejectReason] | None, first: list[str] | None, last: list[str] | None) -> Selection:
    from stream.repair.redrive import Selection

    return Selection(
        reasons=frozenset(entry.value for entry in reason or ()),
        first=dict(_place("--from", text) for text in first or ()),
        last=dict(_place("--to", text) for text in last or ()),
    )


def _place(what: str, text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
        raise ConfigError(f"{what} {text!r}; allowed: PARTITION:OFFSET, as `intentrec dlq list` prints it")
    return int(partition), int(offset)


def _table_row(dead_letter: StoredDeadLetter) -> tuple[str, ...]:
    shown = _as_json(dead_letter)
    return (
        dead_letter.place,
        str(shown["time"])[:19].replace("T", " "),
        dead_letter.reason,
        str(shown["key"]),
        str(shown["source"]),
        f"{dead_letter.num_redrives}×" if dead_letter.num_redrives else "–",
        dead_letter.detail,
    )


def _as_json(dead_letter: StoredDeadLetter) -> dict[str, Any]:
    from intentrec_core.times import iso_time

    return {
        "dead_letter": dead_letter.place,
        "time": iso_time(dead_letter.timestamp_ms),
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "key": None if dead_letter.key is None else dead_letter.key.decode(errors="replace"),
        "source": "-".join(str(part) for part in dead_letter.source),
        "redrives": dead_letter.num_redrives,
        "is_cut": dead_letter.is_cut,
        "num_bytes": None if dead_letter.value is None else len(dead_letter.value),
        "headers": {name: content.decode(errors="replace") for name, content in dead_letter.headers},
    }


def _as_text(value: bytes | None) -> str:
    if value is None:
        return "(none)"
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"(not UTF-8; hexadecimal) {value.hex(' ')}"
