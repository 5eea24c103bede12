"""Folds plays into histories, and groups what has to be encoded into context runs.

    records ─ decode ─ apply ─┬─ rejected, too late ──▶ dead letter or late play
                              ├─ duplicate ──▶ nothing
                              ├─ erasure request ──▶ no history, tombstones in the changelog
                              └─ applied ──▶ pending answers, in source order ──▶ context runs, in waves

A context run is one context of one member. It is encoded in one pass, with an output for each of its last plays. A member's
plays in a batch share one run; a new run begins where the anchor moves or an out-of-order play is inserted. A member's n-th run
is in the n-th wave, so a wave holds each member once. Nothing here touches weights, an index or a clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import RejectReason
from intentrec_core.history.changelog_codec import SCHEMA_VERSION, encode_changes, tombstone_keys
from intentrec_core.history.history import EventLayout, Fold, History, Outcome, anchor
from stream.pipeline.sessions import NOTHING_CARRIED
from stream.wire.codec import DecodedPlay, RejectedPlay, decode_play
from stream.wire.dead_letter import DeadLetter, dead_letter, late_play
from stream.wire.erasure_record import is_erasure_request, read_erasure_request
from stream.wire.records import ID_HEADER, FoldOutcomes, OutputKind, OutputRecord, SourceRecord, output_id
from stream.wire.routing import home_partition
from stream.wire.sizes import DEFAULT_LIMITS, TopicLimits

#: Looked up once: an attribute of an enum costs as much as the comparison itself.
_APPENDED, _INSERTED = Outcome.APPENDED, Outcome.INSERTED
_DUPLICATE, _TOO_LATE, _REPLAYED = Outcome.DUPLICATE, Outcome.TOO_LATE, Outcome.REPLAYED


class ContextRun(Struct, gc=False):
    """One member's context, to be encoded once with outputs for its last ``num_outputs`` plays.

    ``first_changed`` as in :class:`~intentrec_core.engine.engine.EncodeRequest`. ``is_replay``: no play was applied, the
    newest one is answered again. Grows while its micro-batch is folded, and does not change after that.
    """

    member: MemberKey
    anchor: int
    context: bytes
    first_changed: int
    num_outputs: int
    evicted_items: bytes
    carried_ms: int
    is_replay: bool = False


class PendingAnswer(Struct, frozen=True, gc=False):
    """A play that gets a recommendation and an intent update: output ``nth`` of ``run``."""

    record: SourceRecord
    play: DecodedPlay
    outcome: Outcome
    run: ContextRun
    nth: int


@dataclass(frozen=True, slots=True)
class FoldedPartition:
    """One partition's records of a micro-batch, folded.

    ``changelog`` brings the changelog up to the state at ``next_offset``. ``outputs`` are dead letters and late
    plays, ``reasons`` those of the dead letters; ``answers`` still have to be encoded. All in source order.
    """

    partition: int
    next_offset: int
    num_records: int
    outcomes: FoldOutcomes
    changelog: Mapping[bytes, bytes | None]
    outputs: Sequence[OutputRecord]
    reasons: Sequence[RejectReason]
    answers: Sequence[PendingAnswer]

    def with_answers(self, answers: Sequence[PendingAnswer]) -> FoldedPartition:
        """The same records with other answers."""
        return dataclasses.replace(self, answers=answers)

    def answers_alone(self, answers: Sequence[PendingAnswer]) -> FoldedPartition:
        """Some of its answers and none of its records."""
        return FoldedPartition(self.partition, self.next_offset, 0, FoldOutcomes(), {}, (), (), answers)


@dataclass(frozen=True, slots=True)
class FoldedBatch:
    """A folded micro-batch, or a slice of one: what is encoded next.

    ``coalesced``: each member's last play is answered for all of its plays. ``inserted``: members with a play inserted out of
    order; engines that do not serve them must drop their cache. ``forgotten``: members erased in this batch; everything derived
    from their history is dropped once it is encoded.
    """

    partitions: Sequence[FoldedPartition]
    waves: Sequence[Sequence[ContextRun]]
    coalesced: bool = False
    inserted: frozenset[MemberKey] = frozenset()
    forgotten: frozenset[MemberKey] = frozenset()


class _Member(Struct, gc=False):
    """A member in a micro-batch: its newest run and that run's wave, and what of the history the changelog lacks.

    ``first_changed`` is -1 where there is nothing to write.
    """

    key: MemberKey
    history: History
    wave: int = -1
    run: ContextRun | None = None
    first_changed: int = -1
    anchor_moved: bool = False


@dataclass(slots=True)
class _Records:
    """One partition's records while they are folded."""

    partition: int
    limits: TopicLimits
    outputs: list[OutputRecord] = dataclasses.field(default_factory=list)
    reasons: list[RejectReason] = dataclasses.field(default_factory=list)
    changelog: dict[bytes, bytes | None] = dataclasses.field(default_factory=dict)
    num_erasures: int = 0

    def reject(self, record: SourceRecord, play: RejectedPlay) -> None:
        self.reasons.append(play.reason)
        self.outputs.append(rejected(record, play.reason, play.detail, self.limits))

    def set_aside_late(self, record: SourceRecord) -> None:
        self.outputs.append(_output(record, OutputKind.LATE, late_play(record, self.limits.of(OutputKind.LATE))))


class Folder:
    """Folds the records of one micro-batch; one instance per micro-batch.

    ``num_partitions`` is None where any partitioner is allowed. ``schema`` is the version of the changelog's records.
    """

    def __init__(
        self,
        layout: EventLayout,
        num_partitions: int | None,
        schema: int = SCHEMA_VERSION,
        limits: TopicLimits = DEFAULT_LIMITS,
    ) -> None:
        self._layout, self._limits = layout, limits
        self._schema = schema
        self._num_partitions = num_partitions
        self._partitions: list[FoldedPartition] = []
        self._waves: list[list[ContextRun]] = []
        self._inserted: set[MemberKey] = set()
        self._forgotten: set[MemberKey] = set()

    def batch(self, *, coalesced: bool = False) -> FoldedBatch:
        """Everything that was folded."""
        waves = tuple(map(tuple, self._waves))
        return FoldedBatch(
            tuple(self._partitions), waves, coalesced, frozenset(self._inserted), frozenset(self._forgotten)
        )

    def fold(self, partition: int, histories: dict[str, History], records: Sequence[SourceRecord]) -> FoldedPartition:
        """Folds one partition's next records into its histories; once for each partition.

        Cost: about 6 µs a play: decoding, packing and writing to the changelog 1 µs each, reading its context 2 µs.
        """
        layout = self._layout
        earliest_ms, max_future_ms = layout.domain.earliest_ms, layout.domain.max_future_ms
        work, answers, members = _Records(partition, self._limits), list[PendingAnswer](), dict[str, _Member]()
        num_duplicates = num_late = num_replayed = 0
        for record in records:
            if record.headers and is_erasure_request(record):
                self._erase(work, record, histories, members)
                continue
            play = decode_play(record, earliest_ms, max_future_ms)
            if not isinstance(play, DecodedPlay):
                work.reject(record, play)
                continue
            user_id = play.user_id
            history = histories.get(user_id)
            if history is None:
                misplaced = self._misplaced(user_id, partition)
                if misplaced is not None:
                    work.reject(record, misplaced)
                    continue
            try:
                packed = layout.pack(play.item_id, play.event_id, play.ts_ms, play.duration_s, play.attributes)
            except (ValueError, OverflowError) as error:
                work.reject(record, RejectedPlay(RejectReason.INVALID_FIELD, str(error)))
                continue
            if history is None:
                history = histories[user_id] = History()
            fold = history.apply(layout, packed, record.offset)
            if fold.outcome is _DUPLICATE:
                num_duplicates += 1
                continue
            if fold.outcome is _TOO_LATE:
                num_late += 1
                work.set_aside_late(record)
                continue
            member = members.get(user_id)
            # Another history than in this batch so far: an erasure request came in between.
            if member is None or member.history is not history:
                wave = -1 if member is None else member.wave
                member = members[user_id] = _Member(MemberKey(partition, user_id), history, wave)
            if fold.outcome is _REPLAYED:
                num_replayed += 1
                answers.append(self._repeat(record, play, member))
            else:
                answers.append(self._answer(record, play, member, fold))
        for user_id, member in members.items():
            first_changed, anchor_moved = member.first_changed, member.anchor_moved
            if first_changed >= 0:
                work.changelog.update(
                    encode_changes(
                        layout,
                        user_id,
                        member.history,
                        first_changed=first_changed,
                        anchor_moved=anchor_moved,
                        schema=self._schema,
                    )
                )
        outcomes = FoldOutcomes(
            num_applied=len(answers) - num_replayed,
            num_duplicates=num_duplicates,
            num_late=num_late,
            num_replayed=num_replayed,
            num_rejected=len(work.reasons),
            num_erasures=work.num_erasures,
        )
        next_offset = records[-1].offset + 1
        folded = FoldedPartition(
            partition, next_offset, len(records), outcomes, work.changelog, work.outputs, work.reasons, answers
        )
        self._partitions.append(folded)
        return folded

    def _erase(
        self, work: _Records, record: SourceRecord, histories: dict[str, History], members: dict[str, _Member]
    ) -> None:
        request, partition = read_erasure_request(record), work.partition
        if not isinstance(request, RejectedPlay):
            request = self._misplaced(request.user_id, partition) or request
        if isinstance(request, RejectedPlay):
            work.reject(record, request)
            return
        work.num_erasures += 1
        user_id = request.user_id
        history = histories.get(user_id)
        if history is None or record.offset <= history.last_offset:
            return  # an unknown member; or a replay, and the history that is held began after this request
        del histories[user_id]
        if user_id in members:
            members[user_id].first_changed = -1
        work.changelog.update(dict.fromkeys(tombstone_keys(self._layout, user_id)))
        self._forgotten.add(MemberKey(partition, user_id))

    def _misplaced(self, user_id: str, partition: int) -> RejectedPlay | None:
        """Why a member cannot be in this partition. Checked only without a history: the first play of a history was checked."""
        if self._num_partitions is None:
            return None
        home = home_partition(user_id.encode(), self._num_partitions)
        if home == partition:
            return None
        return RejectedPlay(
            RejectReason.WRONG_PARTITION,
            f"in partition {partition}, murmur2 of user_id says {home} of {self._num_partitions}: let the producer partition by "
            "murmur2 (librdkafka: partitioner=murmur2_random), or set plays_partitioner=any where all use another one",
        )

    def _answer(self, record: SourceRecord, play: DecodedPlay, member: _Member, fold: Fold) -> PendingAnswer:
        outcome, position, evicted = fold.outcome, fold.position, fold.evicted
        open_run = member.run
        if outcome is _APPENDED and not evicted and open_run is not None and not open_run.is_replay:
            open_run.context = member.history.events
            open_run.num_outputs += 1
            return PendingAnswer(record, play, outcome, open_run, open_run.num_outputs - 1)
        if outcome is _INSERTED:
            self._inserted.add(member.key)
        if member.first_changed < 0:
            member.first_changed = position
        else:
            member.first_changed = min(max(0, member.first_changed - evicted), position)
        member.anchor_moved |= evicted > 0
        return PendingAnswer(record, play, outcome, self._new_run(member, 0 if evicted else position), 0)

    def _repeat(self, record: SourceRecord, play: DecodedPlay, member: _Member) -> PendingAnswer:
        run = member.run
        if run is None or not run.is_replay:
            run = self._new_run(member, member.history.num_events(self._layout))
            run.is_replay = True
        return PendingAnswer(record, play, _REPLAYED, run, 0)

    def _new_run(self, member: _Member, first_changed: int) -> ContextRun:
        run = context_run(member.key, member.history, self._layout, first_changed)
        member.run = run
        member.wave += 1
        if member.wave == len(self._waves):
            self._waves.append([])
        self._waves[member.wave].append(run)
        return run


def context_run(member: MemberKey, history: History, layout: EventLayout, first_changed: int = 0) -> ContextRun:
    """The run that encodes what a history holds, with an output for its newest play."""
    first = anchor(history.count, layout.window)
    carried = first and history.continues_evicted_session(layout)
    carried_ms = history.evicted_session_ms if carried else NOTHING_CARRIED
    return ContextRun(member, first, history.events, first_changed, 1, history.evicted_items, carried_ms)


def rejected(record: SourceRecord, reason: RejectReason, detail: str, limits: TopicLimits) -> OutputRecord:
    """The dead letter of a play."""
    dead = dead_letter(record, reason, detail, limits.of(OutputKind.DEAD_LETTER))
    return _output(record, OutputKind.DEAD_LETTER, dead)


def _output(record: SourceRecord, kind: OutputKind, aside: DeadLetter) -> OutputRecord:
    identified = ((ID_HEADER, output_id(record, kind)), *aside.headers)
    return OutputRecord(kind, aside.key, aside.value, identified, record.offset, record.timestamp)
