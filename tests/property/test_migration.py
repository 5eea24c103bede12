"""Whatever happens during a migration, every message is a full recomputation by the bundle it names.

Plays in order and out of order, erasure requests, queued prefill, partitions closed and opened again, migrations started,
advanced, aborted, finished and rolled back, in any sequence. Besides: a member's bundle changes in one direction only, and every
play is answered once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.pipeline import migration
from stream.pipeline.pipeline import Pipeline
from stream.wire.records import OutputKind, PartitionResult
from tests.worlds.bundle_world import PlayLog, Record, make_pipeline, make_serving
from tests.worlds.pipeline_results import answer_prefill, compare_with_recomputation, intents, lists
from tests.worlds.tiny_world import TinyWorld

USERS = ["ann", "ben", "cho", "dan"]
WORLD = TinyWorld()
FOLDER = tempfile.TemporaryDirectory()
SERVINGS = [make_serving(Path(FOLDER.name), WORLD, WORLD.model(seed)) for seed in (1, 2)]
BY_VERSION = {serving.version: serving for serving in SERVINGS}

user = st.sampled_from(USERS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("plays"), st.lists(st.tuples(user, st.booleans()), min_size=1, max_size=6)),
        st.tuples(st.just("plays"), st.lists(st.tuples(user, st.just(False)), min_size=1, max_size=3)),
        st.tuples(st.just("advance"), st.integers(1, 6)),
        st.tuples(st.just("answer"), st.none()),
        st.tuples(st.just("begin"), st.none()),
        st.tuples(st.just("swap"), st.none()),
        st.tuples(st.just("give up"), st.none()),
        st.tuples(st.just("forget"), user),
        st.tuples(st.just("reopen"), st.none()),
    ),
    min_size=15,
    max_size=60,
)


class Run:
    """A pipeline beside what it must answer."""

    def __init__(self) -> None:
        for serving in SERVINGS:
            for member in serving.engine.cached_members():
                serving.engine.forget(member)
        self.log, self.now_s, self.nth_item = PlayLog(), 100_000.0, 0
        self.pipeline: Pipeline = make_pipeline(SERVINGS[0], max_prefill_positions=4)
        self.which, self.is_moving = 0, False
        self.context: dict[str, bytes] = {}
        self.served_by: dict[str, str] = {}

    def play(self, plays: Sequence[tuple[str, bool]]) -> None:
        for member, is_late in plays:
            self.now_s += 60
            self.nth_item += 7
            at_s = self.now_s - 60 * (self.nth_item % 11) - 90 if is_late else self.now_s
            record = self.log.play(member, self.nth_item % 30, at_s)
            self._process([record])  # one by one: then the state behind each of them is what it is answered from

    def _process(self, records: list[Record]) -> None:
        results = self.pipeline.process({0: records})
        for record in records:
            if record.value is not None:
                member = (record.key or b"").decode()
                history = self.pipeline.history(0, member)
                assert history is not None
                if any(result.outcomes.num_late for result in results):
                    continue
                self.context[f"event-{record.offset}"] = bytes(history.events)
        self.check(results)

    def forget(self, member: str) -> None:
        while self.pipeline.num_queued_chunks:  # who is forgotten while they wait is another test's
            self.check(answer_prefill(self.pipeline))
        self._process([self.log.forget(member)])

    def reopen(self) -> None:
        while self.pipeline.num_queued_chunks:
            self.check(answer_prefill(self.pipeline))
        held = {member: h for member in USERS if (h := self.pipeline.history(0, member)) is not None}
        self.pipeline.open_partition(0, held)

    def begin(self) -> None:
        if not self.is_moving:
            self.pipeline.start_migration(SERVINGS[1 - self.which])
            self.is_moving = True
            self.served_by.clear()

    def swap(self) -> None:
        self.which, self.is_moving = 1 - self.which, False
        self.pipeline.swap(SERVINGS[self.which])
        self.served_by = dict.fromkeys(USERS, SERVINGS[self.which].version)

    def give_up(self) -> None:
        self.pipeline.abort_migration()
        self.is_moving = False
        self.served_by = dict.fromkeys(USERS, SERVINGS[self.which].version)

    def check(self, results: Sequence[PartitionResult]) -> None:
        for result in results:
            assert not [o for o in result.outputs if o.kind is OutputKind.DEAD_LETTER]
            named = {answer.event_id: answer.bundle for answer in lists(result)}
            for answer in intents(result):
                compare_with_recomputation(BY_VERSION[answer.bundle], self.context.pop(answer.event_id), answer)
                assert named.pop(answer.event_id) == answer.bundle
                self._check_direction(answer.user_id, answer.bundle)
            assert not named

    def _check_direction(self, member: str, bundle: str) -> None:
        coming = SERVINGS[1 - self.which].version
        before = self.served_by.get(member, SERVINGS[self.which].version)
        assert bundle in {before, coming if self.is_moving else before}
        self.served_by[member] = bundle


@settings(max_examples=60, deadline=None)
@given(drawn=steps)
def test_every_answer_is_its_own_bundles_full_recomputation(drawn: list[tuple[str, object]]) -> None:
    run = Run()
    with patch.object(migration, "CHUNK_ON_CPU", 3):
        for step, argument in drawn:
            match step, argument:
                case "plays", list():
                    run.play(argument)
                case "advance", int():
                    for _ in range(argument if run.is_moving else 0):
                        run.pipeline.step_migration()
                case "answer", _ if run.pipeline.num_queued_chunks:
                    run.check(answer_prefill(run.pipeline))
                case "forget", str():
                    run.forget(argument)
                case "reopen", _:
                    run.reopen()
                case "begin", _:
                    run.begin()
                case "swap", _:
                    run.swap()
                case "give up", _:
                    run.give_up()
        while run.pipeline.num_queued_chunks:
            run.check(answer_prefill(run.pipeline))
    assert not run.context, "every play was answered"
