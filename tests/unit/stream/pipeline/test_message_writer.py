"""Messages are written whatever text the labels of a domain are, and none that its topic would refuse."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.engine.reference import recompute
from intentrec_core.history.history import History
from stream.bundles.serving import Serving
from stream.pipeline.message_writer import _by_key, _object
from stream.wire.codec import decode_recommendation
from stream.wire.messages import ClosedSession, IntentLabel
from stream.wire.records import OutputKind, OutputRecord, PartitionResult
from stream.wire.sizes import OVERHEAD_BYTES, TopicLimits
from tests.worlds.bundle_world import PlayLog, Record, count_table, make_pipeline, make_serving
from tests.worlds.expected_outputs import expected_outputs
from tests.worlds.networks import network_of
from tests.worlds.pipeline_results import intents, lists, of_kind, run, state
from tests.worlds.tiny_world import TinyWorld

UNKNOWN_PLAY = PlayLog().play("cho", "an item of no bundle", 700.0).value
ODD = ('12" single', "back\\slash", "line\nbreak")


def test_labels_may_be_any_text(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1))
    fields = tuple(replace(f, values=ODD) if f.name == "genre" else f for f in serving.domain.fields)
    pipeline, log = (
        make_pipeline(replace(serving, tables=replace(serving.tables, domain=replace(serving.domain, fields=fields)))),
        PlayLog(),
    )
    (result,) = pipeline.process({0: [log.play("ann", 1, 100.0)]})
    (answer,) = intents(result)
    assert tuple(answer.intents["genre"]) == ODD


def test_an_object_is_the_same_json_whether_its_names_need_escaping_or_not() -> None:
    for names in (("a", "b"), ODD[:2]):
        assert msgspec.json.decode(msgspec.json.encode(_object(names)(1, 2.5))) == dict(
            zip(names, (1, 2.5), strict=True)
        )


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def test_a_list_is_named_by_its_play_and_its_bundle(serving: Serving) -> None:
    result = run(make_pipeline(serving), plays(serving))
    assert [answer.recommendation_id for answer in lists(result)] == [f"0-{i}-{serving.version}" for i in range(6)]


def test_headers_say_what_the_messages_say_and_the_trace_of_the_play(serving: Serving) -> None:
    parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    log = PlayLog()
    for i in range(40):
        log.play(("ann", "ben")[i % 2], i * i % 17, 100.0 * i)
    records = log.records
    records[3] = replace(records[3], headers=(("traceparent", parent), ("tracestate", b"a=1"), ("other", b"x")))
    result = run(make_pipeline(serving, source="/intentrec/app"), records)
    shifts = [answer.shifted for answer in intents(result)]
    assert set(shifts) == {False, True}, "this world has both"
    headers = [dict(output.headers) for output in of_kind(result, OutputKind.INTENT)]
    assert [h["intentrec-shifted"] for h in headers] == [b"true" if shifted else b"false" for shifted in shifts]
    for output in result.outputs:
        message, own = msgspec.json.decode(output.value), dict(output.headers)
        assert own["ce_id"] == own["intentrec-id"]
        assert own["ce_source"] == b"/intentrec/app"
        assert own["ce_subject"].decode() == message["user_id"] == output.key.decode()
        assert own["ce_time"].decode() == message["event_time"]
        traced = {name: own[name] for name in own if name.startswith("trace")}
        assert traced == ({"traceparent": parent, "tracestate": b"a=1"} if output.source_offset == 3 else {})
        assert "other" not in own


def floats(packed: bytes | msgspec.UnsetType) -> np.ndarray:
    assert isinstance(packed, bytes)
    return np.frombuffer(packed, dtype="<f4")


def with_vectors(serving: Serving) -> tuple[PartitionResult, list[Record]]:
    records = [*plays(serving), replace(plays(serving)[0], offset=6, value=UNKNOWN_PLAY, key=b"cho")]
    return run(make_pipeline(serving, publish_embedding=True), records), records


def test_a_published_query_gives_the_scores_of_its_list(serving: Serving) -> None:
    """What the gateway makes of it: the inner product with an item's vector is the item's score."""
    result, _ = with_vectors(serving)
    *predicted, newcomer = lists(result)
    row_of = {item_id: row for row, item_id in enumerate(serving.vocabulary.item_ids)}
    for answer in predicted:
        query = floats(answer.query)
        assert len(query) == serving.query_width == serving.index.dimension
        rows = np.array([row_of[item.item_id] for item in answer.items])
        scores = serving.index.vectors_of(rows) @ query
        np.testing.assert_allclose(scores, [item.score for item in answer.items], atol=2e-5)
    assert newcomer.fallback == "popular"
    assert newcomer.query is msgspec.UNSET, "popular items are not searched by a query"


def test_what_filters_compare_with_goes_with_a_query(serving: Serving) -> None:
    result, _ = with_vectors(serving)
    *predicted, newcomer = lists(result)
    assert predicted
    assert all(answer.filter_values == {"max_maturity": 4.0} for answer in predicted)
    assert newcomer.filter_values is msgspec.UNSET
    assert _by_key(["a", "b", "c"], [4.5, 255, None]) == {"a": 4.5, "b": "00000000000000ff"}


def test_a_published_embedding_is_z_of_the_context(serving: Serving) -> None:
    result, records = with_vectors(serving)
    pipeline = make_pipeline(serving)
    run(pipeline, records)
    newest = {answer.user_id: answer for answer in intents(result)}
    for user in ("ann", "ben"):
        history = pipeline.history(0, user)
        assert history is not None
        exact = recompute(network_of(serving.engine), serving.features, [history.events]).intent_NP[0]
        assert len(exact) == serving.embedding_width
        np.testing.assert_allclose(floats(newest[user].embedding), exact, atol=1e-4)


@pytest.mark.parametrize("reasons", [False, True])
def test_no_vector_is_published_unless_asked_for(serving: Serving, reasons: bool) -> None:
    for output in run(make_pipeline(serving, publish_reasons=reasons), plays(serving)).outputs:
        assert not {"query", "filter_values", "embedding"} & msgspec.json.decode(output.value).keys()


def test_a_model_without_intents_publishes_a_query_and_no_embedding(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1, intent_stage=False))
    result = run(make_pipeline(serving, publish_embedding=True), plays(serving))
    assert {answer.embedding for answer in intents(result)} == {msgspec.UNSET}
    assert {len(floats(answer.query)) for answer in lists(result)} == {serving.query_width}


def test_with_counts_a_query_ends_with_their_weights(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(1, item_counts=True))
    counts = count_table([("item-3", 10.0), ("item-4", 20.0)], at_s=30.0)
    result = run(make_pipeline(serving, counts=counts, publish_embedding=True), plays(serving))
    assert serving.counts is not None
    row_of = {item_id: row for row, item_id in enumerate(serving.vocabulary.item_ids)}
    columns = counts.columns_of(serving.vocabulary.hashes)
    for answer in lists(result):
        query = floats(answer.query)
        assert len(query) == serving.query_width == serving.index.dimension + serving.counts.num_columns
        rows = np.array([row_of[item.item_id] for item in answer.items])
        vectors = np.concatenate([serving.index.vectors_of(rows), columns[rows]], axis=1)
        np.testing.assert_allclose(vectors @ query, [item.score for item in answer.items], atol=2e-5)


HOUR_S = 3600.0


def closed_sessions(result: PartitionResult) -> list[ClosedSession | msgspec.UnsetType]:
    assert {answer.session_opened for answer in intents(result) if answer.closed_session} <= {True}
    return [answer.closed_session for answer in intents(result)]


def played_at(serving: Serving, *times_s: float) -> list[Record]:
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    log = PlayLog()
    for i, at_s in enumerate(times_s):
        log.play("ann", 5 * i % 29, at_s)
    return log.records


def test_the_message_that_opens_a_session_says_what_the_one_before_it_was(serving: Serving) -> None:
    result = run(make_pipeline(serving), played_at(serving, 0.0, 60.0, 90.5, HOUR_S, 3 * HOUR_S))
    first, _, third, fourth, fifth = intents(result)
    none = msgspec.UNSET
    assert third.primary is not None
    assert fourth.primary is not None
    assert closed_sessions(result) == [
        none, none, none,
        ClosedSession(first.session_id, 90.5, 3, IntentLabel(third.primary.head, third.primary.label)),
        ClosedSession(fourth.session_id, 0.0, 1, IntentLabel(fourth.primary.head, fourth.primary.label)),
    ]  # fmt: skip
    assert fifth.session_opened


def test_a_closed_session_that_began_with_evicted_plays_has_no_number_of_plays(serving: Serving) -> None:
    """The window is 4 plays: the ninth evicts the first four, and the tenth opens a session."""
    result = run(make_pipeline(serving), played_at(serving, *(60.0 * i for i in range(9)), HOUR_S))
    first, *_, last_of_it, opener = intents(result)
    assert last_of_it.primary is not None
    intent = IntentLabel(last_of_it.primary.head, last_of_it.primary.label)
    assert opener.closed_session == ClosedSession(first.session_id, 480.0, msgspec.UNSET, intent)


def test_plays_that_are_answered_together_name_the_session_before_theirs(world: TinyWorld, tmp_path: Path) -> None:
    serving = make_serving(tmp_path, world, world.model(3))
    records = played_at(serving, 0.0, 60.0, 120.0, HOUR_S, HOUR_S + 60, HOUR_S + 120)
    alone = intents(run(make_pipeline(serving), records))
    assert alone[2].primary is not None
    assert alone[4].primary is not None
    assert alone[2].primary.label != alone[4].primary.label, "this world tells the two apart"
    pipeline = make_pipeline(serving)
    pipeline.open_partition(0, {"ann": history_of(serving, records[:3])})
    (result,) = pipeline.process({0: records[3:]}, coalesced=True)
    (answer,) = intents(result)
    assert answer.event_id == alone[5].event_id
    assert answer.closed_session == alone[3].closed_session


def test_an_inserted_play_that_opens_the_session_names_no_intent_before_it(serving: Serving) -> None:
    result = run(make_pipeline(serving), played_at(serving, 0.0, 60.0, 2 * HOUR_S, 2 * HOUR_S - 60))
    first, _, _, inserted = intents(result)
    assert inserted.session_opened
    assert inserted.closed_session == ClosedSession(first.session_id, 60.0, 2)


def history_of(serving: Serving, records: Sequence[Record]) -> History:
    pipeline = make_pipeline(serving)
    run(pipeline, records)
    return deepcopy(state(pipeline, "ann"))


@pytest.mark.parametrize("opener", [3, 10, 17])
def test_a_closed_session_is_the_same_after_a_restart(serving: Serving, opener: int) -> None:
    """Also where the keys and values of the member are lost: all of it is in the history."""
    times_s = [at_s + 4 * HOUR_S * (i >= opener) for i, at_s in enumerate(60.0 * n for n in range(20))]
    records = played_at(serving, *times_s)
    expected = closed_sessions(run(make_pipeline(serving), records))
    assert [closed is msgspec.UNSET for closed in expected] == [i != opener for i in range(20)]
    for cut in (opener - 1, opener):
        restored = make_pipeline(serving)
        restored.open_partition(0, {"ann": history_of(serving, records[:cut])})
        serving.engine.forget(MemberKey(0, "ann"))
        assert closed_sessions(run(restored, records[cut:])) == expected[cut:]


@pytest.fixture(scope="module")
def long_titles(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    serving = make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))
    titles = [title if row % 2 else "x" * 1000 for row, title in enumerate(serving.items.titles)]
    serving.items.titles[:] = titles
    return serving


def plays(serving: Serving) -> list[Record]:
    """Plays of two members; the event ids of one of them are long."""
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    log = PlayLog()
    for i in range(6):
        log.play(("ann", "ben")[i % 2], i, 100.0 * i, event_id=f"event-{i}" + "x" * 200 * (i % 2))
    return log.records


def bytes_without_titles(output: OutputRecord) -> int:
    return len(output.value) - sum(len(item.title) for item in decode_recommendation(output.value).items)


def test_titles_are_cut_where_a_list_would_be_too_large_for_its_topic(long_titles: Serving) -> None:
    whole = lists(run(make_pipeline(long_titles), plays(long_titles)))
    limits = TopicLimits(recommendations=OVERHEAD_BYTES + 3000)
    pipeline = make_pipeline(long_titles, limits=limits)
    result = run(pipeline, plays(long_titles))
    cut = lists(result)
    assert [[i.item_id for i in answer.items] for answer in cut] == [
        [i.item_id for i in answer.items] for answer in whole
    ]
    assert {len(o.value) <= 3000 for o in of_kind(result, OutputKind.RECOMMENDATION)} == {True}
    assert any(i.title.endswith("x…") for answer in cut for i in answer.items)
    assert {i.title for answer in cut for i in answer.items if not i.title.startswith("x")} <= set(
        long_titles.items.titles
    )
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_cut_lists_total") == len(cut) == 6
    assert sample("intentrec_plays_rejected_total", {"reason": "output_too_large"}) == 0


@pytest.mark.parametrize("kinds", [("recommendation",), ("intent",), ("recommendation", "intent")], ids="+".join)
def test_a_message_that_cannot_fit_becomes_a_dead_letter_and_the_play_stays_in_the_state(
    long_titles: Serving, kinds: tuple[str, ...]
) -> None:
    """Only the messages of ben, whose event ids are long, are too large."""
    reference = make_pipeline(long_titles)
    whole = run(reference, plays(long_titles))
    mosts = {
        "recommendation": max(
            bytes_without_titles(o) for o in of_kind(whole, OutputKind.RECOMMENDATION) if o.key == b"ann"
        ),
        "intent": max(len(o.value) for o in of_kind(whole, OutputKind.INTENT) if o.key == b"ann"),
    }
    limits = TopicLimits(**{f"{kind}s": OVERHEAD_BYTES + mosts[kind] + 50 for kind in kinds})
    pipeline, records = make_pipeline(long_titles, limits=limits), plays(long_titles)
    result = run(pipeline, records)
    expected = {
        name
        for record in records
        for name in expected_outputs(record, "applied", [kind.encode() for kind in kinds] if record.offset % 2 else ())
    }
    assert {dict(output.headers)["intentrec-id"] for output in result.outputs} == expected
    assert len(result.outputs) == len(expected), "one dead letter for both messages"
    assert [output.source_offset for output in result.outputs] == sorted(o.source_offset for o in result.outputs)
    for dead in of_kind(result, OutputKind.DEAD_LETTER):
        headers = dict(dead.headers)
        assert headers["intentrec-error"] == b"output_too_large"
        assert all(b"%b of " % kind.encode() in headers["intentrec-detail"] for kind in kinds)
        assert dead.value == records[dead.source_offset].value
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_plays_rejected_total", {"reason": "output_too_large"}) == 3
    assert sample("intentrec_plays_total", {"outcome": "applied"}) == 6
    assert result.changelog == whole.changelog
    for user in ("ann", "ben"):
        assert state(pipeline, user).events == state(reference, user).events
