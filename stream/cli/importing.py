"""``intentrec import``: makes of a table of plays, and one of items, the folder that the other commands read."""

from __future__ import annotations

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.durable_files import TEMPORARY_PREFIX, sync
from intentrec_core.errors import ConfigError, DataError
from stream.cli.data_source import MAX_FUTURE_MS
from stream.cli.progress import bars, print_warnings, results
from stream.cli.tables import print_table, printable

if TYPE_CHECKING:
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.own_data.foreign_table import CsvOptions, ForeignTable, RowBlock
    from intentrec_core.own_data.import_items import ItemsLayout
    from intentrec_core.own_data.import_plays import ImportedPlays, PlaysLayout
    from intentrec_core.own_data.rejected_rows import RejectedRows

PLAYS, ITEMS = "plays.parquet", "items.parquet"
#: Where a folder may have its items.
_ITEM_FILES = (ITEMS, "items.jsonl")
REJECTED_PLAYS, REJECTED_ITEMS = "plays.rejected.jsonl", "items.rejected.jsonl"
_EXAMPLE_LENGTH = 40


class DurationUnit(StrEnum):
    """The unit of the durations of a file."""

    S = "s"
    MS = "ms"
    MINUTES = "min"


class Unit(StrEnum):
    """The unit of the times of a file."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    ISO = "iso"


def _column(flag: str, what: str) -> typer.models.OptionInfo:
    return typer.Option(flag, metavar="COLUMN", help=what)


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "import",
        rich_help_panel="Data and learning",
        epilog="[bold]Examples[/bold]\n\n  intentrec import events.csv --out my-data --dry-run    shows what it would do\n\n"
        "  intentrec import events.csv items.csv --out my-data --user visitorid --time timestamp\n\n"
        "  intentrec import plays.jsonl items.parquet --out my-data",
    )(import_tables)


def import_tables(
    plays: Annotated[
        Path, typer.Argument(metavar="PLAYS", help="CSV, JSON lines (*.jsonl) or Parquet; one row a play.")
    ],
    items: Annotated[
        Path | None,
        typer.Argument(metavar="ITEMS", help="The same of items, one row each. Without it, those of FOLDER are kept."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write.")] = Path("my-data"),
    user: Annotated[str | None, _column("--user", "Who played.")] = None,
    item: Annotated[str | None, _column("--item", "What was played.")] = None,
    when: Annotated[str | None, _column("--time", "When it was played.")] = None,
    event_id: Annotated[
        str | None, _column("--event-id", "Names the play. Without one, it is made of everything in the row.")
    ] = None,
    action: Annotated[str | None, _column("--action", "What was done: view, cart, purchase.")] = None,
    duration: Annotated[
        str | None, _column("--duration", "How long, in seconds, or as its name ends: _ms, _minutes.")
    ] = None,
    duration_unit: Annotated[
        DurationUnit | None, typer.Option("--duration-unit", help="Default: told from the column's name.")
    ] = None,
    session: Annotated[str | None, _column("--session", "The session of the play.")] = None,
    of_item: Annotated[
        list[str] | None,
        _column("--of-item", "A column of PLAYS that says something of the item, without ITEMS. Repeatable."),
    ] = None,
    leave_out: Annotated[
        list[str] | None, _column("--leave-out", "A column of PLAYS that nobody wants. Repeatable.")
    ] = None,
    item_id: Annotated[str | None, _column("--item-id", "The id of an item in ITEMS.")] = None,
    title: Annotated[str | None, _column("--title", "The title of an item in ITEMS.")] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            "--list",
            metavar="COLUMN=SEPARATOR",
            help="Cells of ITEMS with several values; COLUMN= for none. Repeatable.",
        ),
    ] = None,
    time_unit: Annotated[Unit | None, typer.Option("--time-unit", help="Default: told from the times.")] = None,
    time_format: Annotated[
        str, typer.Option("--time-format", metavar="FORMAT", help="As of strptime, for instance '%d.%m.%Y %H:%M:%S'.")
    ] = "",
    separator: Annotated[
        str | None, typer.Option("--separator", help="Of both CSV files: a character, or tab. Default: told from each.")
    ] = None,
    quote: Annotated[str, typer.Option("--quote", help="What quotes cells of CSV: a character, or none.")] = '"',
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="Of both CSV files. Default: by the byte order mark, else utf-8.")
    ] = None,
    header: Annotated[
        bool, typer.Option("--header/--no-header", help="Whether the first row of CSV names the columns.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each column was taken for, and write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the plays that FOLDER has, and with ITEMS its items.")
    ] = False,
) -> None:
    """Make of a table of plays, and one of items, the folder that train, eval, replay and
    the trainer read.

    Columns are found by their names, and shown; options correct them. Rows that cannot
    be taken are counted, and kept with the reason in plays.rejected.jsonl. PLAYS may be
    larger than memory, ITEMS may not. Without ITEMS, and where FOLDER has no items yet,
    columns of PLAYS that say something of the item (a category, a brand) become its
    attributes.
    """
    from intentrec_core.own_data.foreign_table import CsvOptions, ForeignTable
    from intentrec_core.own_data.import_items import lay_out_items
    from intentrec_core.own_data.import_plays import DURATIONS_PER_S, lay_out_plays
    from intentrec_core.own_data.time_units import TimeUnit

    items_there = next((out / name for name in _ITEM_FILES if (out / name).exists()), None)
    replaced = out / PLAYS if (out / PLAYS).exists() else items_there if items is not None else None
    if replaced is not None and not (force or dry_run):
        raise ConfigError(f"{replaced} is there already: give --force to replace it, or another --out")
    if items is None and (item_id or title or lists):
        raise ConfigError("--item-id, --title and --list are of ITEMS, which was not given")
    if of_item and (items is not None or items_there is not None):
        why_not = f"{items} is given" if items is not None else f"{items_there} is kept"
        remedy = f"add {of_item[0]} to it, or {'import without it' if items is not None else 'delete it'}"
        raise ConfigError(f"--of-item {of_item[0]} is for items that are made of PLAYS, and {why_not}: {remedy}")
    written = _csv_options(separator, quote, encoding, header)
    tables = [ForeignTable(path, written) for path in (plays, items) if path is not None]
    if written != CsvOptions() and not any(table.kind == "csv" for table in tables):
        raise ConfigError("--separator, --quote, --encoding and --no-header are of CSV files, and none is given")
    given = {"user": user, "item": item, "time": when, "event_id": event_id, "action": action}
    layout, sample = lay_out_plays(
        tables[0],
        given | {"duration": duration, "session": session},
        end_ms=time.time_ns() // 1_000_000 + MAX_FUTURE_MS,
        leave_out=leave_out or (),
        of_items=of_item or (None if items is None and items_there is None else ()),
        duration_per_s=DURATIONS_PER_S[duration_unit.value] if duration_unit is not None else None,
        time_unit=TimeUnit(time_unit.value) if time_unit is not None else None,
        time_format=time_format,
    )
    results().print(f"{plays}: {tables[0].line}", markup=False, soft_wrap=True)
    _print_plays(
        layout,
        sample,
        why_of_items="given" if of_item else "the same at all plays of an item",
        why_duration="given" if duration_unit is not None else "by the name of their column",
    )
    items_layout = None
    if items is not None:
        known = {"item": item_id, "title": title}
        items_layout, items_sample = lay_out_items(tables[1], known, lists=_separators(lists or []))
        results().print(f"\n{items}: {tables[1].line}", markup=False, soft_wrap=True)
        _print_items(items_layout, items_sample)
    elif items_there is not None:
        results().print(f"items: {items_there} is kept; delete it to have them made of the plays", soft_wrap=True)
    if not dry_run:
        _import(tables, layout, items_layout, items_there, out)


def _csv_options(separator: str | None, quote: str, encoding: str | None, header: bool) -> CsvOptions:
    from intentrec_core.own_data.foreign_table import CsvOptions

    return CsvOptions(
        separator="\t" if separator in ("tab", "\\t") else separator,
        quote="" if quote == "none" else quote,
        encoding=encoding,
        has_header=header,
    )


def _separators(given: list[str]) -> dict[str, str]:
    """``COLUMN=SEPARATOR`` by column. Raises: ConfigError for another form."""
    wrong = next((entry for entry in given if "=" not in entry), None)
    if wrong is not None:
        raise ConfigError(f"--list {wrong}; allowed: COLUMN=SEPARATOR, for instance 'genres=|'")
    return {name: separator for name, _, separator in (entry.rpartition("=") for entry in given)}


def _print_plays(layout: PlaysLayout, sample: RowBlock, *, why_of_items: str, why_duration: str) -> None:
    """A line for each column: what it was taken for, and its first value."""
    roles = layout.roles
    rows = [
        (name, role.replace("_", " "), "given" if role in roles.given else "by its name", _example(sample, name))
        for role, name in roles.columns.items()
    ]
    rows += [(name, "attribute of the item", why_of_items, _example(sample, name)) for name in layout.of_items]
    rows += [(name, "context of the play", "all others", _example(sample, name)) for name in layout.context]
    rows += [(name, "left out", "a list: plays carry texts", _example(sample, name)) for name in layout.lists]
    rows += [(name, "left out", "given", _example(sample, name)) for name in layout.leave_out]
    if "event_id" not in roles.columns:
        rows.append(("–", "event id", "made of the row", ""))
    print_table(("column", "taken for", "because", "first value"), rows)
    results().print(f"times: {layout.time.line}", markup=False, soft_wrap=True)
    if "duration" in roles.columns:
        per_s = layout.duration_per_s
        unit = "milliseconds" if per_s > 1 else "minutes" if per_s < 1 else "seconds"
        results().print(f"durations: {unit}, {why_duration}", soft_wrap=True)


def _print_items(layout: ItemsLayout, sample: RowBlock) -> None:
    named = {name: role for role, name in layout.roles.columns.items()}
    rows = []
    for name in sample.table.schema.names:
        taken_for = "item id" if named.get(name) == "item" else named.get(name, "attribute")
        if name in layout.lists:
            by = layout.lists[name]
            taken_for += ", a list in brackets" if by == "[" else f", a list split at {by}"
        rows.append((name, taken_for, _example(sample, name)))
    print_table(("column", "taken for", "first value"), rows)


def _example(sample: RowBlock, name: str) -> str:
    """The first value of a column that is not missing."""
    import pyarrow.compute as pc

    column = sample.table.column(name)
    at = pc.index(pc.is_valid(column), True).as_py()
    value = column[at].as_py() if at >= 0 else ""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= _EXAMPLE_LENGTH else f"{text[:_EXAMPLE_LENGTH]}…"


def _import(
    tables: list[ForeignTable],
    layout: PlaysLayout,
    items_layout: ItemsLayout | None,
    items_there: Path | None,
    out: Path,
) -> None:
    from intentrec_core.own_data.import_plays import import_plays
    from intentrec_core.own_data.rejected_rows import RejectedRows

    rejected, rejected_items = RejectedRows(out / REJECTED_PLAYS), RejectedRows(out / REJECTED_ITEMS)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=TEMPORARY_PREFIX) as name, rejected:
            complete = Path(name)
            with bars() as report:
                title = f"importing {tables[0].path}"
                found = import_plays(tables[0], layout, complete / PLAYS, rejected, lambda rows: report(title, rows, 0))
            catalogue, num_repeats = _catalogue(tables, found, items_layout, items_there, rejected_items, complete)
            for file in complete.iterdir():  # only now: plays stand beside their own items, or beside those before
                file.replace(out / file.name)
            sync(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}; free its disk or choose another folder") from error
    _print_imported(found, rejected)
    _print_rejected(rejected_items)
    print_warnings(left_out.line() for left_out in catalogue.left_out)
    played = found.items.column("item_id").to_pylist()
    described = sum(catalogue.get(item_id) is not None for item_id in played)
    out_ = results()
    repeats = f"; of {num_repeats:,} more rows of the same items, the last one counts" if num_repeats else ""
    out_.print(
        f"{len(catalogue):,} items{repeats}; {described:,} of the {len(played):,} items played are among them",
        soft_wrap=True,
    )
    if described < len(played) / 2:
        print_warnings(
            ["most items played are not among the items: check that both files have the same ids, or --item-id"]
        )
    out_.print(f"next: intentrec domain init {out} --out {out / 'domain.toml'}", soft_wrap=True)


def _catalogue(
    tables: list[ForeignTable],
    found: ImportedPlays,
    layout: ItemsLayout | None,
    items_there: Path | None,
    rejected: RejectedRows,
    complete: Path,
) -> tuple[Catalogue, int]:
    """The items, and how many rows a later one of the same item replaced. What is new is written to the folder ``complete``."""
    from intentrec_core.features.catalogue import Catalogue
    from intentrec_core.own_data.import_items import import_items, items_of_plays

    if layout is not None:
        with bars() as report, rejected:
            report(f"importing {tables[1].path}", 0, 0)
            imported = import_items(tables[1], layout, complete / ITEMS, rejected)
        return imported.catalogue, imported.num_repeats
    if items_there is not None:
        return Catalogue.load(items_there), 0
    return items_of_plays(found.items, complete / ITEMS), 0


def _print_imported(found: ImportedPlays, rejected: RejectedRows) -> None:
    from intentrec_core.times import iso_time

    results().print(
        f"[bold]{found.num_plays:,} plays of {found.num_members:,} members[/bold], {iso_time(found.from_ms)[:10]} to "
        f"{iso_time(found.until_ms)[:10]}",
        soft_wrap=True,
    )
    if found.num_repeats:
        results().print(
            f"{found.num_repeats:,} of them have the member and the event id of another one, and count once",
            soft_wrap=True,
        )
    _print_rejected(rejected)
    if rejected.num > found.num_plays:
        print_warnings(["most rows were rejected: is a column taken for something else? See --dry-run"])


def _print_rejected(rejected: RejectedRows) -> None:
    if rejected.num:
        results().print(f"{rejected.num:,} rows rejected, kept in {rejected.path}:", markup=False, soft_wrap=True)
        for line in rejected.lines():
            results().print(f"  {printable(line)}", markup=False, soft_wrap=True)
