"""``intentrec demo``: the whole system on one machine, with recorded plays."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from intentrec_core.device import require_torch
from intentrec_core.errors import NotDrained
from stream.cli import options
from stream.cli.progress import bars, notes, training_bars

if TYPE_CHECKING:
    from rich.console import Console

    from stream.cli.data_source import DataSet
    from stream.demo.console.snapshot import DemoSnapshot
    from stream.demo.environment import DemoEnvironment, PrintStep
    from stream.demo.run import DrawSnapshot
    from stream.demo.stats import DemoResult

#: Share of the plays, the earliest ones, that the first bundle is trained on; the others are replayed.
TRAINING_SHARE = 0.7
DEFAULT_RATE = 200.0
_HEADLESS_EVERY_S = 5.0


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "demo",
        rich_help_panel="Start here",
        epilog="[bold]Examples[/bold]\n\n  intentrec demo                                 watch it; Ctrl-C ends it\n\n"
        "  intentrec demo --rate 500 --members 4\n\n"
        "  intentrec demo --headless --json --seconds 120  no live view, JSON on the last line\n\n"
        "  intentrec demo --broker 127.0.0.1:9092         on your own Kafka, in its own topics",
    )(demo)


def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="No live view and no page: print a line every few seconds.")
    ] = False,
    page: Annotated[
        bool | None,
        typer.Option(
            "--page/--no-page",
            help="Serve the live console, and open it where there is a display. Default: without --headless.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object on the last line.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop the replay after so many seconds.")] = None,
    rate: Annotated[float | None, typer.Option(help=f"Plays per second. Default: {DEFAULT_RATE:g}.")] = None,
    speed: Annotated[
        float | None, typer.Option(help="Instead of --rate: seconds of event time (1998) per second.")
    ] = None,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="Use this Kafka. Default: an embedded broker.")
    ] = None,
    members: Annotated[int, typer.Option(min=0, max=12, help="Number of members to show.")] = 3,
    retrain: Annotated[float, typer.Option(min=1, help="Seconds between training runs.")] = 20.0,
    train_seconds: Annotated[
        float, typer.Option(min=1, help="Time limit for training the first bundle, which is cached for later runs.")
    ] = 120.0,
    seed: options.Seed = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train the first bundle again instead of using the cache.")
    ] = False,
    cache_dir: options.CacheDir = None,
) -> None:
    """Watch recorded plays become intents and recommendations, live, while the model is
    retrained.

    Starts an embedded broker, downloads MovieLens-100K, trains a first bundle on its
    earliest 70 %, starts a worker, a trainer and a gateway with the live console, and
    replays the other plays in time order, much faster than they happened. It runs the production processes at small
    scale; all of them end with the demo.
    """
    from stream.demo.environment import open_environment, running_gateway, running_processes
    from stream.demo.run import ReplayPlan, run_demo
    from stream.kafka.replay import Pace

    require_torch()
    unwind_on_signals()
    settings = options.settings(cache_dir=cache_dir, broker=broker)
    pace = Pace(rate=DEFAULT_RATE if rate is None and speed is None else rate, speed=speed)
    console = notes()
    print_step = _step_printer(console)
    with open_environment(broker=broker, retrain_interval_s=retrain, print_step=print_step) as environment:
        data_set, first_bundle = prepare(
            environment,
            settings.cache_dir,
            seed=seed,
            train_seconds=train_seconds,
            fresh=fresh,
            print_step=print_step,
        )
        title = f"IntentRec · {data_set.title} in time order"
        with contextlib.ExitStack() as stack:
            has_page = not headless if page is None else page
            shown = {"rows": environment.settings.domain, "publish_reasons": "true"} if has_page else {}
            worker, trainer = stack.enter_context(running_processes(environment, print_step, **shown))
            if has_page:
                address = stack.enter_context(running_gateway(environment, (worker, trainer), print_step))
                title = f"{title} · {address}"
                _open_browser(address)
            plan = ReplayPlan(
                title=title,
                plays=data_set.rest(TRAINING_SHARE),
                catalogue=data_set.catalogue,
                pace=pace,
                seconds=seconds,
                num_members=members,
                seed=seed,
                first_bundle=first_bundle,
            )
            draw = stack.enter_context(_live_view(headless, console))
            result = run_demo(plan, environment, worker, trainer, draw)
        # Within the environment: where plays are missing, its folder with the logs is kept.
        _report(result, print_step, as_json=as_json)


def _open_browser(address: str) -> None:
    """Opens the page where a person can see it. A browser in the terminal would draw over the live view."""
    from stream.demo.environment import has_display

    if has_display():
        webbrowser.open(address)


def unwind_on_signals() -> None:
    """A kill or a closed terminal must unwind like Ctrl-C: the context managers then stop every process that was started."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _step_printer(console: Console) -> PrintStep:
    def print_step(done: str) -> None:
        console.print(f"[green]✓[/green] {done}", soft_wrap=True)

    return print_step


def prepare(
    environment: DemoEnvironment,
    cache_dir: Path,
    *,
    seed: int,
    train_seconds: float,
    fresh: bool,
    print_step: PrintStep,
) -> tuple[DataSet, str]:
    """Loads the data and announces a first bundle; returns both."""
    from intentrec_core.domain.toml import load_domain
    from stream.cli.bundle_store import announce_bundle
    from stream.cli.data_source import MOVIELENS, load_data
    from stream.demo.first_bundle import first_bundle

    with bars(in_bytes=True) as report:
        data_set = load_data(MOVIELENS, cache_dir, report, load_domain(environment.settings.domain))
    plays = data_set.earliest(TRAINING_SHARE)
    num_replayed = data_set.plays.num_rows - plays.num_rows
    print_step(f"{data_set.title}: {plays.num_rows:,} plays to train on, {num_replayed:,} to replay")
    began_s = time.monotonic()
    with training_bars(f"training a first bundle on {plays.num_rows:,} plays", show_curve=False) as (progress, _):
        bundle, trained = first_bundle(
            environment.settings,
            plays,
            data_set.catalogue,
            seed=seed,
            max_seconds=train_seconds,
            cache_dir=cache_dir,
            fresh=fresh,
            progress=progress,
        )
    announce_bundle(environment.settings, bundle, reason="trained")
    how = f"trained in {time.monotonic() - began_s:.0f} s" if trained else "from the cache; --fresh trains it again"
    print_step(f"first bundle {bundle} ({how})")
    return data_set, bundle


@contextlib.contextmanager
def _live_view(headless: bool, console: Console) -> Iterator[DrawSnapshot]:
    """Draws snapshots on the alternate screen, or as a line every few seconds without a terminal."""
    from stream.demo.console.screen import Screen

    if headless or not sys.stdout.isatty():
        yield _line_printer(console)
        return
    from rich.console import Console as Terminal
    from rich.live import Live

    terminal = Terminal(highlight=False)
    last: list[DemoSnapshot] = []
    with Live(console=terminal, screen=True, auto_refresh=False, redirect_stderr=False, transient=True) as live:

        def draw(view: DemoSnapshot) -> None:
            last[:] = [view]
            live.update(Screen(view), refresh=True)

        yield draw
    if last:
        terminal.print(Screen(last[0]))


def _line_printer(console: Console) -> DrawSnapshot:
    from stream.demo.console.bars import milliseconds, ratio

    next_s = time.monotonic()

    def draw(view: DemoSnapshot) -> None:
        nonlocal next_s
        if time.monotonic() < next_s:
            return
        next_s = time.monotonic() + _HEADLESS_EVERY_S
        quality, weights = view.quality, view.weights
        console.print(
            f"{view.elapsed_s:4.0f} s  {view.plays_sent:,} sent  {view.plays_applied:,} folded in  "
            f"{view.plays_per_s:,.0f}/s  p50 {milliseconds(view.p50_s)}  p99 {milliseconds(view.p99_s)}  "
            f"HR@10 {ratio(quality.hr_at_10)} (popular {ratio(quality.hr_at_10_popular)}, "
            f"Markov {ratio(quality.hr_at_10_markov)})  "
            f"{weights.version or 'no bundle'}, {weights.num_swapped} {'swap' if weights.num_swapped == 1 else 'swaps'}",
            style="dim",
            markup=False,
            soft_wrap=True,
        )

    return draw


def _report(result: DemoResult, print_step: PrintStep, *, as_json: bool) -> None:
    """Prints the summary and the JSON object.

    Raises: NotDrained if the worker has not folded in every play.
    """
    accuracy = ", ".join(f"{head} {value:.3f}" for head, value in result.intent_accuracy.items())
    print_step(
        f"{result.plays_sent:,} plays sent, {result.plays_applied:,} folded in, {result.recommendations:,} recommendations; "
        f"latency p50 {result.p50_ms} ms, p99 {result.p99_ms} ms"
    )
    print_step(
        f"HR@10 {result.hr_at_10}, popularity baseline {result.hr_at_10_popular}, Markov baseline {result.hr_at_10_markov}; "
        f"intent accuracy: {accuracy or 'none yet'}; "
        f"{result.bundles_swapped} of {result.bundles_published} new bundles took over"
    )
    if as_json:
        import msgspec

        print(msgspec.json.encode(result).decode(), flush=True)
    if result.plays_applied != result.plays_sent:
        raise NotDrained(
            f"{result.plays_sent:,} plays were sent but only {result.plays_applied:,} were folded in: the logs say why"
        )
