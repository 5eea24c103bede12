"""The results of an evaluation as text, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from intentrec_core.evaluation.outcome import COVERAGE, DIVERSITY, POPULARITY
from intentrec_core.evaluation.results import MAIN, Evaluation, Figure, Freshness, RowResult, TaskFacts

#: Metrics of the second table, and their column.
BESIDES = (
    ("ndcg@10, known members", "known members"),
    ("ndcg@10, new members", "new members"),
    ("ndcg@10, new items", "new items"),
    ("hr@10, new items", "new items HR"),
    (COVERAGE, "coverage"),
    (DIVERSITY, "diversity"),
    (POPULARITY, "popularity"),
)


def lines(found: Evaluation) -> Iterator[str]:
    """What was asked, the ranking, the lists, the intents, and what was chosen."""
    yield f"{found.protocol}: {_asked(found.test)}"
    if found.validation is None:
        yield "nothing was chosen on a validation: every epoch was trained, and the chains have their plain settings"
    else:
        yield f"chosen on a validation before it, by NDCG@10: {_asked(found.validation)}"
    yield f"ranked: {found.universe}; {found.masking}; intervals: 95 %, members resampled"
    yield ""
    yield f"{'':28} {'HR@10':>7} {'NDCG@10':>8} {'interval':>16} {'MRR':>7}   IntentRec is above it by (NDCG@10)"
    for row in found.rows:
        main = row.metrics[MAIN]
        interval = f"{number(main.low)}-{number(main.high)}"
        cells = f"{_cell(row, 'hr@10'):>7} {number(main.value):>8} {interval:>16} {_cell(row, 'mrr'):>7}"
        yield f"{row.name:28} {cells}   {above(row)}".rstrip()
    yield ""
    yield f"{'':28} " + " ".join(f"{title:>13}" for _, title in BESIDES)
    for row in found.rows:
        yield f"{row.name:28} " + " ".join(f"{_cell(row, metric):>13}" for metric, _ in BESIDES)
    yield from _heads(found)
    yield ""
    for row in found.rows:
        if len(row.seeds) > 1:
            of_seeds = ", ".join(f"{run.seed}: {number(run.metrics[MAIN])}" for run in row.seeds)
            yield f"{row.name}, NDCG@10 by seed: {of_seeds}"
        if row.choice:
            yield f"{row.name}: {row.choice}"


def freshness_lines(found: Freshness) -> Iterator[str]:
    """A table: one row for each series, one column for each place."""
    width = max(len(place) for place in found.places)
    yield found.title
    yield f"{'':28} " + " ".join(f"{place:>{width}}" for place in found.places)
    for name, figures in found.series:
        yield f"{name:28} " + " ".join(f"{number(figure.value):>{width}}" for figure in figures)


def number(value: float | None) -> str:
    """A metric with four digits after the point, one above 10; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def above(row: RowResult) -> str:
    """How far IntentRec's NDCG@10 is above that of a row, with its interval and p; empty for IntentRec."""
    if MAIN not in row.above:
        return ""
    by, p = row.above[MAIN].by, row.above[MAIN].p
    return f"{_percent(by.value)}  ({_percent(by.low)} to {_percent(by.high)}), p {chance(p)}"


def chance(p: float) -> str:
    """A p value with three digits after the point."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _cell(row: RowResult, metric: str) -> str:
    return number(row.metrics.get(metric, Figure(None)).value)


def _asked(task: TaskFacts) -> str:
    first, last = (datetime.fromtimestamp(ms / 1000, UTC).date().isoformat() for ms in (task.first_ms, task.last_ms))
    return (
        f"{task.plays:,} plays of {task.members:,} members, {first} to {last}; {task.plays_of_new_members:,} of new members, "
        f"{task.plays_of_new_items:,} of new items"
    )


def _heads(found: Evaluation) -> Iterator[str]:
    rows = [(row, head) for row in found.rows for head in row.heads]
    if rows:
        yield ""
        yield f"{'intent':28} {'accuracy':>9} {'macro-F1':>9} {'ECE':>9} {'skill':>9}   (skill: over the label of last time)"
    for row, head in rows:
        name = head.name if row is found.rows[0] else f"{head.name}, {row.name}"
        figures = (head.accuracy, head.macro_f1, head.ece, head.skill)
        yield f"{name:28} " + " ".join(f"{number(value):>9}" for value in figures)
