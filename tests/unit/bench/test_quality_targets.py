"""The table of targets: what is met, what is missed, and that every miss has its reason."""

from __future__ import annotations

import json

import pytest

from tests.bench.quality import targets
from tests.bench.quality.__main__ import HISTORY_FILE
from tests.bench.quality.document import is_current, of_newest_tasks
from tests.bench.quality.figures import MEAN
from tests.bench.quality.plan import all_rows
from tests.bench.quality.runs import row_hash
from tests.bench.quality.targets import Figures, Found, Target

DATA, PROTOCOL, OURS = targets.WORLD, targets.TEMPORAL_30, targets.OURS[targets.WORLD]
BASE = {"data": DATA, "protocol": PROTOCOL}


def own(model: str, value: float, seed: object = 0, metric: str = "ndcg@10", **interval: float) -> dict[str, object]:
    return BASE | {"model": model, "metric": metric, "seed": seed, "value": value, **interval}


def pair(other: str, value: float, p: float) -> dict[str, object]:
    low_high = {"low": value - 0.01, "high": value + 0.01}
    return own(OURS, value, MEAN, "ndcg@10 above", **low_high) | {"other": other, "p": p}


def test_every_target_that_is_missed_has_a_reason() -> None:
    code = {row.name: row_hash(row) for row in all_rows()}
    rows = [row for row in map(json.loads, HISTORY_FILE.read_text("utf-8").splitlines()) if "protocol" in row]
    figures = Figures(of_newest_tasks([row for row in rows if is_current(row, code)]))
    measured = [target for target in targets.TARGETS if target.measure(figures) is not None]
    assert len(measured) > 10
    assert [target.what for target in measured if target.is_missed(figures) and not target.why] == []
    assert len({target.what for target in targets.TARGETS}) == len(targets.TARGETS)


@pytest.mark.parametrize(
    ("found", "at_most", "verdict"),
    [
        (Found("", 0.2), False, "met"),
        (Found("", 0.05), False, "**missed**"),
        (Found("", 0.2, is_certain=False), False, "**missed**"),
        (None, False, "–"),
        (Found("", 0.2), True, "**missed**"),
        (Found("", 0.2, is_certain=False), True, "met"),
        (Found("", 0.05), True, "met"),
    ],
)
def test_a_comparison_has_to_be_certain(found: Found | None, at_most: bool, verdict: str) -> None:
    target = Target("", lambda _: found, 0.1, at_most=at_most)
    assert target.verdict(found, 0.1) == verdict
    assert target.verdict(found, None) == "–"
    assert target.is_missed(Figures([])) == (verdict == "**missed**")


def test_of_several_rows_the_closest_is_shown_and_one_that_is_not_certain_first() -> None:
    rows = [own(name, 0.1) for name in ("popular, 1 day", "Markov, a", "Markov, b")]
    measure = targets._above_all(DATA, PROTOCOL, "popular", "Markov")
    sure = [pair("popular, 1 day", 0.5, 0.001), pair("Markov, a", 0.2, 0.001)]
    found = measure(Figures([*rows, *sure, pair("Markov, b", 0.3, 0.001)]))
    assert found is not None
    assert found.words.startswith("+20.0% over Markov, a")
    found = measure(Figures([*rows, *sure, pair("Markov, b", 0.3, 0.2)]))
    assert found is not None
    assert (found.words[:22], found.is_certain) == ("+30.0% over Markov, b ", False)


def test_rows_that_were_not_resampled_together_are_compared_by_their_intervals() -> None:
    theirs = own("SASRec", 0.2, low=0.19, high=0.21)
    for low, is_certain in ((0.22, True), (0.2, False)):
        ours = own(OURS, 0.3, MEAN, low=low, high=0.4)
        found = Figures([theirs, ours]).above(DATA, PROTOCOL, OURS, "SASRec")
        assert found is not None
        assert (found.words[:6], found.is_certain) == ("+50.0%", is_certain)
    assert Figures([ours]).above(DATA, PROTOCOL, OURS, "SASRec") is None
    assert Figures([ours, own("SASRec", 0.0)]).above(DATA, PROTOCOL, OURS, "SASRec") is None


def test_the_way_to_the_oracle_begins_at_the_best_chain() -> None:
    rows = [
        own("Markov, a", 0.1),
        own("Markov, b", 0.2),
        own(targets.ORACLE, 0.4),
        own(OURS, 0.3, MEAN),
        own(OURS, 0.9),
    ]
    found = targets._way_to_the_oracle(Figures(rows))
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert targets._way_to_the_oracle(Figures(rows[:3])) is None


def test_figures_of_other_tasks_or_data_are_left_out() -> None:
    first = own(OURS, 0.1) | {"data_hash": "a", "tasks": "one"}
    others = [first | {"tasks": "two"}, first | {"data_hash": "b"}, first | {"data_hash": "b", "metric": "mrr"}]
    assert of_newest_tasks([first, *others]) == others[1:]
    assert of_newest_tasks([first, first | {"protocol": "other", "tasks": "two"}])[0] == first


def test_the_newest_figure_counts() -> None:
    assert Figures([own(OURS, 0.1), own(OURS, 0.2)]).of(DATA, PROTOCOL, OURS) == 0.2


def test_the_table_links_its_decisions_and_gives_reasons_below() -> None:
    lines = list(targets.target_lines([]))
    rows = [line for line in lines if line.startswith("| ") and "not run with today's code" in line]
    assert len(rows) == len(targets.TARGETS)
    assert not [line for line in lines if line.startswith("- ")]
    assert "(decisions/0115-a-chain-weighed-on-held-out-plays.md)" in rows[0]
