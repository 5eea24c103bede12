"""The table of bars: every target figure, the bench that measures it, and whether it is a minimum or a maximum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """One figure and its bar. All of them are ratios of two figures of the same run, so the machine cancels out; but for the
    bench ``gpu``, whose bars are an H100's, and for bars in milliseconds of ``gateway`` and ``latency``.

    ``worst_of``: the documents compare the bar with the worst of this many newest runs, because single runs differ too much.
    ``--compare`` compares it with the run that was just made.
    """

    key: str
    bench: str
    what: str
    limit: float
    at_most: bool = False
    worst_of: int = 1

    def passed(self, value: float) -> bool:
        """Whether a measured value is on the right side. None of them can be 0 or less: noise that is, is no pass."""
        return 0 < value <= self.limit if self.at_most else value >= self.limit

    def counted(self, values: Sequence[float]) -> int:
        """Returns the index of the value that the documents compare with the bar. ``values``: one for each run, newest first."""
        worst = max if self.at_most else min
        return worst(range(len(values[: self.worst_of])), key=values.__getitem__)

    def line(self, value: float | None) -> str:
        """The row of the table for people; None is a figure that was not measured in this run."""
        bar = f"{'<=' if self.at_most else '>='} {self.limit:g}"
        shown, verdict = (
            ("-", "not measured") if value is None else (f"{value:.2f}", ["MISS", "PASS"][self.passed(value)])
        )
        return f"{verdict:>12}  {shown:>8}  {bar:>8}  {self.key:<30}  {self.what}"


#: Three of seven runs at half of a burst's rate had a stall (decision 106). So four in five sets of three runs have one.
RUNS_JUDGED = 3

BARS = (
    Bar("engine_speedup_256", "engine", "plays/s against recomputing the window, 256 cached plays, 64 members a batch", 45),
    Bar("engine_kv_read_over_bandwidth", "engine", "480 more cached plays, against reading them at memory bandwidth", 1.5, True),
    Bar("worker_over_bound", "worker", "plays/s against 1 / (1/engine + 1/retrieval + 1/pass-through), 10,000 items", 0.8),
    Bar("worker_over_plain_faust", "worker", "with the model, against a Faust agent per event with no model at all", 1.5),
    Bar("passthrough_32_over_4", "worker", "pass-through with 32 partitions on one worker, against 4", 0.8),
    Bar("passthrough_over_raw", "worker", "pass-through, three outputs, against a raw aiokafka loop of the same bytes", 0.7),
    Bar("passthrough_over_quix", "worker", "pass-through, three outputs, against Quix Streams with state, one output", 1.2),
    Bar("worker_over_faust", "worker", "against a Faust agent per event that recomputes the window", 10),
    Bar("worker_over_quix", "worker", "against a Quix Streams app that recomputes the window", 2),
    Bar("few_p50_ms", "latency", "p50 end-to-end latency at 200 plays/s, ms", 10, True),
    Bar(
        "p99_over_passthrough", "latency", "p99 end-to-end latency at half capacity, against pass-through at that rate",
        2, True, RUNS_JUDGED,
    ),
    Bar("p99_over_p50", "latency", "p99 end-to-end latency against its own p50", 3, True, RUNS_JUDGED),
    Bar("p99_swap_over_steady", "latency", "p99 during a weight swap against steady", 1.5, True, RUNS_JUDGED),
    Bar("event_after_topic_p99_ms", "gateway", "p99 from the list on the topic to its event on a stream, ms", 10, True),
    Bar("users_1m_over_1k", "worker", "plays/s of the same 1,000 members with 1,000,000 known, against 1,000 known", 0.9),
    Bar("successors_over_worker", "worker", "plays/s with what usually follows in the score, against without", 0.8),
    Bar("kv_int8_members_over_float32_256", "engine", "members in the same memory at 256 plays, int8 against float32", 3.5),
    Bar("kv_heads_1_int8_members_over_float32_256", "engine", "the same with one head of keys and values, int8", 14),
    Bar("kv_heads_1_int8_plays_over_float32", "engine", "plays/s there with one head of keys and values, int8", 2.0),
    Bar("kv_heads_1_plays_over_float32", "engine", "plays/s there with one head of keys and values, against all heads", 1.0),
    Bar("kv_int8_plays_over_float32", "engine", "plays/s at 256 to 340 cached plays, int8 against float32, in turns", 0.9),
    Bar("pool_512_cached_over_whole", "engine", "members cached in a small pool, parts of slots against whole slots", 4),
    Bar("pool_200_three_cached_over_parts", "engine", "the same, `video`: slots for three contexts against slots for one", 1.25),
    Bar("hits_0_over_recompute", "engine", "plays/s with no play cached, against recomputing the window", 1.0),
    *(
        Bar(f"worker_cpu_over_exact_{batch}", "index", f"CPU of a play, MovieLens, by {batch}: auto against exact", 1.1, True)
        for batch in (8, 64)
    ),
    *(
        Bar(f"index_{items}_over_{kind}_{batch}", "index", f"{name} items, best 10, by {batch}: auto against {kind}", bar, True)
        for items, name, kind, bar in (
            ("10k", "10,000", "exact", 1.0), ("100k", "100,000", "exact", 0.4), ("1m", "1,000,000", "pruned", 1.0)
        )
        for batch in (8, 64)
    ),
    *(
        Bar(f"index_{items}_recall", "index", f"{name} items: share of the exact best 10 that auto finds", 0.99)
        for items, name in (("movielens", "1,600"), ("10k", "10,000"), ("100k", "100,000"), ("1m", "1,000,000"))
    ),
    Bar("index_rare_recall", "index", "of the answers in the least popular half of all trained catalogues", 0.98),
    Bar("index_speedup_1m", "index", "1,000,000 items, the best 100, batch 256, against exact search", 20),
    Bar("index_recall_1m", "index", "of the exact best 100 there, the share that is found", 0.99),
    Bar("gpu_plays_per_s", "gpu", "plays/s at 256 cached plays and 4,096 members a step, on an H100", 1.5e6),
    Bar("gpu_bandwidth_share", "gpu", "reading their keys and values at memory bandwidth, of the time of a step", 0.25),
    Bar("gpu_step_ms_p99", "gpu", "p99 of that step in milliseconds, with graphs", 4, True),
    Bar("gpu_parity", "gpu", "differences from float32 on the CPU, over their stated bounds", 1, True),
    Bar("train_over_sasrec", "train", "training plays/s of our SASRec against RecTools' (the worse of two data sets)", 1.5),
)  # fmt: skip


def table(figures: Mapping[str, object], bench: str | None = None) -> list[str]:
    """The rows of one bench, or of all, for what was measured."""
    rows = [bar for bar in BARS if bench is None or bar.bench == bench]
    values = ((bar, figures.get(bar.key)) for bar in rows)
    return [bar.line(float(value) if isinstance(value, (int, float)) else None) for bar, value in values]
