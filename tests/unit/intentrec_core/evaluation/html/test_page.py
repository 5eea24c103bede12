"""The report: sound HTML, the numbers of the JSON, and nothing of a catalogue that becomes markup or a request."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from intentrec_core.evaluation.attention_examples import AttendedPlay, AttentionExample, IntentAtPlay
from intentrec_core.evaluation.html.charts import Series, line_chart
from intentrec_core.evaluation.html.elements import element, style_sheet, text
from intentrec_core.evaluation.html.page import report_page
from intentrec_core.evaluation.intent_map import IntentCluster, IntentMap, TypicalItem, TypicalLabel
from intentrec_core.evaluation.results import (
    Above,
    CalibrationBin,
    DataFacts,
    EpochPoint,
    Evaluation,
    Figure,
    Freshness,
    HeadResult,
    RowResult,
    SeedRun,
    TaskFacts,
)

EVIL = "<script>alert('x')</script><img src=//evil.example/x onerror=\"go()\">"
ASKED = TaskFacts(1234, 56, 7, 8, 1_700_000_000_000, 1_700_900_000_000)


def metrics(value: float) -> dict[str, Figure]:
    named = ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr", "ndcg@10, new items", "hr@10, new items")
    found = {name: Figure(value + 0.01 * i, value, value + 0.02 * i + 0.01) for i, name in enumerate(named)}
    return found | {"coverage@10": Figure(0.25)}


def evaluation(title: str = "a world", by: tuple[float, float, float] = (0.1234, 0.012, 0.3)) -> Evaluation:
    run = SeedRun(
        0, {"ndcg@10": 0.14}, 2, (EpochPoint(1, 7.5, 0.1), EpochPoint(2, 6.5, 0.14), EpochPoint(3, 6.0, 0.12))
    )
    head = HeadResult("genre", 1200, True, 0.51, 0.2345, 0.0678, -0.0321, (CalibrationBin(40, 0.3, 0.4),))
    above = Above(Figure(*by), 0.0321)
    ours = RowResult("IntentRec", "ours", metrics(0.1), {}, "epoch 2 of 3", (run,), (head,))
    other = RowResult(
        "Markov", "counts", metrics(0.05), {"ndcg@10": above}, "lags 5", (SeedRun(0, {"ndcg@10": 0.09}, None, ()),), ()
    )
    data = DataFacts(title, "video", "0123456789ab", 9_999, 77, 555)
    return Evaluation(data, "temporal, last 30%", ASKED, ASKED, 555, True, True, (ours, other))


def intent_map(title: str = "Heat") -> IntentMap:
    label = TypicalLabel("genre", title, 0.5, 0.2)
    cluster = IntentCluster("Crime", 10, 0.5, (label,), (TypicalItem(title, 4, 2.5),), (0.1, 0.2), (0.1, 0.2, 0.3))
    return IntentMap(
        (cluster, dataclasses.replace(cluster, name="War", center=(1.0, 1.0))), ((0.1, 0.1, 0), (1.0, 0.9, 1)), 0.8, 20
    )


def example(title: str = "Heat") -> AttentionExample:
    intent = IntentAtPlay("genre", 0.6, (("Crime", 0.5), ("War", 0.2)), ("War",))
    plays = (AttendedPlay(title, 0.0, 0.7), AttendedPlay("Alien", 7200.0, 0.2))
    return AttentionExample(title, "Crime", plays, (3, 0.1), (intent,), (title, "Casino"), title, 4.0)


class Reader(HTMLParser):
    """Reads a page: its elements, attributes and texts, and whether every element ends where it should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


def whole_page(title: str = "Heat") -> str:
    fresh = Freshness(
        "By refresh",
        ("never", "daily", "hourly"),
        (("with counts", (Figure(0.1), Figure(None), Figure(0.2, 0.1, 0.3))),),
    )
    return report_page(evaluation(title), intent_map(title), (example(title),), (fresh,))


def test_a_page_is_sound_and_every_link_leads_to_a_section() -> None:
    read = Reader(whole_page())
    links = [str(value) for name, value in read.attributes if name == "href"]
    assert sorted(links) == sorted(f"#{name}" for name in read.ids)
    assert read.ids == ["ranking", "besides", "learning", "intents", "map", "attention", "freshness", "method"]


def test_a_page_asks_for_nothing_and_runs_nothing() -> None:
    """Whatever the titles are: no address, no element and no attribute that loads or runs something."""
    page = whole_page(EVIL)
    read = Reader(page)
    assert {"script", "img", "link", "iframe", "object", "embed", "base", "form", "image", "use"}.isdisjoint(read.tags)
    names = {name for name, _ in read.attributes}
    assert {"src", "srcset", "data", "action", "style", "xlink:href", "background"}.isdisjoint(names)
    assert not [name for name in names if name.startswith("on")]
    sheet = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in sheet
    assert "@import" not in sheet
    assert "default-src 'none'" in [value for name, value in read.attributes if name == "content"][1]
    assert not re.search(r"https?:", page)


def test_the_titles_of_a_catalogue_stay_text() -> None:
    read = Reader(whole_page(EVIL))
    assert EVIL in read.cells
    assert sum(EVIL in words for words in read.texts) >= 6, "of the data set, of items, of members, of labels"


def test_what_a_document_may_not_hold_is_shown_as_such() -> None:
    assert text("a\x00b\x1bc\ud800d\ufffee") == "a\ufffdb\ufffdc\ufffdd\ufffde"
    assert text("“Amélie” & 'co' <b>") == "“Amélie” &amp; &#x27;co&#x27; &lt;b&gt;"
    whole_page("\ud800").encode()


def test_every_number_of_the_page_is_that_of_the_json() -> None:
    found = evaluation()
    cells = Reader(report_page(found)).cells
    for row in found.to_dict()["rows"]:
        for figure in row["metrics"].values():
            assert f"{figure['value']:.4f}" in cells
        assert f"{row['metrics']['ndcg@10']['low']:.4f} to {row['metrics']['ndcg@10']['high']:.4f}" in cells
        for above in row["above"].values():
            assert "+12.3% (+1.2% to +30.0%)" in cells
            assert f"{above['p']:.3f}" in cells
        for head in row["heads"]:
            for name in ("accuracy", "macro_f1", "ece", "skill"):
                assert f"{head[name]:.4f}" in cells


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ((0.1234, 0.012, 0.3), "IntentRec is better by 12.3%"),
        ((0.05, -0.2, 0.3), "no clear difference"),
        ((-0.2, -0.3, -0.1), "IntentRec is worse by 20.0%"),
    ],
)
def test_the_verdict_says_what_the_interval_says(by: tuple[float, float, float], words: str) -> None:
    assert words in Reader(report_page(evaluation(by=by))).texts


def test_parts_that_are_not_there_have_no_section() -> None:
    found = evaluation()
    ours = dataclasses.replace(found.rows[0], heads=(), seeds=(SeedRun(0, {"ndcg@10": 0.1}, None, ()),))
    bare = dataclasses.replace(found, rows=(ours,), validation=None)
    read = Reader(report_page(bare))
    assert read.ids == ["ranking", "besides", "method"]
    assert "nothing was chosen" in " ".join(read.texts)


@pytest.mark.parametrize("attribute", ["onclick", "src", "style", "srcset", "action"])
def test_an_element_that_loads_or_runs_something_cannot_be_made(attribute: str) -> None:
    with pytest.raises(ValueError, match="load and run nothing"):
        element("p", "x", **{attribute: "y"})


def test_a_link_or_a_style_sheet_that_leads_out_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="places in the page"):
        element("a", "x", href="//evil.example")
    for css in ("a { background: url(x) }", "@import 'x';", "</style><script>"):
        with pytest.raises(ValueError, match="loads nothing"):
            style_sheet(css)


@pytest.mark.parametrize("values", [(None, None), (0.1, 0.1), (0.1, None), (-3.0, 1e6)])
def test_a_chart_takes_whatever_there_is(values: tuple[float | None, ...]) -> None:
    chart = line_chart([Series("x", [Figure(value) for value in values])], ["a", "b"], "chart", x_title="x")
    assert Reader(chart).tags[0] == "svg"
    assert "nan" not in chart
    assert chart.count("<circle") == sum(value is not None for value in values)


def test_intervals_of_one_place_do_not_cover_each_other() -> None:
    lines = [Series(f"model {i}", [Figure(0.2, 0.1, 0.3), Figure(0.3, 0.2, 0.4)]) for i in range(9)]
    chart = line_chart(lines, ["every play", "never"], "chart", x_title="older")
    across = sorted(float(x) for x in re.findall(r'<line x1="([\d.]+)"[^>]*class="whisker', chart))
    assert len(across) == 18
    assert min(right - left for left, right in pairwise(across)) >= 2.9
    assert across[0] >= 52, "right of the labels"
    assert across[-1] <= 348
