"""Tables of others, CSV, JSON lines or Parquet, read as a stream of row blocks: one block is in memory at a time.

Every cell of a CSV file is bytes until its meaning is known, so that no guess at a type can change an id. An empty cell is
missing, and so is one of :data:`MISSING`. Blank lines, and rows without any value, count but are none.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from intentrec_core.errors import ConfigError, DataError
from intentrec_core.features.attributes import uniform
from intentrec_core.own_data.rejected_rows import RejectedRow

#: How other programs write a missing value into a cell, beside an empty one.
MISSING = ("", "NULL", "null", "NaN", "nan", "\\N")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
#: Bytes of a CSV file that are one block: some hundred thousand rows.
_BLOCK_BYTES = 8 << 20
#: Rows that are one block of JSON lines or Parquet.
_BLOCK_ROWS = 100_000
#: The start of a file, by which its encoding and separator are told.
_HEAD_BYTES = 64 << 10
_HEAD_ROWS = 200
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MALFORMED = "a row that cannot be split into the columns"

Rejecting = Callable[[RejectedRow], None]


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """How a CSV file is written; None: told from its first lines. ``quote`` is empty where no cell is quoted."""

    separator: str | None = None
    quote: str = '"'
    encoding: str | None = None
    has_header: bool = True


@dataclass(frozen=True, slots=True)
class _Header:
    """The first row of a CSV file that is not blank. ``num_rows`` and ``num_lines``: of the file, up to its end. A line break in
    quotes begins a line, and no row.
    """

    cells: list[str]
    num_rows: int
    num_lines: int


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Consecutive rows of a file, without the rejected ones. ``numbers`` i64: each row's number, see RejectedRow."""

    table: pa.Table
    numbers: NDArray[np.int64]

    def values(self, row: int) -> dict[str, Any]:
        """The cells of a row by column, as Python values; a text that is no UTF-8 as bytes."""
        names, columns = self.table.schema.names, self.table.columns
        return {name: _value(column[row]) for name, column in zip(names, columns, strict=True)}


class ForeignTable:
    """A file that is opened for each pass over it. ``line`` says what it was taken for; ``options`` matter for CSV only.

    Raises: DataError when it cannot be read as what its name says; ConfigError when it is not there.
    """

    def __init__(self, path: Path, options: CsvOptions | None = None) -> None:
        if not path.is_file():
            raise ConfigError(
                f"{path}: no such file; allowed: CSV, JSON lines (*.jsonl) or Parquet (*.parquet), also gzipped CSV"
            )
        self.path = path
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self.is_gzipped = suffixes[-1:] == [".gz"]
        last = suffixes[-2:-1] if self.is_gzipped else suffixes[-1:]
        self.kind = "parquet" if last == [".parquet"] else "jsonl" if last and last[0] in _JSON_LINES else "csv"
        if self.kind == "csv":
            self.options = _told(self._head(), options or CsvOptions(), path)
            written = SEPARATORS.get(self.options.separator or "", repr(self.options.separator))
            self.line = f"CSV in {self.options.encoding}, separated by {written}"
        else:
            self.line = {"parquet": "Parquet", "jsonl": "JSON lines"}[self.kind]

    def blocks(self, reject: Rejecting) -> Iterator[RowBlock]:
        """The rows in the order of the file. A row that cannot be split into columns goes to ``reject``.

        Raises: DataError when the file cannot be read on.
        """
        read = {"csv": self._csv_blocks, "jsonl": self._json_blocks, "parquet": self._parquet_blocks}[self.kind]
        try:
            yield from read(reject)
        except (OSError, EOFError, pa.ArrowException, UnicodeError) as error:
            raise DataError(
                f"{self.path} cannot be read as {self.line}: {_first_line(error)}{self._remedy(error)}"
            ) from error

    def sample(self) -> RowBlock:
        """The first block, by which columns are guessed.

        Raises: DataError when there is no row that can be read.
        """
        rejected: list[RejectedRow] = []
        block = next(self.blocks(rejected.append), None)
        if block is None or not block.table.num_rows:
            why = f": row {rejected[0].number}: {rejected[0].reason}" if rejected else ""
            raise DataError(f"{self.path} has no row that can be read{why}")
        return block

    def _head(self) -> bytes:
        try:
            with gzip.open(self.path) if self.is_gzipped else self.path.open("rb") as file:
                return file.read(_HEAD_BYTES)
        except (OSError, EOFError) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error

    def _csv_blocks(self, reject: Rejecting) -> Iterator[RowBlock]:
        options = self.options
        header = _header(self._head().decode(options.encoding or "utf-8", errors="replace"), options)
        names = self._csv_names(header.cells)
        num_skipped, first = (header.num_lines, header.num_rows + 1) if options.has_header else (0, 1)
        unsplit: list[int] = []

        def skip(row: pa_csv.InvalidRow) -> str:
            number = row.number - num_skipped - 1 + first  # Arrow counts the lines that it skips
            unsplit.append(number)
            cells = f"{row.actual_columns} cells in place of {row.expected_columns}"
            reason = f"{cells}: is a separator in a cell that is not quoted?"
            reject(RejectedRow(number, _MALFORMED, reason, row.text))
            return "skip"

        reader = pa_csv.open_csv(
            self.path,
            pa_csv.ReadOptions(
                use_threads=False,  # rows have their numbers
                block_size=_BLOCK_BYTES,
                encoding=options.encoding,
                column_names=names,
                skip_rows=num_skipped,
            ),
            pa_csv.ParseOptions(
                delimiter=options.separator,
                quote_char=options.quote or False,
                newlines_in_values=bool(options.quote),
                ignore_empty_lines=False,  # a row has the number that a spreadsheet shows
                invalid_row_handler=skip,
            ),
            pa_csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(names, pa.binary()),
                null_values=list(MISSING),
                strings_can_be_null=True,
            ),
        )
        taken = 0
        for batch in reader:
            good = np.arange(taken, taken + batch.num_rows)
            good_before = np.sort(unsplit) - np.arange(len(unsplit)) - first  # each row that could not be split
            numbers = first + good + np.searchsorted(good_before, good, side="right")
            taken += batch.num_rows
            has_value = _has_value(batch)
            if has_value.any():
                table = pa.Table.from_batches([batch])
                yield RowBlock(table if has_value.all() else table.filter(pa.array(has_value)), numbers[has_value])

    def _csv_names(self, header: Sequence[str]) -> list[str]:
        if not self.options.has_header:
            return [f"column_{number}" for number in range(1, len(header) + 1)]
        # Without line breaks: a name is typed after an option, and stands in errors of one line.
        names = [" ".join(name.splitlines()).strip() or f"column_{at}" for at, name in enumerate(header, start=1)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(
                f"{self.path}: column {twice} occurs {names.count(twice)} times in the header: rename all but one"
            )
        return names

    def _json_blocks(self, reject: Rejecting) -> Iterator[RowBlock]:
        decoder = msgspec.json.Decoder()
        with gzip.open(self.path) if self.is_gzipped else self.path.open("rb") as file:
            lines = enumerate(file, start=1)
            while chunk := list(islice(lines, _BLOCK_ROWS)):
                rows, numbers = [], []
                for number, line in chunk:
                    text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
                    if not text:
                        continue
                    try:
                        row = decoder.decode(text)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                        reject(
                            RejectedRow(number, _MALFORMED, f"no JSON: {error}", text.decode(errors="backslashreplace"))
                        )
                        continue
                    if not isinstance(row, dict):
                        shown = text.decode(errors="backslashreplace")
                        reject(RejectedRow(number, _MALFORMED, "no JSON object: one object a line is allowed", shown))
                        continue
                    rows.append(_flat(row))
                    numbers.append(number)
                if rows:
                    names = dict.fromkeys(name for row in rows for name in row)
                    table = pa.table({name: uniform([row.get(name) for row in rows]) for name in names})
                    yield RowBlock(table, np.array(numbers))

    def _parquet_blocks(self, reject: Rejecting) -> Iterator[RowBlock]:
        with pq.ParquetFile(self.path) as file:
            names = file.schema_arrow.names
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{self.path}: column {twice} occurs {names.count(twice)} times: keep one")
            first = 1
            for batch in file.iter_batches(_BLOCK_ROWS):
                table = _with_context_columns(pa.Table.from_batches([batch]).flatten())
                yield RowBlock(table, np.arange(first, first + table.num_rows))
                first += table.num_rows

    def _remedy(self, error: Exception) -> str:
        if self.kind != "csv":
            return ""
        if isinstance(error, UnicodeError):
            return "; name its encoding with --encoding, for instance latin-1"
        return "; where a quote is a character as any other, --quote none"


def _told(head: bytes, options: CsvOptions, path: Path) -> CsvOptions:
    """The options with what the start of the file tells.

    Raises: ConfigError for an option that is none; DataError for an empty file, or a header that looks like data.
    """
    if options.separator is not None and len(options.separator.encode()) != 1:
        raise ConfigError(f"--separator {options.separator!r}; allowed: one character, such as ; or tab")
    if len(options.quote) > 1 or not options.quote.isascii():
        raise ConfigError(f"--quote {options.quote!r}; allowed: one character, or none")
    encoding = options.encoding or next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigError(
            f"--encoding {encoding}; allowed: an encoding that Python knows, such as utf-8 or latin-1"
        ) from None
    text = head.decode(encoding, errors="replace").removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path} is empty")
    options = replace(options, encoding=encoding)
    if options.separator is None:
        options = replace(options, separator=max(SEPARATORS, key=lambda separator: _fit(text, separator, options)))
    cells = _header(text, options).cells
    if options.has_header and any(_looks_like_a_number(name) for name in cells):
        raise DataError(
            f"{path}: the first row is {', '.join(cells)[:60]}, which looks like data: where the file has no header, add "
            "--no-header; its columns are then column_1, column_2 …"
        )
    return options


def _fit(text: str, separator: str, options: CsvOptions) -> tuple[float, int]:
    """How well a separator splits the first rows: the share of rows with as many cells as the first, and that number."""
    found = _rows_of(text, replace(options, separator=separator))
    rows = [row for row, _ in islice(found, _HEAD_ROWS) if row]
    if len(text) >= _HEAD_BYTES // 4 and len(rows) > 1:
        rows.pop()  # it may be cut
    if not rows or len(rows[0]) < 2:
        return 0.0, 0
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows), len(rows[0])


def _header(text: str, options: CsvOptions) -> _Header:
    rows = enumerate(_rows_of(text, options), start=1)
    return next((_Header(row, number, num_lines) for number, (row, num_lines) in rows if row), _Header([], 0, 0))


def _rows_of(text: str, options: CsvOptions) -> Iterator[tuple[list[str], int]]:
    """The rows of a text, blank ones too, each with the number of lines up to its end."""
    lines, by = io.StringIO(text.removeprefix("\ufeff"), newline=""), options.separator or ","
    try:
        if options.quote:
            rows = csv.reader(lines, delimiter=by, quotechar=options.quote)
        else:
            rows = csv.reader(lines, delimiter=by, quoting=csv.QUOTE_NONE)
        yield from ((row, rows.line_num) for row in rows)
    except csv.Error:  # a cell longer than Python takes: rows before it are enough
        return


def _has_value(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """bool[N]: the rows that have a cell which is not missing."""
    found = np.zeros(batch.num_rows, dtype=np.bool_)
    for column in batch.columns:
        found |= column.is_valid().to_numpy(zero_copy_only=False)
    return found


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return cell.as_buffer().to_pybytes()


def _looks_like_a_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _with_context_columns(table: pa.Table) -> pa.Table:
    """The table with a column for each entry of a map ``context``, in place of the map."""
    if "context" not in table.schema.names or not pa.types.is_map(table.schema.field("context").type):
        return table
    maps = table.column("context")
    table = table.drop_columns(["context"])
    for name in pc.unique(pa.chunked_array([chunk.keys for chunk in maps.chunks])).to_pylist():
        if name not in table.schema.names:
            table = table.append_column(name, pc.map_lookup(maps, name, "last"))
    return table


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row without nesting: entries of ``context`` under their own names, of another object as ``object.entry``."""
    if not any(isinstance(value, dict | list) for value in row.values()):
        return row
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            prefix = "" if name == "context" else f"{name}."
            flat.update({f"{prefix}{inner}": _unnested(entry) for inner, entry in value.items()})
        else:
            flat[name] = _unnested(value)
    return flat


def _unnested(value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value)):
        return json.dumps(value, ensure_ascii=False)
    return value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
