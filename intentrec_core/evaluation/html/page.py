"""The whole report: what was found first, how it was measured last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from intentrec_core.evaluation.attention_examples import AttentionExample
from intentrec_core.evaluation.html import intents as of_intents
from intentrec_core.evaluation.html import ranking as of_lists
from intentrec_core.evaluation.html.elements import Child, Html, document, element, style_sheet
from intentrec_core.evaluation.html.style import CSS
from intentrec_core.evaluation.intent_map import IntentMap
from intentrec_core.evaluation.results import Evaluation, Freshness, TaskFacts

#: A reader's browser loads and runs nothing, even if an element asked for it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_PLACES = {
    "ranking": "Lists",
    "besides": "For whom",
    "learning": "Learning",
    "intents": "Intents",
    "map": "Map",
    "attention": "Attention",
    "freshness": "Freshness",
    "method": "Method",
}


def report_page(
    found: Evaluation,
    intent_map: IntentMap | None = None,
    examples: Sequence[AttentionExample] = (),
    freshness: Sequence[Freshness] = (),
) -> str:
    """The report as one HTML document: it needs no other file, and asks for none."""
    sections = {
        "ranking": of_lists.ranking(found),
        "besides": of_lists.besides(found),
        "learning": of_lists.learning(found),
        "intents": of_intents.heads(found),
        "map": of_intents.intents_on_a_map(intent_map) if intent_map is not None else None,
        "attention": of_intents.looked_at(examples),
        "freshness": of_lists.freshness(freshness),
        "method": _method(found),
    }
    shown = {name: section for name, section in sections.items() if section is not None}
    title = f"How good are the recommendations? {found.data.title}"
    links = [element("a", _PLACES[name], href=f"#{name}") for name in shown]
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("title", title),
            style_sheet(CSS),
        ),
        element(
            "body",
            element(
                "header",
                element("h1", "How good are the recommendations?"),
                element("p", f"IntentRec on {found.data.title}, {_span(found.test)}", class_="soft"),
                of_lists.verdict(found),
                _tiles(found),
                element("nav", links, aria_label="Sections"),
            ),
            element("main", list(shown.values())),
            element(
                "footer",
                element("p", f"Written by intentrec eval. Data {found.data.digest}, domain {found.data.domain}."),
            ),
        ),
        lang="en",
    )
    return document(page)


def _tiles(found: Evaluation) -> Html:
    ours = found.rows[0].metrics
    tiles = (
        (f"{ours['hr@10'].value or 0.0:.1%}", "of next plays on the list of ten (HR@10)"),
        (f"{ours['ndcg@10'].value or 0.0:.4f}", "NDCG@10"),
        (f"{found.test.plays:,}", "plays asked for"),
        (f"{found.test.members:,}", "members"),
        (f"{found.items_ranked:,}", "items ranked, each time"),
    )
    return element(
        "div",
        [element("div", element("strong", value), element("span", words), class_="tile") for value, words in tiles],
        class_="tiles",
    )


def _method(found: Evaluation) -> Html:
    time = "as of that play itself" if found.knows_time else "as of the member's play before it"
    chosen = (
        "nothing was chosen: every epoch was trained, and chains have their plain settings"
        if found.validation is None
        else f"{_span(found.validation)}: {found.validation.plays:,} plays of {found.validation.members:,} members. Epochs "
        "and the settings of chains are chosen there by NDCG@10; the test is asked once"
    )
    terms: list[tuple[str, Child]] = [
        ("Data", f"{found.data.plays:,} plays of {found.data.members:,} members, {found.data.items:,} items"),
        ("Protocol", f"{found.protocol}. Every play that has an earlier play of its member is asked for"),
        ("Test", f"{_span(found.test)}: {found.test.plays:,} plays of {found.test.members:,} members"),
        ("Validation", chosen),
        ("Ranked", f"{found.universe}. No sampled metrics"),
        ("Hidden", found.masking),
        ("Popularity", f"counts stand {time}"),
        ("Intervals", "95 %, members drawn with replacement; both sides of a comparison have the same members"),
        ("HR@k", "how often the item that was played next is among the first k"),
        ("NDCG@k", "the same, where a higher place counts more"),
        ("MRR", "the mean of 1 / place, over the whole list"),
    ]
    choices = [element("li", element("strong", row.name), f": {row.choice}") for row in found.rows if row.choice]
    return element(
        "section",
        element("h2", "How it was measured"),
        element("dl", [[element("dt", term), element("dd", words, ".")] for term, words in terms]),
        element("details", element("summary", "What was chosen, and among how many"), element("ul", choices))
        if choices
        else None,
        id="method",
    )


def _span(task: TaskFacts) -> str:
    first, last = (datetime.fromtimestamp(ms / 1000, UTC).date() for ms in (task.first_ms, task.last_ms))
    return f"{first:%d %b %Y} to {last:%d %b %Y}"
