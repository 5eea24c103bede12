"""Writes docs/benchmarks.md and docs/quality.md from the rows of tests/bench/history, and checks them.

    python -m tests.bench.report            write both documents
    python -m tests.bench.report --check    write nothing; exit 1 when a document is stale

A row of a benchmark is one run; not every run measures every figure. For each bar the document shows the newest run that measured
it, or the worst of the newest (:attr:`tests.bench.bars.Bar.worst_of`), and the other runs. A row of ``quality.jsonl`` is one
figure: of the table (:mod:`tests.bench.quality`), or of a decision that explains it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.bars import BARS, Bar
from tests.bench.quality.document import tables

ROOT = Path(__file__).resolve().parents[2]
HISTORY = Path(__file__).resolve().parent / "history"
DECISIONS = ROOT / "docs" / "decisions"
BENCHMARKS, QUALITY = "benchmarks.md", "quality.md"
#: Values shown for each bar, the newest included.
NUM_SHOWN = 5

Row = Mapping[str, object]

BENCHES = {
    "engine": ("The engine alone", "engine"),
    "worker": ("The worker, and what a user would run instead", "worker"),
    "latency": ("End-to-end latency", "latency"),
    "index": ("Search", "index"),
    "recovery": ("Restoring state", "recovery"),
    "train": ("Training", "train"),
    "gateway": ("The gateway", "gateway"),
    "gpu": ("The engine on a GPU", "gpu"),
}
#: By bench: key of a figure, what it is, and its unit.
FIGURES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "engine": (
        ("plays_per_s_256", "256 cached plays, 64 members a step, anchor moves included", "plays/s"),
        ("recompute_plays_per_s_256", "the same members, each window recomputed", "plays/s"),
        ("step_ms_of_1", "a step of one member", "ms"),
        ("step_ms_of_64", "a step of 64 members", "ms"),
        ("plays_per_s_hits_50", "half of the members cached", "plays/s"),
        ("plays_per_s_hits_0", "no member cached", "plays/s"),
        ("memory_gb_per_s", "memory bandwidth of the machine", "GB/s"),
        ("kv_bytes_a_member_256", "keys and values of a member at 256 plays", "bytes"),
        ("kv_int8_bytes_a_member_256", "the same in int8", "bytes"),
        ("kv_float32_plays_per_s", "at 256 to 340 cached plays, 64 members a step, no anchor moves", "plays/s"),
        ("kv_int8_plays_per_s", "the same in int8, in turns", "plays/s"),
        ("kv_heads_1_int8_bytes_a_member_256", "with one head of keys and values, int8", "bytes"),
        ("kv_heads_1_float32_plays_per_s", "with one head of keys and values, in turns", "plays/s"),
        ("kv_heads_1_int8_plays_per_s", "the same in int8, in turns", "plays/s"),
        ("kv_bytes_a_member_30", "keys and values of a member at 30 plays", "bytes"),
        ("kv_heads_1_int8_bytes_a_member_30", "with one head of keys and values, int8", "bytes"),
        ("pool_512_whole_cached", "members cached in 75 slots of 512 plays, a whole slot each, of 1,500", "members"),
        ("pool_512_parts_cached", "the same with parts of slots", "members"),
        ("pool_512_plays_over_whole", "plays a second of processor time there, parts against whole slots", "times"),
        ("pool_200_parts_cached", "members cached in 75 slots of 200 plays", "members"),
        ("pool_200_plays_over_whole", "plays a second of processor time there, parts against whole slots", "times"),
        (
            "pool_512_three_cached",
            "members cached in 25 slots for three contexts of 512 plays, with parts of slots",
            "members",
        ),
        (
            "pool_512_three_plays_over_parts",
            "plays a second of processor time there, against slots for one context",
            "times",
        ),
        ("pool_200_three_cached", "members cached in 25 slots for three contexts of 200 plays", "members"),
        (
            "pool_200_three_plays_over_parts",
            "plays a second of processor time there, against slots for one context",
            "times",
        ),
        ("kv_int8_equal_lists", "share of lists of ten on MovieLens-100K that int8 leaves as they are", ""),
        ("kv_int8_ndcg_over_float32", "NDCG@10 there in int8, against float32", ""),
    ),
    "worker": (
        ("worker_per_s", "the worker with its model, 10,000 items, 1,000 members with full contexts", "plays/s"),
        ("two_threads_per_s", "the same with two threads of inference", "plays/s"),
        ("two_workers_per_s", "two workers with one thread each", "plays/s"),
        ("users_1m_per_s", "one thread, 1,000,000 members known", "plays/s"),
        ("worker_bound_per_s", "its bound, 1 / (1/engine + 1/retrieval + 1/pass-through)", "plays/s"),
        ("passthrough_per_s", "pass-through: the worker without a model, three outputs", "plays/s"),
        ("passthrough_32_per_s", "pass-through with 32 partitions", "plays/s"),
        ("raw_per_s", "a raw aiokafka loop of the same bytes", "plays/s"),
        ("quix_per_s", "Quix Streams with state, one output", "plays/s"),
        ("faust_per_s", "a Faust agent per event, no model", "plays/s"),
        ("faust_model_per_s", "a Faust agent per event that recomputes the window", "plays/s"),
        ("quix_model_per_s", "Quix Streams that recomputes the window", "plays/s"),
        ("stage_fold_us", "folding a play", "µs"),
        ("stage_encode_us", "encoding it", "µs"),
        ("stage_search_us", "searching", "µs"),
        ("stage_judge_us", "scoring the last prediction", "µs"),
        ("stage_messages_us", "writing its messages", "µs"),
        ("judge_8_us", "scoring alone, micro-batches of 8", "µs"),
        ("judge_64_us", "the same of 64", "µs"),
        ("judge_256_us", "the same of 256", "µs"),
        ("judge_256_plain_us", "the same of 256 with the plain Markov chain", "µs"),
        ("batches_1_cpu_us", "processor time of a play without a broker, micro-batches of 1", "µs"),
        ("batches_2_cpu_us", "the same of 2", "µs"),
        ("batches_8_cpu_us", "the same of 8", "µs"),
        ("batches_64_cpu_us", "the same of 64", "µs"),
    ),
    "latency": (
        ("rate_per_s", "half of the rate of a burst, at which all of these are measured", "plays/s"),
        ("worker_p50_ms", "play to recommendation, p50", "ms"),
        ("worker_p99_ms", "play to recommendation, p99", "ms"),
        ("swap_p50_ms", "the same while members move to a new bundle, p50", "ms"),
        ("swap_p99_ms", "the same while members move to a new bundle, p99", "ms"),
        ("passthrough_p50_ms", "pass-through at the same rate, p50", "ms"),
        ("passthrough_p99_ms", "pass-through at the same rate, p99", "ms"),
    ),
    "gateway": (
        ("get_gateway_p50_ms", "GET of a member's list, 4 connections, p50", "ms"),
        ("get_gateway_p99_ms", "the same, p99", "ms"),
        ("get_gateway_per_s", "the same, requests", "requests/s"),
        ("get_plain_p50_ms", "a plain Starlette handler that returns the same bytes, p50", "ms"),
        ("get_plain_p99_ms", "the same, p99", "ms"),
        ("get_plain_per_s", "the same, requests", "requests/s"),
        ("streams", "streams held open", ""),
        ("bytes_a_stream", "memory of the gateway a stream", "bytes"),
        ("events_per_s", "updates a second that reach all of their readers", "events/s"),
        ("topic_p50_ms", "play to list on the topic, 100 plays/s, p50", "ms"),
        ("topic_p99_ms", "the same, p99", "ms"),
        ("event_p50_ms", "play to the list's event on a stream, p50", "ms"),
        ("event_p99_ms", "the same, p99", "ms"),
        ("event_after_topic_p50_ms", "from the list on the topic to its event, p50", "ms"),
    ),
    "index": (
        ("auto_10k_us_8", "a query at 10,000 items, by 8", "µs"),
        ("exact_10k_us_8", "the same, exact", "µs"),
        ("auto_100k_us_8", "a query at 100,000 items, by 8", "µs"),
        ("exact_100k_us_8", "the same, exact", "µs"),
        ("exact_100000.ms", "exact search, 100,000 items, 256 queries", "ms"),
        ("flat_1000000.ms", "exact search (FAISS), 1,000,000 items, 256 queries", "ms"),
        ("pruned_1000000.ms", "pruned index, 1,000,000 items, 256 queries", "ms"),
    ),
    "recovery": (
        ("users", "members, each with 200 plays", ""),
        ("records", "changelog records read", ""),
        ("seconds", "time to restore them", "s"),
        ("plays_per_s", "plays restored", "plays/s"),
        ("changelog_bytes_per_play", "a play in the compacted changelog", "bytes"),
        ("changelog_written_bytes_per_play", "a play as written to the changelog (budget 256)", "bytes"),
        ("memory_bytes_per_play", "a play in memory", "bytes"),
    ),
    "train": (
        ("movielens_ours_plays_per_s", "our SASRec on MovieLens-100K", "plays/s"),
        ("movielens_rectools_plays_per_s", "RecTools' SASRec on MovieLens-100K", "plays/s"),
        ("movielens_ours_loss", "our loss after three epochs", ""),
        ("movielens_rectools_loss", "RecTools' loss after three epochs", ""),
        ("beauty_ours_plays_per_s", "our SASRec on Amazon Beauty", "plays/s"),
        ("beauty_rectools_plays_per_s", "RecTools' SASRec on Amazon Beauty", "plays/s"),
        ("beauty_ours_loss", "our loss after three epochs", ""),
        ("beauty_rectools_loss", "RecTools' loss after three epochs", ""),
        ("train_intents_plays_per_s", "IntentRec with its intent stage, MovieLens-100K", "plays/s"),
    ),
    "gpu": (
        ("step_4096_256.plays_per_s", "256 cached plays, 4,096 members a step", "plays/s"),
        ("step_4096_256.step_ms_p50", "that step, p50", "ms"),
        ("step_64_256.step_ms_p50", "a step of 64 members, p50", "ms"),
        ("prefill_positions_per_s", "positions encoded where nothing is cached", "plays/s"),
        ("sessions_per_gib_float16", "members in a GiB of float16 keys and values", ""),
    ),
}
#: A figure and the one of its own run that it has to be read beside: other runs may be of another machine.
BESIDE = {"worker_bound_per_s": ("worker_per_s", "the worker in that run")}
_STALL = (
    "in three of seven runs plays also stop for a quarter of a second, and why is not known: it is not the collection of "
    "garbage, and pauses of the broker's JVM are at most 30 ms"
)
#: Shown below a table where the bar is missed: the reason, and the decisions about it.
WHY_MISSED: dict[str, tuple[str, tuple[int, ...]]] = {
    "passthrough_over_raw": (
        "three threads share Python's lock, and folding alone holds it for nearly as long as the loop takes for everything",
        (54, 114),
    ),
    "passthrough_over_quix": (
        "three threads share Python's lock, and three outputs are written where it writes one",
        (54, 114),
    ),
    "passthrough_32_over_4": (
        "each partition of a micro-batch costs some 130 µs, however few of its plays there are",
        (111,),
    ),
    "few_p50_ms": (
        "the bench's own producer waits 5 ms for more plays, and the fixed cost of a micro-batch of one play is most of the rest",
        (106, 110),
    ),
    "p99_over_passthrough": (
        f"a worker computes for each play besides delivering it, on two cores that this rate fills; {_STALL}",
        (63, 106),
    ),
    "p99_over_p50": (f"without a stall it is 1.9 to 2.1; {_STALL}", (106,)),
    "p99_swap_over_steady": (
        "while members move, a micro-batch is processed in two halves, one for each bundle. Values below 1 are of runs whose "
        "steady part had a stall itself, a p99 of 227 and 253 ms",
        (78, 106),
    ),
    "index_speedup_1m": (
        "it is measured of the pruned index, which a bundle holds on request only. Models have their intents in the score since "
        "the bar was set, so queries vary in more directions and six times as many items have to be read",
        (47, 86),
    ),
}
#: A history row says "AMD EPYC" for both kinds of 2-core machine. These commits were measured on the slower one.
ZEN_3_COMMITS = ("6f9e27f",)
#: Of a machine with 2 cores before a run: above it, other programs had a core or more for themselves.
BUSY_LOAD = 3.0


def read_rows(bench: str, folder: Path = HISTORY) -> list[Row]:
    """The rows of a history file, oldest first; none of a bench that has not been run yet."""
    path = folder / f"{bench}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def find(row: Row, key: str) -> float | None:
    """A figure of a row by its dotted key: a number, the median of several rounds, or None where the run did not measure it."""
    value: object = row
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, list) and value and all(isinstance(entry, int | float) for entry in value):
        return float(statistics.median(value))
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def measured(rows: Sequence[Row], key: str) -> list[tuple[Row, float]]:
    """The rows that measured a figure and its values, newest first."""
    return [(row, value) for row in reversed(rows) if (value := find(row, key)) is not None]


def is_met(bar: Bar, rows: Sequence[Row]) -> bool | None:
    """Whether the document says PASS of a bar; None where no run has measured it."""
    values = [value for _, value in measured(rows, bar.key)]
    return bar.passed(values[bar.counted(values)]) if values else None


def benchmarks() -> str:
    """The text of docs/benchmarks.md."""
    histories = {bench: read_rows(bench) for bench in BENCHES}
    num_passed = sum(is_met(bar, histories[bar.bench]) is True for bar in BARS)
    lines = [
        "# Benchmarks",
        "",
        "This file is generated from the rows in `tests/bench/history/` by `python -m tests.bench.report`. Do not edit it.",
        "",
        "A bar is a figure that the project holds itself to. Each one is a ratio of two figures of the same run, so the machine",
        "cancels out; only a bar of the gateway, one of the latency of few plays, and those of the GPU bench, are absolute. The",
        "value is from the newest run that measured it, or from the worst of the three newest where it says so: some runs have a",
        f"stall ({_decision(106)}), and a stall in",
        "the steady part of a run makes the swap beside it look better than it is. A commit with `-dirty` was measured with",
        "uncommitted changes. The machines with 2 cores are shared servers without a GPU, where broker, worker and clients share",
        "the cores. They are of two kinds, Zen 4 with AVX-512 and slower Zen 3 without; only Zen 3 is marked.",
        "A run beside other programs is marked as busy, with the load before it: its plays/s are too few, and its ratios may be",
        "others than those of an idle machine.",
        "",
        f"**{num_passed} of {len(BARS)} bars are met.** [Quality figures](quality.md) are in a document of their own.",
        "",
        '`make bench BENCH="NAME --compare"` runs a bench, prints each bar with pass or miss, and appends a row to the',
        "history. `--only PART` runs a part of it, and `--quick` tries it out: too few rounds to believe, and no row.",
    ]
    for bench, (title, command) in BENCHES.items():
        lines += ["", f"## {title}", "", f'Reproduce: `make bench BENCH="{command} --compare"`', ""]
        if bench == "gpu":
            lines[-2] = "Reproduce: `bash tests/bench/gpu.sh` on a CUDA machine; it needs torch and numpy only."
        lines += _bars([bar for bar in BARS if bar.bench == bench], histories[bench])
        lines += _figures(bench, histories[bench])
    return "\n".join(lines) + "\n"


def quality() -> str:
    """The text of docs/quality.md."""
    rows = [row for row in read_rows("quality") if "protocol" not in row]
    lines = [
        "# Quality",
        "",
        "This file is generated from `tests/bench/history/quality.jsonl` by `python -m tests.bench.report`. Do not edit it.",
        "",
        "Each figure names the commit that documented it and the decision that explains it. Intervals are 95 %, bootstrapped",
        "over members. Live figures also depend on the machine: a slower one publishes fewer bundles in the same time.",
        "What the models are meant to reach, and what they miss, is the [table of targets](#targets). What the intent stage",
        f"gains, and what it does not, is in {_decision(104)} and {_decision(118)}.",
        "",
        "The sections before [every model and baseline](#every-model-and-baseline-by-one-harness) are of earlier releases:",
        "their figures are as they were measured then, and the commands beside them measure another model today. `-dirty` at a",
        "commit says that the code had changes that were not committed.",
    ]
    for group in dict.fromkeys(str(row["group"]) for row in rows):
        of_group = [row for row in rows if row["group"] == group]
        lines += ["", f"## {group.partition(':')[0]}", ""]
        if ":" in group:
            detail = group.partition(":")[2].strip()
            lines += [f"{detail[0].upper()}{detail[1:]}.", ""]
        for command in dict.fromkeys(str(row["command"]) for row in of_group):
            lines += [f"Reproduce: `{command}`", ""]
        lines += _header("figure", "value", "interval", "date", "commit", "decision")
        lines += [_quality_line(row) for row in of_group]
    lines += ["", *tables([row for row in read_rows("quality") if "protocol" in row])]
    return "\n".join(lines) + "\n"


def documents() -> dict[str, str]:
    """The generated documents by file name."""
    return {BENCHMARKS: benchmarks(), QUALITY: quality()}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Write or check the documents made from the benchmark history.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a document is stale")
    options = parser.parse_args(arguments)
    stale = []
    for name, text in documents().items():
        path = ROOT / "docs" / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    for name in stale if options.check else ():
        print(f"docs/{name} is stale: run python -m tests.bench.report", file=sys.stderr)
    return 1 if stale and options.check else 0


def _bars(bars: Sequence[Bar], rows: Sequence[Row]) -> list[str]:
    if not bars:
        return ["This bench has no bar."]
    lines = _header("bar", "limit", "value", "verdict", "other runs, newest first", "date", "commit", "machine")
    notes = []
    for bar in bars:
        limit = f"{'≤' if bar.at_most else '≥'} {_number(bar.limit)}"
        runs = measured(rows, bar.key)[:NUM_SHOWN]
        if not runs:
            lines.append(f"| {bar.what} | {limit} | – | not measured | | | | |")
            continue
        row, value = runs.pop(bar.counted([value for _, value in runs]))
        shown = _number(value) + (f" (worst of {bar.worst_of} runs)" if bar.worst_of > 1 else "")
        verdict = "PASS" if bar.passed(value) else "**MISS**"
        others = ", ".join(_number(other) for _, other in runs)
        lines.append(
            f"| {bar.what} | {limit} | {shown} | {verdict} | {others} "
            f"| {row['date']} | `{row['commit']}` | {_machine(row)} |"
        )
        if not bar.passed(value) and bar.key in WHY_MISSED:
            reason, decisions = WHY_MISSED[bar.key]
            links = ", ".join(_decision(number) for number in decisions)
            notes.append(f"- Missed: {bar.what}. Reason: {reason} ({links}).")
    return [*lines, *([""] if notes else []), *notes]


def _figures(bench: str, rows: Sequence[Row]) -> list[str]:
    lines = ["", *_header("figure", "value", "date", "commit", "machine")]
    for key, what, unit in FIGURES[bench]:
        for row, value in measured(rows, key)[:1]:
            shown = f"{_number(value)} {unit}".strip()
            if key in BESIDE and (own := find(row, BESIDE[key][0])) is not None:
                shown += f" ({BESIDE[key][1]}: {_number(own)})"
            lines.append(f"| {what} | {shown} | {row['date']} | `{row['commit']}` | {_machine(row)} |")
    return lines


def _quality_line(row: Row) -> str:
    unit = f" {row['unit']}" if "unit" in row else ""
    interval = row.get("interval")
    span = f"{_plain(interval[0])} to {_plain(interval[1])}{unit}" if isinstance(interval, list) else ""
    return (
        f"| {row['figure']} | {_plain(row['value'], row.get('digits'))}{unit} | {span} "
        f"| {row['date']} | `{row['commit']}` | {_decision(int(str(row['source'])), short=True)} |"
    )


def _machine(row: Row) -> str:
    machine = str(row.get("device") or row["hardware"])
    is_zen_3 = str(row["commit"]).removesuffix("-dirty") in ZEN_3_COMMITS and "device" not in row
    load = (find(row, "load_before") or 0.0) if machine.startswith("2 cores") else 0.0
    return machine + (" (Zen 3)" if is_zen_3 else "") + (f", busy: load {load:.1f}" if load > BUSY_LOAD else "")


def _header(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _decision(number: int, *, short: bool = False) -> str:
    (path,) = DECISIONS.glob(f"{number:04}-*.md")
    return f"[{'' if short else 'decision '}{number}](decisions/{path.name})"


def _number(value: float) -> str:
    """Three digits or all whole ones: 2,135,273, 4,798, 90.5, 0.994."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _plain(value: object, digits: object = None) -> str:
    """As documented, with ``digits`` after the point; thousands are separated."""
    if isinstance(value, float) and isinstance(digits, int):
        return f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
