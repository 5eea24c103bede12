"""Output of the command line: results on standard output; progress bars, status lines and errors on standard error.

Standard output carries results only, so that it can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

if TYPE_CHECKING:
    from intentrec_core.training.reports import EpochReport, TrainingProgress

Report = Callable[[str, int, int], None]
"""Called with a title, the amount done and the total (0: unknown)."""


def results() -> Console:
    """The console for results: standard output."""
    return Console(highlight=False)


def notes() -> Console:
    """The console for status lines: standard error."""
    return Console(stderr=True, highlight=False)


def print_error(message: str) -> None:
    """Prints an error as one line on standard error."""
    line = " ".join(message.split())
    print(f"intentrec: {line}", file=sys.stderr)


def print_warnings(lines: Iterable[str]) -> None:
    """Prints each warning as one line on standard error."""
    console = notes()
    for line in lines:
        console.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)


@contextmanager
def bars(*, in_bytes: bool = False) -> Iterator[Report]:
    """Shows a progress bar per title on standard error; without a terminal, prints one line when a title first appears.

    A title with a total of 0 shows a spinner until a report gives a total.
    """
    console = notes()
    if not console.is_terminal:
        printed: set[str] = set()

        def report_line(title: str, done: int, total: int) -> None:
            if title not in printed:
                printed.add(title)
                console.print(title, style="dim", markup=False, soft_wrap=True)

        yield report_line
        return
    # A title is folded rather than cut: it says what is fetched, and from where.
    title_column = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold", ratio=1))
    columns = [SpinnerColumn(), title_column, BarColumn(bar_width=16)]
    columns += [DownloadColumn()] if in_bytes else [TextColumn("{task.completed:,.0f}")]
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total or None)
            progress.update(tasks[title], completed=done, total=total or None)

        yield report


@contextmanager
def training_bars(
    title: str, *, show_curve: bool
) -> Iterator[tuple[Callable[[TrainingProgress], None], Callable[[EpochReport], None]]]:
    """Callbacks for a training run: a progress bar over all steps, and one line of the learning curve per epoch."""
    console = notes()
    with bars() as report:

        def progress(at: TrainingProgress) -> None:
            report(title, (at.epoch - 1) * at.num_steps + at.step, at.num_epochs * at.num_steps)

        def epoch_done(point: EpochReport) -> None:
            if show_curve:
                console.print(point.line(), style="dim", soft_wrap=True)

        yield progress, epoch_done
