"""``intentrec bench``: what a play costs, beside what a user would pick instead and beside the physical limit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from intentrec_core.errors import ConfigError

_PANEL = "Data and learning"


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "bench",
        rich_help_panel=_PANEL,
        epilog="[bold]Examples[/bold]\n\n  intentrec bench engine --compare      figures, and each bar with pass or miss\n\n"
        "  intentrec bench worker --only raw     one part of it\n\n"
        "  intentrec bench capacity --set plays_per_s=1e6 --set members=3e8",
    )(bench)


def bench(
    name: Annotated[str, typer.Argument(help="engine, worker, latency, index, recovery, train or capacity.")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Print each row of the table with its bar, and pass or miss.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Try the bench itself: too few rounds to believe, and no row of history.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PART", help="Only this part; may be repeated.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=NUMBER", help="Another input; may be repeated (capacity)."),
    ] = None,
) -> None:
    """Measure, print the figures and end with one line of JSON; needs a checkout, where the baselines are."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "tests" / "bench").is_dir():
        raise ConfigError("the benches and their baselines are in a checkout of the repository, not in the package")
    sys.path.insert(0, str(checkout))
    from tests.bench import harness

    if name not in harness.BENCHES:
        raise ConfigError(f"there is no bench {name!r}; there are: {', '.join(harness.BENCHES)}")
    options = harness.BenchOptions(quick=quick, only=tuple(only or ()), inputs=_numbers(inputs or []))
    harness.run(name, options, compare=compare)


def _numbers(given: list[str]) -> dict[str, float]:
    numbers = {}
    for setting in given:
        name, _, number = setting.partition("=")
        try:
            numbers[name] = float(number)
        except ValueError:
            raise ConfigError(f"--set {setting}: allowed: NAME=NUMBER") from None
    return numbers
