"""The parts of the report about lists: who ranks better, for whom, and how it was learned."""

from __future__ import annotations

from collections.abc import Sequence

from intentrec_core.evaluation.html.charts import Series, interval_strip, line_chart
from intentrec_core.evaluation.html.elements import Child, Html, element
from intentrec_core.evaluation.html.tables import Column, table
from intentrec_core.evaluation.metrics import CUTOFFS
from intentrec_core.evaluation.results import MAIN, Evaluation, Figure, Freshness, RowResult
from intentrec_core.evaluation.results_text import BESIDES, chance, number

_RANKING = (*(f"hr@{k}" for k in CUTOFFS), *(f"ndcg@{k}" for k in CUTOFFS), "mrr")


def verdict(found: Evaluation) -> Html:
    """What the figures say, in sentences."""
    ours, others = found.rows[0], found.rows[1:]
    hits = ours.metrics["hr@10"].value or 0.0
    first = f"The item that a member played next stood on {ours.name}'s list of ten in {hits:.1%} of {found.test.plays:,} cases."
    if not others:
        return element("p", first, class_="lead")
    best = max(others, key=lambda row: row.metrics[MAIN].value or 0.0)
    by, p = best.above[MAIN].by, best.above[MAIN].p
    second = f" The best of the others, “{best.name}”, has it there in {best.metrics['hr@10'].value or 0.0:.1%}."
    third: Child = " It is not known by how much the two differ."
    if by.value is not None and by.low is not None and by.high is not None:
        words, class_ = ("no clear difference", None)
        if by.low > 0:
            words, class_ = (f"{ours.name} is better by {by.value:.1%}", "good")
        elif by.high < 0:
            words, class_ = (f"{ours.name} is worse by {-by.value:.1%}", "bad")
        between = f" (95 % interval {by.low:+.1%} to {by.high:+.1%}, p {chance(p)})"
        third = [
            " By NDCG@10, which counts higher places more: ",
            element("strong", words, class_=class_),
            between,
            ".",
        ]
    return element("p", first, second, third, class_="lead")


def ranking(found: Evaluation) -> Html:
    """The section of all rankers."""
    top = max((row.metrics[MAIN].high or row.metrics[MAIN].value or 0.0 for row in found.rows), default=1.0)
    rows = []
    for place, row in enumerate(found.rows):
        main = row.metrics[MAIN]
        words = f"NDCG@10 of {row.name}: {_interval(main)}"
        strip = interval_strip(main, top, words, is_ours=not place)
        cells: list[Child] = [
            row.name,
            strip,
            number(main.value),
            _bounds(main),
            _value(row, "hr@10"),
            _value(row, "mrr"),
        ]
        rows.append(([*cells, *_lead_of_ours(row)], not place))
    columns = [
        Column(""),
        Column("NDCG@10", is_number=False),
        Column(""),
        Column("95 %"),
        Column("HR@10"),
        Column("MRR"),
    ]
    columns += [Column("IntentRec is above it by"), Column("p")]
    whole = table(
        [Column(""), *(Column(metric.upper()) for metric in _RANKING)],
        [([row.name, *(_value(row, metric) for metric in _RANKING)], not i) for i, row in enumerate(found.rows)],
    )
    return element(
        "section",
        element("h2", "Whose lists are better"),
        element(
            "p",
            "The lines at the ends of the bars are 95 % intervals: where another set of members would put the value.",
            class_="soft",
        ),
        table(columns, rows),
        element("details", element("summary", "Every metric"), whole),
        _seeds(found),
        id="ranking",
    )


def besides(found: Evaluation) -> Html:
    """The section of newcomers, new items and what lists are like."""
    shown = [(m, title) for m, title in BESIDES if any(m in row.metrics for row in found.rows)]
    rows = [([row.name, *(_value(row, metric) for metric, _ in shown)], not i) for i, row in enumerate(found.rows)]
    test = found.test
    said = (
        f"{test.plays_of_new_members:,} of the {test.plays:,} plays are of members of whom nothing was learned, "
        f"{test.plays_of_new_items:,} are of items that were not played in anything learned. Members and new items: NDCG@10, for "
        "new items HR@10 too. Coverage: the share of all items that stand on some list of ten. Diversity: how unlike the items "
        "of a list are, 0 to 1. Popularity: how popular the listed items are beside the ones that were played; 1 is no bias."
    )
    return element(
        "section",
        element("h2", "For whom, and how varied"),
        element("p", said, class_="soft"),
        table([Column(""), *(Column(title[0].upper() + title[1:]) for _, title in shown)], rows),
        id="besides",
    )


def learning(found: Evaluation) -> Html | None:
    """The section of the learning curves; None where no row was trained here."""
    trained = [row for row in found.rows if any(run.curve for run in row.seeds)]
    if not trained:
        return None
    curves = {row.name: row.seeds[0].curve for row in trained}
    epochs = max(len(curve) for curve in curves.values())
    places = [str(epoch) for epoch in range(1, epochs + 1)]
    validated = [
        Series(name, [Figure(point.value) for point in curve])
        for name, curve in curves.items()
        if any(point.value is not None for point in curve)
    ]
    losses = [Series(name, [Figure(point.loss) for point in curve]) for name, curve in curves.items()]
    chosen = trained[0].seeds[0].epochs
    pictures = []
    if validated:
        marked = chosen - 1 if chosen is not None else None
        chart = line_chart(validated, places, "NDCG@10 on the validation by epoch", x_title="epoch", marked=marked)
        pictures.append(_figure("NDCG@10 on the validation, after each epoch", chart))
    pictures.append(_figure("Loss, mean over the epoch", line_chart(losses, places, "loss by epoch", x_title="epoch")))
    said = (
        f"Training stops once the validation has not improved for some epochs. The epoch chosen for {trained[0].name} is the "
        f"dashed line: {chosen} of {len(curves[trained[0].name])}."
        if validated
        else "No validation was used: the models are those of the last epoch."
    )
    return element(
        "section",
        element("h2", "How it learned"),
        element("p", said, class_="soft"),
        _legend(list(curves)),
        element("div", pictures, class_="pictures"),
        id="learning",
    )


def freshness(curves: Sequence[Freshness]) -> Html | None:
    """The section of quality against age; None where nothing was measured."""
    if not curves:
        return None
    pictures = []
    for one in curves:
        series = [Series(name, figures) for name, figures in one.series]
        pictures.append(
            element(
                "div",
                _legend([name for name, _ in one.series]),
                _figure(one.title, line_chart(series, one.places, one.title, x_title="older →")),
            )
        )
    said = "NDCG@10 when weights or events are older: what it is worth to be up to date."
    return element(
        "section",
        element("h2", "What freshness is worth"),
        element("p", said, class_="soft"),
        element("div", pictures, class_="pictures"),
        id="freshness",
    )


def _legend(names: Sequence[str]) -> Html | None:
    if len(names) < 2:
        return None
    parts = [
        element("span", element("span", class_=f"swatch k{number % 10}"), name, " ")
        for number, name in enumerate(names)
    ]
    return element("p", parts, class_="soft")


def _figure(title: str, picture: Html) -> Html:
    return element("figure", element("figcaption", title), picture)


def _seeds(found: Evaluation) -> Html | None:
    several = [row for row in found.rows if len(row.seeds) > 1]
    if not several:
        return None
    rows = [
        ([row.name, ", ".join(f"{run.seed}: {number(run.metrics[MAIN])}" for run in row.seeds)], False)
        for row in several
    ]
    return element(
        "details",
        element("summary", "NDCG@10 of each seed"),
        table([Column(""), Column("seed: value", is_number=False)], rows),
    )


def _lead_of_ours(row: RowResult) -> list[Child]:
    if MAIN not in row.above:
        return ["", ""]
    by, p = row.above[MAIN].by, row.above[MAIN].p
    if by.value is None:
        return ["–", chance(p)]
    class_ = "good" if (by.low or 0.0) > 0 else "bad" if (by.high or 0.0) < 0 else None
    bounds = f" ({by.low:+.1%} to {by.high:+.1%})" if by.low is not None and by.high is not None else ""
    return [[element("span", f"{by.value:+.1%}", class_=class_), bounds], chance(p)]


def _value(row: RowResult, metric: str) -> str:
    return number(row.metrics.get(metric, Figure(None)).value)


def _interval(figure: Figure) -> str:
    return f"{number(figure.value)}, {_bounds(figure)}"


def _bounds(figure: Figure) -> str:
    return f"{number(figure.low)} to {number(figure.high)}"
