"""Plays of a foreign table, block by block, into a file of schema PLAYS.

    block ── roles, times, row checks ──▶ candidate rows ── in_schema ──▶ plays.parquet
                       └─────────────────────────┴──▶ rejected rows, with the reason

A row is taken if and only if `train`, `eval` and `replay` take it: the last check is theirs. One block is in memory at a time,
and 8 bytes a row for counting repeats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from intentrec_core.durable_files import replacing
from intentrec_core.errors import ConfigError, DataError
from intentrec_core.history.history import hash64
from intentrec_core.limits import MAX_CONTEXT_ENTRIES
from intentrec_core.own_data.cells import as_numbers, as_texts, plain_column, single_values
from intentrec_core.own_data.column_roles import PLAY_NAMES, REQUIRED, Roles, check_column, check_no_lists, find_roles
from intentrec_core.own_data.foreign_table import ForeignTable, RowBlock
from intentrec_core.own_data.item_columns import columns_of_items
from intentrec_core.own_data.rejected_rows import RejectedRow, RejectedRows
from intentrec_core.own_data.row_checks import RowChecks
from intentrec_core.own_data.time_units import TimeReader, TimeUnit, tell_times
from intentrec_core.plays.table import PLAYS, in_schema
from intentrec_core.times import EARLIEST_MS

#: By what a duration of each unit is divided to be seconds.
DURATIONS_PER_S = {"s": 1.0, "ms": 1_000.0, "min": 1 / 60}
#: The same, as the name of its column says it, in lower case and without signs.
_PER_SECOND = (
    (re.compile(r"^ms|ms$|millis"), DURATIONS_PER_S["ms"]),
    (re.compile(r"(minutes|mins)$"), DURATIONS_PER_S["min"]),
)
_SIGNS = re.compile(r"[^a-z0-9]")
#: What names a member, an item or a play.
_IDS = ("user", "item", "event_id")
_OUTSIDE = "a value outside the limits"
_PLACE = re.compile(r"^plays: column (\w+): row 0: ")
#: Parts of distinct values are merged when there are so many.
_NUM_PARTS = 32

Report = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class PlaysLayout:
    """What each column of a table of plays is. ``duration_per_s``: by what its durations are divided. ``of_items``: columns that
    say something of the item, and go to the catalogue. ``context``: the others, in the table's order. ``lists``: columns of
    lists or nested values, which a play cannot have. ``leave_out``: columns that are not wanted.
    """

    roles: Roles
    time: TimeReader
    duration_per_s: float
    of_items: tuple[str, ...]
    context: tuple[str, ...]
    lists: tuple[str, ...]
    leave_out: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImportedPlays:
    """What was taken. ``num_repeats``: plays whose member has another one with the same event id; they count once. ``items``: the
    column item_id of all items played, and a column for each of ``of_items``. Units: milliseconds since 1970.
    """

    num_plays: int
    num_members: int
    num_repeats: int
    from_ms: int
    until_ms: int
    items: pa.Table


def lay_out_plays(
    table: ForeignTable,
    given: Mapping[str, str | None],
    *,
    end_ms: int,
    leave_out: Sequence[str] = (),
    of_items: Sequence[str] | None = (),
    duration_per_s: float | None = None,
    time_unit: TimeUnit | None = None,
    time_format: str = "",
) -> tuple[PlaysLayout, RowBlock]:
    """What each column is, told by the first rows, and these rows. ``given`` has a column for each role that is known;
    ``of_items`` None: told from the plays; ``duration_per_s`` None: told from the name of the column. A play at ``end_ms``
    (milliseconds since 1970) or later is none.

    Raises: ConfigError for a column that is not there, or a part of a play without one; DataError when no row can be read, or no
    time.
    """
    sample = table.sample()
    names, file = sample.table.schema.names, table.path.name
    roles = find_roles(file, names, PLAY_NAMES, given, REQUIRED, leave_out)
    check_no_lists(file, roles, sample.table.schema)
    for name in of_items or ():
        check_column(file, "--of-item", name, names)
        if name not in roles.others:
            raise ConfigError(
                f"--of-item {name}: {file}: it is the {_role_of(roles, name)} of a play: name another column for that"
            )
    time = tell_times(
        file,
        roles.columns["time"],
        sample.table.column(roles.columns["time"]),
        earliest_ms=EARLIEST_MS,
        end_ms=end_ms,
        unit=time_unit,
        format=time_format,
    )
    lists = tuple(name for name in roles.others if pa.types.is_nested(sample.table.schema.field(name).type))
    others = tuple(name for name in roles.others if name not in lists)
    if of_items is None:
        users, items = (sample.table.column(roles.columns[role]) for role in ("user", "item"))
        of_items = columns_of_items(users, items, {name: sample.table.column(name) for name in others})
    context = tuple(name for name in others if name not in of_items)
    if len(context) > MAX_CONTEXT_ENTRIES:
        raise ConfigError(
            f"{file}: {len(context)} columns would be context of each play; allowed: {MAX_CONTEXT_ENTRIES}: leave some out with "
            "--leave-out COLUMN"
        )
    duration = _SIGNS.sub("", (roles.get("duration") or "").lower())
    if duration_per_s is None:
        duration_per_s = next((per_s for ending, per_s in _PER_SECOND if ending.search(duration)), 1.0)
    elif not duration:
        raise ConfigError(f"--duration-unit: {file} has no column of durations: name it with --duration COLUMN")
    layout = PlaysLayout(
        roles=roles,
        time=time,
        duration_per_s=duration_per_s,
        of_items=tuple(of_items),
        context=context,
        lists=lists,
        leave_out=tuple(leave_out),
    )
    return layout, sample


def import_plays(
    table: ForeignTable, layout: PlaysLayout, path: Path, rejected: RejectedRows, report: Report = lambda _: None
) -> ImportedPlays:
    """Writes the plays of a table to ``path``, in the order of the table. ``report`` gets the number of rows done.

    Raises: DataError when the table cannot be read on, or no row of it is a play; OSError when a file cannot be written.
    """
    tally = _Tally(layout.of_items)
    with replacing(path) as file, pq.ParquetWriter(file, PLAYS, compression="zstd") as writer:
        for block in table.blocks(rejected.add):
            rows, taken = _candidates(block, layout, rejected)
            plays, at = _in_schema(rows, taken, block, layout.time, rejected)
            if plays.num_rows:
                writer.write_table(plays)
                tally.add(plays, block.table.take(pa.array(at)), layout.of_items)
            report(tally.num_plays + rejected.num)
        if not tally.num_plays:
            raise DataError(
                f"{table.path.name}: no row is a play: {'; '.join(rejected.lines()[:3]) or 'it has no rows'}"
            )
    return tally.found()


def _role_of(roles: Roles, column: str) -> str:
    return next(role for role, name in roles.columns.items() if name == column).replace("_", " ")


def _candidates(block: RowBlock, layout: PlaysLayout, rejected: RejectedRows) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows that pass all checks but the last one, as columns of PLAYS, and their places in the block."""
    table, num, name_of = block.table, block.table.num_rows, layout.roles.columns
    checks = RowChecks(block, rejected)
    for name in name_of.values():
        if name in table.schema.names:
            checks.check_lists(name, table.column(name))
    found = {role: single_values(table, name) for role, name in name_of.items()}
    texts = {role: as_texts(found[role]) for role in found if role not in ("time", "duration")}
    for role, cells in texts.items():
        if role in _IDS:
            checks.check_ids(name_of[role], role.replace("_", " "), found[role], cells)
        else:
            checks.check_names(name_of[role], cells)
    times = layout.time.read(found["time"])
    checks.check_times(name_of["time"], found["time"], times, layout.time)
    seconds = nothing = pa.chunked_array([pa.nulls(num, pa.string())])
    if "duration" in found:
        durations = as_numbers(found["duration"]).cast(pa.float64(), safe=False)
        seconds = pc.divide(durations, layout.duration_per_s).cast(pa.float32())
        checks.check_durations(name_of["duration"], found["duration"], seconds)
    others = {name: as_texts(single_values(table, name)) for name in _context_of(table, layout)}
    for name, cells in others.items():
        checks.check_context(name, cells)
    ids = found.get("event_id")
    if ids is None:
        ids = _content_ids(table)
    rows = pa.table(
        {
            "event_id": plain_column(ids),
            "user_id": plain_column(found["user"]),
            "item_id": plain_column(found["item"]),
            "ts_ms": times,
            "action": texts.get("action", nothing),
            "duration_s": seconds,
            "session_id": texts.get("session", nothing),
            "context": _contexts(others, num),
        }
    )
    taken = np.flatnonzero(~checks.wrong)
    return rows.take(pa.array(taken)) if len(taken) < num else rows, taken


def _context_of(table: pa.Table, layout: PlaysLayout) -> list[str]:
    """The columns of this block that are context. JSON lines may have names that the first block has not."""
    known = {*layout.roles.columns.values(), *layout.of_items, *layout.lists, *layout.leave_out}
    return [
        field.name
        for field in table.schema
        if field.name in layout.context or (field.name not in known and not pa.types.is_nested(field.type))
    ]


def _in_schema(
    rows: pa.Table, taken: NDArray[np.int64], block: RowBlock, time: TimeReader, rejected: RejectedRows
) -> tuple[pa.Table, NDArray[np.int64]]:
    """The rows that `train` takes, in schema PLAYS, and their places in the block; the others are rejected with its reason."""
    if not rows.num_rows:
        return PLAYS.empty_table(), taken
    try:
        return in_schema(rows, earliest_ms=time.earliest_ms, end_ms=time.end_ms), taken
    except DataError as error:
        if rows.num_rows == 1:
            number, values = int(block.numbers[taken[0]]), block.values(int(taken[0]))
            rejected.add(RejectedRow(number, _OUTSIDE, _PLACE.sub(r"\1: ", str(error)), values))
            return PLAYS.empty_table(), taken[:0]
    half = rows.num_rows // 2
    parts = [
        _in_schema(rows.slice(start, length), taken[start : start + length], block, time, rejected)
        for start, length in ((0, half), (half, rows.num_rows - half))
    ]
    return pa.concat_tables([plays for plays, _ in parts]), np.concatenate([at for _, at in parts])


def _content_ids(table: pa.Table) -> pa.ChunkedArray:
    """An event id from all cells of a row that are not empty, with their names: the same row has the same id in every import,
    so that it counts once. Neither what its columns are taken for matters, nor which columns the rows around it have.
    """
    cells = [
        pc.binary_join_element_wise(f"{name}=".encode(), _cell_texts(table.column(name)).cast(pa.binary()), b"")
        for name in sorted(table.schema.names)
    ]
    joined = pc.binary_join_element_wise(*cells, b"\x1f", null_handling="skip")
    return pa.chunked_array([pa.array([f"{hash64(text):016x}" for text in joined.to_pylist()])])


def _cell_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cells of any type as texts; a list of one text is as this text."""
    if not pa.types.is_nested(column.type):
        return as_texts(column)
    return pa.chunked_array([pa.array([_nested_text(cell) for cell in column.to_pylist()], pa.string())])


def _nested_text(cell: Any) -> str | None:
    if cell is None:
        return None
    entries = cell if isinstance(cell, list) else [cell]
    return "\x1e".join(entry if isinstance(entry, str) else json.dumps(entry, default=str) for entry in entries)


def _contexts(columns: Mapping[str, pa.ChunkedArray], num: int) -> pa.Array:
    """The columns as one context a row, without the cells that are empty."""
    if not columns:
        return pa.nulls(num, PLAYS.field("context").type)
    is_given = np.stack([column.is_valid().to_numpy() for column in columns.values()], axis=1)
    offsets = np.concatenate([[0], np.cumsum(is_given.sum(axis=1))]).astype(np.int32)
    place = np.arange(num)[:, None] + num * np.arange(len(columns))
    keys = np.broadcast_to(np.arange(len(columns)), is_given.shape)[is_given]
    values = pa.concat_arrays([chunk for column in columns.values() for chunk in column.chunks]).take(
        pa.array(place[is_given])
    )
    return pa.MapArray.from_arrays(pa.array(offsets), pa.array(list(columns), pa.string()).take(pa.array(keys)), values)


class _Tally:
    """Counts what was taken, and collects the items."""

    def __init__(self, of_items: Sequence[str]) -> None:
        self.num_plays, self._from_ms, self._until_ms = 0, 2**62, -(2**62)
        self._events: list[NDArray[np.uint64]] = []
        self._users: list[pa.Array] = []
        self._items: list[pa.Table] = []
        self._of_items = tuple(of_items)

    def add(self, plays: pa.Table, source: pa.Table, of_items: Sequence[str]) -> None:
        """Counts plays in schema PLAYS; ``source`` has the rows they are of."""
        times = plays.column("ts_ms")
        self.num_plays += plays.num_rows
        self._from_ms = min(self._from_ms, pc.min(times).as_py())
        self._until_ms = max(self._until_ms, pc.max(times).as_py())
        events = pc.binary_join_element_wise(plays.column("user_id"), plays.column("event_id"), "\x1f").to_pylist()
        self._events.append(np.fromiter(map(hash64, events), np.uint64, len(events)))
        self._users = _merged([*self._users, pc.unique(plays.column("user_id"))])
        columns = {name: as_texts(single_values(source, name)) for name in of_items}
        self._items.append(_newest(pa.table({"item_id": plays.column("item_id"), **columns})))
        if len(self._items) > _NUM_PARTS:
            self._items = [_newest(pa.concat_tables(self._items))]

    def found(self) -> ImportedPlays:
        """Everything that was counted."""
        return ImportedPlays(
            num_plays=self.num_plays,
            num_members=len(pc.unique(pa.chunked_array(self._users))),
            num_repeats=self.num_plays - len(np.unique(np.concatenate(self._events))),
            from_ms=self._from_ms,
            until_ms=self._until_ms,
            items=_newest(pa.concat_tables(self._items)),
        )


def _merged(parts: list[pa.Array]) -> list[pa.Array]:
    return parts if len(parts) <= _NUM_PARTS else [pc.unique(pa.chunked_array(parts))]


def _newest(items: pa.Table) -> pa.Table:
    """One row an item, with the last value of each other column that is not null."""
    others = [name for name in items.schema.names if name != "item_id"]
    grouped = items.group_by("item_id", use_threads=False).aggregate([(name, "last") for name in others])
    return grouped.select(["item_id", *(f"{name}_last" for name in others)]).rename_columns(["item_id", *others])
