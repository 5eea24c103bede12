"""``python -m stream.demo.picture docs/demo.svg``: runs the demo without a terminal and writes its screen as an SVG.

The run is a real one: an embedded broker, a worker, a trainer, and a replay of MovieLens-100K. With ``--simulated`` the plays are
those of a simulated world, and no network is needed. The picture shows the last moment after a swap of weights at which a member
on the screen played an item of the previous list; without such a moment, the end of the replay. The last two lines of the output
are the newest recommendation and the newest intent message of the first member on the screen, as JSON.

The SVG loads nothing: text is set in the reader's own monospace font.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import io
import re
import sys
import time
from pathlib import Path

import pyarrow as pa
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.evaluation.split import temporal_split
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.simulation.simulate import World
from stream.bundles.announcements import announce
from stream.demo.console.screen import Screen
from stream.demo.console.snapshot import DemoPhase, DemoSnapshot
from stream.demo.environment import DemoEnvironment, open_environment, running_processes
from stream.demo.first_bundle import first_bundle
from stream.demo.observer import Observer
from stream.demo.run import ReplayPlan, run_demo
from stream.kafka.replay import Pace
from stream.settings import Settings
from stream.wire.codec import encode
from stream.wire.messages import IntentUpdate, Recommendation

WIDTH, HEIGHT = 116, 36
TRAINING_SHARE = 0.7
SIMULATED_PLAYS = 60_000
MESSAGES_DEADLINE_S = 20.0
FONTS = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
#: Dark, with enough contrast on a light page and on a dark one. Eight colours, then the same ones bright.
THEME = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
    [
        *((110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65)),
        *((121, 192, 255), (219, 121, 230), (86, 212, 221), (255, 255, 255)),
    ],
)


def draw(view: DemoSnapshot) -> str:
    """The screen of a snapshot as an SVG that loads nothing."""
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=WIDTH, height=HEIGHT
    )
    console.print(Screen(view))
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = re.sub(r"<!--.*?-->", "", without_fonts).replace("Fira Code, monospace", FONTS)
    # A fixed id keeps the difference between two pictures small.
    svg = console.export_svg(title="make demo", code_format=template, unique_id="demo", theme=THEME)
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


def is_better(view: DemoSnapshot, than: DemoSnapshot | None) -> bool:
    """Whether ``view`` shows more: new weights, then a recommendation that a member followed, then simply a later moment."""

    def rank(shown: DemoSnapshot) -> tuple[int, bool, bool]:
        followed = any(member.recommended and member.quiet_s < 1 for member in shown.members)
        return len(shown.members), shown.weights.num_swapped > 0, followed

    return view.phase is DemoPhase.REPLAYING and (than is None or rank(view) >= rank(than))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the demo without a terminal and write its screen as an SVG.")
    parser.add_argument("out", type=Path, help="the SVG to write")
    parser.add_argument("--simulated", action="store_true", help="plays of a simulated world instead of MovieLens-100K")
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the replay")
    parser.add_argument("--rate", type=float, default=200.0, help="plays a second")
    parser.add_argument("--train-seconds", type=float, default=120.0, help="time limit for training the first bundle")
    parser.add_argument("--retrain", type=float, default=20.0, help="seconds between two training runs")
    options = parser.parse_args(arguments)

    def say(done: str) -> None:
        print(done, file=sys.stderr, flush=True)

    cache_dir = Settings.load().cache_dir
    with open_environment(broker=None, retrain_interval_s=options.retrain, print_step=say) as opened:
        environment, title = opened, "MovieLens-100K"
        if options.simulated:
            environment, title = _with_domain(opened, "video"), "simulated video plays"
            world = World("video", users=600, items=1_000)
            plays, catalogue = world.table(SIMULATED_PLAYS)[0], Catalogue(list(world.catalogue()))
        else:
            movielens = fetch_movielens(cache_dir)
            plays, catalogue = movielens.plays, movielens.catalogue
        split = temporal_split(plays, TRAINING_SHARE)
        say(f"training on {split.train.num_rows:,} plays of {title}")
        bundle = _announce_first(environment, split.train, catalogue, options.train_seconds, cache_dir)
        best: list[DemoSnapshot] = []

        def show(view: DemoSnapshot) -> None:
            if is_better(view, best[0] if best else None):
                best[:] = [view]

        with running_processes(environment, say) as (worker, trainer):
            plan = ReplayPlan(
                title=f"IntentRec · {title} in time order",
                plays=split.test,
                catalogue=catalogue,
                pace=Pace(rate=options.rate),
                seconds=options.seconds,
                num_members=3,
                seed=0,
                first_bundle=bundle,
            )
            result = run_demo(plan, environment, worker, trainer, show)
        say(f"{result.plays_sent:,} plays sent, {result.plays_applied:,} folded in, p99 {result.p99_ms} ms")
        view = best[0]
        options.out.write_text(draw(view), encoding="utf-8")
        user_id = view.members[0].user_id if view.members else ""
        for message in asyncio.run(_newest_messages(environment.settings, user_id, result.recommendations)):
            print(encode(message).decode())
    return 0


def _with_domain(environment: DemoEnvironment, domain: str) -> DemoEnvironment:
    overrides = {**environment.overrides, "domain": domain}
    return dataclasses.replace(environment, settings=Settings.load(**overrides), overrides=overrides)


def _announce_first(
    environment: DemoEnvironment, plays: pa.Table, catalogue: Catalogue, train_s: float, cache_dir: Path
) -> str:
    settings = environment.settings
    version, _ = first_bundle(
        settings,
        plays,
        catalogue,
        seed=0,
        max_seconds=train_s,
        cache_dir=cache_dir,
        fresh=False,
        progress=lambda _: None,
    )
    asyncio.run(announce(settings, bundle=version, url=settings.bundle_url))
    return version


async def _newest_messages(
    settings: Settings, user_id: str, num_expected: int
) -> tuple[Recommendation | IntentUpdate, ...]:
    """The newest recommendation and intent of a member, read from the topics."""
    newest: dict[type, Recommendation | IntentUpdate] = {}

    def take(message: Recommendation | IntentUpdate) -> None:
        if message.user_id == user_id:
            newest[type(message)] = message

    observer = Observer(settings, on_recommendation=take, on_intent=take)
    await observer.start()
    deadline_s = time.monotonic() + MESSAGES_DEADLINE_S
    try:
        while time.monotonic() < deadline_s:
            if observer.recommendations.fresh >= num_expected <= observer.intents.fresh:
                break
            await asyncio.sleep(0.2)  # the observer only counts
    finally:
        await observer.stop()
    return tuple(newest[kind] for kind in (Recommendation, IntentUpdate) if kind in newest)


if __name__ == "__main__":
    sys.exit(main())
