"""``intentrec demo``: the whole system on one machine, on real plays."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.cli import options
from stream.cli.progress import bars, notes

if TYPE_CHECKING:
    from rich.console import Console

    from intentrec_core.training.config import TrainConfig
    from stream.cli.data_source import DataSet
    from stream.demo.console.snapshot import DemoSnapshot
    from stream.demo.run import Show
    from stream.demo.stage import DemoEnvironment

#: Of the plays, the earliest, that the first bundle learns from; the rest is replayed.
SHARE = 0.7
DEFAULT_RATE = 200.0
_HEADLESS_EVERY_S = 5.0


def register(app: typer.Typer) -> None:
    """Adds the command to the command tree."""
    app.command(
        "demo",
        rich_help_panel="Begin here",
        epilog="[bold]Examples[/bold]\n\n  intentrec demo                                 watch; Ctrl-C ends it\n\n"
        "  intentrec demo --rate 500 --members 4\n\n"
        "  intentrec demo --headless --json --seconds 120  figures only, JSON on the last line\n\n"
        "  intentrec demo --broker 127.0.0.1:9092         on a Kafka you have, in topics of its own",
    )(demo)


def demo(
    headless: Annotated[bool, typer.Option("--headless", help="No live view; a line every few seconds.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all figures as the last line.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(min=1, help="Replay for so long. Default: to the last play.")] = None,
    rate: Annotated[float | None, typer.Option(help=f"Plays a second. Default: {DEFAULT_RATE:g}.")] = None,
    speed: Annotated[float | None, typer.Option(help="Instead: seconds of 1998 that pass in a second.")] = None,
    broker: Annotated[
        str | None, typer.Option("--broker", metavar="HOST:PORT", help="A Kafka you have. Default: an embedded one.")
    ] = None,
    members: Annotated[int, typer.Option(min=0, max=12, help="How many members to show.")] = 3,
    retrain: Annotated[float, typer.Option(min=1, help="Seconds between training runs.")] = 20.0,
    train_seconds: Annotated[
        float, typer.Option(min=1, help="The first bundle may learn for so long; it is kept for the next time.")
    ] = 120.0,
    seed: options.Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train the first bundle anew, not from the cache.")] = False,
    cache_dir: options.CacheDir = None,
) -> None:
    """Watch real plays become intents and recommendations, live, while the weights
    refresh.

    Starts an embedded broker, gets MovieLens-100K, trains a first bundle on its
    earliest 70 %, starts a worker and a trainer, and replays the rest in time
    order, much faster than it happened. Everything is the real thing at small
    scale; every process ends with this one.
    """
    from intentrec_core.training.config import TrainConfig
    from stream.demo.run import NotDrained, ReplayPlan, play
    from stream.demo.stage import open_stage, running
    from stream.kafka.replay import Pace

    # A kill, or a closed terminal, must unwind like Ctrl-C: the context managers below end every process that was started.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    settings = options.settings(cache_dir=cache_dir, broker=broker)
    pace = Pace(rate=DEFAULT_RATE if rate is None and speed is None else rate, speed=speed)
    console = notes()

    def say(done: str) -> None:
        console.print(f"[green]✓[/green] {done}", soft_wrap=True)

    with open_stage(broker=broker, retrain_interval_s=retrain, say=say) as stage:
        data_set, first_bundle = _prepare(
            stage, settings.cache_dir, TrainConfig(seed=seed, max_seconds=train_seconds), fresh=fresh
        )
        with running(stage, say) as (worker, worker_port, trainer, trainer_port):
            script = ReplayPlan(
                title=f"IntentRec · {data_set.title} in time order",
                plays=data_set.rest(SHARE),
                catalogue=data_set.catalogue,
                pace=pace,
                seconds=seconds,
                num_members=members,
                seed=seed,
                first_bundle=first_bundle,
            )
            with _shown(headless, console) as show:
                result = play(script, stage, (worker, worker_port), (trainer, trainer_port), show)
    _summarise(result, console)
    if as_json:
        import msgspec

        print(msgspec.json.encode(result).decode(), flush=True)
    if result.plays_applied != result.plays_sent:
        raise NotDrained(f"{result.plays_sent:,} plays were sent and {result.plays_applied:,} folded in")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _prepare(stage: DemoEnvironment, cache_dir: Path, config: TrainConfig, *, fresh: bool) -> tuple[DataSet, str]:
    """The data and an announced first bundle."""
    from stream.cli.bundle_store import announce_bundle
    from stream.cli.data_source import MOVIELENS, load_data
    from stream.cli.learning import training_bars
    from stream.demo.first_bundle import first_bundle

    console = notes()
    with bars(in_bytes=True) as report:
        data_set = load_data(MOVIELENS, cache_dir, report)
    plays = data_set.earliest(SHARE)
    console.print(
        f"[green]✓[/green] {data_set.title}: {plays.num_rows:,} plays to learn from, "
        f"{data_set.plays.num_rows - plays.num_rows:,} to replay"
    )
    began_s = time.monotonic()
    with training_bars(f"training a first bundle on {plays.num_rows:,} plays", show_curve=False) as (progress, _):
        bundle, trained = first_bundle(
            stage.settings,
            plays,
            data_set.catalogue,
            config,
            kept_in=cache_dir,
            fresh=fresh,
            progress=progress,
        )
    announce_bundle(stage.settings, bundle, reason="trained")
    how = f"trained in {time.monotonic() - began_s:.0f} s" if trained else "from the cache; --fresh trains anew"
    console.print(f"[green]✓[/green] first bundle {bundle} ({how})")
    return data_set, bundle


@contextlib.contextmanager
def _shown(headless: bool, console: Console) -> Iterator[Show]:
    """The live view on the alternate screen, or a line every few seconds."""
    from stream.demo.console.screen import Screen

    if headless or not sys.stdout.isatty():
        yield _lines(console)
        return
    from rich.console import Console as Terminal
    from rich.live import Live

    terminal = Terminal(highlight=False)
    last: list[DemoSnapshot] = []
    with Live(console=terminal, screen=True, auto_refresh=False, redirect_stderr=False, transient=True) as live:

        def show(view: DemoSnapshot) -> None:
            last[:] = [view]
            live.update(Screen(view), refresh=True)

        yield show
    if last:
        terminal.print(Screen(last[0]))


def _lines(console: Console) -> Show:
    from stream.demo.console.bars import milliseconds, ratio

    next_s = time.monotonic()

    def show(view: DemoSnapshot) -> None:
        nonlocal next_s
        if time.monotonic() < next_s:
            return
        next_s = time.monotonic() + _HEADLESS_EVERY_S
        quality, weights = view.quality, view.weights
        console.print(
            f"{view.elapsed_s:4.0f} s  {view.plays_sent:,} sent  {view.plays_applied:,} folded in  "
            f"{view.plays_per_s:,.0f}/s  p50 {milliseconds(view.p50_s)}  p99 {milliseconds(view.p99_s)}  "
            f"HR@10 {ratio(quality.hr_at_10)} (popular {ratio(quality.hr_at_10_popular)})  "
            f"{weights.version or 'no bundle'}, {weights.num_swapped} swaps",
            style="dim",
            markup=False,
            soft_wrap=True,
        )

    return show


def _summarise(result: object, console: Console) -> None:
    import msgspec

    figures = msgspec.to_builtins(result)
    accuracy = ", ".join(f"{head} {value:.3f}" for head, value in figures["intent_accuracy"].items())
    console.print(
        f"[green]✓[/green] {figures['plays_sent']:,} plays sent, {figures['plays_applied']:,} folded in, "
        f"{figures['recommendations']:,} lists; p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms"
    )
    console.print(
        f"[green]✓[/green] HR@10 {figures['hr_at_10']} against {figures['hr_at_10_popular']} of what is popular; "
        f"intents: {accuracy or 'none judged'}; {figures['bundles_swapped']} of {figures['bundles_published']} new bundles "
        "took over",
        soft_wrap=True,
    )
