"""What makes a row of a foreign table no play, looked for a column at a time.

The limits are those of :func:`intentrec_core.plays.table.in_schema`, which has the last word. A row that only it refuses is found
by halving the block again and again, which is much slower. So whatever real files have in many rows is looked for here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.limits import MAX_DURATION_S, MAX_ID_BYTES, MAX_NAME_LENGTH, MAX_TEXT_LENGTH
from intentrec_core.own_data.cells import as_texts, is_utf8, plain_column
from intentrec_core.own_data.foreign_table import RowBlock
from intentrec_core.own_data.rejected_rows import RejectedRow, RejectedRows
from intentrec_core.own_data.time_units import TimeReader
from intentrec_core.parquet import end_of_whole

_OPEN_QUOTE = "is a quote not closed? Where quotes are characters as any other, --quote none"
_DURATIONS = f"allowed: 0 to {MAX_DURATION_S:,.0f} s, in the unit that its name ends with: _ms, _minutes, else seconds"
_UTF8 = "allowed: texts in UTF-8, or CSV in the encoding that --encoding names"


class RowChecks:
    """Rejects rows of a block, each for the first thing that is wrong with it. ``wrong`` bool[N]: what was rejected.

    Every check gets the name of a column in the file and its cells, of N rows each, which may be null.
    """

    def __init__(self, block: RowBlock, rejected: RejectedRows) -> None:
        self._block, self._rejected = block, rejected
        self.wrong = np.zeros(block.table.num_rows, dtype=np.bool_)

    def check_lists(self, name: str, column: pa.ChunkedArray) -> None:
        """Rejects lists of several values, where one is needed."""
        if pa.types.is_list(column.type):
            several = pc.greater(pc.list_value_length(column), 1)
            self._reject(
                several,
                "a list in place of one value",
                lambda row: f"{name} is {_shown(column[row].as_py())}; allowed: one value",
            )

    def check_ids(self, name: str, what: str, column: pa.ChunkedArray, texts: pa.ChunkedArray) -> None:
        """Rejects what is no id of a play: of ``what``, for instance the item. ``texts``: the column as texts."""
        self._reject(texts.is_null(), f"no {what}", lambda _: f"{name} is empty")
        self._check_kind(name, column)
        self._check_line_breaks(name, texts)
        self._check_utf8(name, texts)
        self._check_length(
            name,
            pc.binary_length(texts),
            MAX_ID_BYTES,
            "an id that is too long",
            f"bytes; allowed: 1 to {MAX_ID_BYTES}",
        )

    def check_names(self, name: str, texts: pa.ChunkedArray) -> None:
        """Rejects what is no action and no session of a play."""
        self._check_line_breaks(name, texts)
        self._check_utf8(name, texts)
        allowed = f"characters; allowed: at most {MAX_NAME_LENGTH}"
        self._check_length(name, pc.utf8_length(texts), MAX_NAME_LENGTH, "a name that is too long", allowed)

    def check_context(self, name: str, texts: pa.ChunkedArray) -> None:
        """Rejects what no context of a play can hold."""
        if not 1 <= len(name) <= MAX_NAME_LENGTH:
            why = f"column {_shown(name)} has a name of {len(name):,} characters; allowed: 1 to {MAX_NAME_LENGTH}"
            self._reject(texts.is_valid(), "a column whose name no context can have", lambda _: why)
            return
        self._check_utf8(name, texts)
        allowed = f"characters; allowed: at most {MAX_TEXT_LENGTH:,}. If it is not needed, --leave-out {name}"
        self._check_length(name, pc.utf8_length(texts), MAX_TEXT_LENGTH, "a context that is too long", allowed)

    def check_times(self, name: str, column: pa.ChunkedArray, times: pa.ChunkedArray, reader: TimeReader) -> None:
        """Rejects rows without a time. ``times``: what ``reader`` made of the column."""
        self._reject(plain_column(column).is_null(), "no time", lambda _: f"{name} is empty")
        self._reject(times.is_null(), "a time that cannot be read", lambda row: reader.why_not(column[row].as_py()))

    def check_durations(self, name: str, column: pa.ChunkedArray, seconds: pa.ChunkedArray) -> None:
        """Rejects what is no duration of a play. ``seconds``: the column as f32 seconds, null for what is no number."""
        unread = pc.and_(seconds.is_null(), as_texts(column).is_valid())
        self._reject(
            unread, "a duration that is no number", lambda row: f"{name} is {_shown(column[row].as_py())}, no number"
        )
        self._reject(
            pc.or_(pc.less(seconds, 0.0), pc.greater(seconds, MAX_DURATION_S)),
            "a duration outside the limits",
            lambda row: f"{name} is {_shown(column[row].as_py())}, {seconds[row].as_py():g} s; {_DURATIONS}",
        )

    def _check_kind(self, name: str, column: pa.ChunkedArray) -> None:
        """Rejects truth values, times and numbers with a fraction: what two programs would write as different texts."""
        column = plain_column(column)
        kind, allowed = column.type, "texts, or whole numbers"
        if pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
            wrong = column.is_valid()
        elif pa.types.is_floating(kind):
            numbers, end = column.cast(pa.float64()), end_of_whole(kind)
            wrong = pc.or_(pc.not_equal(numbers, pc.floor(numbers)), pc.greater_equal(pc.abs(numbers), float(end)))
            allowed += f" below {end:,}, up to which this type holds all"
        else:
            return
        self._reject(
            wrong,
            "a value that is no id",
            lambda row: f"{name} is {_shown(column[row].as_py())}, of type {kind}; allowed: {allowed}",
        )

    def _check_line_breaks(self, name: str, texts: pa.ChunkedArray) -> None:
        has_break = pc.match_substring(texts.cast(pa.binary()), b"\n")
        self._reject(has_break, "a line break in an id or a name", lambda _: f"{name} has a line break: {_OPEN_QUOTE}")

    def _check_utf8(self, name: str, texts: pa.ChunkedArray) -> None:
        cells = texts.cast(pa.binary())
        self._reject(
            ~is_utf8(texts),
            "a text that is not UTF-8",
            lambda row: f"{name} is {_shown(cells[row].as_py())}, which is not UTF-8; {_UTF8}",
        )

    def _check_length(self, name: str, lengths: pa.ChunkedArray, most: int, kind: str, allowed: str) -> None:
        self._reject(pc.greater(lengths, most), kind, lambda row: f"{name} has {lengths[row].as_py():,} {allowed}")

    def _reject(self, found: pa.ChunkedArray | NDArray[np.bool_], kind: str, reason: Callable[[int], str]) -> None:
        """Rejects the rows that are ``found``, bool[N]; ``reason`` says why of a row's place in the block."""
        if not isinstance(found, np.ndarray):
            found = np.asarray(pc.fill_null(found, False))
        new = found & ~self.wrong
        for row in np.flatnonzero(new).tolist():
            self._rejected.add(RejectedRow(int(self._block.numbers[row]), kind, reason(row), self._block.values(row)))
        self.wrong |= new


def _shown(value: Any) -> str:
    return repr(value.decode(errors="backslashreplace") if isinstance(value, bytes) else value)[:60]
