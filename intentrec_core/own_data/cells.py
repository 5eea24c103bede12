"""Cells of a foreign table as texts and as numbers, a column at a time; what is neither is null."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.plays.text_columns import is_text

NUMBER = r"^\s*-?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*$"
#: Below 9·10^18, which 64 bits hold.
_WHOLE = r"^\s*-?[0-8]?\d{1,18}\s*$"
#: From here on a float no longer tells one whole number from the next.
_END_OF_WHOLE = 2.0**53


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionaries, and with null for NaN."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def single_values(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of a block, as single values. A block of JSON lines may lack it: then all are null. It may have lists, even where
    the first block has none: a list of one value counts as that value, and any other is null.
    """
    if name not in table.schema.names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    column = table.column(name)
    if not pa.types.is_list(column.type):
        return column
    cells = [cell[0] if cell is not None and len(cell) == 1 else None for cell in column.to_pylist()]
    return pa.chunked_array([pa.array(cells, column.type.value_type)])


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as texts, which may be no UTF-8; an empty one is null."""
    column = plain_column(column)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _number_texts(column.cast(pa.float64()))
    if is_text(kind):
        texts = pc.cast(column, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
        return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.string()), texts)
    return column.cast(pa.string())


def as_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as numbers of 64 bits, whole ones where every cell is one; null for what is no number."""
    column = plain_column(column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if not is_text(kind):
        return pa.chunked_array([pa.nulls(len(column), pa.float64())])
    texts = pc.cast(column, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
    numbers = pc.if_else(pc.match_substring_regex(texts, NUMBER), texts, pa.scalar(None, pa.string()))
    is_whole = pc.all(pc.match_substring_regex(numbers, _WHOLE)).as_py()
    return pc.utf8_trim_whitespace(numbers).cast(pa.int64() if is_whole else pa.float64())


def is_utf8(texts: pa.ChunkedArray) -> NDArray[np.bool_]:
    """bool[N]: which texts are UTF-8; a null is."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return np.array([_decodes(text) for text in texts.cast(pa.binary()).to_pylist()], dtype=np.bool_)
    return np.ones(len(texts), dtype=np.bool_)


def _decodes(text: bytes | None) -> bool:
    try:
        (text or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _number_texts(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as texts, a whole one without its point."""
    is_whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), _END_OF_WHOLE))
    whole = pc.if_else(is_whole, numbers, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(whole, numbers.cast(pa.string()))
