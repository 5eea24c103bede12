"""Intent conditioning and the filters, which fail closed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import conditioning
from index.exact import ExactIndex
from index.filters import FilterSet
from intentrec_core.domain.spec import Filter, FilterKind
from tests.worlds.tiny_world import TinyWorld


def test_one_inner_product_is_the_formula():
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(30, 8)).astype(np.float32), rng.normal(size=30).astype(np.float32)
    bias[0] = -np.inf  # as the model gives it
    genre = (rng.random((30, 5)) < 0.4).astype(np.float32)  # several labels an item
    form = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 30)]
    form[4] = 0.0  # missing
    items = rng.normal(size=(6, 8)).astype(np.float32)
    of_genre, of_form = (rng.normal(size=(6, n)).astype(np.float32) for n in (5, 3))
    vectors = conditioning.augment(weights, bias, [genre, form])
    got = conditioning.query(items, [of_genre, of_form]) @ vectors.T
    want = items @ weights[1:].T + bias[1:] + of_genre @ genre[1:].T + of_form @ form[1:].T
    # float32 sums of 17 products of size about 3, in another order
    assert np.abs(got[:, 1:] - want).max() < 1e-5
    assert not vectors[0].any()


def test_a_large_score_brings_its_label_to_the_top():
    rng = np.random.default_rng(1)
    labels = np.eye(2, dtype=np.float32)[np.arange(20) % 2]
    index = ExactIndex(
        conditioning.augment(rng.normal(size=(20, 4)).astype(np.float32), np.zeros(20, np.float32), [labels])
    )
    items = rng.normal(size=(1, 4)).astype(np.float32)
    rows, _ = index.search(conditioning.query(items, [np.array([[0.0, 100.0]], dtype=np.float32)]), 10)
    assert (rows[0] % 2 == 1).all()


def test_wrong_shapes_are_refused():
    weights = np.ones((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="rows"):
        conditioning.augment(weights, np.ones(2, dtype=np.float32))
    with pytest.raises(ValueError, match="rows"):
        conditioning.augment(weights, np.ones(3, dtype=np.float32), [np.ones((4, 1), dtype=np.float32)])
    with pytest.raises(ValueError, match="queries"):
        conditioning.query(weights, [np.ones((2, 1), dtype=np.float32)])


AVAILABLE = Filter(kind=FilterKind.AVAILABLE, key="available")
AT_MOST = Filter(kind=FilterKind.AT_MOST, key="maturity", event_key="limit")
CONTAINS = Filter(kind=FilterKind.CONTAINS, key="regions", event_key="region")
DE, FR = 11, 12
COLUMNS = {
    "available": np.array([True, True, False, True, True, True]),
    "maturity": np.array([0.0, 6.0, 6.0, 18.0, np.nan, 12.0]),
    "regions": {
        DE: np.array([True, True, True, True, True, False]),
        FR: np.array([False, False, True, True, True, True]),
    },
}


def rows_allowed(rules, values):
    return np.flatnonzero(FilterSet(6, rules, COLUMNS).allowed(values)).tolist()


def test_each_filter_alone():
    assert rows_allowed([], {}) == [1, 2, 3, 4, 5]
    assert rows_allowed([AVAILABLE], {}) == [1, 3, 4, 5]
    assert rows_allowed([AT_MOST], {"limit": 12.0}) == [1, 2, 5]  # row 4 has no number: hidden
    assert rows_allowed([CONTAINS], {"region": FR}) == [2, 3, 4, 5]
    assert rows_allowed([AVAILABLE, AT_MOST, CONTAINS], {"limit": 12.0, "region": DE}) == [1]


@pytest.mark.parametrize("values", [{}, {"limit": None, "region": None}, {"limit": np.nan, "region": 0}])
def test_a_member_whose_value_is_not_known_is_shown_nothing_by_that_filter(values):
    assert rows_allowed([AT_MOST], values) == []
    assert rows_allowed([CONTAINS], values) == []


def test_a_value_that_no_item_lists_allows_nothing():
    assert rows_allowed([CONTAINS], {"region": 999}) == []


def test_a_filter_without_its_data_is_refused_rather_than_skipped():
    with pytest.raises(ValueError, match="maturity"):
        FilterSet(6, [AT_MOST], {})
    with pytest.raises(ValueError, match="available"):
        FilterSet(6, [AVAILABLE], {"available": np.ones(5, dtype=np.bool_)})
    with pytest.raises(ValueError, match="regions"):
        FilterSet(6, [CONTAINS], {"regions": {DE: np.ones(5, dtype=np.bool_)}})
    with pytest.raises(ValueError, match="regions"):
        FilterSet(6, [CONTAINS], {"regions": np.ones(6, dtype=np.bool_)})


def test_the_same_values_give_the_same_mask_so_that_members_are_searched_together():
    filters = FilterSet(6, [AT_MOST, CONTAINS], COLUMNS)
    mask = filters.allowed({"limit": 12.0, "region": DE})
    assert filters.allowed({"limit": 12.0, "region": DE, "other": 3}) is mask
    assert filters.allowed({"limit": np.nan}) is filters.allowed({"limit": np.nan})
    with pytest.raises(ValueError, match="read-only"):
        mask[1] = True


def test_masks_kept_are_bounded_whatever_members_send():
    filters = FilterSet(6, [AT_MOST], COLUMNS)
    for limit in range(1000):
        filters.allowed({"limit": float(limit)})
    assert len(filters._masks) == 256
    assert filters.member_keys == ("limit",)


@pytest.mark.parametrize(
    ("rules", "values", "hiding"),
    [
        ([AVAILABLE, AT_MOST, CONTAINS], {"limit": 12.0, "region": DE}, []),
        ([AVAILABLE, AT_MOST, CONTAINS], {"limit": 12.0}, [("contains regions", "member_unknown")]),
        ([AT_MOST, CONTAINS], {"limit": np.nan, "region": 999},
         [("at_most maturity", "member_unknown"), ("contains regions", "no_item")]),
        ([AT_MOST], {"limit": -1.0}, [("at_most maturity", "no_item")]),
        ([AVAILABLE, AT_MOST, CONTAINS], {"limit": 0.0, "region": FR},
         [(name, "together") for name in ("available available", "at_most maturity", "contains regions")]),
    ],
)  # fmt: skip
def test_filters_that_hide_everything_are_named_with_the_reason(rules, values, hiding):
    only_row_1_is_for_all_ages = np.array([np.nan, 0.0, 6.0, 18.0, np.nan, 12.0])
    filters = FilterSet(6, rules, COLUMNS | {"maturity": only_row_1_is_for_all_ages})
    assert [(f.name, f.reason) for f in filters.hiding(values)] == hiding
    assert set(filters.names) >= {name for name, _ in hiding}


def test_a_flag_that_no_item_has_is_a_filter_that_hides_everything():
    filters = FilterSet(6, [AVAILABLE], {"available": np.zeros(6, dtype=np.bool_)})
    assert [(f.name, f.reason) for f in filters.hiding({})] == [("available available", "no_item")]


def test_the_watched_filter_is_not_part_of_a_mask():
    filters = FilterSet(6, [Filter(kind=FilterKind.WATCHED)], COLUMNS)
    assert filters.member_keys == ()
    assert filters.allowed({}).tolist() == [False, *[True] * 5]


def test_reads_the_domain_s_filters_and_the_item_table_s_columns():
    world = TinyWorld()
    rules = world.domain.filters
    keys = [rule.key for rule in rules if rule.key]
    filters = FilterSet(len(world.table), rules, {key: world.table.filter_column(key) for key in keys})
    mask = filters.allowed({"max_maturity": 3.0})
    for row, item in enumerate(world.items, start=1):
        assert mask[row] == (item.attributes["available"] and item.attributes["maturity"] <= 3)


@st.composite
def replacements(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_rows, num_added = draw(st.integers(2, 12)), draw(st.integers(0, 4))
    rows = np.union1d(
        rng.integers(1, num_rows, size=draw(st.integers(0, 6))), np.arange(num_rows, num_rows + num_added)
    )
    return rng, num_rows, num_added, rng.permutation(rows).astype(np.int64)


@settings(deadline=None)
@given(drawn=replacements())
def test_replaced_filters_equal_those_of_the_whole_table(drawn):
    """The same masks as filters that were made of the columns with the new values in them."""
    rng, num_rows, num_added, rows = drawn
    rules = [AVAILABLE, AT_MOST, CONTAINS]

    def columns(size):
        return {
            "available": rng.random(size) < 0.8,
            "maturity": np.where(rng.random(size) < 0.2, np.nan, rng.integers(0, 19, size)).astype(np.float64),
            "regions": {value: rng.random(size) < 0.5 for value in (DE, FR, 7) if rng.random() < 0.8},
        }

    old, new = columns(num_rows), columns(1 + len(rows))
    shown = rng.random(len(rows)) < 0.7
    base = FilterSet(num_rows, rules, old)
    before = base.allowed({"limit": 12, "region": DE}).copy()
    replaced = base.replaced(rows, FilterSet(1 + len(rows), rules, new), shown, num_rows + num_added)

    def put(column, own):
        whole = np.zeros(num_rows + num_added, dtype=own.dtype)
        whole[: len(column)] = column
        whole[rows] = own[1:]
        return whole

    whole = {key: put(old[key], new[key]) for key in ("available", "maturity")}
    whole["available"][rows] &= shown
    nothing = np.zeros(1 + len(rows), dtype=np.bool_)
    values = {*old["regions"], *new["regions"]}
    whole["regions"] = {
        v: put(old["regions"].get(v, np.zeros(num_rows, np.bool_)), new["regions"].get(v, nothing)) for v in values
    }
    wanted = FilterSet(num_rows + num_added, rules, whole)
    for member in ({"limit": m, "region": r} for m in (None, 3, 12, 18) for r in (None, DE, FR, 7, 8)):
        np.testing.assert_array_equal(replaced.allowed(member), wanted.allowed(member))
    np.testing.assert_array_equal(base.allowed({"limit": 12, "region": DE}), before)


def test_filters_never_lose_rows():
    filters = FilterSet(6, [AVAILABLE], {"available": np.ones(6, dtype=np.bool_)})
    with pytest.raises(ValueError, match="append-only"):
        filters.replaced(
            np.array([1]), FilterSet(2, [AVAILABLE], {"available": np.ones(2, np.bool_)}), np.ones(1, np.bool_), 5
        )
