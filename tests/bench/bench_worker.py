"""Plays a second of the worker, beside its bound, its parts, and what a user would pick instead.

Every row is a process of its own on one Apache Kafka, reads the same plays, and is measured while it is warm and plays wait for
it. Parts (``--only``): stages, worker, users_1m, passthrough, passthrough_32, raw, quix, faust, faust_model, quix_model.

    worker            intentrec worker, model of width 128, 2 + 2 layers, 10,000 items, 1,000 members with 256 plays each
    users_1m          the same with 999,000 more members known
    passthrough       (d) our topology, all guarantees, no model, three outputs; passthrough_32 on 32 partitions
    raw               (e) a loop over aiokafka that writes the same bytes
    faust, quix       (b), (c) per event, state and one output, no model; _model: the window recomputed for every play
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass

from stream.metrics import Stage
from tests.bench.baselines.quix.environment import quix_python
from tests.bench.harness import BenchOptions, Figures
from tests.bench.rates import OutputCount, Program, Rate, measure_rate
from tests.bench.worker_plays import NUM_ACTIVE, plays
from tests.bench.worker_stand import OUR_WORKER, PASS_THROUGH, Stand, open_stand
from tests.bench.worker_world import fill_plays, open_row

RAW = ("-m", "tests.bench.baselines.raw_loop")
FAUST = ("-m", "tests.bench.baselines.faust_agent")
QUIX = ("-m", "tests.bench.baselines.quix.app")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One program: what it runs, what it needs, and how many answers make it warm.

    A fetch of a full log is thousands of plays of one partition, so a worker is warm when it has been through one of each.
    """

    arguments: tuple[str, ...]
    num_partitions: int = 4
    has_state: bool = True
    has_model: bool = False
    in_quix: bool = False
    warm_plays: int = 8_000
    num_idle: int = 0
    rounds: int = 1


#: In the order in which they run: what is compared stands together.
ROWS = {
    "worker": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000),
    "users_1m": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000, num_idle=1_000_000 - NUM_ACTIVE),
    "passthrough": Row(arguments=PASS_THROUGH, rounds=2),
    "raw": Row(arguments=RAW, has_state=False, rounds=2),
    "passthrough_32": Row(arguments=PASS_THROUGH, num_partitions=32, rounds=2),
    "quix": Row(arguments=QUIX, has_state=False, in_quix=True, rounds=2),
    "faust": Row(arguments=FAUST, has_state=False),
    "faust_model": Row(arguments=FAUST, has_state=False, has_model=True, warm_plays=50),
    "quix_model": Row(arguments=QUIX, has_state=False, has_model=True, in_quix=True, warm_plays=50),
}

_STAGES_WITHIN_S = 120.0

#: Key of the table, row, row it is measured against.
RATIOS = (
    ("worker_over_plain_faust", "worker", "faust"),
    ("worker_over_faust", "worker", "faust_model"),
    ("worker_over_quix", "worker", "quix_model"),
    ("users_1m_over_1k", "users_1m", "worker"),
    ("passthrough_32_over_4", "passthrough_32", "passthrough"),
    ("passthrough_over_raw", "passthrough", "raw"),
    ("passthrough_over_quix", "passthrough", "quix"),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of it."""

    num_plays: int = 400_000
    num_active: int = NUM_ACTIVE
    seconds: float = 10.0
    idle_share: float = 1.0
    warm_share: float = 1.0
    stage_rounds: int = 40
    rounds: int | None = None


QUICK = Scale(num_plays=6_000, num_active=40, seconds=1.0, idle_share=0.001, warm_share=0.02, stage_rounds=2, rounds=1)


class Rows:
    """Runs rows on one stand; the first row of a number of partitions fills the plays topic that all of them share."""

    def __init__(self, stand: Stand, scale: Scale) -> None:
        self._stand, self._scale = stand, scale
        self._num_rows, self._filled = 0, set[int]()

    def rate(self, name: str, row: Row) -> Rate:
        """Runs a row once on topics of its own."""
        stand, scale = self._stand, self._scale
        self._num_rows += 1
        settings = stand.settings(
            f"{name.replace('_', '-')}-{self._num_rows}", f"plays-{row.num_partitions}", row.num_partitions
        )
        if row.num_partitions not in self._filled:
            fill_plays(settings, plays(scale.num_plays, num_active=scale.num_active))
            self._filled.add(row.num_partitions)
        open_row(
            settings,
            num_active=scale.num_active if row.has_state else 0,
            num_idle=int(row.num_idle * scale.idle_share),
            bundle=stand.bundle.name if row.arguments == OUR_WORKER else None,
        )
        environment = stand.environment(settings)
        if row.has_model:
            environment["BENCH_BUNDLE"] = str(stand.bundle)
        python = {"python": quix_python()} if row.in_quix else {}
        count = OutputCount(settings.broker, settings.recommendations_topic, row.num_partitions)
        with Program(row.arguments, stand.folder / f"{settings.app_id}.log", environment, **python) as program:
            return measure_rate(
                program,
                count,
                skip=int(row.warm_plays * scale.warm_share),
                total=scale.num_plays,
                seconds=scale.seconds,
            )


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    scale = QUICK if options.quick else Scale()
    figures: Figures = {}
    rates: dict[str, float] = {}
    with open_stand() as stand:
        rows = Rows(stand, scale)
        for name, row in ROWS.items():
            if options.wants(name):
                found = [rows.rate(name, row) for _ in range(scale.rounds or row.rounds)]
                rates[name] = statistics.mean(rate.plays_per_s for rate in found)
                for rate in found:
                    print(rate.line(name), flush=True)
                figures[f"{name}_per_s"] = round(rates[name])
                figures[f"{name}_cpu_us"] = round(statistics.mean(rate.cpu_us for rate in found), 1)
                if name == "passthrough":
                    figures["delivery_plays_per_core_s"] = round(1e6 / statistics.mean(rate.cpu_us for rate in found))
        if options.wants("stages"):
            figures |= _stages(stand, scale, rates)
    for key, row_name, against in RATIOS:
        if row_name in rates and against in rates:
            figures[key] = round(rates[row_name] / rates[against], 3)
            print(f"{key:<34} {rates[row_name]:10,.0f} / {rates[against]:,.0f} = {figures[key]:.2f}", flush=True)
    return figures


def _stages(stand: Stand, scale: Scale, rates: dict[str, float]) -> Figures:
    """Each stage alone; where worker and pass-through were measured too, the worker against the bound made of them."""
    arguments = ("-m", "tests.bench.pipeline_stages", str(stand.bundle), str(scale.num_active), str(scale.stage_rounds))
    environment = stand.environment(stand.settings("stages", "none"))
    with Program(arguments, stand.folder / "stages.log", environment) as program:
        cost_s: dict[str, float] = json.loads(program.last_line(_STAGES_WITHIN_S))
    for stage, seconds in cost_s.items():
        print(f"{stage:<34} {1e6 * seconds:10.1f} us a play", flush=True)
    figures: Figures = {f"stage_{stage}_us": round(1e6 * seconds, 1) for stage, seconds in cost_s.items()}
    if {"worker", "passthrough"} <= rates.keys():
        alone_s = cost_s[Stage.ENCODE] + cost_s[Stage.SEARCH] + 1 / rates["passthrough"]
        figures["worker_bound_per_s"] = round(1 / alone_s)
        figures["worker_over_bound"] = round(rates["worker"] * alone_s, 3)
        print(f"{'worker against its bound':<34} {rates['worker']:10,.0f} / {1 / alone_s:,.0f}", flush=True)
    return figures
