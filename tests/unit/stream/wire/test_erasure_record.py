"""An erased member is as if it had never been there: in state, caches, changelog and predictions."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.history.changelog_codec import Restorer
from intentrec_core.history.history import History
from stream.bundles.serving import Serving
from stream.pipeline.folding import Folder
from stream.wire.codec import decode_intent, decode_recommendation
from stream.wire.erasure_record import CONTROL_HEADER, FORGET, split_at_erasures
from stream.wire.records import OutputKind
from tests.worlds.bundle_world import PlayLog, Record, make_pipeline, make_serving
from tests.worlds.tiny_world import TinyWorld

USERS = ("ann", "ben")
WORLD = TinyWorld()


@pytest.fixture(scope="module")
def serving(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Serving:
    return make_serving(tmp_path_factory.mktemp("bundles"), world, world.model(1))


def answers(serving: Serving, records: list[Record], step: int) -> dict[int, tuple[object, ...]]:
    """What an empty pipeline answers, by source offset: session, items, intents as far as floats are the same in any batch."""
    for member in serving.engine.cached_members():
        serving.engine.forget(member)
    pipeline = make_pipeline(serving)
    found: dict[int, tuple[object, ...]] = {}
    for low in range(0, len(records), step):
        for result in pipeline.process({0: records[low : low + step]}):
            for first, second in zip(result.outputs[::2], result.outputs[1::2], strict=True):
                listed = decode_recommendation(first.value)
                intent = decode_intent(second.value)
                probabilities = {
                    head: {label: round(p, 3) for label, p in labels.items()} for head, labels in intent.intents.items()
                }
                found[first.source_offset] = (
                    listed.session_id, [item.item_id for item in listed.items],
                    intent.session_opened, intent.shifted, probabilities,
                )  # fmt: skip
    return found


@pytest.mark.parametrize("step", [1, 5, 100])
def test_after_a_forget_plays_are_answered_as_those_of_a_new_member(serving: Serving, step: int) -> None:
    """Watched items, session, intents and lists of the plays behind it, whatever batches they come in."""
    log = PlayLog()
    for i in range(12):
        log.play(USERS[i % 2], i, 100.0 * i)
    log.forget("ann")
    later = [log.play(USERS[i % 2], i, 100.0 * i) for i in range(12, 18)]
    found = answers(serving, log.records, step)
    as_new = answers(serving, [record for record in later if record.key == b"ann"], step)
    assert as_new
    assert {offset: found[offset] for offset in as_new} == as_new
    unforgotten = [record for record in log.records if not record.headers]
    untouched = answers(serving, unforgotten, step)
    assert all(found[r.offset] == untouched[r.offset] for r in unforgotten if r.key == b"ben")
    assert any(found[offset] != untouched[offset] for offset in as_new), "the forget made no difference"


def test_nothing_cached_is_left_and_no_prediction_is_judged(serving: Serving) -> None:
    log, pipeline = PlayLog(), make_pipeline(serving)
    log.play("ann", 1, 0)
    log.forget("ann")
    results = pipeline.process({0: log.records})
    assert [result.outcomes.num_erasures for result in results] == [1]
    assert MemberKey(0, "ann") not in serving.engine.cached_members()
    assert pipeline.history(0, "ann") is None
    log.play("ann", 2, 100)
    for result in [*results, *pipeline.process({0: log.records[2:]})]:
        result.counts.count()
    sample = pipeline.metrics.registry.get_sample_value
    assert sample("intentrec_judged_plays_total", {"bundle": serving.version}) == 0
    assert sample("intentrec_forgotten_members_total") == 1


def test_a_bundle_kept_warm_does_not_remember_either(world: TinyWorld, tmp_path: Path) -> None:
    first = make_serving(tmp_path, world, world.model(1))
    second = make_serving(tmp_path, world, world.model(2))
    log, pipeline = PlayLog(), make_pipeline(first)
    pipeline.process({0: [log.play("ann", 1, 0)]})
    pipeline.start_migration(second)
    assert not pipeline.step_migration()
    assert second.engine.cached_members() == [MemberKey(0, "ann")]
    pipeline.process({0: [log.forget("ann")]})
    assert second.engine.cached_members() == []
    pipeline.swap(second)
    assert second.engine.cached_members() == []


@pytest.mark.parametrize(
    ("key", "headers", "reason"),
    [
        (b"ann", ((CONTROL_HEADER, b"frobnicate"),), b"unknown_schema"),
        (b"ann", ((CONTROL_HEADER, FORGET), (CONTROL_HEADER, FORGET)), b"unknown_schema"),
        (None, ((CONTROL_HEADER, FORGET),), b"invalid_field"),
        (b"\xff", ((CONTROL_HEADER, FORGET),), b"invalid_field"),
        (b"x" * 257, ((CONTROL_HEADER, FORGET),), b"invalid_field"),
    ],
)
def test_a_malformed_erasure_request_goes_to_the_dead_letters(
    key: bytes | None, headers: tuple[tuple[str, bytes], ...], reason: bytes
) -> None:
    histories: dict[str, History] = {}
    log = PlayLog()
    records = [log.play("ann", 1, 0), log.raw(b"{}", key, headers)]
    work = Folder(WORLD.layout, None).fold(0, histories, records)
    (dead_letter,) = work.outputs
    assert dead_letter.kind is OutputKind.DEAD_LETTER
    assert dict(dead_letter.headers)["intentrec-error"] == reason
    assert set(histories) == {"ann"}


def test_an_erasure_request_in_the_wrong_partition_is_refused_with_the_remedy() -> None:
    log = PlayLog(partition=0)
    work = Folder(WORLD.layout, 8).fold(0, {}, [log.forget("user-1"), log.forget("user-2"), log.forget("user-3")])
    assert work.outcomes.num_erasures + work.outcomes.num_rejected == 3
    assert work.outcomes.num_rejected > 0
    assert b"murmur2" in b"".join(content for p in work.outputs for _, content in p.headers)


def test_a_member_nobody_knows_leaves_no_trace() -> None:
    work = Folder(WORLD.layout, None).fold(0, {}, [PlayLog().forget("zoe")])
    assert (work.outcomes.num_erasures, work.changelog, work.outputs, work.answers) == (1, {}, [], [])


#: Who plays what when; no item: the order to forget them.
ACTS = st.lists(
    st.tuples(st.sampled_from(USERS), st.none() | st.integers(0, 9), st.integers(0, 900)), min_size=1, max_size=60
)


def log_of(acts: list[tuple[str, int | None, int]]) -> list[Record]:
    log = PlayLog()
    for user, item, at_s in acts:
        _ = log.forget(user) if item is None else log.play(user, item, at_s)
    return log.records


def expected(records: list[Record]) -> dict[str, History]:
    """The definition: per member a fold of the plays behind the last order."""
    last = {r.key: r.offset for r in records if r.headers}
    histories: dict[str, History] = {}
    kept = [r for r in records if not r.headers and r.offset > last.get(r.key, -1)]
    if kept:
        Folder(WORLD.layout, None).fold(0, histories, kept)
    return histories


def restore(changelog: dict[bytes, bytes | None]) -> dict[str, History]:
    restorer = Restorer(WORLD.layout)
    for key, value in changelog.items():
        restorer.feed(key, value)
    return restorer.finish()[0]


@given(ACTS, st.integers(1, 7), st.data())
def test_any_checkpoints_crashes_and_replays_end_in_the_same_state(
    acts: list[tuple[str, int | None, int]], step: int, data: st.DataObject
) -> None:
    """After every checkpoint the worker may have died, and begin anew at an offset at or before what it has (embedded broker)."""
    records = log_of(acts)
    histories: dict[str, History] = {}
    changelog: dict[bytes, bytes | None] = {}
    position, num_crashes = 0, 0
    while position < len(records):
        for part in split_at_erasures({0: records[position : position + step]}):
            changelog.update(Folder(WORLD.layout, None).fold(0, histories, part[0]).changelog)
        position += step
        assert restore(changelog) == histories
        if num_crashes < 3 and data.draw(st.booleans()):
            num_crashes += 1
            histories, position = restore(changelog), data.draw(st.integers(0, min(position, len(records))))
    assert histories == expected(records)
    for user in USERS:
        if user not in histories:
            assert not any(value for key, value in changelog.items() if key.startswith(user.encode()))


@given(ACTS)
def test_a_replay_changes_nothing_of_members_who_came_back(acts: list[tuple[str, int | None, int]]) -> None:
    records = log_of(acts)
    before = expected(records)
    histories = {user: copy.deepcopy(history) for user, history in before.items()}
    written = Folder(WORLD.layout, None).fold(0, histories, records).changelog
    assert histories == before
    assert not any(key.startswith(user.encode()) for key in written for user in before)


@given(ACTS)
def test_chunks_end_with_each_erasure_request_and_are_together_the_batches(
    acts: list[tuple[str, int | None, int]],
) -> None:
    records, others = log_of(acts), log_of(acts[::-1])
    parts = list(split_at_erasures({0: records, 3: others}))
    assert [r for part in parts for r in part.get(0, ())] == records
    assert [r for part in parts for r in part.get(3, ())] == others
    assert not any(record.headers for part in parts for held in part.values() for record in held[:-1])
