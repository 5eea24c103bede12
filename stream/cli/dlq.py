"""``intentrec dlq``: the plays that were set aside as invalid: which, why, and once more into the plays topic."""

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

if TYPE_CHECKING:
    from stream.repair.redrive import Redrive, Selection, StoredDeadLetter
    from stream.settings import Settings

group = typer.Typer(
    help="Look at the plays that were set aside as invalid, and send them again.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_DETAIL_WIDTH = 60

Reasons = Annotated[
    list[RejectReason] | None, typer.Option("--reason", help="Only dead_letters with this reason; may be repeated.")
]
First = Annotated[
    list[str] | None,
    typer.Option(
        "--from", metavar="PARTITION:OFFSET", help="From this dead_letter on, itself included; may be repeated."
    ),
]
Last = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="PARTITION:OFFSET", help="Up to this dead_letter, itself included; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="dlq", rich_help_panel="Repair")


@group.callback()
def _dlq() -> None:
    """Look at the plays that were set aside as invalid, and send them again."""


@group.command(
    "list",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq list\n\n  intentrec dlq list --reason wrong_partition --limit 100\n\n"
    "  intentrec dlq list --from 3:120 --json",
)
def list_letters(
    reason: Reasons = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the last ones of each partition's.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    broker: options.Broker = None,
) -> None:
    """List dead dead_letters: where they lie, why, and how often they were sent again.

    With --from or --to only the partitions named there are read.
    """
    from rich.table import Table

    settings, selection = options.settings(broker=broker), _selection(reason, first, last)
    with bars() as report:
        newest, reasons = asyncio.run(_newest(settings, selection, limit, report))
    if as_json:
        for dead_letter in newest:
            sys.stdout.write(json.dumps(_as_json(dead_letter), ensure_ascii=False) + "\n")
        return
    out = results()
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for column in ("dead_letter", "when", "reason", "key", "source", "sent again", "detail"):
        table.add_column(column, no_wrap=column != "detail", justify="right" if column == "sent again" else "left")
    for dead_letter in newest:
        row = _as_json(dead_letter)
        again, detail = (
            f"{dead_letter.num_redrives}×" if dead_letter.num_redrives else "–",
            dead_letter.detail[:_DETAIL_WIDTH],
        )
        when = str(row["time"])[:19].replace("T", " ")
        table.add_row(
            str(row["dead_letter"]), when, dead_letter.reason, str(row["key"]), str(row["source"]), again, detail
        )
    if newest:
        out.print(table)
    counted = ", ".join(f"{name} {number:,}" for name, number in reasons.most_common())
    out.print(
        f"{reasons.total():,} dead dead_letters on {settings.dead_letter_topic}{': ' if counted else ''}{counted}"
    )


@group.command(
    "show",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq show 3:120\n\n  intentrec dlq show 3:120 --raw > play.json",
)
def show(
    dead_letter: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="As `intentrec dlq list` shows it.")],
    raw: Annotated[bool, typer.Option("--raw", help="The play's bytes as they are, and nothing else.")] = False,
    broker: options.Broker = None,
) -> None:
    """Show one dead dead_letter: its headers, and the play's bytes as the producer sent them."""
    from stream.repair.redrive import Selection

    settings, (partition, offset) = options.settings(broker=broker), _place("dead_letter", dead_letter)
    selection = Selection(first={partition: offset}, last={partition: offset})
    with bars() as report:
        found, _ = asyncio.run(_newest(settings, selection, 1, report))
    if not found:
        raise DataError(f"no dead_letter {dead_letter} on {settings.dead_letter_topic}: retention may have deleted it")
    if raw:
        sys.stdout.buffer.write(found[0].value or b"")
        return
    out = results()
    for name, value in _as_json(found[0]).items():
        out.print(f"[bold]{name:<12}[/bold] ", end="")
        out.print(value, markup=False, soft_wrap=True)
    out.print("[bold]value[/bold]")
    out.print(_shown(found[0].value), markup=False, soft_wrap=True)


@group.command(
    "redrive",
    epilog="[bold]Examples[/bold]\n\n  intentrec dlq redrive --dry-run                    what would be sent, and what not\n\n"
    "  intentrec dlq redrive --reason wrong_partition    once the producer's partitioner is mended\n\n"
    "  intentrec dlq redrive --from 3:120 --to 3:180 --limit 10",
)
def redrive(
    reason: Reasons = None,
    first: First = None,
    last: Last = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send at most so many.")] = None,
    max_redrives: Annotated[
        int, typer.Option(min=1, help="Leave dead_letters whose play was sent again this often already.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and send nothing.")] = False,
    broker: options.Broker = None,
) -> None:
    """Send the plays of dead dead_letters again: their bytes, key and headers, to the
    partition their key says.

    Mend the cause first. A play that fails again comes back as a new dead_letter, which
    says how often it was sent again. Letters stay where they are until retention
    deletes them, so say which: a run without --reason, --from or --to sends all of
    them, but those that have a newer dead_letter. Sending one twice is safe as long as its event id is among the plays its
    member's history holds (one to two windows): it is counted as a duplicate. A play sent
    late is folded in by its event time, or set aside as late. Sent plays have a new
    record timestamp; a play of a member who was forgotten begins a new history.

    Never sent: dead_letters of which only the start was kept (plays over 1 MB), and
    inference_failed, which the history has already.
    """
    from stream.repair.redrive import Redrive

    settings = options.settings(broker=broker)
    run = Redrive(settings, _selection(reason, first, last), limit, max_redrives, dry_run)
    with bars() as report:
        run.on_letter = lambda num_seen: report(f"dead dead_letters on {settings.broker}", num_seen, 0)
        asyncio.run(_redrive(settings, run))
    out = results()
    verb = "would be sent again" if dry_run else "sent again"
    counted = ", ".join(f"{name} {number:,}" for name, number in run.sent.most_common())
    out.print(f"[bold]{run.sent.total():,}[/bold] {verb}{': ' if counted else ''}{counted}")
    for why, number in run.left.most_common():
        out.print(f"{number:,} left: {why.value}")
    if run.next_offsets:
        rest = " ".join(f"--from {p}:{offset}" for p, offset in run.next_offsets.items())
        out.print(f"stopped at --limit; go on with {rest}", soft_wrap=True)


async def _redrive(settings: Settings, run: Redrive) -> None:
    from stream.kafka.replay import start_producer

    producer = await start_producer(settings)
    try:
        await run.run(producer)
    finally:
        await producer.stop()


async def _newest(
    settings: Settings, selection: Selection, limit: int, report: Report
) -> tuple[list[StoredDeadLetter], Counter[str]]:
    """The last dead_letters of each partition, newest last, and how many there are by reason."""
    from stream.kafka.topic_reader import TopicReader
    from stream.repair.redrive import dead_letters

    newest: dict[int, deque[StoredDeadLetter]] = {}
    reasons: Counter[str] = Counter()
    async with TopicReader(settings) as reader:
        async for dead_letter in dead_letters(reader, selection):
            newest.setdefault(dead_letter.partition, deque(maxlen=limit)).append(dead_letter)
            reasons[dead_letter.reason or "no dead_letter"] += 1
            report(f"dead dead_letters on {settings.broker}", reasons.total(), 0)
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
        raise ConfigError(f"{what} {text!r}; allowed: PARTITION:OFFSET, as `intentrec dlq list` shows it")
    return int(partition), int(offset)


def _as_json(dead_letter: StoredDeadLetter) -> dict[str, Any]:
    from stream.wire.codec import iso_time

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


def _shown(value: bytes | None) -> str:
    if value is None:
        return "(none)"
    try:
        return value.decode()
    except UnicodeDecodeError:
        return f"(not UTF-8; hexadecimal) {value.hex(' ')}"
