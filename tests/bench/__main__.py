"""``python -m tests.bench NAME``: measures one part of the system next to its baselines and its theoretical bound.

`make bench BENCH="worker --compare"` does the same. Exit codes and errors are those of ``intentrec``.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from intentrec_core.errors import ConfigError
from stream.cli import root
from tests.bench import harness

app = typer.Typer(
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(
    epilog="[bold]Examples[/bold]\n\n  python -m tests.bench engine --compare      metrics, and each bar with pass or miss\n\n"
    "  python -m tests.bench worker --only raw     one part of it\n\n"
    "  python -m tests.bench capacity --set plays_per_s=1e6 --set members=3e8",
)
def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(harness.BENCHES)}.")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Print each row of the table with its bar, and pass or miss.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Try the bench itself: too few rounds for valid metrics, and no row of history."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="PART", help="Only this part. Repeatable.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=NUMBER", help="Replace an input (capacity). Repeatable.")
    ] = None,
) -> None:
    """Measure, print the metrics and end with one line of JSON."""
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


def run(arguments: list[str], *, debug: bool = False) -> int:
    """Runs one bench; returns the exit code."""
    return root.run(arguments, debug=debug, command=app, name="python -m tests.bench")


def main() -> None:
    """Runs the bench that the command line names and ends the process."""
    given = sys.argv[1:]
    debug = "--debug" in given
    root.set_up_logs(debug)
    sys.exit(run([argument for argument in given if argument != "--debug"], debug=debug))


if __name__ == "__main__":
    main()
