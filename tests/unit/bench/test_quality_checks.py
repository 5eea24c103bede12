"""What the quality table checks of a trained row, and what it says of ceilings, of intents that say nothing and of freshness."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from intentrec_core.evaluation.model_ranks import ScoredByModel
from intentrec_core.evaluation.protocols import Protocol, streaming
from intentrec_core.evaluation.rankers import MarkovRanker, PopularityRanker, rank, ranks_alone
from intentrec_core.evaluation.task import Task, make_task
from intentrec_core.model.config import ModelConfig
from intentrec_core.model.model import IntentRec
from intentrec_core.plays.batches import WindowBatches
from intentrec_core.plays.windows import Windows, windows_of
from tests.bench.quality import __main__ as command
from tests.bench.quality import checks, document, freshness
from tests.bench.quality.data_sets import QUICK, Loaded, Measured, simulated, world_plays
from tests.bench.quality.fair import SASRecWithOwnItems
from tests.bench.quality.neural import without_short_term
from tests.bench.quality.oracle import HIDDEN_INTENT, ORACLE, SeenWorld
from tests.bench.quality.rows import Answers, Row, popularity_rows
from tests.bench.quality.runs import PREFIX

SMALL = dataclasses.replace(
    QUICK[0],
    load=lambda _: world_plays(1_500, 60, 120),
    world=lambda: simulated(1_500, 60, 120),
    protocols=QUICK[0].protocols[:1],
)
CONFIG = ModelConfig(width=8, num_heads=1, intent_width=4, dropout=0.0, own_items=True)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return SMALL.loaded(None)


@pytest.fixture(scope="module")
def protocol(loaded: Loaded) -> Protocol:
    return SMALL.protocols[0](loaded.data)


def untrained(loaded: Loaded, **changes: bool) -> IntentRec:
    torch.manual_seed(0)
    model = IntentRec(dataclasses.replace(CONFIG, **changes), loaded.data.features.domain, loaded.table)
    assert model.own_items is not None
    torch.nn.init.normal_(model.own_items.gate.weight)
    return model


def test_scores_through_the_cache_are_those_of_the_batch(loaded: Loaded) -> None:
    line = checks.incremental_line(untrained(loaded), loaded)
    assert line.startswith("incremental = batch: of ")
    assert checks.through_the_cache(untrained(loaded), loaded).num_scores > 1_000


def test_a_row_with_counts_is_compared_without_them_and_left_as_it_was(loaded: Loaded) -> None:
    model = untrained(loaded, item_counts=True)
    assert checks.incremental_line(model, loaded).startswith("counts left out, incremental = batch: of ")
    assert model.count_gate is not None
    assert model.config.item_counts


def test_a_cache_that_gives_something_else_is_named(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = checks._batch_scores

    def later(model: IntentRec, loaded: Loaded, plays: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The scores of each play are those of the next."""
        found = list(batch(model, loaded, plays))
        return [(play, scores) for (play, _), (_, scores) in zip(found, [*found[1:], found[0]], strict=True)]

    monkeypatch.setattr(checks, "_batch_scores", later)
    assert checks.incremental_line(untrained(loaded), loaded).startswith("incremental IS NOT batch")


def test_a_model_without_a_cache_is_asked_with_contexts_that_end(loaded: Loaded) -> None:
    domain = loaded.data.features.domain
    for build in (SASRecWithOwnItems, without_short_term):
        model = build(dataclasses.replace(CONFIG, intent_stage=False), domain, loaded.table)
        assert checks.incremental_line(model, loaded).startswith("no cache; a context that ends = one that goes on")


def test_the_model_that_is_checked_is_the_one_that_answered(loaded: Loaded) -> None:
    first, last = untrained(loaded), untrained(loaded)
    batch = next(WindowBatches(loaded.data.features, loaded.data.members, all_windows(loaded)).ordered(4))
    with checks.last_model() as seen:
        first(batch.context)
        last(batch.context)
    first(batch.context)
    assert seen == [last]


def all_windows(loaded: Loaded) -> Windows:
    later = np.ones(len(loaded.data.place), dtype=np.bool_)
    later[loaded.data.members.bounds[:-1]] = False
    return windows_of(loaded.data.members, np.flatnonzero(later))


def test_z_is_the_one_before_the_play_and_the_probe_reads_from_it_what_is_there(
    loaded: Loaded, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Z that holds the hidden intent of the next play is read to the last digit, and one that holds another play's is not."""
    model = untrained(loaded)
    plays = protocol.test.targets.play
    z = checks.z_before(model, loaded, plays)
    batches = WindowBatches(loaded.data.features, loaded.data.members, all_windows(loaded))
    found = {}
    with torch.no_grad():
        for batch in batches.ordered(8):
            output = model(batch.context).intent_BTP.numpy()
            for row, window in enumerate(batch.windows.tolist()):
                start, stop = int(batches.windows.start[window]), int(batches.windows.stop[window])
                found |= {start + place + 1: output[row, place] for place in range(stop - start - 1)}
    np.testing.assert_allclose(z, np.stack([found[play] for play in plays.tolist()]), rtol=1e-4, atol=1e-6)

    hidden = SeenWorld(SMALL, loaded).hidden
    told = np.eye(5, dtype=np.float32)[hidden]
    monkeypatch.setattr(checks, "z_before", lambda _model, _loaded, plays: told[plays])
    assert checks.probed(model, SMALL, loaded, protocol)[HIDDEN_INTENT].correct.mean() == 1.0
    monkeypatch.setattr(checks, "z_before", lambda _model, _loaded, plays: told[plays - 1])
    correct = checks.probed(model, SMALL, loaded, protocol)[HIDDEN_INTENT].correct.mean()
    assert 0.3 < correct < 0.9
    assert not checks.probed(model, SMALL, loaded, streaming(loaded.data, refresh_plays=100, first_ratio=0.7))


def history_row(model: str, value: float, **more: object) -> dict[str, object]:
    return {"model": model, "seed": 0, "metric": "ndcg@10", "value": value, **more}


def test_the_share_of_the_way_to_the_oracle_is_from_the_best_chain() -> None:
    values = {"Markov, first order, frozen": 0.1, "Markov, last 5, online": 0.2, "ours": 0.25, ORACLE: 0.3}
    found: document.Found = {(m, 0, "ndcg@10"): history_row(m, v) for m, v in values.items()}
    found |= {(m, 0, f"{HIDDEN_INTENT}: accuracy"): history_row(m, v) for m, v in (("ours", 0.45), (ORACLE, 0.5))}
    _, way, probe = document._ceiling(found, dict.fromkeys(values, 0))
    assert "(Markov, last 5, online, 0.2000) to the oracle (0.3000), NDCG@10: ours 50%." in way
    assert "the oracle 0.5000; by a linear probe on Z ours 0.4500, 90% of it." in probe


@pytest.mark.parametrize(
    ("value", "p", "verdict"),
    [(0.02, 0.4, "no gain: PASS"), (0.02, 0.01, "**a gain: FAIL**"), (-0.02, 0.01, "no gain: PASS")],
)
def test_a_gain_where_intents_say_nothing_fails(value: float, p: float, verdict: str) -> None:
    pair = {"other": document.V1, "p": p, "low": value - 0.01, "high": value + 0.01}
    rows = [history_row(document.V2, value, **pair) | {"metric": f"{metric} above"} for metric in ("ndcg@10", "mrr")]
    lines = list(document._no_gain(rows))[1:]
    assert [line.endswith(f"p = {p:.4f}: {verdict}.") for line in lines] == [True, True]
    assert "not run with today's code" in list(document._no_gain([]))[1]


def test_refreshes_learn_what_was_before_them(loaded: Loaded) -> None:
    base = streaming(loaded.data, refresh_plays=100, first_ratio=0.7).test
    begin, ts_s = int(base.learned.min()), loaded.data.ts_s[base.targets.play]
    in_time = np.sort(loaded.data.ts_s)
    learned = {name: freshness._refreshed(base, interval).learned for name, interval in freshness.REFRESHES.items()}
    assert (learned["refreshed never"] == begin).all()
    hourly, daily = learned["refreshed hourly"], learned["refreshed daily"]
    assert (hourly <= loaded.data.place[base.targets.play]).all()
    assert len(np.unique(hourly)) > len(np.unique(daily)) > 1
    assert (in_time[hourly - 1] <= ts_s).all()
    not_learned = ts_s - in_time[np.minimum(hourly, len(in_time) - 1)]
    assert not_learned.max() < freshness.HOUR_S, "nothing that is older than an hour is left out"
    assert np.array_equal(freshness._refreshed(base, (100, "plays")).learned, base.learned)


def test_counts_of_the_last_refresh_are_the_live_ones_when_everything_was_learned(loaded: Loaded) -> None:
    task = streaming(loaded.data, refresh_plays=100, first_ratio=0.7).test
    stale = freshness.as_of_the_refresh(task)
    assert (stale.live == task.learned).all()
    assert (stale.now_s <= task.now_s).all()
    live, old = (ranks_alone(PopularityRanker(86_400.0), known) for known in (task, stale))
    assert (live != old).any()


@pytest.mark.parametrize("name", list(freshness.LAGS))
def test_a_late_play_is_not_seen_by_the_chain(loaded: Loaded, name: str) -> None:
    """The chain's own scores, with the history cut by hand."""
    base = streaming(loaded.data, refresh_plays=100, first_ratio=0.7)
    asked = freshness._with_earlier_plays(freshness._refreshed(base.test, None))
    protocol = Protocol(f"{PREFIX}{name}", base.validation, asked)
    chain, lag = MarkovRanker(), freshness.LAGS[name]
    ranks = freshness.ranked_late(chain, protocol).ranks
    assert len(asked) > 50
    ts_s, bounds = loaded.data.ts_s, loaded.data.members.bounds
    for i in range(0, len(asked), 25):
        play, member = int(asked.targets.play[i]), int(asked.targets.member[i])
        arrived = [
            other
            for other in range(int(bounds[member]), play)
            if (other < play - lag[0] if lag[1] == "plays" else ts_s[other] <= ts_s[play] - lag[0])
        ]
        assert arrived
        ((which, scores),) = [
            (number, scores)
            for part, late in freshness.late_parts(asked, lag)
            for numbers, scores in chain.scores(late)
            for number in [np.flatnonzero(part[numbers] == i)]
            if len(number)
        ]
        cut = dataclasses.replace(asked, targets=dataclasses.replace(asked.targets, play=np.array([arrived[-1] + 1])))
        ((_, alone),) = chain.scores(one_of(cut, i, lag))
        torch.testing.assert_close(scores[which], alone)
        own = alone[0][1:].numpy()
        score = own[loaded.data.row[play] - 1]
        assert ranks[i] == 1 + (own[loaded.data.universe[1:]] > score).sum() + ((own == score).sum() - 1) / 2


def one_of(task: Task, i: int, lag: tuple[float, str]) -> Task:
    """The task of its i-th target alone, whose play is given."""
    live = task.live[[i]]
    if lag[1] == "s":
        live = np.minimum(live, np.searchsorted(np.sort(task.data.ts_s), task.now_s[i] - lag[0], side="right"))
    return make_task(
        task.data,
        task.targets.play,
        learnable=task.learnable,
        learned=np.minimum(task.learned[[i]], live),
        live=live,
        now_s=task.now_s[[i]],
    )


@pytest.fixture
def fresh_history(measure_alone: Callable[[Measured], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The history of the command, which measures the small world alone, with its freshness."""
    monkeypatch.setattr(freshness, "FIRST_RATIO", {SMALL.name: 0.7})
    return measure_alone(SMALL)


def test_a_lag_has_a_run_of_its_own(fresh_history: Path) -> None:
    command.main(["--rows", "Markov, last 5, live"])
    rows = [json.loads(line) for line in fresh_history.read_text().splitlines()]
    gain = {
        row["protocol"].removeprefix(PREFIX): row["value"]
        for row in rows
        if row["metric"] == "ndcg@10" and "other" not in row
    }
    assert gain["no lag"] > max(gain[f"lag of {lag}"] for lag in ("1 play", "10 plays", "1 hour"))


def test_freshness_is_a_table_of_its_own(fresh_history: Path) -> None:
    command.main(["--rows", "popular, 1 day, "])
    rows = [json.loads(line) | {"data": "world"} for line in fresh_history.read_text().splitlines()]
    text = "\n".join(document.tables(rows))
    (table,) = [part for part in text.split("#### ") if part.startswith("Freshness, NDCG@10") and "live counts" in part]
    live, old = (
        next(line for line in table.splitlines() if line.startswith(f"| popular, 1 day, {kind} |"))
        for kind in ("live counts", "counts of the last refresh")
    )
    cells = live.split(" | ")[1:]
    assert len({cell.removesuffix(" |") for cell in cells}) == 1, "live counts need no refresh"
    assert old.split(" | ")[1:] != cells
    assert "Markov, last 5, as of the refresh" in table.partition("not whole: ")[2]
    assert "#### Freshness, refreshed never" not in text


def test_a_checked_row_says_what_was_checked(loaded: Loaded, protocol: Protocol) -> None:
    model = untrained(loaded)
    popular = popularity_rows()[0]

    def answer(_measured: object, loaded: Loaded, protocol: Protocol, _seed: int) -> Answers:
        found = rank(ScoredByModel(model, loaded.data.features), protocol.test)
        return Answers(found, "trained", {})

    row = checks.checked(Row("ours", "", answer, popular.code, is_trained=True))
    answers = row.answer(SMALL, loaded, protocol, 0)
    assert answers.note.startswith("trained; incremental = batch")
    assert list(answers.heads) == [HIDDEN_INTENT]
