"""How the command line talks while it works: bars for whatever takes longer than a second, lines on standard error.

Standard output is for results alone, so that they can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and how much there is (0: unknown)."""


def results() -> Console:
    """The console for results: standard output."""
    return Console(highlight=False)


def notes() -> Console:
    """The console for what goes on: standard error."""
    return Console(stderr=True, highlight=False)


def complain(message: str) -> None:
    """Says what is wrong, in one line on standard error."""
    line = " ".join(message.split())
    print(f"intentrec: {line}", file=sys.stderr)


@contextmanager
def bars(*, quiet: bool = False, in_bytes: bool = False) -> Iterator[Report]:
    """A bar for each thing reported, on standard error; where that is no terminal, a line for each when it begins.

    A thing reported with a total of 0 shows a spinner until it is reported with another.
    """
    console = notes()
    if quiet or not console.is_terminal:
        begun: set[str] = set()

        def report_line(what: str, done: int, total: int) -> None:
            if what not in begun and not quiet:
                begun.add(what)
                console.print(what, style="dim")

        yield report_line
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=32)]
    columns += [DownloadColumn()] if in_bytes else [TextColumn("{task.completed:,.0f}")]
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done, total=total or None)

        yield report
