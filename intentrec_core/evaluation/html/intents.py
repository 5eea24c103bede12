"""The parts of the report about intents: how well they are predicted, what they are, and what the model looked at."""

from __future__ import annotations

from collections.abc import Sequence

from intentrec_core.evaluation.attention_examples import AttentionExample
from intentrec_core.evaluation.html.charts import badge, calibration_chart, cluster_map, share_strip
from intentrec_core.evaluation.html.elements import Child, Html, element, foreign
from intentrec_core.evaluation.html.tables import Column, table
from intentrec_core.evaluation.intent_map import IntentCluster, IntentMap, label_text
from intentrec_core.evaluation.results import Evaluation
from intentrec_core.evaluation.results_text import number


def heads(found: Evaluation) -> Html | None:
    """The section of the intents; None for a model that predicts none."""
    rows = [(row, head) for row in found.rows for head in row.heads]
    if not rows:
        return None
    ours = found.rows[0]
    cells = [
        (
            [
                head.name if row is ours else f"{head.name}, {row.name}",
                f"{head.plays:,}",
                *(number(value) for value in (head.accuracy, head.macro_f1, head.ece, head.skill)),
            ],
            row is ours,
        )
        for row, head in rows
    ]
    columns = [
        Column("Intent", is_number=False),
        Column("Plays"),
        Column("Accuracy"),
        Column("Macro-F1"),
        Column("ECE"),
        Column("Skill"),
    ]
    said = (
        "Before an item is predicted, each intent is. Accuracy: how often its likeliest label was right. Macro-F1: the same, "
        "rare labels counting as much as frequent ones. ECE: how far its probabilities are from what happened; 0 is perfect. "
        "Skill: the share of the errors of “the same as last time” that it avoids; below 0 the last label is the better guess."
    )
    several = [head.name for head in ours.heads if head.has_several_labels]
    pictures = [
        element(
            "figure",
            element("figcaption", head.name),
            calibration_chart(head.bins, f"calibration of {head.name}: ECE {number(head.ece)}"),
        )
        for head in ours.heads
    ]
    parts: list[Child] = [
        element("h2", "How well intents are predicted"),
        element("p", said, class_="soft"),
        table(columns, cells),
    ]
    if pictures:
        parts += [
            element("h3", "Do its probabilities mean what they say?"),
            element(
                "p",
                "Across: how sure it was. Up: how often it was right. On the dashed line both are the same; below it, it was "
                "too sure. A larger dot stands for more plays.",
                f" Plays have several labels of {', '.join(several)}, and any of them is right: its dots lie above the line."
                if several
                else None,
                class_="soft",
            ),
            element("div", pictures, class_="pictures"),
        ]
    return element("section", parts, id="intents")


def intents_on_a_map(found: IntentMap) -> Html:
    """The section of the clusters."""
    rows = []
    for place, cluster in enumerate(found.clusters, start=1):
        items = [[foreign(item.title), f" ({item.times:.1f}\u00a0×)", element("br")] for item in cluster.items[:3]]
        named = element("span", badge(place), element("span", cluster.name), class_="named")
        rows.append(([named, f"{cluster.share:.1%}", _labels(cluster), items or "–"], False))
    columns = [Column("Intent", is_number=False), Column("Plays")]
    columns += [_text("Played next, here (of all)"), _text("Typical items (× as often)")]
    said = (
        f"Each dot is a moment of a member: the intent that the model saw before the next play, {found.num_plays:,} of them in "
        f"{len(found.clusters)} clusters (K-means++). Dots that are near each other are similar intents; the two axes show "
        f"{found.explained:.0%} of the differences. A cluster's name is what its members play next more often than others do."
    )
    return element(
        "section",
        element("h2", "What members want: a map of intents"),
        element("p", said, class_="soft"),
        element(
            "div", cluster_map(found, "a map of the intents, in numbered clusters"), _names(found), class_="pictures"
        ),
        table(columns, rows),
        id="map",
    )


def looked_at(examples: Sequence[AttentionExample]) -> Html | None:
    """The section of the example members; None where there are none."""
    if not examples:
        return None
    said = (
        "A typical moment of each of the largest clusters, whether the model was right there or not. First the plays that the "
        "model knew, newest first, and how much attention each got when it predicted the next one; then what it took the "
        "intent to be. The attention is that of the last layer, as a mean over its heads."
    )
    return element(
        "section",
        element("h2", "What the model looked at"),
        element("p", said, class_="soft"),
        [_example(one) for one in examples],
        id="attention",
    )


def _names(found: IntentMap) -> Html:
    """The clusters beside the map."""
    rows = [
        element("li", badge(place), element("span", element("strong", cluster.name), f" {cluster.share:.0%}"))
        for place, cluster in enumerate(found.clusters, start=1)
    ]
    return element("ul", rows, class_="names")


def _labels(cluster: IntentCluster) -> Child:
    parts = [f"{label_text(one)} {one.share:.0%} ({one.share_of_all:.0%})" for one in cluster.labels[:4]]
    return ", ".join(parts) or "–"


def _example(one: AttentionExample) -> Html:
    top = max((play.attention for play in one.plays), default=1.0)
    plays = []
    for play in one.plays:
        strip = share_strip(play.attention / top if top > 0 else 0.0, f"attention {play.attention:.1%}", width=84)
        plays.append(([foreign(play.title), strip, f"{play.attention:.1%}", _ago(play.seconds_before)], False))
    num, share = one.older
    if num:
        plays.append(([element("em", f"{num} older plays together"), "", f"{share:.1%}", ""], False))
    columns = [
        Column("Play", is_number=False),
        Column("Attention", is_number=False),
        Column(""),
        Column("Earlier by"),
    ]
    hit = "not on the list of all items" if one.rank is None else f"place {one.rank:,.0f} on the list"
    listed = [element("li", foreign(title)) for title in one.listed]
    return element(
        "div",
        element("h3", "Member ", foreign(one.user_id), f": {one.cluster}"),
        element(
            "div",
            element("div", table(columns, plays)),
            element(
                "div",
                table(
                    [
                        Column("Intent", is_number=False),
                        Column("Weight"),
                        _text("Likeliest"),
                        Column("Then", is_number=False),
                    ],
                    [
                        (
                            [
                                intent.head,
                                f"{intent.weight:.0%}",
                                ", ".join(f"{label} {share:.0%}" for label, share in intent.likeliest),
                                ", ".join(intent.observed) or "–",
                            ],
                            False,
                        )
                        for intent in one.intents
                    ],
                ),
                element("h3", "The top of its list"),
                element("ol", listed),
                element("p", element("strong", "Played next: "), foreign(one.next_title), f" ({hit})."),
            ),
            class_="two",
        ),
        class_="example",
    )


def _text(title: str) -> Column:
    return Column(title, is_number=False, is_wide=True)


def _ago(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds <= 0:
        return "–"
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
