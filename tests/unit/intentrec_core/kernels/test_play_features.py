"""Codes and times of plays, compiled, are to the bit what NumPy says of whole columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, Field, FieldKind, FieldSource, Rule
from intentrec_core.domain.toml import load_domain
from intentrec_core.features.buckets import DAY_S, bucket_codes
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.history.history import EventLayout
from intentrec_core.kernels.hash_rows import find_rows, first_places

#: The end of the year 9999, and an hour before 1970.
_LAST_MS, _FIRST_MS = 253_402_300_799_999, -3_600_000
_NUM_ITEMS = 6


class _Items:
    """Rows of the hashes 1 to 5, and their release times: before a play, after it, at it to the millisecond, and none."""

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.where(hashes < _NUM_ITEMS, hashes, 0).astype(np.int64)

    def moment(self, key: str) -> NDArray[np.float64]:
        return np.array([np.nan, 0.0, 1e9, 1.7e9, 1_700_000_000.001, np.nan])


@pytest.fixture(scope="module")
def domain() -> Domain:
    """The shipped domain that has every kind of field."""
    return load_domain("video")


def _codes_by_columns(
    field: Field, plays: NDArray[np.void], rows: NDArray[np.int64], gap_s: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The rules of a field over whole columns, in NumPy."""
    if field.source is FieldSource.EVENT:
        if field.key == "duration_s":
            return bucket_codes(plays["duration_s"], field.edges, missing=plays["duration_s"] < 0)
        column = plays[field.name]
        return bucket_codes(column, field.edges) if field.kind is FieldKind.BUCKETED else column.astype(np.int64)
    ts_s = plays["ts_ms"] / 1000.0
    if field.rule is Rule.TIME_SINCE_RELEASE:
        return bucket_codes((ts_s - _Items().moment(field.key)[rows]) / DAY_S, field.edges)
    if field.rule is Rule.GAP:
        return bucket_codes(gap_s, field.edges, missing=gap_s < 0)
    if field.rule is Rule.FIRST_CONTACT:
        items = plays["item_hash"].tolist()
        return np.array([1 + (item in items[:place]) for place, item in enumerate(items)], dtype=np.int64)
    if field.rule is Rule.HOUR_OF_DAY:
        return 1 + ((ts_s // 3600) % 24).astype(np.int64)
    return 1 + ((ts_s // DAY_S + 3) % 7).astype(np.int64)


def _plays(layout: EventLayout, domain: Domain, rng: np.random.Generator, ts_ms: list[int]) -> NDArray[np.void]:
    """Plays at these times: numbers on the edges of buckets, next to them, missing, and any other."""
    plays = np.zeros(len(ts_ms), dtype=layout.dtype)
    plays["item_hash"], plays["ts_ms"] = rng.integers(1, _NUM_ITEMS + 2, len(ts_ms)), np.sort(ts_ms)
    for field in domain.dynamic_fields:
        name = "duration_s" if field.key == "duration_s" else field.name
        if field.source is FieldSource.EVENT and field.kind is FieldKind.BUCKETED:
            edges = np.array(field.edges, dtype=np.float32)
            near = [edges, np.nextafter(edges, np.float32(-np.inf)), [np.nan, -1.0, -0.0, 0.0, 1e30, -1e30]]
            plays[name] = rng.choice(np.concatenate(near, dtype=np.float32), len(ts_ms))
        elif field.source is FieldSource.EVENT:
            plays[name] = rng.integers(0, 1 + len(field.values), len(ts_ms))
    return plays


@given(
    ts_ms=st.lists(
        st.one_of(
            st.integers(_FIRST_MS, _LAST_MS),
            st.integers(-2, 2).map(lambda off: 1_700_006_400_000 + off),
            st.integers(0, 70_000_000).map(lambda hour: 3_600_000 * hour),
            st.integers(1_700_000_000_000, 1_700_000_400_000),
        ),
        min_size=1,
        max_size=30,
    ),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_every_field_is_to_the_bit_what_numpy_says(
    domain: Domain, ts_ms: list[int], seed: int, data: st.DataObject
) -> None:
    features = FeatureBuilder(domain, _Items(), _Items())
    layout = features.layout
    plays = _plays(layout, domain, np.random.default_rng(seed), ts_ms)
    start = data.draw(st.integers(0, len(plays)))
    found = features.columns([plays.tobytes(), plays.tobytes()], [start, 0])
    rows, times = _Items().rows(plays["item_hash"]), plays["ts_ms"]
    gap_s = np.append(-1.0, (times[1:] - times[:-1]) / 1000.0).astype(np.float32)
    codes = np.stack([_codes_by_columns(field, plays, rows, gap_s) for field in domain.dynamic_fields], axis=1)
    for name, whole in (("item_row", rows), ("codes", codes), ("ts_s", times / 1000.0), ("gap_s", gap_s)):
        values = getattr(found, name)
        expected = np.concatenate([whole[start:], whole])
        assert values.dtype == expected.dtype
        assert values.tobytes() == expected.tobytes(), name


def test_a_field_by_itself_has_the_codes_that_it_has_among_all(domain: Domain) -> None:
    features = FeatureBuilder(domain, _Items(), _Items())
    plays = _plays(features.layout, domain, np.random.default_rng(0), list(range(0, 10**12, 10**10)))
    columns = features.columns([plays.tobytes()], [0])
    for place, field in enumerate(domain.dynamic_fields):
        if field.rule in (Rule.GAP, Rule.FIRST_CONTACT):
            with pytest.raises(ValueError, match="depends on earlier plays"):
                features.own_codes(field, plays, columns.item_row)
        else:
            own = features.own_codes(field, plays[::2], columns.item_row[::2].copy())
            np.testing.assert_array_equal(own, columns.codes[::2, place])


@given(
    known=st.sets(st.integers(0, 2**64 - 1), max_size=40),
    asked=st.lists(st.integers(0, 2**64 - 1), max_size=10),
    data=st.data(),
)
def test_a_hash_is_found_where_it_is_known_and_nowhere_else(
    known: set[int], asked: list[int], data: st.DataObject
) -> None:
    in_order = sorted(known)
    rows = {value: row for row, value in enumerate(data.draw(st.permutations(in_order)), start=1)}
    near = [value + off for value in known for off in (-1, 0, 1) if 0 <= value + off < 2**64]
    hashes = np.array(asked + near, dtype=np.uint64)
    by_hash, row_of = np.array(in_order, dtype=np.uint64), np.array([rows[value] for value in in_order], dtype=np.int64)
    found = find_rows(hashes, by_hash, row_of, first_places(by_hash))
    assert found.tolist() == [rows.get(value, 0) for value in hashes.tolist()]
