"""Each play is compared with the member's previous prediction: the counts equal those from the published messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intentrec_core.domain.toml import load_domain
from intentrec_core.engine.member_key import MemberKey
from stream.bundles.serving import Serving
from stream.ops.metrics import Metrics
from stream.pipeline.live_quality.predictions import LastPredictions, Predictions, PredictionTracker
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.faulty_encoder import faulty
from tests.worlds.pipeline_results import intents, lists, run
from tests.worlds.tiny_world import TinyWorld


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def many_plays() -> PlayLog:
    log = PlayLog()
    for i in range(120):
        log.play(f"user-{i % 4}", (i * i) % 33, 400.0 * i, duration_s=(20.0, 90.0, 900.0)[i % 3])
    return log


@pytest.mark.parametrize("batch", [1, 7, 120])
def test_counts_equal_those_from_the_published_messages(serving: Serving, batch: int) -> None:
    pipeline, log = make_pipeline(serving), many_plays()
    results = [run(pipeline, log.records[low : low + batch]) for low in range(0, 120, batch)]
    answers = [a for result in results for a in lists(result)]
    guesses = [a for result in results for a in intents(result)]
    plays = hits = 0
    reciprocal = 0.0
    genres = right = 0
    for i in range(4, 120):
        item_id = f"item-{(i * i) % 33}"
        listed = [item.item_id for item in answers[i - 4].items]
        plays += 1
        hits += item_id in listed
        reciprocal += 1 / (1 + listed.index(item_id)) if item_id in listed else 0
        row = serving.vocabulary.row(item_id)
        labels = guesses[i - 4].intents["genre"]
        observed = serving.items.multi["genre"][row]
        genres += bool(observed.any())
        right += bool(observed[list(labels).index(max(labels, key=lambda label: labels[label]))])
    sample = pipeline.metrics.registry.get_sample_value
    bundle = {"bundle": serving.version}
    assert sample("intentrec_judged_plays_total", bundle) == plays
    assert sample("intentrec_judged_hits_total", bundle) == hits > 0
    assert sample("intentrec_judged_reciprocal_ranks_total", bundle) == pytest.approx(reciprocal)
    assert sample("intentrec_judged_intents_total", bundle | {"head": "genre"}) == genres
    assert sample("intentrec_judged_intents_right_total", bundle | {"head": "genre"}) == right > 0


def test_counts_are_kept_by_partition(serving: Serving) -> None:
    pipeline, logs = make_pipeline(serving, num_partitions=2, plays_partitioner="any"), (PlayLog(0), PlayLog(1))
    pipeline.open_partition(1, {})
    for log, num_plays in zip(logs, (3, 5), strict=True):
        for i in range(num_plays):
            log.play("ann", i % 2, 100.0 * i)
    sample = pipeline.metrics.registry.get_sample_value
    results = pipeline.process({log.partition: log.records for log in logs})
    seen = []
    for result in results:
        result.counts.count()
        judged = sample("intentrec_judged_plays_total", {"bundle": serving.version})
        genres = sample("intentrec_judged_intents_total", {"bundle": serving.version, "head": "genre"})
        seen.append((sample("intentrec_plays_total", {"outcome": "applied"}), judged, genres))
    assert seen == [(3, 2, 2), (8, 6, 6)]


def test_labels_of_rules_and_of_the_event_are_observed_too(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    log.play("ann", 1, 0)
    log.play("ann", 1, 100, duration_s=900.0)  # a later contact, a long play
    guess = intents(run(pipeline, log.records))[0].intents
    sample = pipeline.metrics.registry.get_sample_value
    for head, observed in (("action", "continue"), ("length", "600 and over")):
        labels = {"bundle": serving.version, "head": head}
        assert sample("intentrec_judged_intents_total", labels) == 1
        was_right = max(guess[head], key=lambda label: guess[head][label]) == observed
        assert sample("intentrec_judged_intents_right_total", labels) == was_right


def test_late_and_replayed_plays_are_not_scored(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    run(pipeline, [log.play("ann", i, 100.0 * i) for i in range(3)])
    run(pipeline, [log.play("ann", 8, 50)])
    run(pipeline, log.records)
    labels = {"bundle": serving.version}
    assert pipeline.metrics.registry.get_sample_value("intentrec_judged_plays_total", labels) == 2


def test_the_popular_reference_uses_earlier_plays_only(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1), popularity=[0.0] * 31)
    pipeline, log = make_pipeline(serving), PlayLog()
    for i in range(30):
        run(pipeline, [log.play(f"user-{i % 3}", 5 if i // 3 == 9 else i // 3, 100.0 * i)])
    labels = {"bundle": serving.version}
    # from the second round on, the first member plays a new item, and the two others one that is popular by then
    assert pipeline.metrics.registry.get_sample_value("intentrec_judged_plays_total", labels) == 27
    hits = pipeline.metrics.registry.get_sample_value("intentrec_judged_popular_hits_total", labels)
    assert hits == 16  # 8 waves of 2; in the last one all three see an item they have watched


def test_the_markov_reference_uses_earlier_plays_only(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1), popularity=[0.0] * 31)
    pipeline, log = make_pipeline(serving), PlayLog()
    # Every member plays 0, 1, 2 …, one member after another: nothing follows the first plays yet, the others are known.
    for user in range(3):
        for i in range(6):
            run(pipeline, [log.play(f"user-{user}", i, 1_000.0 * user + 100.0 * i)])
    sample = pipeline.metrics.registry.get_sample_value
    labels = {"bundle": serving.version}
    assert sample("intentrec_judged_plays_total", labels) == 15
    assert sample("intentrec_judged_markov_hits_total", labels) == 10


def test_the_markov_reference_learns_the_whole_context_of_a_member_who_is_new_to_the_worker(
    world: TinyWorld, tmp_path: Path
) -> None:
    serving = make_serving(tmp_path, world, world.model(1), popularity=[0.0] * 31)
    before, log = make_pipeline(serving), PlayLog()
    run(before, [log.play("ann", i, 100.0 * i) for i in range(6)])
    history = before.history(0, "ann")
    assert history is not None
    restored = make_pipeline(serving)
    restored.close_partition(0)
    restored.open_partition(0, {"ann": history})
    run(restored, [log.play("ann", 6, 600)])
    for i in range(7):
        run(restored, [log.play("bob", i, 1_000 + 100.0 * i)])
    sample = restored.metrics.registry.get_sample_value
    labels = {"bundle": serving.version}
    assert sample("intentrec_judged_plays_total", labels) == 6
    assert sample("intentrec_judged_markov_hits_total", labels) == 6


def test_kept_predictions_are_bounded_and_the_oldest_are_dropped() -> None:
    last = LastPredictions(num_heads=2, max_members=3)
    for i, member in enumerate(["a", "b", "c", "d"]):
        made = Predictions.empty(1, 2)
        made.items[:], made.bundle[:] = i, 0
        last.keep([member], made)
    assert len(last) == 3
    found = last.find(["a", "b", "d", "e"])
    assert found.bundle.tolist() == [-1, 0, 0, -1]
    assert found.items[:, 0].tolist()[1:3] == [1, 3]
    last.forget("b")
    last.forget("unknown")
    assert last.find(["b"]).bundle.tolist() == [-1]
    for member in "efghij":
        last.keep([member], Predictions.empty(1, 2))
    assert len(last) == 3


def test_predictions_grow_with_the_members() -> None:
    last = LastPredictions(num_heads=1)
    members = [f"m{i}" for i in range(3000)]
    made = Predictions.empty(3000, 1)
    made.items[:, 0], made.bundle[:] = np.arange(3000), 0
    last.keep(members, made)
    assert last.find(members).items[:, 0].tolist() == list(range(3000))


def test_a_play_that_could_not_be_encoded_leaves_no_prediction(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving), PlayLog()
    log.play("ann", 3, 0)
    log.play("ann", 4, 100)
    log.play("ben", 5, 100)
    row = serving.vocabulary.row("item-3")

    with faulty(serving, raises=lambda rows, _: bool((rows == row).any())):
        result = run(pipeline, log.records)
    assert [o.kind for o in result.outputs].count(OutputKind.DEAD_LETTER) == 2
    labels = {"bundle": serving.version}
    assert pipeline.metrics.registry.get_sample_value("intentrec_judged_plays_total", labels) == 0


def test_a_bundle_keeps_its_number_as_long_as_a_prediction_of_it_is_kept() -> None:
    tracker = PredictionTracker(load_domain("movielens"), Metrics())
    first = tracker.bundle_number("b-first")
    predictions = Predictions.empty(1, len(load_domain("movielens").heads))
    predictions.bundle[:] = first
    tracker._last.keep([MemberKey(0, "ann")], predictions)
    numbers = [tracker.bundle_number(f"b-{number}") for number in range(100)]
    assert len({first, *numbers}) == 101
    assert tracker.bundle_number("b-first") == first
    assert len(tracker._bundles) <= 3, "versions without a prediction are dropped"
