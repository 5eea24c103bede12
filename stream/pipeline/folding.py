"""Plays folded into histories, and grouped into runs: what inference has to answer, and from which context.

    records ─ decode ─ apply ─┬─ rejected, too late ──▶ outputs, at once
                              ├─ duplicate ──▶ nothing
                              ├─ order to forget a member ──▶ no history, tombstones in the changelog
                              └─ answers, in source order ──▶ runs, in waves

A run is one context of one member, encoded in one pass, with an output for each of its last plays. Plays of one member
in a batch share a run; it is split where the anchor moves or a late play comes in, and the n-th run of a member is in the
n-th round, so that a round holds each member once. Nothing here touches weights, an index or a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.errors import RejectReason
from intentrec_core.history.changelog_codec import encode_changes, tombstone_keys
from intentrec_core.history.history import EventLayout, Fold, History, Outcome, anchor
from stream.pipeline.sessions import NOTHING_CARRIED
from stream.wire.codec import DecodedPlay, RejectedPlay, decode_play
from stream.wire.dead_letter import HEADER_PREFIX, dead_letter, kept_headers
from stream.wire.erasure_record import home_partition, is_erasure_request, read_erasure_request
from stream.wire.records import ID_HEADER, OutputKind, OutputRecord, PartitionResult, SourceRecord, output_id

#: Looked up once: at each use it would take as long as what is done with it.
_APPENDED, _INSERTED = Outcome.APPENDED, Outcome.INSERTED
_DUPLICATE, _TOO_LATE, _REPLAYED = Outcome.DUPLICATE, Outcome.TOO_LATE, Outcome.REPLAYED


class ContextRun(Struct, gc=False):
    """One member's context, to be encoded once with outputs for its last ``num_outputs`` plays.

    ``member`` is the user id with its partition: what caches are keyed by. ``first_changed`` as in
    :class:`~intentrec_core.engine.engine.EncodeRequest`. ``repeats``: nothing was folded in, its newest play is answered again.
    ``first_row``: where its outputs stand among all of the batch, once that is laid out.
    """

    member: MemberKey
    anchor: int
    context: bytes
    first_changed: int
    num_outputs: int
    evicted_items: bytes
    carried_ms: int
    repeats: bool = False
    first_row: int = -1


class PendingAnswer(Struct, gc=False):
    """A play that is owed a recommendation and an intent: output ``nth`` of ``run``.

    A ``is_coalesced`` one gets none of its own: it is among those that a later one of the member ``coalesces``, oldest first.
    """

    record: SourceRecord
    play: DecodedPlay
    outcome: Outcome
    run: ContextRun
    nth: int
    coalesces: Sequence[PendingAnswer] = ()
    is_coalesced: bool = False

    @property
    def row(self) -> int:
        """Its place among all outputs of the micro-batch."""
        return self.run.first_row + self.nth


@dataclass(slots=True)
class PartitionWork:
    """One partition's share of a micro-batch: its result so far, and what goes into its outputs, in source order."""

    result: PartitionResult
    pending: list[OutputRecord | PendingAnswer] = field(default_factory=list)
    reasons: list[RejectReason] = field(default_factory=list)


class _Member(Struct, gc=False):
    """A member in a micro-batch: the newest run and its round, and what of the history the changelog does not have yet.

    ``name`` is what runs are given as ``member``; ``first_changed`` is -1 where there is nothing to write.
    """

    name: MemberKey
    history: History
    round: int = -1
    run: ContextRun | None = None
    first_changed: int = -1
    anchor_moved: bool = False


class Folder:
    """Folds records of one micro-batch; made anew for each one.

    ``num_partitions`` is None where any partitioner is allowed. ``inserted`` and ``forgotten`` name members of whom cached
    keys and values, or everything that is cached, must not be used again.
    """

    def __init__(self, layout: EventLayout, num_partitions: int | None) -> None:
        self.waves: list[list[ContextRun]] = []
        self.inserted: set[MemberKey] = set()
        self.forgotten: set[MemberKey] = set()
        self._layout = layout
        self._max_future_ms = int(layout.domain.max_future_s * 1000)
        self._num_partitions = num_partitions

    def fold(self, partition: int, histories: dict[str, History], records: Sequence[SourceRecord]) -> PartitionWork:
        """Folds one partition's next records into its histories; once a partition.

        Cost: about 6 µs a play: decoding, packing, and writing to the changelog 1 µs each, a look at its context 2 µs.
        """
        layout, max_future_ms = self._layout, self._max_future_ms
        work = PartitionWork(PartitionResult(partition, records[-1].offset + 1, len(records)))
        result, pending, members = work.result, work.pending, dict[str, _Member]()
        for record in records:
            if record.headers and is_erasure_request(record):
                self._control(work, record, histories, members)
                continue
            play = decode_play(record, max_future_ms)
            if not isinstance(play, DecodedPlay):
                _reject(work, record, play)
                continue
            user_id = play.user_id
            history = histories.get(user_id)
            if history is None:
                misplaced = self._misplaced(user_id, partition)
                if misplaced is not None:
                    _reject(work, record, misplaced)
                    continue
            try:
                packed = layout.pack(play.item_id, play.event_id, play.ts_ms, play.duration_s, play.attributes)
            except (ValueError, OverflowError) as error:
                _reject(work, record, RejectedPlay(RejectReason.INVALID_FIELD, str(error)))
                continue
            if history is None:
                history = histories[user_id] = History()
            fold = history.apply(layout, packed, record.offset)
            if fold.outcome is _DUPLICATE:
                result.num_duplicates += 1
                continue
            if fold.outcome is _TOO_LATE:
                result.num_late += 1
                pending.append(_late(record))
                continue
            member = members.get(user_id)
            if member is None or member.history is not history:  # another one where it was forgotten in between
                wave = -1 if member is None else member.round
                member = members[user_id] = _Member(MemberKey(partition, user_id), history, wave)
            if fold.outcome is _REPLAYED:
                result.num_replayed += 1
                pending.append(self._repeat(record, play, member))
                continue
            result.num_applied += 1
            pending.append(self._answer(record, play, member, fold))
        for user_id, member in members.items():
            first_changed, moved = member.first_changed, member.anchor_moved
            if first_changed >= 0:
                result.changelog.update(
                    encode_changes(layout, user_id, member.history, first_changed=first_changed, anchor_moved=moved)
                )
        return work

    def _control(
        self, work: PartitionWork, record: SourceRecord, histories: dict[str, History], members: dict[str, _Member]
    ) -> None:
        order, partition = read_erasure_request(record), work.result.partition
        if not isinstance(order, RejectedPlay):
            order = self._misplaced(order.user_id, partition) or order
        if isinstance(order, RejectedPlay):
            _reject(work, record, order)
            return
        work.result.num_forgotten += 1
        user_id = order.user_id
        history = histories.get(user_id)
        if history is None or record.offset <= history.last_offset:
            return  # nobody we know; or a replay, and what is held began behind this order
        del histories[user_id]
        if user_id in members:
            members[user_id].first_changed = -1
        work.result.changelog.update(dict.fromkeys(tombstone_keys(self._layout, user_id)))
        self.forgotten.add(MemberKey(partition, user_id))

    def _misplaced(self, user_id: str, partition: int) -> RejectedPlay | None:
        """Only asked for members without a history here: the others were asked when they came."""
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
        if outcome is _APPENDED and not evicted and open_run is not None and not open_run.repeats:
            open_run.context = member.history.events
            open_run.num_outputs += 1
            return PendingAnswer(record, play, outcome, open_run, open_run.num_outputs - 1)
        if outcome is _INSERTED:
            self.inserted.add(member.name)
        if member.first_changed < 0:
            member.first_changed = position
        else:
            member.first_changed = min(max(0, member.first_changed - evicted), position)
        member.anchor_moved |= evicted > 0
        return PendingAnswer(record, play, outcome, self._new_run(member, 0 if evicted else position), 0)

    def _repeat(self, record: SourceRecord, play: DecodedPlay, member: _Member) -> PendingAnswer:
        run = member.run
        if run is None or not run.repeats:
            run = self._new_run(member, member.history.num_events(self._layout))
            run.repeats = True
        return PendingAnswer(record, play, _REPLAYED, run, 0)

    def _new_run(self, member: _Member, first_changed: int) -> ContextRun:
        history = member.history
        first = anchor(history.count, self._layout.window)
        carried_ms = history.carried_session_ms if first else NOTHING_CARRIED
        run = ContextRun(member.name, first, history.events, first_changed, 1, history.evicted_items, carried_ms)
        member.run = run
        member.round += 1
        if member.round == len(self.waves):
            self.waves.append([])
        self.waves[member.round].append(run)
        return run


def rejected(record: SourceRecord, reason: RejectReason, detail: str) -> OutputRecord:
    """The dead letter of a play."""
    letter = dead_letter(record, reason, detail)
    return _output(record, OutputKind.DEAD_LETTER, letter.key, letter.value, letter.headers)


def _reject(work: PartitionWork, record: SourceRecord, play: RejectedPlay) -> None:
    work.result.num_rejected += 1
    work.reasons.append(play.reason)
    work.pending.append(rejected(record, play.reason, play.detail))


def _late(record: SourceRecord) -> OutputRecord:
    """A play too late to be folded in, as it came. A valid one is small, but for its producer's headers."""
    headers = kept_headers(record.headers)
    headers += [
        (HEADER_PREFIX + "topic", record.topic.encode()),
        (HEADER_PREFIX + "partition", b"%d" % record.partition),
        (HEADER_PREFIX + "offset", b"%d" % record.offset),
    ]
    return _output(record, OutputKind.LATE, record.key, record.value or b"", headers)


def _output(
    record: SourceRecord, kind: OutputKind, key: bytes | None, value: bytes, headers: Iterable[tuple[str, bytes]]
) -> OutputRecord:
    identified = ((ID_HEADER, output_id(record, kind)), *headers)
    return OutputRecord(kind, key, value, identified, record.offset, record.timestamp)
