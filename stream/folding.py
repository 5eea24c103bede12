"""Plays folded into histories, and grouped into runs: what inference has to answer, and from which context.

    records ─ decode ─ apply ─┬─ rejected, too late ──▶ outputs, at once
                              ├─ duplicate ──▶ nothing
                              ├─ order to forget a member ──▶ no history, tombstones in the changelog
                              └─ answers, in source order ──▶ runs, in rounds

A run is one context of one member, encoded in one pass, with an output for each of its last plays. Plays of one member
in a batch share a run; it is split where the anchor moves or a late play comes in, and the n-th run of a member is in the
n-th round, so that a round holds each member once. Nothing here touches weights, an index or a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from intentrec_core.changelog_codec import encode_changes, tombstone_keys
from intentrec_core.errors import RejectReason
from intentrec_core.history import EventLayout, History, Outcome
from stream.codec import DecodedPlay, RejectedPlay, decode_play
from stream.control import home_partition, is_control, read_control
from stream.dead_letter import HEADER_PREFIX, dead_letter, kept_headers
from stream.records import ID_HEADER, OutputKind, OutputRecord, PartitionResult, SourceRecord, output_id
from stream.sessions import NOTHING_CARRIED


@dataclass(slots=True)
class Run:
    """One member's context, to be encoded once with outputs for its last ``num_outputs`` plays.

    ``member`` is the user id with its partition: what caches are keyed by. ``first_changed`` as in
    :class:`~intentrec_core.engine.EncodeRequest`. ``repeats``: nothing was folded in, its newest play is answered again.
    ``first_row``: where its outputs stand among all of the batch, once that is laid out.
    """

    member: str
    anchor: int
    context: bytes
    first_changed: int
    num_outputs: int
    evicted_items: bytes
    carried_ms: int
    repeats: bool = False
    first_row: int = -1


@dataclass(slots=True)
class Answer:
    """A play that is owed a recommendation and an intent: output ``nth`` of ``run``.

    A ``is_silent`` one gets none of its own: it is among those that a later one of the member ``stands_for``, oldest first.
    """

    record: SourceRecord
    play: DecodedPlay
    outcome: Outcome
    run: Run
    nth: int
    stands_for: Sequence[Answer] = ()
    is_silent: bool = False

    @property
    def row(self) -> int:
        """Its place among all outputs of the micro-batch."""
        return self.run.first_row + self.nth


@dataclass(slots=True)
class PartitionWork:
    """One partition's share of a micro-batch: its result so far, and what goes into its outputs, in source order."""

    result: PartitionResult
    pending: list[OutputRecord | Answer] = field(default_factory=list)
    reasons: list[RejectReason] = field(default_factory=list)


@dataclass(slots=True)
class _Change:
    """What of a member's history the changelog does not have yet."""

    user_id: str
    history: History
    first_changed: int
    anchor_moved: bool


class Folder:
    """Folds records of one micro-batch; made anew for each one.

    ``num_partitions`` is None where any partitioner is allowed. ``inserted`` and ``forgotten`` name members of whom cached
    keys and values, or everything that is cached, must not be used again.
    """

    def __init__(self, layout: EventLayout, num_partitions: int | None) -> None:
        self.rounds: list[list[Run]] = []
        self.inserted: set[str] = set()
        self.forgotten: set[str] = set()
        self._layout = layout
        self._max_future_ms = int(layout.domain.max_future_s * 1000)
        self._num_partitions = num_partitions
        self._newest_run: dict[str, tuple[Run | None, int]] = {}

    def fold(self, partition: int, histories: dict[str, History], records: Sequence[SourceRecord]) -> PartitionWork:
        """Folds one partition's next records into its histories.

        Cost: about 15 µs a play, most of it decoding, packing and the search for a duplicate.
        """
        layout, max_future_ms = self._layout, self._max_future_ms
        work = PartitionWork(PartitionResult(partition, records[-1].offset + 1, len(records)))
        result, changes = work.result, dict[str, _Change]()
        for record in records:
            if is_control(record):
                self._control(work, record, histories, changes)
                continue
            play = decode_play(record, max_future_ms)
            if isinstance(play, RejectedPlay):
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
                packed = layout.pack(
                    item_id=play.item_id,
                    event_id=play.event_id,
                    ts_ms=play.ts_ms,
                    duration_s=play.duration_s,
                    attributes=play.attributes,
                )
            except (ValueError, OverflowError) as error:
                _reject(work, record, RejectedPlay(RejectReason.INVALID_FIELD, str(error)))
                continue
            if history is None:
                history = histories[user_id] = History()
            outcome, position, evicted = history.apply(layout, packed, record.offset)
            if outcome is Outcome.DUPLICATE:
                result.num_duplicates += 1
                continue
            if outcome is Outcome.TOO_LATE:
                result.num_late += 1
                work.pending.append(_late(record))
                continue
            member = f"{partition}/{user_id}"
            if outcome is Outcome.REPLAYED:
                result.num_replayed += 1
                work.pending.append(self._repeat(record, play, member, history))
                continue
            result.num_applied += 1
            change = changes.get(user_id)
            if change is None:
                changes[user_id] = _Change(user_id, history, position, evicted > 0)
            else:
                change.first_changed = min(max(0, change.first_changed - evicted), position)
                change.anchor_moved |= evicted > 0
            work.pending.append(self._answer(record, play, member, history, outcome, position, evicted))
        result.changelog.update(_changelog(layout, changes.values()))
        return work

    def _control(
        self, work: PartitionWork, record: SourceRecord, histories: dict[str, History], changes: dict[str, _Change]
    ) -> None:
        order, partition = read_control(record), work.result.partition
        if not isinstance(order, RejectedPlay):
            order = self._misplaced(order.user_id, partition) or order
        if isinstance(order, RejectedPlay):
            _reject(work, record, order)
            return
        work.result.num_forgotten += 1
        user_id, member = order.user_id, f"{partition}/{order.user_id}"
        history = histories.get(user_id)
        if history is None or record.offset <= history.last_offset:
            return  # nobody we know; or a replay, and what is held began behind this order
        del histories[user_id]
        changes.pop(user_id, None)
        work.result.changelog.update(dict.fromkeys(tombstone_keys(self._layout, user_id)))
        self.forgotten.add(member)
        if member in self._newest_run:
            self._newest_run[member] = (None, self._newest_run[member][1])

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

    def _answer(
        self,
        record: SourceRecord,
        play: DecodedPlay,
        member: str,
        history: History,
        outcome: Outcome,
        position: int,
        evicted: int,
    ) -> Answer:
        open_run, round_ = self._newest_run.get(member, (None, -1))
        context = bytes(history.events)
        if outcome is Outcome.APPENDED and not evicted and open_run is not None and not open_run.repeats:
            open_run.context = context
            open_run.num_outputs += 1
            return Answer(record, play, outcome, open_run, open_run.num_outputs - 1)
        if outcome is Outcome.INSERTED:
            self.inserted.add(member)
        run = self._new_run(member, history, context, round_ + 1)
        run.first_changed = 0 if evicted else position
        return Answer(record, play, outcome, run, 0)

    def _repeat(self, record: SourceRecord, play: DecodedPlay, member: str, history: History) -> Answer:
        run, round_ = self._newest_run.get(member, (None, -1))
        if run is None or not run.repeats:
            run = self._new_run(member, history, bytes(history.events), round_ + 1)
            run.first_changed = history.num_events(self._layout)
            run.repeats = True
        return Answer(record, play, Outcome.REPLAYED, run, 0)

    def _new_run(self, member: str, history: History, context: bytes, round_: int) -> Run:
        first = history.anchor(self._layout)
        carried_ms = history.carried_session_ms if first else NOTHING_CARRIED
        run = Run(member, first, context, 0, 1, history.evicted_items, carried_ms)
        if round_ == len(self.rounds):
            self.rounds.append([])
        self.rounds[round_].append(run)
        self._newest_run[member] = (run, round_)
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


def _changelog(layout: EventLayout, changes: Iterable[_Change]) -> Iterable[tuple[bytes, bytes | None]]:
    for change in changes:
        yield from encode_changes(
            layout,
            change.user_id,
            change.history,
            first_changed=change.first_changed,
            anchor_moved=change.anchor_moved,
        )
