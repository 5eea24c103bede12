"""Plays a second of the worker, next to its bound, its parts, and what a user would run instead.

Every row is a process of its own on one Apache Kafka, reads the same plays, and is measured while it is warm and plays wait for
it. Rows take turns; a ratio is the median of its rounds'. Parts (``--only``) are the rows, ``stages``, ``judge`` and ``batches``.

    worker            intentrec worker, model of width 128, 2 + 2 layers, 10,000 items, 1,000 members with 256 plays each
    successors        the same with what usually follows the last plays in the score; the 64 kept of each item are some 300 a play
    two_threads       the same with two threads of inference
    two_workers       two workers with one thread each, which share the partitions
    users_1m          a worker with 999,000 more members known
    passthrough       (d) our topology, all guarantees, no model, three outputs; passthrough_32 on 32 partitions
    raw               (e) a loop over aiokafka that writes the same bytes
    faust, quix       (b), (c) per event, state and one output, no model; _model: the window recomputed for every play,
                      with one thread and with two that do not spin; the faster one counts
    judge             scoring the last prediction alone, by the size of micro-batches; _plain: with the plain Markov chain
    batches           the whole pipeline without a broker, processor time by the size of micro-batches
"""

from __future__ import annotations

import contextlib
import json
import statistics
from dataclasses import dataclass

from stream.ops.metrics import PipelineStep
from tests.bench.baselines.quix.environment import quix_python
from tests.bench.harness import BenchOptions, Figures
from tests.bench.rates import BenchFailed, OutputCount, Program, Rate, measure_rate
from tests.bench.worker_plays import NUM_ACTIVE, plays
from tests.bench.worker_stand import NUM_THREADS, OUR_WORKER, PASS_THROUGH, Stand, open_stand
from tests.bench.worker_world import NUM_PLANNING, fill_plays, open_row

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
    has_successors: bool = False
    in_quix: bool = False
    warm_plays: int = 8_000
    num_idle: int = 0
    rounds: int = 3
    processes: int = 1
    threads: tuple[int, ...] = (NUM_THREADS,)


#: In the order in which they run: what is compared stands together.
ROWS = {
    "worker": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000),
    "successors": Row(arguments=OUR_WORKER, has_model=True, has_successors=True, warm_plays=30_000),
    "two_threads": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000, threads=(2,)),
    "two_workers": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000, processes=2),
    # Its state takes minutes to write and to restore: two turns.
    "users_1m": Row(arguments=OUR_WORKER, has_model=True, warm_plays=30_000, num_idle=1_000_000 - NUM_ACTIVE, rounds=2),
    "passthrough": Row(arguments=PASS_THROUGH),
    "raw": Row(arguments=RAW, has_state=False),
    "passthrough_32": Row(arguments=PASS_THROUGH, num_partitions=32),
    "quix": Row(arguments=QUIX, has_state=False, in_quix=True),
    "faust": Row(arguments=FAUST, has_state=False),
    "faust_model": Row(arguments=FAUST, has_state=False, has_model=True, warm_plays=50, threads=(1, 2)),
    "quix_model": Row(arguments=QUIX, has_state=False, has_model=True, in_quix=True, warm_plays=50, threads=(1, 2)),
}
PARTS = (*ROWS, "stages", "judge", "batches")

#: A thousand whole contexts are encoded first: a quarter of a minute on an idle machine.
_STAGES_WITHIN_S = 300.0

#: Key of the table, row, row it is measured against.
RATIOS = (
    ("worker_over_plain_faust", "worker", "faust"),
    ("worker_over_faust", "worker", "faust_model"),
    ("worker_over_quix", "worker", "quix_model"),
    ("two_workers_over_two_threads", "two_workers", "two_threads"),
    ("users_1m_over_1k", "users_1m", "worker"),
    ("successors_over_worker", "successors", "worker"),
    ("passthrough_32_over_4", "passthrough_32", "passthrough"),
    ("passthrough_over_raw", "passthrough", "raw"),
    ("passthrough_over_quix", "passthrough", "quix"),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of it."""

    num_plays: int = 400_000
    num_active: int = NUM_ACTIVE
    num_planning: int = NUM_PLANNING
    seconds: float = 10.0
    idle_share: float = 1.0
    warm_share: float = 1.0
    stage_rounds: int = 40
    #: A round's, of each size of micro-batches.
    num_judged: int = 2_048
    #: The same, of the whole pipeline.
    num_in_batches: int = 512
    rounds: int | None = None


QUICK = Scale(
    num_plays=6_000,
    num_active=40,
    num_planning=0,
    seconds=1.0,
    idle_share=0.001,
    warm_share=0.02,
    stage_rounds=2,
    num_judged=64,
    num_in_batches=64,
    rounds=1,
)


class Rows:
    """Runs rows on one stand; the first row of a number of partitions fills the plays topic that all of them share."""

    def __init__(self, stand: Stand, scale: Scale) -> None:
        self._stand, self._scale = stand, scale
        self._num_rows, self._filled = 0, set[int]()
        self._with_successors: str | None = None

    def rate(self, name: str, row: Row, threads: int) -> Rate:
        """Runs a row once on topics of its own.

        Raises: BenchFailed when its program fails.
        """
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
            bundle=self._bundle(row) if row.arguments == OUR_WORKER else None,
        )
        python = {"python": quix_python()} if row.in_quix else {}
        count = OutputCount(settings.broker, settings.recommendations_topic, row.num_partitions)
        with contextlib.ExitStack() as stack:
            programs = []
            for number in range(row.processes):
                environment = stand.environment(settings) | {"OMP_NUM_THREADS": str(threads)}
                if row.has_model:
                    environment["BENCH_BUNDLE"] = str(stand.bundle)
                log_path = stand.folder / f"{settings.app_id}-{number}.log"
                programs.append(stack.enter_context(Program(row.arguments, log_path, environment, **python)))
            return measure_rate(
                programs,
                count,
                skip=int(row.warm_plays * scale.warm_share),
                total=scale.num_plays,
                seconds=scale.seconds,
            )

    def _bundle(self, row: Row) -> str:
        if not row.has_successors:
            return self._stand.bundle.name
        self._with_successors = self._with_successors or self._stand.bundle_with_successors()
        return self._with_successors


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    scale = QUICK if options.quick else Scale()
    figures: Figures = {}
    rates: dict[str, list[Rate]] = {}
    with open_stand(scale.num_planning) as stand:
        rows = Rows(stand, scale)
        for turn in range(scale.rounds or max(row.rounds for row in ROWS.values())):
            for name, row in ROWS.items():
                if options.wants(name) and turn < row.rounds and f"{name}_failed" not in figures:
                    try:
                        fastest = _fastest(rows, name, row)
                    except BenchFailed as error:  # one program that fails takes no other one's figures with it
                        print(f"{name}: FAILED: {error}", flush=True)
                        figures[f"{name}_failed"] = str(error).splitlines()[0]
                        rates.pop(name, None)
                        continue
                    rates.setdefault(name, []).append(fastest)
        for name, found in rates.items():
            figures[f"{name}_per_s"] = [round(rate.plays_per_s) for rate in found]
            figures[f"{name}_cpu_us"] = round(statistics.median(rate.cpu_us for rate in found), 1)
        if "passthrough" in rates:
            figures["delivery_plays_per_core_s"] = round(1e6 / float(str(figures["passthrough_cpu_us"])))
        if options.wants("stages"):
            figures |= _stages(stand, scale, rates)
        if options.wants("judge"):
            figures |= _judge(stand, scale)
        if options.wants("batches"):
            figures |= _batches(stand, scale)
    for key, row_name, against in RATIOS:
        if row_name in rates and against in rates:
            pairs = zip(rates[row_name], rates[against], strict=False)
            ratios = [one.plays_per_s / other.plays_per_s for one, other in pairs]
            figures[key] = round(statistics.median(ratios), 3)
            print(f"{key:<34} {figures[key]:10.2f}   of {min(ratios):.2f} to {max(ratios):.2f}", flush=True)
    return figures


def _fastest(rows: Rows, name: str, row: Row) -> Rate:
    """A row's rate with the number of threads that is best for it."""
    found = []
    for threads in row.threads:
        found.append(rows.rate(name, row, threads))
        print(found[-1].line(name if len(row.threads) == 1 else f"{name}, {threads} threads"), flush=True)
    return max(found, key=lambda rate: rate.plays_per_s)


def _stages(stand: Stand, scale: Scale, rates: dict[str, list[Rate]]) -> Figures:
    """Each stage alone; where worker and pass-through were measured too, the worker against the bound made of them."""
    cost_s = _costs_s(stand, "stages", "tests.bench.pipeline_stages", scale.num_active, scale.stage_rounds)
    for stage, seconds in cost_s.items():
        print(f"{stage:<34} {1e6 * seconds:10.1f} us a play", flush=True)
    figures: Figures = {f"stage_{stage}_us": round(1e6 * seconds, 1) for stage, seconds in cost_s.items()}
    model_s = cost_s[PipelineStep.ENCODE] + cost_s[PipelineStep.SEARCH]
    figures["inference_plays_per_core_s"] = round(1 / model_s)
    if {"worker", "passthrough"} <= rates.keys():
        ours, passed = (statistics.median(rate.plays_per_s for rate in rates[row]) for row in ("worker", "passthrough"))
        bound = 1 / (model_s + 1 / passed)
        figures["worker_bound_per_s"] = round(bound)
        figures["worker_over_bound"] = round(ours / bound, 3)
        print(f"{'worker against its bound':<34} {ours:10,.0f} / {bound:,.0f}", flush=True)
    return figures


def _costs_s(stand: Stand, name: str, module: str, *sizes: int) -> dict[str, float]:
    """What a program that measures stages alone prints last: seconds a play by stage."""
    arguments = ("-m", module, str(stand.bundle), *map(str, sizes))
    environment = stand.environment(stand.settings(name, "none"))
    with Program(arguments, stand.folder / f"{name}.log", environment) as program:
        found: dict[str, float] = json.loads(program.last_line(_STAGES_WITHIN_S))
    return found


def _judge(stand: Stand, scale: Scale) -> Figures:
    cost_s = _costs_s(stand, "judge", "tests.bench.judge_stage", scale.num_active, scale.num_judged)
    for size, seconds in cost_s.items():
        print(f"{'judge, batches of ' + size:<34} {1e6 * seconds:10.1f} us a play", flush=True)
    return {f"judge_{size}_us": round(1e6 * seconds, 1) for size, seconds in cost_s.items()}


def _batches(stand: Stand, scale: Scale) -> Figures:
    cost_s = _costs_s(stand, "batches", "tests.bench.batch_sizes", scale.num_active, scale.num_in_batches)
    for size, seconds in cost_s.items():
        print(f"{'CPU of a play, batches of ' + size:<34} {1e6 * seconds:10.1f} us", flush=True)
    return {f"batches_{size}_cpu_us": round(1e6 * seconds, 1) for size, seconds in cost_s.items()}
