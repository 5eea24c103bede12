"""Item rows that never change their meaning, and the catalogue as arrays aligned to them."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intentrec_core.domain.toml import parse_domain
from intentrec_core.errors import DataError
from intentrec_core.features import attributes
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.vocabulary import ItemTable, Vocabulary
from intentrec_core.history.history import hash64

DOMAIN = parse_domain(
    """
name = "t"
[history]
window = 8
[[field]]
name = "genre"
kind = "multi_label"
source = "catalogue"
key = "genres"
values = ["x", "y"]
intent = true
[[field]]
name = "kind"
kind = "categorical"
source = "catalogue"
values = ["movie", "true"]
[[field]]
name = "era"
kind = "bucketed"
source = "catalogue"
key = "year"
edges = [1980, 2000]
[[field]]
name = "age"
kind = "bucketed"
source = "rule"
rule = "time_since_release"
key = "released"
edges = [7, 30]
[[field]]
name = "hour"
kind = "categorical"
source = "rule"
rule = "hour_of_day"
[[filter]]
kind = "available"
key = "live"
[[filter]]
kind = "at_most"
key = "maturity"
event_key = "m"
[[filter]]
kind = "contains"
key = "regions"
event_key = "r"
""",
    "t.toml",
)
CATALOGUE = Catalogue(
    [
        Item("a", "A", {"genres": ["y", "x"], "kind": "movie", "year": 1980, "released": "1970-01-11", "live": True}),
        Item("b", "B", {"genres": ["z"], "kind": True, "year": 1979.9, "released": 86_400, "live": 1, "maturity": 7}),
        Item("c", "C", {"kind": "film", "released": "soon", "regions": ["de", "fr"], "maturity": float("nan")}),
        Item("d", "D", {"genres": "x", "released": "1970-01-02T12:00:00+12:00", "live": False, "regions": ["de"]}),
    ]
)
TABLE = ItemTable(DOMAIN, Vocabulary.build(["a", "gone", "b", "c", "d"]), CATALOGUE)


def test_rows_start_at_one_and_strangers_are_row_zero() -> None:
    vocabulary = Vocabulary.build(["b", "a", "c"])

    assert len(vocabulary) == 4
    assert [vocabulary.row(item) for item in ("b", "a", "c", "stranger", "")] == [1, 2, 3, 0, 0]


def test_rows_of_many_hashes_keep_their_shape() -> None:
    ids = [f"item{i}" for i in range(500)]
    vocabulary = Vocabulary.build(ids)
    hashes = np.array([[hash64("item7"), hash64("none")], [hash64("item499"), 0]], dtype=np.uint64)

    assert vocabulary.rows(hashes).tolist() == [[8, 0], [500, 0]]
    assert vocabulary.rows(vocabulary.hashes[1:]).tolist() == list(range(1, 501))


def test_an_empty_vocabulary_knows_nobody() -> None:
    assert Vocabulary.build([]).rows(np.array([3, 4], dtype=np.uint64)).tolist() == [0, 0]


def test_extending_appends_only_what_is_new() -> None:
    old = Vocabulary.build(["a", "b"])

    new = old.extended(["d", "b", "c", "d"])

    assert new.item_ids == ["", "a", "b", "d", "c"]
    assert new.extends(old)
    assert not old.extends(new)
    assert old.extended(["a"]) is old


def test_an_id_twice_or_empty_is_refused() -> None:
    with pytest.raises(DataError, match="'a'"):
        Vocabulary.build(["a", "b", "a"])
    with pytest.raises(DataError, match="empty"):
        Vocabulary.build(["a", ""])


def test_saved_rows_come_back(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["z", "ä", "0"])
    vocabulary.save(tmp_path / "vocabulary.parquet")

    assert Vocabulary.load(tmp_path / "vocabulary.parquet") == vocabulary


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.parquet").write_bytes(b"PAR1 but not for long")

    with pytest.raises(DataError, match=r"vocabulary\.parquet: not a vocabulary"):
        Vocabulary.load(tmp_path / "vocabulary.parquet")


def test_codes_are_zero_where_missing_or_not_declared() -> None:
    kind, era = TABLE.codes.T

    assert kind.tolist() == [0, 1, 0, 2, 0, 0]  # "film" is not declared; True is the text "true"
    assert era.tolist() == [0, 2, 0, 1, 0, 0]  # an edge belongs to the bucket above it


def test_several_labels_are_indicators() -> None:
    assert TABLE.multi["genre"].tolist() == [[0, 0], [1, 1], [0, 0], [0, 0], [0, 0], [1, 0]]


def test_an_item_without_a_catalogue_row_keeps_its_id_for_a_title() -> None:
    assert TABLE.titles == ["", "A", "gone", "B", "C", "D"]


def test_dates_are_seconds_since_1970() -> None:
    numbers = TABLE.number("released")

    assert np.isnan(numbers[[0, 2, 4]]).all()
    assert numbers[[1, 3, 5]].tolist() == [10 * 86_400, 86_400, 86_400]


def test_release_age_labels_are_as_of_the_time_given() -> None:
    age = next(field for field in DOMAIN.fields if field.name == "age")

    assert TABLE.labels(age, at_s=17 * 86_400.0)[[1, 3]].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert TABLE.labels(age, at_s=16 * 86_400.0)[[0, 1, 4]].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_labels_of_a_field_that_belongs_to_the_play_are_refused() -> None:
    hour = next(field for field in DOMAIN.fields if field.name == "hour")

    with pytest.raises(ValueError, match="belongs to a play"):
        TABLE.labels(hour, at_s=0.0)


def test_filter_data_is_missing_rather_than_guessed() -> None:
    regions = TABLE.filter_column("regions")

    assert TABLE.filter_column("live").tolist() == [False, True, False, True, False, False]  # 1 is true
    assert np.isnan(TABLE.filter_column("maturity")).tolist() == [True, True, True, False, True, True]
    assert {key: rows.nonzero()[0].tolist() for key, rows in regions.items()} == {
        hash64("de"): [4, 5],
        hash64("fr"): [4],
    }


@pytest.mark.parametrize(
    ("value", "number", "truth", "kind"),
    [
        (1, 1.0, True, 1),
        ("1", 1.0, True, 1),
        ("1.0", 1.0, True, 1),
        ("0.0", 0.0, False, 0),
        (Decimal("1.00"), 1.0, True, 1),
        ([1], 1.0, True, 1),
        (" 1 ", 1.0, True, 1),
        (0, 0.0, False, 0),
        ("false", math.nan, False, 0),
        ("True", math.nan, True, 0),
        ("yes", math.nan, None, 0),
        (2, 2.0, None, 0),
        ("1e999", math.nan, None, 0),
        ("1_0", math.nan, None, 0),
        ("12,50", math.nan, None, 0),
        ([1, 1], math.nan, None, 0),
    ],
)
def test_numbers_and_truth_values_are_read_however_they_are_spelled(
    value: Any, number: float, truth: bool | None, kind: int
) -> None:
    (item,) = Catalogue([Item("a", "A", {"x": value})])
    kept = item.attributes["x"]
    np.testing.assert_equal(attributes.number(kept), number)
    assert attributes.truth(kept) is truth
    assert attributes.label_code({"1": 1, "two": 2}, kept) == kind


@pytest.mark.parametrize(
    ("value", "code"), [(1, 2), (0, 1), ("0", 1), ("TRUE", 2), (True, 2), ("1.0", 2), ("0.0", 1), ("on", 0), (2, 0)]
)
def test_0_and_1_are_truth_values_where_truth_values_are_declared(value: Any, code: int) -> None:
    assert attributes.label_code({"false": 1, "true": 2}, value) == code


def test_a_text_of_eight_digits_is_a_number_where_a_number_is_read_and_a_date_where_a_date_is() -> None:
    assert attributes.number("19700102") == 19_700_102
    assert attributes.moment("19700102") == 86_400
    assert attributes.moment("86400") == 86_400
