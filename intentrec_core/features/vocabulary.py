"""Item ids to rows, and catalogue attributes as arrays indexed by these rows.

Rows are append-only: a row means the same item in every later version, so a model can be trained further from the
weights of an earlier bundle. Row 0 means "unknown" and padding, and is never an item.

Shapes: V rows including row 0; L labels of a field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, Field, FieldKind, FilterKind, Rule, spelled_code
from intentrec_core.durable_files import replacing
from intentrec_core.errors import DataError
from intentrec_core.features.attributes import label_code, moment, number, texts, truth
from intentrec_core.features.buckets import DAY_S, bucket_codes
from intentrec_core.features.catalogue import Catalogue, shown_title
from intentrec_core.history.history import hash64
from intentrec_core.kernels.hash_rows import find_rows, first_places


class Vocabulary:
    """An immutable numbering of items: row r > 0 is ``item_ids[r]``, found by the 64-bit hash of its id.

    Raises: DataError for an id that is empty or occurs twice, or for two ids with the same hash (rename one of them).
    """

    def __init__(self, item_ids: Sequence[str]) -> None:
        self.item_ids: list[str] = ["", *item_ids]
        hashes = np.fromiter((hash64(item) for item in item_ids), dtype=np.uint64, count=len(item_ids))
        order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[order]
        self._rows = 1 + order.astype(np.int64)
        self._first = first_places(self._sorted)
        same = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if len(same):
            first, second = (self.item_ids[self._rows[i]] for i in (same[0], same[0] + 1))
            raise DataError(f"items {first!r} and {second!r} are equal or have the same hash: rename one of them")
        if "" in item_ids:
            raise DataError("an item has an empty id: give it one, or leave out its plays")
        self.hashes: NDArray[np.uint64] = np.concatenate([np.zeros(1, dtype=np.uint64), hashes])
        self.hashes.setflags(write=False)

    @classmethod
    def build(cls, item_ids: Iterable[str]) -> Vocabulary:
        """A vocabulary of these items in row order, the first item in row 1."""
        return cls(list(item_ids))

    def extended(self, item_ids: Iterable[str]) -> Vocabulary:
        """This vocabulary with the ids it lacks appended, in the given order; the same object if it lacks none."""
        new = [item for item in dict.fromkeys(item_ids) if not self.row(item)]
        return Vocabulary(self.item_ids[1:] + new) if new else self

    def extends(self, older: Vocabulary) -> bool:
        """Whether every row of ``older`` means the same item in this vocabulary."""
        return self.item_ids[: len(older)] == older.item_ids

    def __len__(self) -> int:
        """Number of rows, row 0 included."""
        return len(self.item_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.item_ids == other.item_ids

    __hash__ = None  # type: ignore[assignment]  # holds a list

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of item hashes, 0 where unknown, in the shape of ``hashes``.

        Cost: O(N).
        """
        # A copy: it is contiguous and writable, whatever ``hashes`` are, and each kind of array is compiled for.
        found: NDArray[np.int64] = find_rows(hashes.flatten(), self._sorted, self._rows, self._first)
        return found.reshape(hashes.shape)

    def row(self, item_id: str) -> int:
        """Row of one item, 0 if unknown."""
        return int(self.rows(np.array([hash64(item_id)], dtype=np.uint64))[0]) if item_id else 0

    def save(self, path: Path) -> None:
        """Writes Parquet: column item_id, row 1 first. A reader sees the old file or the whole new one.

        Raises: OSError when a write fails.
        """
        with replacing(path) as file:
            pq.write_table(pa.table({"item_id": pa.array(self.item_ids[1:], pa.string())}), file, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """The inverse of :meth:`save`.

        Raises: DataError when the file is not a vocabulary.
        """
        try:
            return cls(pq.read_table(path, columns=["item_id"]).column("item_id").to_pylist())
        except (OSError, pa.ArrowException, DataError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not a vocabulary: {error}") from error


class ItemTable:
    """The catalogue attributes that a domain uses, as arrays indexed by row. In row 0, and for items that are not in the
    catalogue, every attribute is missing.

    ``titles`` are those that lists show: a title of more than 1,024 characters is cut.

    Shapes: ``codes`` i64[V, len(domain.static_fields)]; ``multi[name]`` f32[V, L], 1 where the item has the label;
    ``is_described`` bool[V], whether the item is in the catalogue.
    """

    def __init__(self, domain: Domain, vocabulary: Vocabulary, catalogue: Catalogue) -> None:
        self.domain = domain
        found = [catalogue.get(item_id) for item_id in vocabulary.item_ids]
        self._attributes: list[Mapping[str, Any]] = [item.attributes if item else {} for item in found]
        self.is_described = np.array([item is not None for item in found])
        ids = vocabulary.item_ids
        self.titles: list[str] = [shown_title(i.title) if i else item_id for item_id, i in zip(ids, found, strict=True)]
        self.codes = np.zeros((len(ids), len(domain.static_fields)), dtype=np.int64)
        for column, field in enumerate(domain.static_fields):
            self.codes[:, column] = self._field_codes(field)
        self.multi = {field.name: self._indicators(field) for field in domain.multi_fields}

    def __len__(self) -> int:
        """Number of rows, row 0 included."""
        return len(self.titles)

    def number(self, key: str) -> NDArray[np.float64]:
        """A numeric attribute; NaN where missing. Shape: f64[V]. Dates and times become seconds since 1970 (UTC)."""
        return np.array([number(value) for value in self.values(key)], dtype=np.float64)

    def moment(self, key: str) -> NDArray[np.float64]:
        """An attribute that is a date or time, in seconds since 1970 (UTC); NaN where missing. Shape: f64[V]."""
        return np.array([moment(value) for value in self.values(key)], dtype=np.float64)

    def truths(self, key: str) -> list[bool | None]:
        """An attribute that is a truth value, by row; None where missing."""
        return [truth(value) for value in self.values(key)]

    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes that the items have, in the order of the catalogue."""
        return tuple(dict.fromkeys(name for attributes in self._attributes for name in attributes))

    def values(self, key: str) -> list[Any]:
        """An attribute as the catalogue has it, by row; None where missing."""
        return [attributes.get(key) for attributes in self._attributes]

    def labels(self, field: Field, at_s: float) -> NDArray[np.float32]:
        """The labels that each item has as of ``at_s`` (seconds since 1970), for a field whose label depends on the item
        alone.

        Shapes: f32[V, L]; a row of zeros where missing.
        Raises: ValueError for a field that depends on the play.
        """
        if field.kind is FieldKind.MULTI_LABEL:
            return self.multi[field.name]
        if field in self.domain.static_fields:
            codes = self.codes[:, self.domain.static_fields.index(field)]
        elif field.rule is Rule.TIME_SINCE_RELEASE:
            codes = bucket_codes((at_s - self.moment(field.key)) / DAY_S, field.edges)
        else:
            raise ValueError(f"field {field.name}: its label belongs to a play, not to an item")
        return np.eye(1 + field.num_labels, dtype=np.float32)[codes][:, 1:]

    def filter_column(self, key: str) -> NDArray[Any] | dict[int, NDArray[np.bool_]]:
        """The data of the domain's filter over attribute ``key``. An item for which it is missing is shown to no member.

        Shapes: available bool[V] (true only where the attribute is true, or 1); at_most f64[V] (NaN missing); contains: for
        the 64-bit hash of each value that occurs, bool[V] of the items that list it (any other value has no items).
        Raises: KeyError when no filter reads ``key``.
        """
        kinds = {f.key: f.kind for f in self.domain.filters if f.kind is not FilterKind.WATCHED}
        if kinds[key] is FilterKind.AVAILABLE:
            return np.array([known is True for known in self.truths(key)])
        if kinds[key] is FilterKind.AT_MOST:
            return self.number(key)
        members: dict[int, NDArray[np.bool_]] = {}
        hashes: dict[str, int] = {}
        for row, attributes in enumerate(self._attributes):
            for value in texts(attributes.get(key)):
                hashed = hashes.get(value) or hashes.setdefault(value, hash64(value))
                members.setdefault(hashed, np.zeros(len(self), dtype=np.bool_))[row] = True
        return members

    def _field_codes(self, field: Field) -> NDArray[np.int64]:
        if field.kind is FieldKind.BUCKETED:
            return bucket_codes(self.number(field.key), field.edges)
        codes = field.value_codes
        return np.array([label_code(codes, value) for value in self.values(field.key)], dtype=np.int64)

    def _indicators(self, field: Field) -> NDArray[np.float32]:
        indicators = np.zeros((len(self), field.num_labels), dtype=np.float32)
        for row, attributes in enumerate(self._attributes):
            for value in texts(attributes.get(field.key)):
                code = spelled_code(field.value_codes, value)
                if code:
                    indicators[row, code - 1] = 1.0
        return indicators
