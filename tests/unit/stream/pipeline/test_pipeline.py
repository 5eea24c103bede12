"""The pipeline from bytes to bytes, with a real bundle, engine and index."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from intentrec_core.engine.cpu.encoder import CpuEncoder
from intentrec_core.errors import ConfigError
from intentrec_core.history.changelog_codec import Restorer
from stream.bundles.serving import Serving
from stream.pipeline.pipeline import Pipeline, PipelineConfig
from stream.wire.messages import HiddenBy
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.pipeline_results import intents, lists, of_kind, run, state
from tests.worlds.tiny_world import DOMAIN, TinyWorld

MATURITY = {"filter": "at_most maturity"}


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


@pytest.fixture
def pipeline(serving: Serving) -> Pipeline:
    pipeline = make_pipeline(serving)
    for user in serving.engine.cached_members():
        serving.engine.forget(user)
    return pipeline


def test_every_play_is_answered_in_source_order_under_its_own_ids(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i in range(6):
        log.play(("ann", "ben")[i % 2], i, 100.0 * i)
    result = run(pipeline, log.records)
    assert [o.source_offset for o in result.outputs] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [o.key for o in result.outputs[:4]] == [b"ann", b"ann", b"ben", b"ben"]
    assert result.outputs[3].headers[0] == ("intentrec-id", b"plays-0-1-intent")
    assert [a.event_id for a in lists(result)] == [f"event-{i}" for i in range(6)]
    assert {a.bundle for a in lists(result)} == {a.bundle for a in intents(result)} == {pipeline.serving.version}
    assert result.next_offset == 6
    assert result.outcomes.num_applied == result.num_records == 6


def test_a_list_has_the_configured_length_and_titles(serving: Serving) -> None:
    log = PlayLog()
    log.play("ann", 2, 0)
    (answer,) = lists(run(make_pipeline(serving, num_recommendations=3), log.records))
    assert len(answer.items) == 3
    assert all(item.title == f"Title {item.item_id.removeprefix('item-')}" for item in answer.items)
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)


def test_intents_are_distributions_and_weights_sum_to_one(pipeline: Pipeline) -> None:
    log = PlayLog()
    log.play("ann", 2, 0)
    (answer,) = intents(run(pipeline, log.records))
    assert set(answer.intents) == {"action", "length", "genre", "age"}
    for labels in answer.intents.values():
        assert sum(labels.values()) == pytest.approx(1, abs=1e-4)
    assert sum(answer.weights.values()) == pytest.approx(1, abs=1e-4)
    assert answer.primary is not None
    assert answer.primary.head == max(answer.weights, key=lambda head: answer.weights[head])
    assert answer.primary.probability == max(answer.intents[answer.primary.head].values())


def test_a_duplicate_changes_nothing_and_is_not_answered(pipeline: Pipeline) -> None:
    log = PlayLog()
    first = log.play("ann", 1, 0)
    run(pipeline, [first])
    before = bytes(state(pipeline, "ann").events)
    again = log.play("ann", 1, 0, event_id="event-0")
    result = run(pipeline, [again])
    assert (result.outcomes.num_duplicates, result.outputs, result.changelog) == (1, [], {})
    assert state(pipeline, "ann").events == before


def test_a_replayed_play_changes_nothing_and_is_answered_again(pipeline: Pipeline) -> None:
    log = PlayLog()
    records = [log.play("ann", i, 100.0 * i) for i in range(3)]
    first = run(pipeline, records)
    before = bytes(state(pipeline, "ann").events)
    again = run(pipeline, records)
    assert (again.outcomes.num_replayed, again.outcomes.num_applied, again.changelog) == (3, 0, {})
    assert state(pipeline, "ann").events == before
    assert [o.headers for o in again.outputs] == [o.headers for o in first.outputs]
    assert again.outputs[-1] == first.outputs[-1]


def test_a_play_that_is_too_late_goes_to_the_late_plays_unchanged(pipeline: Pipeline) -> None:
    log = PlayLog()
    run(pipeline, [log.play("ann", i, 100.0 * i) for i in range(20)])
    late = log.play("ann", 5, -50_000)
    result = run(pipeline, [late])
    (output,) = result.outputs
    assert result.outcomes.num_late == 1
    assert (output.kind, output.key, output.value) == (OutputKind.LATE, b"ann", late.value)
    assert output.headers[0] == ("intentrec-id", b"plays-0-20-late")
    assert ("intentrec-offset", b"20") in output.headers


def test_malformed_plays_are_dead_lettered_and_their_neighbours_untouched(serving: Serving) -> None:
    log, clean = PlayLog(), PlayLog()
    for i in range(4):
        log.play("ann", i, 100.0 * i, event_id=f"e{i}")
        log.raw((b"{", b"\xff", b"[]", b'{"user_id":"ann"}')[i])
        clean.play("ann", i, 100.0 * i, event_id=f"e{i}")
    result, expected = run(make_pipeline(serving), log.records), run(make_pipeline(serving), clean.records)
    dead_letters = of_kind(result, OutputKind.DEAD_LETTER)
    assert [dead_letter.source_offset for dead_letter in dead_letters] == [1, 3, 5, 7]
    assert [dict(dead_letter.headers)["intentrec-error"] for dead_letter in dead_letters][:2] == [
        b"malformed",
        b"malformed",
    ]
    assert [dead_letter.value for dead_letter in dead_letters] == [log.records[i].value for i in (1, 3, 5, 7)]
    assert [a.items for a in lists(result)] == [a.items for a in lists(expected)]
    assert result.outcomes.num_rejected == 4


def test_a_number_field_that_is_no_number_is_dead_lettered(pipeline: Pipeline) -> None:
    log = PlayLog()
    log.play("ann", 1, 0, context={"max_maturity": "high"})
    (dead_letter,) = run(pipeline, log.records).outputs
    assert dict(dead_letter.headers)["intentrec-error"] == b"invalid_field"
    assert pipeline.history(0, "ann") is None


def test_a_play_in_the_wrong_partition_is_dead_lettered_with_the_remedy(serving: Serving) -> None:
    pipeline, log = make_pipeline(serving, num_partitions=8), PlayLog()
    pipeline.open_partition(0, {})
    for i in range(16):
        log.play(f"user-{i}", i, 100.0 * i)
    result = run(pipeline, log.records)
    assert 0 < result.outcomes.num_applied < 8
    for dead_letter in of_kind(result, OutputKind.DEAD_LETTER):
        assert dict(dead_letter.headers)["intentrec-error"] == b"wrong_partition"
        assert b"murmur2" in dict(dead_letter.headers)["intentrec-detail"]
    anyhow = make_pipeline(serving, num_partitions=8, plays_partitioner="any")
    assert run(anyhow, log.records).outcomes.num_applied == 16


def test_one_user_in_two_partitions_has_two_histories(serving: Serving) -> None:
    pipeline = make_pipeline(serving, num_partitions=2, plays_partitioner="any")
    pipeline.open_partition(1, {})
    logs = PlayLog(0), PlayLog(1)
    for i in range(3):
        logs[0].play("ann", i, 100.0 * i)
        logs[1].play("ann", 9 - i, 100.0 * i)
    first, second = pipeline.process({0: logs[0].records, 1: logs[1].records})
    assert (first.partition, second.partition) == (0, 1)
    assert [a.items for a in lists(first)] != [a.items for a in lists(second)]
    assert len(lists(first)) == len(lists(second)) == 3


def test_members_with_unknown_items_only_get_popular_items_within_their_filters(pipeline: Pipeline) -> None:
    log = PlayLog()
    log.play("new", "never-heard-of", 0, context={"max_maturity": 2})
    (answer,) = lists(run(pipeline, log.records))
    assert answer.fallback == "popular"
    assert len(answer.items) == 10
    table = pipeline.serving.items
    rows = [pipeline.serving.vocabulary.row(item.item_id) for item in answer.items]
    assert (table.number("maturity")[rows] <= 2).all()
    assert pipeline.metrics.registry.get_sample_value("intentrec_fallbacks_total") == 1


def test_one_known_item_in_the_context_is_enough_for_the_model(pipeline: Pipeline) -> None:
    log = PlayLog()
    log.play("ann", 3, 0)
    log.play("ann", "never-heard-of", 50)
    assert [a.fallback for a in lists(run(pipeline, log.records))] == ["none", "none"]


def test_filters_hold_as_of_each_play_of_a_run(pipeline: Pipeline) -> None:
    log = PlayLog()
    limits = [4, 0, 2]
    for i, limit in enumerate(limits):
        log.play("ann", i, 100.0 * i, context={"max_maturity": limit})
    log.play("ann", 5, 400, context={})  # not sent: the last one seen holds
    answers = lists(run(pipeline, log.records))
    maturity = pipeline.serving.items.number("maturity")
    for answer, limit in zip(answers, [*limits, 2], strict=True):
        rows = [pipeline.serving.vocabulary.row(item.item_id) for item in answer.items]
        assert maturity[rows].max() <= limit
        assert rows


def test_a_member_without_the_value_that_a_filter_needs_gets_an_empty_list(pipeline: Pipeline) -> None:
    log = PlayLog()
    log.play("ann", 1, 0, context={})
    (answer,) = lists(run(pipeline, log.records))
    assert answer.items == []
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_short_lists_total") == 1
    assert answer.hidden_by == [HiddenBy("at_most", "maturity", "member_unknown", "max_maturity")]
    assert sample("intentrec_hidden_lists_total", MATURITY | {"reason": "member_unknown"}) == 1
    assert sample("intentrec_hidden_lists_total", MATURITY | {"reason": "no_item"}) == 0


@pytest.mark.parametrize(("item", "fallback"), [(1, "none"), ("never-heard-of", "popular")])
def test_a_list_that_a_filter_empties_says_which_one_also_of_popular_items(
    pipeline: Pipeline, item: int | str, fallback: str
) -> None:
    log = PlayLog()
    log.play("ann", item, 0, context={"max_maturity": -1})
    log.play("ann", item, 9, context={"max_maturity": 4})
    hidden, shown = lists(run(pipeline, log.records))
    assert (hidden.items, hidden.fallback) == ([], fallback)
    assert hidden.hidden_by == [HiddenBy("at_most", "maturity", "no_item", "max_maturity")]
    assert shown.items
    assert shown.hidden_by is msgspec.UNSET
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_hidden_lists_total", MATURITY | {"reason": "no_item"}) == 1


@pytest.mark.parametrize("item", [1, "never-heard-of"])
def test_the_domain_s_default_holds_until_a_play_of_the_member_names_the_value(
    world: TinyWorld, tmp_path: Path, item: int | str
) -> None:
    text = DOMAIN.format(window=world.window) + "default = 1\n"
    pipeline = make_pipeline(make_serving(tmp_path, world, world.model(1), domain_text=text), num_recommendations=30)
    log = PlayLog()
    log.play("ann", item, 0, context={})
    log.play("ben", item, 1, context={"max_maturity": 1})
    log.play("ann", item, 2, context={"max_maturity": 4})
    log.play("ann", item, 3, context={})
    silent, named, said, kept = ({i.item_id for i in answer.items} for answer in lists(run(pipeline, log.records)))
    assert silent == named, "as if the member had sent it"
    assert silent < said
    assert kept == said


def test_watched_items_are_hidden_unless_the_member_is_about_to_continue(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i in range(40):
        log.play(f"user-{i % 5}", (7 * i) % 30, 1000.0 * i)
    result = run(pipeline, log.records)
    watched: dict[str, set[str]] = {}
    hidden = shown = 0
    for record, answer, intent in zip(log.records, lists(result), intents(result), strict=True):
        assert record.value is not None
        own = watched.setdefault(answer.user_id, set())
        own.add(msgspec.json.decode(record.value)["item_id"])
        if intent.intents["action"]["continue"] < 0.5:
            assert not own & {item.item_id for item in answer.items}
            hidden += 1
        else:
            shown += bool(own & {item.item_id for item in answer.items})
    assert hidden
    assert shown


def test_sessions_follow_the_gap_and_say_when_they_open(pipeline: Pipeline) -> None:
    log = PlayLog()
    for at_s in (0, 1000, 1900, 3701, 3702):
        log.play("ann", 1, at_s)
    answers = intents(run(pipeline, log.records))
    assert [a.session_opened for a in answers] == [True, False, False, True, False]
    assert len({a.session_id for a in answers}) == 2
    assert answers[0].session_id == answers[2].session_id != answers[3].session_id


def test_a_session_keeps_its_id_when_its_first_play_has_left_the_context(pipeline: Pipeline) -> None:
    log = PlayLog()
    records = [log.play("ann", i % 9, 60.0 * i) for i in range(40)]
    ids = {a.session_id for a in intents(run(pipeline, records))}
    assert len(ids) == 1


def test_a_shift_is_another_primary_intent_within_a_session(pipeline: Pipeline) -> None:
    log, shifts = PlayLog(), 0
    for i in range(56):  # 7 plays a member: where the anchor moves, the play before is seen in a shorter context
        log.play(f"user-{i // 7}", (11 * i) % 30, 900.0 * i + 2000 * (i // 4), duration_s=(10.0, 300.0, 4e3)[i % 3])
    answers = intents(run(pipeline, log.records))
    for before, now in pairwise(answers):
        assert before.primary is not None
        assert now.primary is not None
        changed = (before.primary.head, before.primary.label) != (now.primary.head, now.primary.label)
        assert now.shifted == (changed and not now.session_opened)
        shifts += now.shifted
    assert 0 < shifts < 40


def test_an_out_of_order_play_is_folded_in_and_answered_from_the_newest(pipeline: Pipeline) -> None:
    log = PlayLog()
    run(pipeline, [log.play("ann", i, 100.0 * i) for i in range(4)])
    late = run(pipeline, [log.play("ann", 9, 150)])
    assert late.outcomes.num_applied == 1
    assert intents(late)[0].session_opened is False
    ordered = make_pipeline(pipeline.serving)
    log2 = PlayLog()
    for item, at_s in ((0, 0), (1, 100), (9, 150), (2, 200), (3, 300)):
        log2.play("ann", item, at_s)
    expected = run(ordered, log2.records)
    assert [i.item_id for i in lists(late)[0].items] == [i.item_id for i in lists(expected)[-1].items]


def test_an_out_of_order_play_before_the_first_of_a_session_opens_it_anew(pipeline: Pipeline) -> None:
    log = PlayLog()
    first = intents(run(pipeline, [log.play("ann", 1, 1000)]))[0]
    late = intents(run(pipeline, [log.play("ann", 2, 500)]))[0]
    assert late.session_opened
    assert late.session_id != first.session_id


@pytest.mark.parametrize("size", [1, 5, 13, 30])
def test_the_changelog_restores_the_state_byte_for_byte_after_every_batch(pipeline: Pipeline, size: int) -> None:
    log, changelog = PlayLog(), dict[bytes, bytes | None]()
    for i in range(90):
        log.play(f"user-{i % 4}", i % 30, 300.0 * i - (2000 if i % 11 == 10 else 0))
    for low in range(0, 90, size):
        changelog.update(run(pipeline, log.records[low : low + size]).changelog)
        restorer = Restorer(pipeline.layout)
        for key, value in changelog.items():
            restorer.feed(key, value)
        histories, _ = restorer.finish()
        assert histories == {user: state(pipeline, user) for user in histories}
    assert len(histories) == 4


@pytest.mark.parametrize(("slot_contexts", "slots", "in_use"), [(1, 12, 4), (3, 12, 6)])
def test_metrics_count_slots_as_whole_contexts(
    world: TinyWorld, serving: Serving, slot_contexts: int, slots: int, in_use: int
) -> None:
    """Four members with a unit each: four slots of one unit, or two of three."""
    num_slots = slots // slot_contexts
    options = {"make_encoder": CpuEncoder, "slot_contexts": slot_contexts}
    engine = world.engine(world.model(1), num_slots=num_slots, version=serving.version, **options)
    assert engine.num_slots == num_slots
    pipeline, log = make_pipeline(replace(serving, engine=engine)), PlayLog()
    run(pipeline, [log.play(f"user-{nth}", nth, 100.0 * nth) for nth in range(4)])
    sample = pipeline.metrics.registry.get_sample_value
    names = ("slots", "slots_used", "members")
    assert [sample(f"intentrec_engine_{name}") for name in names] == [slots, in_use, 4]


def test_a_closed_partition_leaves_nothing_behind(pipeline: Pipeline) -> None:
    log = PlayLog()
    run(pipeline, [log.play("ann", 1, 0)])
    assert pipeline.serving.engine.num_cached == 1
    pipeline.close_partition(0)
    assert pipeline.serving.engine.num_cached == 0
    with pytest.raises(KeyError):
        pipeline.process({0: log.records})
    pipeline.close_partition(0)


def test_plays_are_counted_by_outcome(pipeline: Pipeline) -> None:
    log = PlayLog()
    for i in range(20):
        log.play("ann", i, 100.0 * i)
    log.play("ann", 3, 100.0, event_id="event-19")
    log.play("ann", 3, -10_000)
    log.raw(b"nonsense")
    result = run(pipeline, log.records)
    counts = (
        result.outcomes.num_applied,
        result.outcomes.num_duplicates,
        result.outcomes.num_late,
        result.outcomes.num_rejected,
        result.outcomes.num_replayed,
    )
    assert counts == (20, 1, 1, 1, 0)
    assert sum(counts) == result.num_records
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_plays_consumed_total") == 23
    assert sample("intentrec_plays_total", {"outcome": "applied"}) == 20
    assert sample("intentrec_plays_total", {"outcome": "late"}) == 1
    assert sample("intentrec_plays_rejected_total", {"reason": "malformed"}) == 1
    assert sample("intentrec_members") == 1


@pytest.mark.parametrize("wrong", [{"num_partitions": 0}, {"num_recommendations": 0}, {"beta": -1.0}, {"max_tries": 0}])
def test_a_wrong_configuration_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PipelineConfig(**({"num_partitions": 1} | wrong))


def test_a_bundle_without_the_intent_stage_serves(world: TinyWorld, tmp_path: Path) -> None:
    pipeline, log = make_pipeline(make_serving(tmp_path, world, world.model(3, intent_stage=False))), PlayLog()
    log.play("ann", 1, 0)
    log.play("new", "never-heard-of", 0)
    result = run(pipeline, log.records)
    assert [a.fallback for a in lists(result)] == ["none", "popular"]
    assert intents(result)[0].primary is None
    assert intents(result)[0].intents == {}
