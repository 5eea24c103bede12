"""``intentrec items``: the catalogue on the items topic, which says what may be shown when catalogue_source is topic."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.errors import ConfigError
from stream.cli import options
from stream.cli.progress import bars, print_warnings, results
from stream.cli.tables import print_table

if TYPE_CHECKING:
    from stream.settings import Settings
    from stream.wire.messages import CatalogueItem

group = typer.Typer(
    help="The live catalogue: what is on the items topic may be shown, and nothing else.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="The item_id, as in plays and recommendations.")]


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="items", rich_help_panel="Streaming")


@group.callback()
def _items() -> None:
    """The live catalogue: what is on the items topic may be shown, and nothing else."""


@group.command(
    "sync",
    epilog="[bold]Examples[/bold]\n\n  intentrec items sync items.parquet\n\n"
    "  intentrec items sync items.jsonl --broker kafka:9092",
)
def sync(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The whole catalogue: Parquet (*.parquet) or JSON Lines.")
    ],
    allow_shrink: Annotated[
        bool,
        typer.Option(
            "--allow-shrink", help="Accept a file that lacks more than 20 % of the items, or an attribute of them."
        ),
    ] = False,
    broker: options.Broker = None,
) -> None:
    """Make the topic hold the rows of a catalogue file.

    Rows that are new or differ are put. Items that came from a file and are missing
    from this one are withdrawn. Items put by hand stay, until their rows in the file
    change. Items withdrawn by hand stay withdrawn. While a row cannot be read, nothing
    is withdrawn, because it may be any item's. A file that is empty, unreadable, lacks
    more than 20 % of them, takes an attribute from more than 20 %, or would hide more
    than 20 % by a filter of the domain, changes nothing (exit code 3). With
    catalogue_source=topic the trainer does the same before each training run.
    """
    from stream.kafka.items_writer import sync_items

    settings = options.settings(broker=broker)
    with bars() as report:
        report(f"comparing {file} with {settings.items_topic} on {settings.broker}", 0, 0)
        plan = asyncio.run(sync_items(settings, file, allow_shrink=allow_shrink))
    print_warnings(f"{file}: {found.line()}" for found in plan.left_out)
    results().print(plan.line(), markup=False, soft_wrap=True)


@group.command(
    "put",
    epilog="[bold]Examples[/bold]\n\n  intentrec items put m42 --title 'Heat (1995)'\n\n"
    "  intentrec items put m42 --title 'Heat (1995)' --attributes '{\"genres\": [\"Crime\"]}'",
)
def put(
    item_id: ItemId,
    title: Annotated[str, typer.Option(help="For display. Default: the item_id.")] = "",
    attributes: Annotated[str, typer.Option(metavar="JSON", help="A JSON object: values by name.")] = "{}",
    broker: options.Broker = None,
) -> None:
    """Put one item by hand: all of it, in place of what the topic has of it.

    It stays when a catalogue file that is copied to the topic does not have it, or has
    it as before: only a row that changes replaces it.
    """
    from intentrec_core.features.catalogue import Item
    from stream.kafka.items_writer import put_item

    settings = options.settings(broker=broker)
    offset = asyncio.run(put_item(settings, Item(item_id, title or item_id, _attributes(attributes))))
    results().print(f"put: {settings.items_topic} offset {offset}", soft_wrap=True)


@group.command("withdraw", epilog="[bold]Examples[/bold]\n\n  intentrec items withdraw m42")
def withdraw(item_id: ItemId, broker: options.Broker = None) -> None:
    """Withdraw one item by hand: it is in no list from here on, whatever bundle serves.

    It stays withdrawn although a catalogue file has it, until it is put by hand. A
    record without a value, written by another program, does not hold against files.
    Recommendations whose catalogue_offset is at or past the printed offset do not
    have it, while the topic is the same one. An id that the topic did not have is
    withdrawn too, with a warning.
    """
    from stream.kafka.items_writer import had_item, withdraw_item

    settings = options.settings(broker=broker)
    offset = asyncio.run(withdraw_item(settings, item_id))
    results().print(f"withdrawn: {settings.items_topic} offset {offset}", soft_wrap=True)
    if not asyncio.run(had_item(settings, item_id, offset)):  # afterwards: it reads all of the topic
        print_warnings(
            [
                f"{settings.items_topic} did not have the item {item_id!r}: if the id is right, a file that brings it does not "
                "show it until it is put by hand (intentrec items put)"
            ]
        )


@group.command(
    "list",
    epilog="[bold]Examples[/bold]\n\n  intentrec items list\n\n  intentrec items list --json > items.jsonl",
)
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print every item as a line of JSON.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 20,
    broker: options.Broker = None,
) -> None:
    """List the items on the topic, and those withdrawn by hand."""
    from stream.wire.codec import encode

    settings = options.settings(broker=broker)
    with bars() as report:
        report(f"reading {settings.items_topic} on {settings.broker}", 0, 0)
        items = asyncio.run(_read(settings))
    if as_json:
        for item in items.values():
            sys.stdout.write(encode(item).decode() + "\n")
        return
    shown = [item for item in items.values() if not item.withdrawn]
    of_file = sum(item.written_by == "file" for item in shown)
    out = results()
    out.print(
        f"{len(shown)} items: {of_file} of a file, {len(shown) - of_file} put by hand; "
        f"{len(items) - len(shown)} withdrawn by hand"
    )
    rows = []
    for item in [*items.values()][:limit]:
        by = "withdrawn by hand" if item.withdrawn else item.written_by or "hand"
        rows.append((item.item_id, item.title or "", by, json.dumps(item.attributes or {}, ensure_ascii=False)))
    print_table(("item_id", "title", "by", "attributes"), rows)
    if len(items) > limit:
        out.print(f"[dim]… {len(items) - limit} more: --limit, --json[/dim]")


async def _read(settings: Settings) -> dict[str, CatalogueItem]:
    from stream.kafka.items_reader import ItemsReader

    async with ItemsReader(settings) as topic:
        return await topic.everything()


def _attributes(text: str) -> dict[str, object]:
    try:
        attributes = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--attributes {text!r}: not JSON: {error}") from error
    if not isinstance(attributes, dict):
        raise ConfigError(f"--attributes {text!r}; allowed: a JSON object")
    return attributes
