"""The Arrow schema for stored plays: data sets, the event log and training use the same one.

Rows are in event-time order. Plays with equal times keep their order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.errors import DataError
from intentrec_core.limits import MAX_DURATION_S
from intentrec_core.plays.text_columns import contexts, ids, is_text, names, utf8, without_nan
from intentrec_core.plays.time_column import times_ms
from intentrec_core.times import EARLIEST_MS, END_MS

_ALLOWED_DURATIONS = f"allowed: seconds from 0 to {MAX_DURATION_S:,.0f}, or null for a missing one"
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
PLAYS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("ts_ms", pa.int64(), nullable=False),
        pa.field("action", pa.string()),
        pa.field("duration_s", pa.float32()),
        pa.field("session_id", pa.string()),
        pa.field("context", pa.map_(pa.string(), pa.string())),
    ]
)


class PlayRow(NamedTuple):
    """One play. Units: ``ts_ms`` milliseconds since 1970 (UTC), ``duration_s`` seconds."""

    event_id: str
    user_id: str
    item_id: str
    ts_ms: int
    action: str | None = None
    duration_s: float | None = None
    session_id: str | None = None
    context: Mapping[str, str | None] | None = None


def plays_table(rows: Iterable[PlayRow]) -> pa.Table:
    """The rows as a table of schema :data:`PLAYS`, in the given order."""
    kept = list(rows)
    columns = [
        [None if row.context is None else list(row.context.items()) for row in kept]
        if name == "context"
        else [getattr(row, name) for row in kept]
        for name in PLAYS.names
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, PLAYS, strict=True)], schema=PLAYS)


def play_rows(table: pa.Table, batch_rows: int = 8192) -> Iterator[PlayRow]:
    """The table's plays one by one, decoded ``batch_rows`` at a time."""
    for batch in table.select(PLAYS.names).to_batches(max_chunksize=batch_rows):
        columns = [column.to_pylist() for column in batch.columns]
        for event_id, user_id, item_id, ts_ms, action, duration_s, session_id, context in zip(*columns, strict=True):
            keyed = None if context is None else dict(context)
            yield PlayRow(event_id, user_id, item_id, ts_ms, action, duration_s, session_id, keyed)


def sort_plays(table: pa.Table) -> pa.Table:
    """The table in event-time order. Equal times keep their order: sorting them by id would make the order depend on the
    ids.
    """
    ts_ms = table.column("ts_ms").to_numpy()
    if len(ts_ms) < 2 or bool(np.all(ts_ms[:-1] <= ts_ms[1:])):
        return table
    return table.take(pa.array(np.argsort(ts_ms, kind="stable")))


def check_plays(table: pa.Table, *, earliest_ms: int = EARLIEST_MS, end_ms: int = END_MS) -> pa.Table:
    """The table in schema :data:`PLAYS` and event-time order (:func:`in_schema`, :func:`sort_plays`).

    Raises: as :func:`in_schema`.
    """
    return sort_plays(in_schema(table, earliest_ms=earliest_ms, end_ms=end_ms))


def in_schema(table: pa.Table, *, earliest_ms: int = EARLIEST_MS, end_ms: int = END_MS) -> pa.Table:
    """The table in schema :data:`PLAYS`, its rows in their order. Missing optional columns are added as nulls, unknown columns
    are dropped, and NaN is a missing value, as an empty action, session or duration is. A timestamp or a date in ``ts_ms`` is
    converted by its type, a text is read as ISO 8601.

    Raises: DataError with the name of a column that is missing, has the wrong type, or has nulls where none are
    allowed, and with the row of a time outside [``earliest_ms``, ``end_ms``), or of another value outside the limits that plays
    on the topic have.
    """
    columns = []
    for field in PLAYS:
        if field.name not in table.schema.names:
            if not field.nullable:
                raise DataError(f"plays: column {field.name} is missing: it is required")
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if pa.types.is_dictionary(column.type):  # its values can be null or NaN, too
            column = column.cast(column.type.value_type)
        column = without_nan(column)
        if not field.nullable and column.null_count:
            raise DataError(f"plays: column {field.name} has {column.null_count} nulls: it is required in every row")
        if field.name == "ts_ms":
            columns.append(times_ms("plays: column ts_ms", column, earliest_ms, end_ms))
            continue
        try:
            columns.append(_CONVERT[field.name](f"plays: column {field.name}", column))
        except pa.ArrowException as error:
            raise DataError(f"plays: column {field.name} is {column.type}, must be {field.type}: {error}") from error
    return pa.table(columns, schema=PLAYS)


def _durations(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as seconds, without NaN and empty texts, which mean missing. A duration type is converted by its unit.

    Raises: DataError with the first row that is no number or out of range.
    """
    if is_text(column.type):
        column = _numbers_of_texts(name, column)
    elif pa.types.is_duration(column.type):
        column = pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), _PER_SECOND[column.type.unit])
    elif pa.types.is_integer(column.type):  # a direct cast to float32 refuses large integers
        column = column.cast(pa.float64(), safe=False)
    column = without_nan(column.cast(pa.float32()))
    wrong = pc.fill_null(pc.or_(pc.less(column, 0.0), pc.greater(column, MAX_DURATION_S)), False)
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        raise DataError(f"{name}: row {row}: {column[row].as_py():g}; {_ALLOWED_DURATIONS}")
    return column


def _numbers_of_texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.utf8_trim_whitespace(utf8(name, column))
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        row = next(row for row, text in enumerate(texts) if not _is_number(text))
        raise DataError(
            f"{name}: row {row}: {repr(texts[row].as_py())[:80]}, no number; {_ALLOWED_DURATIONS}"
        ) from None


def _is_number(text: pa.StringScalar) -> bool:
    try:
        text.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


_CONVERT: Mapping[str, Callable[[str, pa.ChunkedArray], pa.ChunkedArray]] = {
    "event_id": ids,
    "user_id": ids,
    "item_id": ids,
    "action": names,
    "duration_s": _durations,
    "session_id": names,
    "context": contexts,
}
