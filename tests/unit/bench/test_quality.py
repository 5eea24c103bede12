"""The quality table: what a run is kept under, what is resumed, and what the history and the document say of it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from intentrec_core.baselines.popularity import WEEK_S
from intentrec_core.domain.toml import domain_text, load_domain
from intentrec_core.evaluation.protocols import Protocol, streaming, temporal
from intentrec_core.evaluation.rankers import PopularityRanker, Ranked, ranks_alone
from tests.bench import report
from tests.bench.quality import __main__ as command
from tests.bench.quality import document, figures, runs
from tests.bench.quality.data_sets import (
    DATA_SETS,
    QUICK,
    QUICK_ITEMS,
    QUICK_MEMBERS,
    QUICK_PLAYS,
    WORLD_ITEMS,
    WORLD_MEMBERS,
    WORLD_PLAYS,
    Loaded,
    Measured,
    digest,
    world_plays,
)
from tests.bench.quality.freshness import freshness_rows
from tests.bench.quality.neural import neural_rows
from tests.bench.quality.plan import all_rows
from tests.bench.quality.published import published
from tests.bench.quality.rows import Answers, Row, popularity_rows
from tests.bench.quality.runs import ASKED, Runs, code_hash, meaning, own_code_hash, row_hash, run_key
from tests.bench.quality.same_answers import compared

SMALL = dataclasses.replace(QUICK[0], load=lambda _: world_plays(1_500, 60, 120), protocols=QUICK[0].protocols[:1])


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return SMALL.loaded(None)


@pytest.fixture(scope="module")
def protocol(loaded: Loaded) -> Protocol:
    return SMALL.protocols[0](loaded.data)


def test_a_run_is_named_by_everything_that_decides_it(loaded: Loaded, protocol: Protocol) -> None:
    row = popularity_rows()[0]
    trained, threads = dataclasses.replace(row, is_trained=True), torch.get_num_threads()

    def with_task(**changes: Any) -> Protocol:
        return dataclasses.replace(protocol, test=dataclasses.replace(protocol.test, **changes))

    data = protocol.test.data
    keys = [
        run_key(loaded, protocol, row, 0),
        run_key(loaded, protocol, row, 1),
        run_key(loaded, protocol, trained, 0),
        run_key(loaded, with_task(learned=protocol.test.learned + 1), row, 0),
        run_key(loaded, with_task(live=protocol.test.live + 1), row, 0),
        run_key(loaded, with_task(now_s=protocol.test.now_s + 1), row, 0),
        run_key(loaded, with_task(countable=protocol.test.countable + 1), row, 0),
        run_key(loaded, with_task(learnable=~protocol.test.learnable), row, 0),
        run_key(loaded, dataclasses.replace(protocol, test=protocol.validation), row, 0),
        run_key(dataclasses.replace(loaded, data=dataclasses.replace(data, hides_history=True)), protocol, row, 0),
        run_key(dataclasses.replace(loaded, data=dataclasses.replace(data, universe=~data.universe)), protocol, row, 0),
        run_key(dataclasses.replace(loaded, domain="movielens"), protocol, row, 0),
        run_key(loaded, protocol, dataclasses.replace(row, configuration="other"), 0),
        run_key(loaded, protocol, dataclasses.replace(row, code=("tests/bench/bars.py",)), 0),
        run_key(dataclasses.replace(loaded, digest="other"), protocol, row, 0),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == run_key(loaded, protocol, row, 0)
    try:
        torch.set_num_threads(threads + 1)
        assert run_key(loaded, protocol, trained, 0) not in keys
        assert run_key(loaded, protocol, row, 0) == keys[0]
    finally:
        torch.set_num_threads(threads)


def test_a_run_does_not_depend_on_what_the_domain_declares_for_a_first_model(
    loaded: Loaded, protocol: Protocol, tmp_path: Path
) -> None:
    keys = []
    for epochs in (1, 2):
        path = tmp_path / f"{epochs}.toml"
        text = re.sub(r"^epochs = \d+", f"epochs = {epochs}", domain_text(SMALL.domain), flags=re.M)
        path.write_text(text, "utf-8")
        assert load_domain(path).first_model.epochs == epochs
        keys.append(run_key(dataclasses.replace(loaded, domain=str(path)), protocol, neural_rows()[0], 0))
    assert keys[0] == keys[1] == run_key(loaded, protocol, neural_rows()[0], 0)


def test_two_streams_that_begin_elsewhere_are_two_runs(loaded: Loaded) -> None:
    """Their protocols have the same name."""
    one, two = (streaming(loaded.data, refresh_plays=100, first_ratio=ratio) for ratio in (0.6, 0.7))
    assert one.name == two.name
    assert run_key(loaded, one, popularity_rows()[0], 0) != run_key(loaded, two, popularity_rows()[0], 0)


def test_one_trained_run_answers_whether_the_time_of_a_target_is_known_or_not(loaded: Loaded) -> None:
    known, unknown = (temporal(loaded.data, test_ratio=0.3, knows_time=knows) for knows in (True, False))
    popular = popularity_rows()[0]
    trained = dataclasses.replace(popular, is_trained=True)
    assert run_key(loaded, known, trained, 0) == run_key(loaded, unknown, trained, 0)
    assert run_key(loaded, known, popular, 0) != run_key(loaded, unknown, popular, 0)


def test_a_comment_makes_no_new_run_and_a_changed_line_does() -> None:
    source = 'def f(x):\n    """What it does."""\n    return x + 1\n'
    assert meaning(source) == meaning('def f(x):\n    """Otherwise said."""\n    # why\n    return (x + 1)\n')
    assert meaning(source) != meaning(source.replace("+ 1", "+ 2"))
    assert code_hash(("tests/bench/bars.py",)) != code_hash(("tests/bench/rates.py",))


def test_code_that_was_seen_to_answer_as_before_keeps_the_figures_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = popularity_rows()[0]
    before, changed = row_hash(row), dataclasses.replace(row, code=("tests/bench/bars.py",))
    assert row_hash(changed) != before
    (tmp_path / "same.json").write_text(json.dumps({own_code_hash(changed.code): code_hash(row.code)}))
    monkeypatch.setattr(runs, "SAME_ANSWERS", tmp_path / "same.json")
    try:
        for cached in (runs.code_hash, runs._same_answers):
            cached.cache_clear()
        assert row_hash(changed) == before
    finally:
        monkeypatch.undo()
        for cached in (runs.code_hash, runs._same_answers):
            cached.cache_clear()


def test_code_answers_as_before_only_where_every_row_of_it_does(tmp_path: Path) -> None:
    """To the bit: ranks, lists, heads and the note."""
    before, now = Runs(tmp_path / "before"), Runs(tmp_path / "now")
    ranks, listed = np.array([1.0, np.nan]), np.zeros((2, 20), dtype=np.int64)
    one = Answers(Ranked(ranks, listed), "10 weights", {})
    for folder in (before, now):
        folder.keep("same", one)
        folder.keep("other", one)
    now.keep("changed", one)
    for kept_before in (
        dataclasses.replace(one, note="11 weights"),
        dataclasses.replace(one, ranked=Ranked(np.nextafter(ranks, 9.0), listed)),
        dataclasses.replace(one, ranked=Ranked(ranks, listed + 1)),
    ):
        before.keep("changed", kept_before)
        of_before = {"same": ("A", "a0"), "other": ("B", "b0"), "changed": ("C", "b0"), "gone": ("D", "d0")}
        of_now = {"same": ("A", "a1"), "other": ("B", "b1"), "changed": ("C", "b1"), "new": ("E", "e1")}
        assert compared(before.folder, of_before, now.folder, of_now) == ({"a1": "a0"}, ["C"])
    before.keep("changed", one)
    assert compared(before.folder, of_before, now.folder, of_now) == ({"a1": "a0", "b1": "b0"}, [])


def test_the_data_are_named_by_every_value() -> None:
    plays, catalogue = SMALL.load(None)
    assert digest(plays, catalogue) == digest(*SMALL.load(None))
    assert digest(plays.slice(1), catalogue) != digest(plays, catalogue)
    one, other = (world_plays(200, 60, 120, informative=informative) for informative in (True, False))
    assert digest(*one) != digest(*other)


@pytest.mark.parametrize(
    ("plays", "members", "items", "informative", "expected"),
    [
        (WORLD_PLAYS, WORLD_MEMBERS, WORLD_ITEMS, True, "2b2e6f74db55"),
        (QUICK_PLAYS, QUICK_MEMBERS, QUICK_ITEMS, True, "ca48d5cfe894"),
        (QUICK_PLAYS, QUICK_MEMBERS, QUICK_ITEMS, False, "bcc8d4b12557"),
    ],
)
def test_the_simulated_world_is_never_changed(
    plays: int, members: int, items: int, informative: bool, expected: str
) -> None:
    """A figure of one world says nothing of another: a changed simulation is a new world beside this one."""
    assert digest(*world_plays(plays, members, items, informative=informative)) == expected


def test_a_kept_run_is_read_as_it_was_and_half_a_file_is_none(
    loaded: Loaded, protocol: Protocol, tmp_path: Path
) -> None:
    runs, row = Runs(tmp_path), popularity_rows()[1]
    answers = row.answer(SMALL, loaded, protocol, 0)
    runs.keep("key", dataclasses.replace(answers, note="chosen"))
    found = runs.read("key", len(protocol.test))
    assert found is not None
    assert found.note == "chosen"
    np.testing.assert_array_equal(found.ranked.ranks, answers.ranked.ranks)
    np.testing.assert_array_equal(found.ranked.listed, answers.ranked.listed)
    assert runs.read("key", len(protocol.test) + 1) is None
    whole = runs.path("key").read_bytes()
    runs.path("key").write_bytes(whole[: len(whole) // 2])
    assert runs.read("key", len(protocol.test)) is None
    assert runs.read("never made", len(protocol.test)) is None


@pytest.fixture
def kept(measure_alone: Callable[[Measured], Path]) -> Path:
    """The history of the command, which measures the small world alone."""
    return measure_alone(SMALL)


def rows_of(history: Path) -> list[dict[str, object]]:
    """What rows of the table gave; what was asked stands in the history too."""
    return [row for row in map(json.loads, history.read_text().splitlines()) if row["model"] != ASKED]


def test_the_document_says_what_is_asked_and_ranked(kept: Path, loaded: Loaded, protocol: Protocol) -> None:
    command.main(["--rows", "popular, 1 day"])
    rows = [json.loads(line) | {"data": "world"} for line in kept.read_text().splitlines()]
    (said,) = [line for line in document.tables(rows) if line.startswith("Asked: ")]
    members = len(np.unique(protocol.test.targets.member))
    assert said.startswith(f"Asked: {len(protocol.test):,} plays of {members:,} members; ")
    assert f"Ranked: {int(loaded.data.universe.sum()):,} items" in said
    assert said.endswith(f"Validation: {len(protocol.validation):,} plays.")


def test_a_second_sitting_runs_what_the_first_left_and_writes_no_row_twice(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--rows", "popular, 1 day"]) == 0
    first = kept.read_text()
    assert {row["model"] for row in rows_of(kept)} == {"popular, 1 day"}
    assert command.main(["--rows", "popular"]) == 0
    assert kept.read_text().startswith(first)
    assert {row["model"] for row in rows_of(kept)} == {row.name for row in popularity_rows()}
    everything = kept.read_text()
    assert command.main(["--rows", "popular", "--finished"]) == 0
    assert kept.read_text() == everything
    assert "NDCG@10" in capsys.readouterr().out


def test_figures_of_the_history_are_those_of_the_ranks(kept: Path, loaded: Loaded, protocol: Protocol) -> None:
    command.main(["--rows", "popular, 7 days"])
    found = {row["metric"]: row for row in rows_of(kept)}
    ranks = ranks_alone(PopularityRanker(WEEK_S), protocol.test)
    assert found["mrr"]["value"] == pytest.approx((1 / ranks).mean(), abs=1e-6)
    assert found["hr@10"]["value"] == pytest.approx((ranks <= 10).mean(), abs=1e-6)
    assert float(str(found["mrr"]["low"])) < float(str(found["mrr"]["value"])) < float(str(found["mrr"]["high"]))
    assert {row["data_hash"] for row in found.values()} == {loaded.digest}


def test_a_data_set_that_is_not_there_is_skipped_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "HISTORY_FILE", tmp_path / "quality.jsonl")
    (tmp_path / "quality.jsonl").write_text("")
    assert command.main(["--only", "beauty", "--only", "movietweetings", "--data-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("skipped") == 2
    assert "MovieTweetings" in out
    assert "Beauty" in out


def test_the_document_names_what_was_not_run(kept: Path) -> None:
    command.main(["--rows", "popular, 1 day"])
    rows = [row | {"data": "world"} for row in rows_of(kept)]
    text = "\n".join(document.tables(rows))
    assert "| popular, 1 day |" in text
    line = next(line for line in text.splitlines() if line.startswith("Not run with today's code: "))
    assert "popular, 7 days" in line
    assert "popular, 1 day" not in line
    assert text.count("\nNot run with today's code.") == len(DATA_SETS) - 1


def test_a_figure_does_not_outlive_the_code_that_gave_it(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other code writes its figures beside the old ones, and the document shows those of today's code alone."""
    monkeypatch.setattr(document, "DATA_SETS", (SMALL,))
    command.main(["--rows", "popular, 1 day"])
    before = rows_of(kept)
    assert "| popular, 1 day |" in "\n".join(document.tables(before))
    monkeypatch.setattr("tests.bench.quality.runs.FIGURES_CODE", ("tests/bench/bars.py",))
    assert "| popular, 1 day |" not in "\n".join(document.tables(before))
    command.main(["--rows", "popular, 1 day"])
    assert rows_of(kept)[: len(before)] == before
    assert len(rows_of(kept)) == 2 * len(before)
    assert "| popular, 1 day |" in "\n".join(document.tables(rows_of(kept)))


def test_figures_without_their_code_or_of_other_code_are_not_current() -> None:
    row = popularity_rows()[0]
    code = {row.name: row_hash(row)}
    assert document.is_current({"model": row.name, "code": row_hash(row)}, code)
    assert not document.is_current({"model": row.name}, code)
    assert not document.is_current({"model": row.name, "code": "other"}, code)
    assert not document.is_current({"model": "gone", "code": row_hash(row)}, code)
    pair = {"model": row.name, "other": row.name, "code": figures.pair_hash(row_hash(row), row_hash(row))}
    assert document.is_current(pair, code)
    assert not document.is_current(pair | {"other": "gone"}, code)


def test_a_row_that_ranks_the_wrong_items_is_no_success_of_the_quick_table(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It keeps nothing, and fails for a row whose items are not those that it learned."""

    def wrong(_measured: object, loaded: Loaded, protocol: Protocol, _seed: int) -> Answers:
        found = popularity_rows()[0].answer(SMALL, loaded, protocol, 0)
        return dataclasses.replace(found, ranked=dataclasses.replace(found.ranked, ranks=found.ranked.ranks + 10))

    monkeypatch.setattr(command, "QUICK", (SMALL,))
    monkeypatch.setattr(command, "all_rows", lambda: [popularity_rows()[0]])
    assert command.main(["--quick"]) == 0
    monkeypatch.setattr(command, "all_rows", lambda: [Row("wrong", "", wrong)])
    with pytest.raises(SystemExit, match=r"wrong: NDCG@10 is 0\.0"):
        command.main(["--quick"])
    assert not kept.read_text()


def test_a_run_that_is_made_again_is_written_again(kept: Path) -> None:
    command.main(["--rows", "popular, 1 day"])
    once = len(rows_of(kept))
    command.main(["--rows", "popular, 1 day", "--again"])
    assert len(rows_of(kept)) == 2 * once


def test_seeds_stand_beside_their_mean_and_ours_beside_every_other_with_p(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popular = popularity_rows()[0]

    def noisy(_measured: object, loaded: Loaded, protocol: Protocol, seed: int) -> Answers:
        found = popular.answer(SMALL, loaded, protocol, 0)
        better = np.maximum(1.0, found.ranked.ranks - 3 - seed)
        return dataclasses.replace(found, ranked=dataclasses.replace(found.ranked, ranks=better))

    ours = Row("ours", "", noisy, seeds=(0, 1), is_ours=True)
    monkeypatch.setattr(command, "all_rows", lambda: [popular, ours])
    monkeypatch.setattr(document, "all_rows", lambda: [popular, ours])
    command.main([])
    rows = rows_of(kept)
    by_seed = {
        row["seed"]: float(str(row["value"])) for row in rows if (row["model"], row["metric"]) == ("ours", "ndcg@10")
    }
    assert by_seed[figures.MEAN] == pytest.approx((by_seed[0] + by_seed[1]) / 2, abs=2e-6)
    compared = {row["metric"]: row for row in rows if row.get("other") == "popular, 1 day"}
    assert set(compared) >= {"ndcg@10 above", "mrr above"}
    for metric in ("ndcg@10 above", "mrr above"):
        assert float(str(compared[metric]["value"])) > 0
        assert float(str(compared[metric]["p"])) < 0.05
    text = "\n".join(document.tables([row | {"data": "world"} for row in rows]))
    assert "| ours | NDCG@10 | popular, 1 day | +" in text
    assert "| ours | MRR | popular, 1 day | +" in text
    assert f"0: {by_seed[0]:.4f}, 1: {by_seed[1]:.4f}" in text


def test_every_published_figure_is_in_the_document_with_its_source() -> None:
    text = (report.ROOT / "docs" / report.QUALITY).read_text(encoding="utf-8")
    titles = {measured.name: measured.title for measured in DATA_SETS}
    figures_of_others = published()
    assert len(figures_of_others) == len({(f.data, f.protocol, f.model, f.metric) for f in figures_of_others}) > 20
    for figure in figures_of_others:
        assert re.fullmatch(r"[0-9a-f]{40}", figure.commit)
        assert all(dataclasses.astuple(figure)), figure
        section = text.partition(f"### {titles[figure.data]}")[2].partition("#### Published")[2].partition("\n### ")[0]
        (line,) = [line for line in section.splitlines() if line.startswith(f"| {figure.model} |")]
        assert line.split(" | ")[1 + document.RANKING.index(figure.metric)] == figure.value
        assert figure.link in line


def test_every_row_has_a_name_of_its_own_and_code_that_is_there() -> None:
    rows = [*all_rows(), *freshness_rows()]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(code_hash(row.code)) == 64
