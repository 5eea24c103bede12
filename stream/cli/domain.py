"""``intentrec domain``: drafts a domain file from a folder of plays and items."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.errors import ConfigError, DataError
from stream.cli.progress import bars, print_warnings, results
from stream.cli.tables import print_table

if TYPE_CHECKING:
    from intentrec_core.own_data.draft_domain import Draft

group = typer.Typer(
    help="Domain files: what the model reads of plays and items.", no_args_is_help=True, rich_markup_mode="rich"
)


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="domain", rich_help_panel="Data and learning")


@group.callback()
def _domain() -> None:
    """Domain files: what the model reads of plays and items."""


@group.command(
    "init",
    epilog="[bold]Examples[/bold]\n\n  intentrec domain init my-data --out my.toml\n\n"
    "  intentrec train --data my-data --domain my.toml    takes the draft as it is",
)
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `intentrec import` wrote: plays and items.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The domain file to write.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the domain. Default: the name of the file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Draft a domain file from what the columns of plays and items hold.

    A table shows how predictable each column is: coverage is the share of plays that
    have it, skill how much better "the same as last time" predicts the next label than
    the most frequent one does (1 always right, 0 no better). What is done (the action),
    and what has a skill of 0.05 or more, become intents, at most four; where these are
    fewer than two, the columns whose labels say most fill up. Comments in the file say why.
    """
    from intentrec_core.durable_files import write_durably
    from intentrec_core.own_data.draft_domain import draft_domain
    from stream.cli.data_source import load_any_folder

    if out.exists() and not force:
        raise ConfigError(f"{out} is there already: give --force to replace it, or another --out")
    with bars() as report:
        report(f"reading {folder}", 0, 0)
        data = load_any_folder(folder)
        report("looking at every column", 0, 0)
        draft = draft_domain(name if name is not None else _name_of(out), data.plays, data.catalogue, str(folder))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_durably(out, draft.text.encode())
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}") from error
    _print_columns(draft)
    print_warnings(doubt.text for doubt in draft.doubts)
    results().print(f"[bold]{out}[/bold]; next: intentrec train --data {folder} --domain {out}", soft_wrap=True)


def _name_of(out: Path) -> str:
    """The name of a domain after its file."""
    name = re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_")[:32]
    return name if name[:1].isalpha() else f"domain_{name}"[:32].rstrip("_")


def _print_columns(draft: Draft) -> None:
    rows = [
        (
            column.key,
            {"event": "play", "catalogue": "item", "rule": "rule"}[column.source.value],
            f"{column.coverage:.1%}",
            f"{len(column.values):,}",
            f"{column.largest:.1%}",
            f"{column.entropy_bits:.1f}",
            f"{column.skill:+.2f}",
            became,
        )
        for column, became in draft.columns
    ]
    columns = ("column", "of", "coverage", "values", "largest", "bits", "skill", "became")
    print_table(columns, rows, right=columns[2:7])
