"""Writes recommendations and intent updates: encoded rows become messages, and messages become output records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import UNSET, UnsetType, defstruct
from numpy.typing import NDArray

from index.base import PAD_ROW
from intentrec_core.errors import RejectReason
from intentrec_core.history.history import Outcome, hash64
from stream.pipeline.folding import PendingAnswer, rejected
from stream.pipeline.page_rows import PageRows
from stream.pipeline.reasons import Reasons
from stream.pipeline.sessions import session_id
from stream.wire.codec import encode_output
from stream.wire.messages import (
    ClosedSession,
    Coalesced,
    HiddenBy,
    IntentUpdate,
    PageRow,
    PrimaryIntent,
    Reason,
    Recommendation,
    RecommendedItem,
    Source,
)
from stream.wire.output_headers import OutputHeaders
from stream.wire.records import OutputKind, OutputRecord
from stream.wire.sizes import closed_label, with_short_titles

if TYPE_CHECKING:
    from index.filters import HidingFilter
    from stream.bundles.serving import Serving
    from stream.ops.metrics import Metrics
    from stream.pipeline.answered_rows import AnsweredRows
    from stream.pipeline.bundle_counts import BundleCounts
    from stream.pipeline.coalescing import CoalescedPlays
    from stream.pipeline.config import PipelineConfig
    from stream.pipeline.retrieval import RankedItems
    from stream.pipeline.sessions import ClosedSessions
    from stream.pipeline.shown_items import ShownItems
    from stream.wire.deferred_counts import DeferredCounts

#: Decimals of probabilities and scores. More carry no information in a float32, and make a message half as long again.
_DIGITS = 5
_KINDS = (OutputKind.RECOMMENDATION, OutputKind.INTENT)


@dataclass(frozen=True, slots=True)
class _Columns:
    """A slice's outputs as plain Python values, converted once for all rows. ``numbers``: of each row the scores of its list, the
    probabilities of the labels, head by head, and the weights of the heads. ``shifted``, ``opened``: of the row's play.
    """

    shown: ShownItems
    counts: BundleCounts | None
    items: list[list[int]]
    numbers: list[list[float]]
    popular: list[bool]
    hidden_by: Mapping[int, Sequence[HidingFilter]]
    primary: list[int]
    previous_primary: list[int]
    shifted: list[bool]
    session_ms: list[int]
    before: ClosedSessions
    opened: list[bool]
    event_hash: list[int]
    session_event: list[int]
    embeddings: list[bytes | UnsetType]
    queries: list[bytes | UnsetType]
    filter_values: list[dict[str, float | str] | UnsetType]
    reasons: Sequence[Sequence[Reason | UnsetType]]
    page_rows: Sequence[list[PageRow] | UnsetType]


class MessageWriter:
    """Writes the two outputs of every answer, with one bundle's names and as many items per list as configured.

    A message that its topic would refuse is not written: titles are cut first, and if that is not enough, the play gets a dead
    letter in place of this message. The play stays in the member's history, and the other message is written.
    """

    def __init__(self, serving: Serving, config: PipelineConfig, metrics: Metrics) -> None:
        self._version = serving.version
        self._uses_counts = serving.counts is not None
        self._k, self._max_tries = config.num_recommendations, config.max_tries
        self._limits, self._metrics = config.limits, metrics
        self._publishes_query = config.publish_embedding
        self._member_keys = serving.filters.member_keys
        self._publishes_embedding = config.publish_embedding and serving.has_intents
        self._reasons = Reasons(serving, self._k) if config.publish_reasons else None
        self._page_rows = PageRows(serving, config.rows) if config.rows else None
        self._is_explained = self._reasons is not None or self._page_rows is not None
        self._max_bytes = [config.limits.of(kind) for kind in _KINDS]
        heads = [(h.name, h.label_names) for h in serving.domain.heads] if serving.has_intents else []
        self._flat = [(name, label) for name, labels in heads for label in labels]
        self._closed_labels = [closed_label(name, label) for name, label in self._flat]
        ends = np.cumsum([self._k, *(len(labels) for _, labels in heads)]).tolist()
        #: What makes the object of each head's probabilities, and where these are among the numbers of a row.
        self._labels = [
            (_object(labels), slice(*places)) for (_, labels), places in zip(heads, pairwise(ends), strict=True)
        ]
        self._weights = slice(ends[-1], None)
        self._heads = _object([name for name, _ in heads])
        self._headers = OutputHeaders(config.source)

    def write(self, answered: AnsweredRows) -> list[list[OutputRecord]]:
        """The outputs of each partition's answers, in source order. Failed answers get a dead letter, coalesced ones nothing."""
        partitions, columns, failed = answered.partitions, self._columns(answered), answered.failed.tolist()
        event_times = iter(_iso_times([answer.play.ts_ms for partition in partitions for answer in partition.answers]))
        written: list[list[OutputRecord]] = []
        for partition, rows, coalesced, counts in zip(
            partitions, answered.rows_of, answered.coalescing.coalesced, answered.counts, strict=True
        ):
            outputs: list[OutputRecord] = []
            for answer, row, earlier in zip(partition.answers, rows, coalesced, strict=True):
                event_time = next(event_times)
                if failed[row]:
                    outputs.append(self._given_up(answer))
                elif earlier is not None:
                    outputs += self._answer(answer, earlier, columns, row, event_time, counts)
            written.append(outputs)
        return written

    def _answer(
        self,
        answer: PendingAnswer,
        earlier: CoalescedPlays,
        columns: _Columns,
        row: int,
        event_time: str,
        counts: DeferredCounts,
    ) -> list[OutputRecord]:
        """The outputs of one answer, which stands for the ``earlier`` plays too."""
        play, record = answer.play, answer.record
        user_id, event_id, bundle = play.user_id, play.event_id, self._version
        session = session_id(user_id, columns.session_ms[row])
        source = Source(record.topic, record.partition, record.offset)
        coalesced = Coalesced(1 + len(earlier), earlier[0][0].record.offset) if earlier else UNSET
        shown, outputs = columns.shown, list[OutputRecord]()
        item_ids, titles, numbers = shown.item_ids, shown.titles, columns.numbers[row]
        catalogue_offset = UNSET if shown.catalogue_offset is None else shown.catalogue_offset
        recommendation = Recommendation(
            user_id=user_id,
            session_id=session,
            event_id=event_id,
            event_time=event_time,
            bundle=bundle,
            source=source,
            items=[
                RecommendedItem(item_ids[item], titles[item], score, reason)
                for item, score, reason in zip(
                    columns.items[row], numbers[: self._k], columns.reasons[row], strict=True
                )
                if item != PAD_ROW
            ],
            fallback="popular" if columns.popular[row] else "none",
            hidden_by=_hidden_by(columns.hidden_by[row]) if row in columns.hidden_by else UNSET,
            coalesced=coalesced,
            catalogue_offset=catalogue_offset,
            counts_sequence=self._counts_sequence(columns, row),
            recommendation_id=f"{source.partition}-{source.offset}-{bundle}",
            rows=columns.page_rows[row],
            query=columns.queries[row],
            filter_values=columns.filter_values[row],
        )
        opener = self._opener(answer, columns, row, earlier)
        shifted = _shifted_since(earlier[0][1], columns, row) if earlier else columns.shifted[row]
        intent = IntentUpdate(
            user_id=user_id,
            session_id=session,
            session_opened=opener is not None,
            event_id=event_id,
            event_time=event_time,
            bundle=bundle,
            source=source,
            intents=self._heads(*[labels(*numbers[places]) for labels, places in self._labels]),
            weights=self._heads(*numbers[self._weights]),
            primary=self._primary(columns, row),
            shifted=shifted,
            coalesced=coalesced,
            catalogue_offset=catalogue_offset,
            closed_session=UNSET if opener is None else self._closed_session(user_id, columns, row, *opener),
            embedding=columns.embeddings[row],
        )
        whole = encode_output(recommendation), encode_output(intent)
        values: Sequence[bytes | None] = whole
        if len(whole[0]) > self._max_bytes[0] or len(whole[1]) > self._max_bytes[1]:
            values = self._fitted(recommendation, whole, answer, outputs, counts)
        key, offset, timestamp_ms = user_id.encode(), record.offset, record.timestamp
        headers_of = self._headers.of(record, user_id, event_time, shifted)
        for kind, value, headers in zip(_KINDS, values, headers_of, strict=True):
            if value is not None:
                outputs.append(OutputRecord(kind, key, value, headers, offset, timestamp_ms))
        return outputs

    def _fitted(
        self,
        recommendation: Recommendation,
        values: tuple[bytes, bytes],
        answer: PendingAnswer,
        outputs: list[OutputRecord],
        counts: DeferredCounts,
    ) -> list[bytes | None]:
        """The messages that fit: a list without reasons and rows, with titles cut if need be. None for one that does not, with a
        dead letter in its place.
        """
        fitted: list[bytes | None] = [
            value if len(value) <= most else None for value, most in zip(values, self._max_bytes, strict=True)
        ]
        if fitted[0] is None:
            fitted[0] = with_short_titles(recommendation, self._max_bytes[0])
            counts.add(self._metrics.cut_lists, amount=int(fitted[0] is not None))
        too_large = [
            f"{kind.value} of {len(value)} bytes, its topic takes {most}"
            for kind, value, most, fits in zip(_KINDS, values, self._max_bytes, fitted, strict=True)
            if fits is None
        ]
        if too_large:
            counts.add(self._metrics.plays_rejected, RejectReason.OUTPUT_TOO_LARGE, amount=1)
            detail = (
                f"folded into the member's history, but not sent: {'; '.join(too_large)}; there is nothing to redrive; raise the "
                "topic's max.message.bytes, or lower num_recommendations or the labels of the domain"
            )
            outputs.append(rejected(answer.record, RejectReason.OUTPUT_TOO_LARGE, detail, self._limits))
        return fitted

    def _counts_sequence(self, columns: _Columns, row: int) -> int | UnsetType:
        is_used = self._uses_counts or columns.popular[row] or self._is_explained
        return columns.counts.table.sequence if columns.counts is not None and is_used else UNSET

    @staticmethod
    def _opener(
        answer: PendingAnswer, columns: _Columns, row: int, earlier: CoalescedPlays
    ) -> tuple[PendingAnswer, int] | None:
        """Of the answered plays the one that opened the session which the output at ``row`` names, and its row; None if none."""
        if _opened(answer, columns, row):
            return answer, row
        opening = (one for one in earlier if _opens_session_of(row, one[1], one[0], columns)) if earlier else ()
        return next(iter(opening), None)

    def _closed_session(
        self, user_id: str, columns: _Columns, row: int, opener: PendingAnswer, its_row: int
    ) -> ClosedSession | UnsetType:
        """The session before that of ``row``, which a play opened that has the row ``its_row``."""
        before = columns.before
        if not before.held[row]:
            return UNSET
        start_ms, num_plays = int(before.start_ms[row]), int(before.num_plays[row])
        # What an inserted play is answered with is the newest play's, and so is the primary intent before it.
        primary = -1 if opener.outcome is Outcome.INSERTED else columns.previous_primary[its_row]
        return ClosedSession(
            session_id(user_id, start_ms),
            (int(before.end_ms[row]) - start_ms) / 1000,
            num_plays or UNSET,
            UNSET if primary < 0 else self._closed_labels[primary],
        )

    def _primary(self, columns: _Columns, row: int) -> PrimaryIntent | None:
        if columns.primary[row] < 0:
            return None
        primary = columns.primary[row]
        return PrimaryIntent(*self._flat[primary], columns.numbers[row][self._k + primary])

    def _columns(self, answered: AnsweredRows) -> _Columns:
        rows, encoded, ranked = answered.rows, answered.encoded, answered.ranked
        sessions = rows.sessions
        has_changed = (encoded.primary_N != encoded.previous_primary_N) & (encoded.previous_primary_N >= 0)
        return _Columns(
            shown=answered.items,
            counts=answered.item_counts,
            items=ranked.rows[:, : self._k].tolist(),
            numbers=_rounded([ranked.scores[:, : self._k], *encoded.heads, encoded.alpha_NM]),
            popular=ranked.popular.tolist(),
            hidden_by=ranked.hidden_by,
            primary=encoded.primary_N.tolist(),
            previous_primary=encoded.previous_primary_N.tolist(),
            shifted=(has_changed & ~sessions.opened).tolist(),
            session_ms=sessions.start_ms.tolist(),
            before=sessions.before,
            opened=sessions.opened.tolist(),
            event_hash=rows.plays["event_hash"].tolist(),
            session_event=rows.session_event.tolist(),
            embeddings=_vectors(encoded.intent_NP if self._publishes_embedding else None, len(rows)),
            queries=_vectors(ranked.queries if self._publishes_query else None, len(rows), absent=ranked.popular),
            filter_values=self._filter_values(ranked),
            reasons=[[UNSET] * self._k] * len(rows) if self._reasons is None else self._reasons.of(answered),
            page_rows=[UNSET] * len(rows) if self._page_rows is None else self._page_rows.of(answered),
        )

    def _filter_values(self, ranked: RankedItems) -> list[dict[str, float | str] | UnsetType]:
        """What the filters compare items with, for each row that has a query."""
        if not self._publishes_query or not self._member_keys or ranked.member_values is None:
            return [UNSET] * len(ranked.popular)
        return [
            UNSET if popular else _by_key(self._member_keys, values)
            for values, popular in zip(ranked.member_values, ranked.popular.tolist(), strict=True)
        ]

    def _given_up(self, answer: PendingAnswer) -> OutputRecord:
        return rejected(
            answer.record,
            RejectReason.INFERENCE_FAILED,
            f"folded into the member's history, but bundle {self._version} could not encode it in {self._max_tries} tries; "
            "there is nothing to redrive; fix the bundle",
            self._limits,
        )


def _by_key(keys: Sequence[str], values: Sequence[float | int | None]) -> dict[str, float | str]:
    """Numbers as they are, and hashes of texts as 16 hexadecimal digits."""
    known = zip(keys, values, strict=True)
    return {k: f"{value:016x}" if isinstance(value, int) else value for k, value in known if value is not None}


def _hidden_by(filters: Sequence[HidingFilter]) -> list[HiddenBy]:
    return [HiddenBy(f.kind, f.key, f.reason.value, f.event_key or UNSET) for f in filters]


def _opened(answer: PendingAnswer, columns: _Columns, row: int) -> bool:
    """Whether this play opened the session that the output names."""
    if answer.outcome is Outcome.APPENDED:
        return columns.opened[row]
    if answer.outcome is Outcome.INSERTED:
        # The output names the session of the newest play. Of plays at one time, the first one in the log opened it.
        is_at_start = columns.session_ms[row] == answer.play.ts_ms
        return is_at_start and columns.session_event[row] == hash64(answer.play.event_id)
    return columns.opened[row] and columns.event_hash[row] == hash64(answer.play.event_id)


def _opens_session_of(row: int, earlier_row: int, earlier: PendingAnswer, columns: _Columns) -> bool:
    """Whether a coalesced play opened the session that the output at ``row`` names."""
    return columns.session_ms[earlier_row] == columns.session_ms[row] and _opened(earlier, columns, earlier_row)


def _shifted_since(first: int, columns: _Columns, row: int) -> bool:
    """Whether the primary intent at ``row`` differs from the one before the coalesced plays, which begin at row ``first``; all
    of them in one session."""
    in_one_session = columns.session_ms[first] == columns.session_ms[row] and not columns.opened[first]
    return in_one_session and columns.primary[row] != columns.previous_primary[first] >= 0


def _object(names: Sequence[str]) -> Callable[..., Any]:
    """A function that makes JSON objects with these keys from values in the same order.

    A struct type costs a third of a dict, because its keys are encoded once and not for every play. msgspec refuses keys that
    JSON has to escape; a label may be any text, so the function falls back to a dict then.
    """
    fields = [(f"field{i}", Any) for i in range(len(names))]
    rename = {field: name for (field, _), name in zip(fields, names, strict=True)}
    try:
        return defstruct("JsonObject", fields, rename=rename, frozen=True, gc=False)
    except ValueError:
        return lambda *values: dict(zip(names, values, strict=True))


def _rounded(parts: Sequence[NDArray[np.float32]]) -> list[list[float]]:
    """The parts of each row side by side. Shapes: f32[N, any] each."""
    rounded: list[list[float]] = np.round(np.concatenate(parts, axis=1, dtype=np.float64), _DIGITS).tolist()
    return rounded


def _vectors(
    vectors: NDArray[np.float32] | None, num: int, absent: NDArray[np.bool_] | None = None
) -> list[bytes | UnsetType]:
    """Each row's vector as the bytes of a message; nothing for all rows if they are not published, and for ``absent`` ones."""
    if vectors is None:
        return [UNSET] * num
    packed, size = vectors.astype("<f4", copy=False).tobytes(), 4 * vectors.shape[1]
    rows: list[bytes | UnsetType] = [packed[start : start + size] for start in range(0, len(packed), size)]
    for row in () if absent is None else np.flatnonzero(absent).tolist():
        rows[row] = UNSET
    return rows


def _iso_times(ts_ms: Sequence[int]) -> list[str]:
    """As :func:`stream.wire.codec.iso_time`, for many."""
    if not ts_ms:
        return []
    texts = np.datetime_as_string(np.array(ts_ms, dtype="datetime64[ms]"), unit="ms")
    return [f"{text}Z" for text in texts.tolist()]
