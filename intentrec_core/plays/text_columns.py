"""The texts of stored plays: ids, actions and contexts, within the limits that plays on the topic have.

A whole number is the text of its digits, also in a column of numbers with a point or of decimals: so pandas keeps whole numbers
beside missing ones. One that the column's type cannot tell from its neighbours is refused. NaN is missing. A column of truth
values or times is refused. Every other text outside the limits, and bytes that are no UTF-8, are refused with their row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from intentrec_core.errors import DataError
from intentrec_core.limits import MAX_CONTEXT_ENTRIES, MAX_ID_BYTES, MAX_NAME_LENGTH, MAX_TEXT_LENGTH
from intentrec_core.parquet import end_of_whole


def without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with nulls for NaN, by which pandas writes a missing value, whatever the column is."""
    is_number = pa.types.is_floating(column.type)
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column) if is_number else column


def is_text(kind: pa.DataType) -> bool:
    """Whether it is a type of texts, or of bytes, in which some writers store texts."""
    types = pa.types
    texts = types.is_string, types.is_large_string, types.is_string_view
    return any(is_kind(kind) for is_kind in (*texts, types.is_binary, types.is_large_binary, types.is_binary_view))


def ids(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as texts of 1 to 256 bytes. Raises: DataError with the first row that is none."""
    texts = _texts(name, column)
    length = pc.binary_length(texts)
    wrong = pc.or_(pc.equal(length, 0), pc.greater(length, MAX_ID_BYTES))
    _refuse(name, wrong, lambda row: f"{length[row]} bytes; allowed: 1 to {MAX_ID_BYTES} bytes of UTF-8")
    return texts


def names(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as texts of at most 256 characters, and null for an empty one.

    Raises: DataError with the first row that is longer.
    """
    texts = _texts(name, column)
    length = pc.utf8_length(texts)
    wrong = pc.greater(length, MAX_NAME_LENGTH)
    _refuse(name, wrong, lambda row: f"{length[row]} characters; allowed: 1 to {MAX_NAME_LENGTH}, or null if missing")
    return pc.if_else(pc.equal(length, 0), pa.scalar(None, pa.string()), texts)


def contexts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as maps of text to text. An entry that is NaN is null.

    Raises: DataError with the first row that has too many entries, a name that is empty or too long, or too long a text;
    pyarrow.ArrowException for what is no map.
    """
    kind, first = pa.map_(pa.string(), pa.string()), 0
    checked = []
    for chunk in column.chunks:
        maps = chunk
        if pa.types.is_map(chunk.type) and pa.types.is_floating(chunk.type.item_type):
            numbers = _numbers(pa.chunked_array([chunk.items]))
            missing = chunk.is_null() if chunk.null_count else None
            maps = pa.MapArray.from_arrays(
                _from_zero(chunk.offsets), _entries(chunk, chunk.keys), _entries(chunk, numbers), mask=missing
            )
        checked.append(pc.cast(maps, options=_unchecked(kind)))
        _check_context(name, checked[-1], first)
        first += len(chunk)
    return pa.chunked_array(checked, kind)


def _from_zero(offsets: pa.Array) -> pa.Array:
    return pc.subtract(offsets, offsets[0])


def _entries(maps: pa.MapArray, values: pa.Array) -> pa.Array:
    """The part of all keys or values that belongs to these maps, which may be a slice."""
    begin, end = maps.offsets[0].as_py(), maps.offsets[len(maps)].as_py()
    return values.slice(begin, end - begin)


def _check_context(name: str, maps: pa.MapArray, first: int) -> None:
    """``first``: the row of the table with which the maps begin."""
    offsets = _from_zero(maps.offsets).to_numpy()
    keys, values = _entries(maps, maps.keys), _entries(maps, maps.items)
    given = np.concatenate([[0], np.cumsum(values.is_valid().to_numpy(zero_copy_only=False))])
    sizes = np.diff(given[offsets])

    def row(entry: int) -> int:
        return first + int(np.searchsorted(offsets, entry, side="right")) - 1

    for of_all, what in ((keys, "a name, "), (values, "a value, ")):
        for at, found in _first_not_utf8(of_all):
            raise DataError(f"{name}: row {row(at)}: {what}{found}")
    of_keys = pc.utf8_length(keys).to_numpy()
    of_values = pc.fill_null(pc.utf8_length(values), 0).to_numpy()
    for at in np.flatnonzero(sizes > MAX_CONTEXT_ENTRIES)[:1].tolist():
        raise DataError(f"{name}: row {first + at}: {sizes[at]} entries; allowed: at most {MAX_CONTEXT_ENTRIES}")
    for at in np.flatnonzero((of_keys < 1) | (of_keys > MAX_NAME_LENGTH))[:1].tolist():
        raise DataError(f"{name}: row {row(at)}: a name of {of_keys[at]} characters; allowed: 1 to {MAX_NAME_LENGTH}")
    for at in np.flatnonzero(of_values > MAX_TEXT_LENGTH)[:1].tolist():
        raise DataError(
            f"{name}: row {row(at)}: {keys[at].as_py()!r} has {of_values[at]:,} characters; allowed: at most "
            f"{MAX_TEXT_LENGTH:,}"
        )


def _texts(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        # Arrow would write texts for them that no producer means.
        raise DataError(f"{name} is {kind}; allowed: texts, or whole numbers")
    if pa.types.is_floating(kind):
        end = end_of_whole(kind)
        allowed = f"texts, or whole numbers below {end:,}, up to which a column of type {kind} holds all"
        column = column.cast(pa.float64())
        is_whole = _is_whole(column, end)
        _refuse(name, pc.invert(is_whole), lambda row: f"{column[row]}, a number; allowed: {allowed}")
        column = column.cast(pa.int64())
    elif pa.types.is_decimal(column.type):
        column = column.cast(pa.decimal256(76, max(column.type.scale, 0)))
        is_whole = pc.equal(column, pc.floor(column))
        _refuse(name, pc.invert(is_whole), lambda row: f"{column[row]}, a number; allowed: texts, or whole numbers")
        column = column.cast(pa.decimal256(76, 0))
    return utf8(name, column)


def utf8(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as texts. Raises: DataError with the first row that is no UTF-8, which no reader of Parquet checks."""
    texts = pc.cast(column, options=_unchecked(pa.string()))
    first = 0
    for chunk in texts.chunks:
        for at, found in _first_not_utf8(chunk):
            raise DataError(f"{name}: row {first + at}: {found}")
        first += len(chunk)
    return texts


def _unchecked(kind: pa.DataType) -> pc.CastOptions:
    """Arrow's own check of UTF-8 would not say which row it is."""
    return pc.CastOptions(kind, allow_invalid_utf8=True)


def _first_not_utf8(texts: pa.Array) -> Iterator[tuple[int, str]]:
    """The place of the first text that is no UTF-8, and what is said of it."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        for at, value in enumerate(texts.cast(pa.binary()).to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                yield at, f"{repr(value)[:80]} is not UTF-8; allowed: texts in UTF-8"
                return


def _numbers(values: pa.ChunkedArray) -> pa.Array:
    """Numbers with a point as texts: a whole one without its point, and null for NaN."""
    values = without_nan(values.cast(pa.float64()))
    whole = pc.fill_null(_is_whole(values, end_of_whole(pa.float64())), False)
    digits = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, digits, values.cast(pa.string())).combine_chunks()


def _is_whole(values: pa.ChunkedArray, end: int) -> pa.ChunkedArray:
    return pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), float(end)))


def _refuse(name: str, wrong: pa.ChunkedArray, why: Callable[[int], str]) -> None:
    row = pc.index(pc.fill_null(wrong, False), True).as_py()
    if row >= 0:
        raise DataError(f"{name}: row {row}: {why(row)}")
