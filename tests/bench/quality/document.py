"""The tables of docs/quality.md, from the rows of the history.

Only figures that today's code and configuration give are shown, for the newest data and tasks; of each the newest row counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from tests.bench.quality.data_sets import DATA_SETS, Measured
from tests.bench.quality.figures import COMPARED, MAIN, MEAN, pair_hash
from tests.bench.quality.freshness import FIRST_RATIO, LAGS, REFRESHES, freshness_rows
from tests.bench.quality.oracle import HIDDEN_INTENT, ORACLE
from tests.bench.quality.plan import all_rows
from tests.bench.quality.published import published_lines
from tests.bench.quality.runs import ASKED, PREFIX, row_hash
from tests.bench.quality.targets import target_lines

HistoryRow = Mapping[str, object]
#: By model, seed and metric.
Found = dict[tuple[str, object, str], HistoryRow]

V1, V2 = "IntentRec V1: plain multi-task", "IntentRec V2: hierarchical"
WITHOUT_INTENTS = "world-without-intents"
NOT_RUN = "Not run with today's code."
NO_FOLDER = (
    f"{NOT_RUN} Its plays cannot be downloaded: the harness reads them from a folder that it is given. The loader is tested "
    "on a small file of the same format, made by us."
)
NO_PROBE = "no row that was run since it is asked"
RANKING = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr")
LISTS = (
    ("coverage@10", "coverage"),
    ("diversity@10", "diversity"),
    ("popularity@10", "popularity"),
    ("ndcg@10, known members", "known members"),
    ("ndcg@10, new members", "new members"),
    ("ndcg@10, new items", "new items"),
    ("hr@10, new items", "new items, HR@10"),
)

HEAD = """\
## Every model and baseline, by one harness

Reproduce: `make quality QUALITY="--data-root DIR"`, where DIR holds the data sets that cannot be downloaded. Runs are kept, so
the table fills over several sittings; what was not run yet is named below each table.

- Every item of the universe is ranked for every play that has an earlier play of its member (a member's first is not asked);
  there are no sampled metrics. Hidden items have the score −∞.
- Choices are made on the validation by NDCG@10. Of a Markov chain every setting is chosen: one after another, until none changes;
  the mean and the spread of what was tried, and the settings at an edge of it, stand beside the choice. Of trained rows only the
  epoch is chosen: sizes, learning rate, dropout and batch are the same for all rows of a data set, and those of most were tuned
  for IntentRec on MovieLens-100K. Rows with own items or counts, ours and baselines, also choose between that schedule and one of
  6 epochs, which the other rows are not offered; each of their notes gives what the common schedule has on the validation.
- Trained rows have the same width and layers, not the same number of weights: each note gives its own, with those of the items
  apart. Without these, V3 has about 1.5 times as many as V1 and twice those of SASRec; "V1 of V3's size" has more
  layers, and is stopped after ten epochs without a gain in place of three.
- For the test, a row is trained again by the same schedule up to the chosen epoch. In a stream, validation and test alike, it is
  refreshed as the trainer does it: three epochs over everything so far, at the trainer's rate, and no gate. Leave-one-out asks
  what the validation chose.
- Leave-one-out learns plays that are later than a target, as published tables do. Beyond it, nothing is counted or learned that
  had not happened; only what is trained has seen everything up to the split, also for a list that was made before it.
- A model does not see the time of its target: one run answers both tables, of that time known and unknown. Rows with counts do:
  their counts are those of that moment, a minute old at most, and they stand where it is known alone.
- Intervals are 95 %, by resampling members. Seeds are averaged for each play first. Comparisons resample the same members for
  both. Figures of intents are means over seeds; no library checks the calibration error (ECE).
- Coverage: share of the universe that stands in a list of ten. Diversity: 1 − cosine of attributes within a list. Popularity: how
  popular the listed items are beside those that were played (1: no bias). New members and new items: nothing of them was learned.
  Known members and the next two columns are NDCG@10.
- Only figures that today's code gives are in the tables of this section; a row whose code has changed since is named as not run.
- The oracle is the simulated process's own distribution of the next play, by a forward filter that knows the process and sees of
  a member what a model sees. It infers tastes; the one that is told them is above what anybody can reach. Neither learns a thing.
  The accuracy with which it tells the next play's hidden intent is the ceiling of a linear probe on Z, which is fitted on the
  plays that the model has learned.
- "incremental = batch" in the note of a trained row: plays of some members go through the cache one by one, and the scores of all
  items are compared with those of the batch, of the model that was asked. Only V3 and what is built on it have a cache.
- Freshness: "counts of the last refresh" are as old as what is learned. With a lag of n plays, the member's last n have not
  arrived; with one of an hour, nobody's. Rows of the lag table are never refreshed, and asked where earlier plays have arrived.
- Not built: a grid for trained rows. `intentrec eval` asks by the same protocols ([evaluation](evaluation.md)).
- No public data set at hand has both durations and action types. The simulated world has both, and so has KuaiRand-Pure, which is
  measured where its folder is there."""


def tables(rows: Sequence[HistoryRow]) -> list[str]:
    """The lines of the section."""
    lines = HEAD.split("\n")
    code = {row.name: row_hash(row) for row in (*all_rows(), *freshness_rows())} | {ASKED: ASKED}
    rows = [row for row in rows if is_current(row, code)]
    asked = {(row["data"], row["protocol"], row["tasks"], row["metric"]): row for row in rows if row["model"] == ASKED}
    rows = [row for row in rows if row["model"] != ASKED]
    lines += ["", *target_lines(of_newest_tasks(rows))]
    for measured in DATA_SETS:
        of_data = [row for row in rows if row.get("data") == measured.name]
        lines += ["", f"### {_capital(measured.title)}", ""]
        if not of_data:
            lines += [NOT_RUN if measured.recorded is None else NO_FOLDER, *published_lines(measured.name, RANKING)]
            continue
        digest = of_data[-1]["data_hash"]
        of_data = [row for row in of_data if row["data_hash"] == digest]
        hidden = (
            "items that a member has played are hidden" if measured.hides_history else "nothing is hidden: items repeat"
        )
        lines.append(f"Data `{digest}`; domain `{measured.domain}`; {hidden}.")
        for protocol in dict.fromkeys(str(row["protocol"]) for row in of_data):
            if not protocol.startswith(PREFIX):
                of_protocol = [row for row in of_data if row["protocol"] == protocol]
                tasks = (measured.name, protocol, of_protocol[-1]["tasks"])
                facts = {str(metric): _value(row) for (*task, metric), row in asked.items() if tuple(task) == tasks}
                lines += _protocol(measured, protocol, of_protocol, facts)
        lines += _freshness(measured, [row for row in of_data if str(row["protocol"]).startswith(PREFIX)])
        lines += published_lines(measured.name, RANKING)
    return lines


def of_newest_tasks(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Of each data set and protocol, the rows of the tasks that were asked last: others cannot be compared with them."""
    newest = {(row["data"], row["protocol"]): (row["data_hash"], row["tasks"]) for row in rows}
    return [row for row in rows if newest[row["data"], row["protocol"]] == (row["data_hash"], row["tasks"])]


def is_current(row: HistoryRow, code: Mapping[str, str]) -> bool:
    """Whether a row of the history is one of a run, given by today's code. ``code``: its hash for each row of the table."""
    own = code.get(str(row.get("model")))
    if own is None or "code" not in row:
        return False
    other = row.get("other")
    return row["code"] == (own if other is None else pair_hash(own, code.get(str(other), "")))


def _asked(facts: Mapping[str, float]) -> str:
    new = f"{facts['plays of new members']:.1%} are of new members, {facts['plays of new items']:.1%} of new items"
    ranked = f"{facts['items ranked']:,.0f} items, all that are played in the data set, at whatever time"
    return (
        f"Asked: {facts['plays']:,.0f} plays of {facts['members']:,.0f} members; {new}. Ranked: {ranked}. "
        f"Validation: {facts['plays of the validation']:,.0f} plays."
    )


def _protocol(
    measured: Measured, protocol: str, rows: Sequence[HistoryRow], facts: Mapping[str, float]
) -> Iterator[str]:
    rows = [row for row in rows if row["tasks"] == rows[-1]["tasks"]]
    found: Found = {
        (str(row["model"]), row["seed"], str(row["metric"])): row for row in rows if row.get("other") is None
    }
    order = {row.name: number for number, row in enumerate(all_rows())}
    models = sorted(dict.fromkeys(model for model, _, _ in found), key=lambda model: order.get(model, len(order)))
    shown = {model: _seed(found, model) for model in models}
    yield from ("", f"#### {_capital(protocol)}", "")
    if facts:
        yield from (_asked(facts), "")
    yield (
        "| model | "
        + " | ".join(_metric_title(metric) for metric in RANKING)
        + " | NDCG@10, 95 % | seeds | date | commit |"
    )
    yield "|---" * (len(RANKING) + 5) + "|"
    for model, seed in shown.items():
        main = found[model, seed, MAIN]
        cells = [_cell(found.get((model, seed, metric))) for metric in RANKING]
        interval = f"{main['low']:.4f} to {main['high']:.4f}" if "low" in main else ""
        seeds = _seeds(found, model)
        yield f"| {model} | {' | '.join(cells)} | {interval} | {seeds} | {main['date']} | `{main['commit']}` |"
    yield from ("", "| model | " + " | ".join(title for _, title in LISTS) + " |", "|---" * (len(LISTS) + 1) + "|")
    for model, seed in shown.items():
        yield f"| {model} | {' | '.join(_cell(found.get((model, seed, metric))) for metric, _ in LISTS)} |"
    yield from _heads(found, shown)
    yield from _comparisons(rows)
    yield from _ceiling(found, shown)
    if measured.name == WITHOUT_INTENTS:
        yield from _no_gain(rows)
    notes = [(model, s, found[model, s, "note"]) for model, s, metric in found if metric == "note"]
    if notes:
        yield ""
        several = {model for model, seed in shown.items() if seed == MEAN}
        yield from (f"- {m}{f', seed {s}' if m in several else ''}: {row['note']}." for m, s, row in notes)
    missing = [
        row.name for row in all_rows() if row.protocols(protocol) and row.wants(measured.name) and row.name not in shown
    ]
    if missing:
        yield from ("", f"Not run with today's code: {'; '.join(missing)}.")


def _freshness(measured: Measured, rows: Sequence[HistoryRow]) -> Iterator[str]:
    """NDCG@10 by refresh and by lag, the mean over seeds where there are several."""
    if measured.name not in FIRST_RATIO:
        return
    yield from ("", "#### Freshness, NDCG@10", "")
    newest = {row["protocol"]: row["tasks"] for row in rows}
    found = {
        (str(row["model"]), str(row["protocol"]).removeprefix(PREFIX), row["seed"]): row
        for row in rows
        if row["metric"] == MAIN and row.get("other") is None and row["tasks"] == newest[row["protocol"]]
    }
    models = [row.name for row in freshness_rows()]
    for columns in (REFRESHES, LAGS):
        shown = [model for model in models if any((model, column, 0) in found for column in columns)]
        if shown:
            yield f"| model | {' | '.join(columns)} |"
            yield "|---" * (len(columns) + 1) + "|"
            for model in shown:
                cells = [_cell(found.get((model, column, MEAN)) or found.get((model, column, 0))) for column in columns]
                yield f"| {model} | {' | '.join(cells)} |"
            yield ""
    missing = [
        row.name
        for row in freshness_rows()
        if not all((row.name, c, 0) in found for c in (*REFRESHES, *LAGS) if row.protocols(f"{PREFIX}{c}"))
    ]
    yield f"Not run with today's code, or not whole: {'; '.join(missing)}." if missing else ""


def _heads(found: Found, shown: Mapping[str, object]) -> Iterator[str]:
    names = list(dict.fromkeys(metric.rpartition(": ")[0] for _, _, metric in found if ": " in metric))
    if not names:
        return
    yield from ("", "| model | intent | accuracy | macro-F1 | ECE | skill over last time |", "|---" * 6 + "|")
    for model in shown:
        for name in names:
            metrics = [f"{name}: {metric}" for metric in ("accuracy", "macro_f1", "ece", "skill")]
            values = [
                [float(str(row["value"])) for (m, _, metric), row in found.items() if (m, metric) == (model, wanted)]
                for wanted in metrics
            ]
            if values[0]:
                cells = [f"{statistics.fmean(of_seeds):.4f}" if of_seeds else "–" for of_seeds in values]
                yield f"| {model} | {name} | {' | '.join(cells)} |"


def _comparisons(rows: Sequence[HistoryRow]) -> Iterator[str]:
    pairs = {(row["model"], row["other"], row["metric"]): row for row in rows if row.get("other") is not None}
    if not pairs:
        return
    yield from ("", "| of | metric | above | by | 95 % | p |", "|---" * 6 + "|")
    for (model, other, metric), row in pairs.items():
        by = "–" if row["value"] is None else f"{float(str(row['value'])):+.1%}"
        interval = f"{row['low']:+.1%} to {row['high']:+.1%}" if "low" in row else ""
        of = _metric_title(str(metric).removesuffix(" above"))
        yield f"| {model} | {of} | {other} | {by} | {interval} | {float(str(row['p'])):.4f} |"


def _ceiling(found: Found, shown: Mapping[str, object]) -> Iterator[str]:
    """How far each row is on the way from the best Markov chain to the oracle, and how much of the hidden intent its Z knows."""
    gain = {model: _value(found[model, seed, MAIN]) for model, seed in shown.items()}
    chains = [model for model in gain if model.startswith("Markov")]
    if ORACLE not in gain or not chains:
        return
    best = max(chains, key=gain.__getitem__)
    way = {
        model: (value - gain[best]) / (gain[ORACLE] - gain[best])
        for model, value in gain.items()
        if not model.startswith(("Markov", "popular", ORACLE))
    }
    yield ""
    yield (
        f"- Share of the way from the best Markov chain ({best}, {gain[best]:.4f}) to the oracle ({gain[ORACLE]:.4f}), NDCG@10: "
        + ("; ".join(f"{model} {share:.0%}" for model, share in way.items()) or "no row yet")
        + "."
    )
    known = {model: _mean_of_seeds(found, model, f"{HIDDEN_INTENT}: accuracy") for model in shown}
    if (ceiling := known[ORACLE]) is not None:
        probed = {model: value for model, value in known.items() if value is not None and not model.startswith(ORACLE)}
        yield (
            f"- Accuracy of the next play's hidden intent: the oracle {ceiling:.4f}; by a linear probe on Z "
            + (
                "; ".join(f"{model} {value:.4f}, {value / ceiling:.0%} of it" for model, value in probed.items())
                or NO_PROBE
            )
            + "."
        )


def _no_gain(rows: Sequence[HistoryRow]) -> Iterator[str]:
    """Whether the hierarchy gains over plain multi-task where intents say nothing: then the gain would not be due to intents."""
    pairs = {(row["model"], row["other"], row["metric"]): row for row in rows if row.get("other") is not None}
    yield ""
    for metric in COMPARED:
        what = f"Intents say nothing here, so V2 has to show no gain over V1, {_metric_title(metric)}"
        row = pairs.get((V2, V1, f"{metric} above"))
        if row is None or row["value"] is None:
            yield f"- {what}: not run with today's code."
            continue
        by, p = _value(row), float(str(row["p"]))
        verdict = "**a gain: FAIL**" if by > 0 and p < 0.05 else "no gain: PASS"
        yield f"- {what}: {by:+.1%} ({row['low']:+.1%} to {row['high']:+.1%}), p = {p:.4f}: {verdict}."


def _mean_of_seeds(found: Found, model: str, metric: str) -> float | None:
    values = [_value(row) for (name, _, named), row in found.items() if (name, named) == (model, metric)]
    return statistics.fmean(values) if values else None


def _value(row: HistoryRow) -> float:
    return float(str(row["value"]))


def _seed(found: Found, model: str) -> object:
    """The mean over seeds where there is one, else the only seed."""
    seeds = [seed for name, seed, metric in found if name == model and metric == MAIN]
    return MEAN if MEAN in seeds else seeds[0]


def _seeds(found: Found, model: str) -> str:
    """Each seed's own NDCG@10."""
    own = {
        seed: row for (name, seed, metric), row in found.items() if name == model and metric == MAIN and seed != MEAN
    }
    return "" if len(own) < 2 else ", ".join(f"{seed}: {_cell(row)}" for seed, row in sorted(own.items(), key=str))


def _cell(row: HistoryRow | None) -> str:
    if row is None:
        return "–"
    value = _value(row)
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _metric_title(metric: str) -> str:
    return metric.upper()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
