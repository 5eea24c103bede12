"""Items of a foreign table into a catalogue: the id and the title of each, and everything else as attributes.

Of a CSV file, a column of numbers or of truth values becomes one, and a column in which many cells hold several values behind one
another (Drama|Comedy) becomes lists. Of several rows of one item the last one counts.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.attributes import uniform
from intentrec_core.features.catalogue import Catalogue
from intentrec_core.limits import MAX_ID_BYTES
from intentrec_core.own_data.cells import as_numbers, as_texts, is_utf8, plain_column, single_values
from intentrec_core.own_data.column_roles import ITEM_NAMES, Roles, check_column, check_no_lists, find_roles
from intentrec_core.own_data.foreign_table import ForeignTable, RowBlock
from intentrec_core.own_data.rejected_rows import RejectedRow, RejectedRows
from intentrec_core.plays.text_columns import is_text

#: What separates the values of one cell, the likeliest first.
_LIST_SEPARATORS = ("|", ";", ",")
#: A column is one of lists when so many of its cells hold several values …
_SEVERAL = 0.1
#: … and a value occurs in so many cells: sentences have commas too, but their parts do not come back.
_REPEATED = 4.0
_TRUTHS = ("true", "false")
_LEADING_ZERO = r"^\s*0\d"


@dataclass(frozen=True, kw_only=True)
class ItemsLayout:
    """What each column of a table of items is. ``lists``: what separates the values of a cell, by column; a list written out with
    brackets has the separator ``[``.
    """

    roles: Roles
    lists: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ImportedItems:
    """The catalogue, and how many rows were those of an item that has a later one."""

    catalogue: Catalogue
    num_repeats: int


def lay_out_items(
    table: ForeignTable,
    given: Mapping[str, str | None],
    *,
    leave_out: Sequence[str] = (),
    lists: Mapping[str, str] | None = None,
) -> tuple[ItemsLayout, RowBlock]:
    """What each column is, told by the first rows, and these rows. ``lists`` has separators that are known; an empty one says
    that the column holds no lists.

    Raises: ConfigError for a column that is not there, or where none says which item it is; DataError when no row can be read.
    """
    sample = table.sample()
    names, file = sample.table.schema.names, table.path.name
    roles = find_roles(file, names, ITEM_NAMES, given, {"item": "which item it is"}, leave_out)
    check_no_lists(file, roles, sample.table.schema)
    known = dict(lists or {})
    for name in known:
        check_column(file, "--list", name, names)
        if name not in roles.others:
            raise ConfigError(f"--list {name}: {file}: the column is the id or the title of an item, and no list")
    told = {
        name: separator
        for name in roles.others
        if name not in known and (separator := _list_separator(sample.table.column(name)))
    }
    return ItemsLayout(roles=roles, lists={**told, **{name: by for name, by in known.items() if by}}), sample


def import_items(table: ForeignTable, layout: ItemsLayout, path: Path, rejected: RejectedRows) -> ImportedItems:
    """Writes the items of a table to ``path`` as a catalogue.

    Raises: DataError when the table cannot be read on, or no row is an item; OSError when the file cannot be written.
    """
    blocks = table.blocks(rejected.add)
    rows = _joined([_with_ids(block, layout.roles.columns["item"], rejected) for block in blocks])
    if not rows.num_rows:
        raise DataError(f"{table.path.name}: no row is an item: {'; '.join(rejected.lines()[:3]) or 'it has no rows'}")
    last = _last_of_each(rows.column("item_id"))
    items = rows.take(pa.array(last))
    columns: dict[str, Any] = {"item_id": items.column("item_id")}
    title = layout.roles.get("title")
    if title is not None:
        columns["title"] = as_texts(_text_if_bytes(single_values(items, title)))
    for name in rows.schema.names:
        if name in layout.roles.others or (name not in layout.roles.columns.values() and name != "item_id"):
            columns[name if name not in columns else f"{name}_2"] = _attribute(
                items.column(name), layout.lists.get(name)
            )
    catalogue = Catalogue.from_table(pa.table(columns))
    catalogue.save(path)
    return ImportedItems(catalogue=catalogue, num_repeats=rows.num_rows - len(last))


def items_of_plays(items: pa.Table, path: Path) -> Catalogue:
    """Writes the items that were played to ``path`` as a catalogue: ids, and attributes that came with the plays.

    Raises: OSError when the file cannot be written.
    """
    columns = {name: _attribute(items.column(name), None) for name in items.schema.names if name != "item_id"}
    catalogue = Catalogue.from_table(pa.table({"item_id": items.column("item_id"), **columns}))
    catalogue.save(path)
    return catalogue


def _with_ids(block: RowBlock, name: str, rejected: RejectedRows) -> pa.Table:
    """The rows with an id, which becomes the column item_id of texts; the others are rejected."""
    table = block.table
    ids = as_texts(single_values(table, name))
    length = pc.fill_null(pc.binary_length(ids), 0)
    wrong = np.asarray(pc.or_(pc.less(length, 1), pc.greater(length, MAX_ID_BYTES))) | ~is_utf8(ids)
    for row in np.flatnonzero(wrong).tolist():
        values = block.values(row)
        reason = f"{name} is {values.get(name)!r:.60}; allowed: a text of 1 to {MAX_ID_BYTES} bytes of UTF-8"
        rejected.add(RejectedRow(int(block.numbers[row]), "an item without a valid id", reason, values))
    others = [other for other in table.schema.names if other not in (name, "item_id")]
    kept = pa.table({"item_id": ids, **{other: plain_column(table.column(other)) for other in others}})
    return kept.filter(pa.array(~wrong))


def _joined(blocks: Sequence[pa.Table]) -> pa.Table:
    """The rows of all blocks. A column whose type differs between them, as in JSON lines, becomes what one block would have."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for block in blocks for name in block.schema.names):
        parts = [
            block.column(name) if name in block.schema.names else pa.chunked_array([pa.nulls(block.num_rows)])
            for block in blocks
        ]
        kinds = {part.type for part in parts} - {pa.null()}
        if len(kinds) > 1:
            columns[name] = uniform([value for part in parts for value in part.to_pylist()])
        else:
            kind = kinds.pop() if kinds else pa.null()
            columns[name] = pa.chunked_array([chunk for part in parts for chunk in part.cast(kind).chunks], kind)
    return pa.table(columns)


def _last_of_each(ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """The place of the last row of each item, rising."""
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes[::-1], return_index=True)
    return np.sort(len(codes) - 1 - first)


def _text_if_bytes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes as texts; a byte that is no UTF-8 becomes U+FFFD."""
    if not is_text(column.type) or is_utf8(column.cast(pa.binary()).cast(pa.string(), safe=False)).all():
        return column
    return pa.chunked_array(
        [
            pa.array(
                [
                    None if cell is None else cell.decode(errors="replace")
                    for cell in column.cast(pa.binary()).to_pylist()
                ]
            )
        ]
    )


def _attribute(column: pa.ChunkedArray, separator: str | None) -> pa.ChunkedArray | pa.Array:
    """The column as the attribute that its cells mean."""
    column = plain_column(column)
    if not is_text(column.type):
        return column
    texts = as_texts(_text_if_bytes(column))
    if separator:
        return pa.array([_split(text, separator) for text in texts.to_pylist()], pa.list_(pa.string()))
    given = texts.drop_null()
    if not len(given):
        return texts
    numbers = as_numbers(given)
    # A number with zeros before it is a code: 007 is not 7.
    if not numbers.null_count and not pc.any(pc.match_substring_regex(given, _LEADING_ZERO)).as_py():
        return as_numbers(texts)
    lowered = pc.utf8_lower(texts)
    if pc.all(pc.is_in(lowered.drop_null(), pa.array(_TRUTHS))).as_py():
        return pc.equal(lowered, "true")
    return texts


def _list_separator(column: pa.ChunkedArray) -> str:
    """What separates the values of a column's cells; empty where a cell is one value."""
    if not is_text(plain_column(column).type):
        return ""
    cells = [text.strip() for text in as_texts(_text_if_bytes(column)).drop_null().to_pylist()]
    if not cells:
        return ""
    if all(cell[:1] == "[" and cell[-1:] == "]" for cell in cells):
        return "["
    for separator in _LIST_SEPARATORS:
        several = sum(separator in cell for cell in cells)
        values = Counter(value for cell in cells for value in _split(cell, separator) or ())
        if several >= _SEVERAL * len(cells) and sum(values.values()) >= _REPEATED * len(values):
            return separator
    return ""


def _split(cell: str | None, separator: str) -> list[str] | None:
    if cell is None:
        return None
    if separator != "[":
        return [value for part in cell.split(separator) if (value := part.strip())]
    try:
        values = ast.literal_eval(cell)  # JSON, and how pandas writes lists
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = [part.strip().strip("\"'") for part in cell.strip()[1:-1].split(",")]
    return (
        [str(value) for value in values if value is not None and str(value)]
        if isinstance(values, list | tuple)
        else [cell]
    )
