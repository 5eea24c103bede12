"""Folding a batch is folding its plays one by one: the same answers from the same contexts, the same state, the same changelog.

What a batch does once a member (runs, what of a history has changed, what is written) is compared with folds of one record each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from intentrec_core.history.changelog_codec import Restorer
from intentrec_core.history.history import History, Outcome
from stream.pipeline.folding import ContextRun, Folder, PendingAnswer
from stream.wire.records import OutputRecord
from tests.worlds.bundle_world import PlayLog, Record
from tests.worlds.tiny_world import TinyWorld

WORLD = TinyWorld()
LAYOUT = WORLD.layout
#: A member, what comes of them, and the step in seconds: back by as much for a late play.
ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["ann", "ben", "çé"]),
        st.sampled_from(["play"] * 12 + ["repeated", "malformed", "no number", "forget", "headers"]),
        st.sampled_from([0, 1, 500, 4_000, -3, -700, -5_000]),
    ),
    min_size=20,
    max_size=90,
)
BATCHES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), min_size=1, max_size=6)

#: A play that is answered: offset, outcome, and what it is answered from.
Answered = tuple[int, Outcome, int, bytes, bytes, int]


def to_log(entries: Sequence[tuple[str, str, int]]) -> list[Record]:
    log, clock_s = PlayLog(), 10_000
    for number, (user, form, step) in enumerate(entries):
        clock_s += max(step, 0)
        if form == "malformed":
            log.raw(b"{", user.encode())
        elif form == "forget":
            log.forget(user)
        elif form == "repeated":
            log.play(user, number % 30, clock_s, event_id=f"event-{number // 2}")
        elif form == "no number":
            log.play(user, number % 30, clock_s, context={"max_maturity": "many"})
        elif form == "headers":
            value = log.play(user, number % 30, clock_s).value
            log.records.pop()
            log.raw(value, user.encode(), (("trace", b"1"),))
        else:
            log.play(user, number % 30, clock_s + min(step, 0))
    return log.records


class Worker:
    """Folds batch by batch, and keeps what came of each record and what compaction leaves of the changelog."""

    def __init__(self) -> None:
        self.histories: dict[str, History] = {}
        self.answered: list[Answered] = []
        self.outputs: list[OutputRecord] = []
        self.counts = [0] * 6
        self._log: dict[bytes, bytes | None] = {}
        self._encoded: dict[str, ContextRun] = {}

    def fold(self, records: Sequence[Record]) -> None:
        folder = Folder(LAYOUT, None)
        work = folder.fold(0, self.histories, records)
        self.answered += map(_answered, work.answers)
        self.outputs += work.outputs
        of_batch = dataclasses.astuple(work.outcomes)
        self.counts = [a + b for a, b in zip(self.counts, of_batch, strict=True)]
        self._log |= work.changelog
        folded = folder.batch()
        for runs in folded.waves:
            assert len({run.member for run in runs}) == len(runs)
            for run in runs:
                if not folded.forgotten:
                    self._is_unchanged_before(run)
                self._encoded[run.member] = run
        for member in folded.forgotten:
            self._encoded.pop(member, None)

    def restored(self) -> dict[str, History]:
        restorer = Restorer(LAYOUT)
        for key, value in self._log.items():
            restorer.feed(key, value)
        return restorer.finish()[0]

    def _is_unchanged_before(self, run: ContextRun) -> None:
        """What an engine has cached of the member may be used up to ``first_changed``."""
        cached = self._encoded.get(run.member)
        if cached is not None:
            same = run.first_changed * LAYOUT.size if cached.anchor == run.anchor else 0
            assert run.context[:same] == cached.context[:same]
            assert same or not run.first_changed


def _answered(answer: PendingAnswer) -> Answered:
    run = answer.run
    end = len(run.context) - (run.num_outputs - 1 - answer.nth) * LAYOUT.size
    return (
        answer.record.offset,
        answer.outcome,
        run.anchor,
        run.context[:end],
        run.evicted_items,
        run.carried_ms,
    )


@given(ENTRIES, BATCHES)
def test_a_batch_is_its_plays_one_by_one(entries: list[tuple[str, str, int]], batches: list[tuple[int, int]]) -> None:
    """Also where a batch begins with records that were folded in before, as without transactions."""
    records, batched, single = to_log(entries), Worker(), Worker()
    low, nth = 0, 0
    while low < len(records):
        size, again = batches[nth % len(batches)]
        batch = records[max(0, low - again) : low + size]
        batched.fold(batch)
        for record in batch:
            single.fold([record])
        assert batched.histories == single.histories
        assert batched.restored() == batched.histories
        low, nth = low + size, nth + 1
    assert batched.answered == single.answered
    assert batched.outputs == single.outputs
    assert batched.counts == single.counts
