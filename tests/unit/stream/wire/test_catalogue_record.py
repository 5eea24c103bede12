"""Records of the items topic: what is an item, what withdraws one, and what is neither."""

from __future__ import annotations

import json

import pytest

from intentrec_core.features.catalogue import Item
from stream.wire.catalogue_record import as_shown, read_item
from stream.wire.messages import CatalogueItem

KEY, DOCUMENT = (
    b"m1",
    {"item_id": "m1", "title": "Heat", "attributes": {"year": 1995, "genres": ["Crime"], "lost": None}},
)


def value(**changed: object) -> bytes:
    return json.dumps(DOCUMENT | changed).encode()


def test_an_item_has_the_attributes_that_have_a_value() -> None:
    assert as_shown(read_item(KEY, value())) == Item("m1", "Heat", {"year": 1995, "genres": ["Crime"]})


def test_who_wrote_it_is_a_hand_unless_it_says_otherwise() -> None:
    written = [read_item(KEY, value(**given)) for given in ({}, {"written_by": "file"})]
    assert [item.written_by for item in written if item is not None] == ["hand", "file"]


def test_an_item_without_a_title_is_shown_under_its_id() -> None:
    assert as_shown(CatalogueItem(item_id="m1")) == Item("m1", "m1", {})


def test_a_null_is_as_if_the_field_were_not_there() -> None:
    item = read_item(KEY, value(title=None, attributes=None, written_by=None, withdrawn=None))
    assert as_shown(item) == Item("m1", "m1", {})


@pytest.mark.parametrize("record", [None, b""])
def test_a_record_without_a_value_withdraws(record: bytes | None) -> None:
    assert as_shown(read_item(KEY, record)) is None


def test_a_withdrawal_by_hand_is_one_too() -> None:
    item = read_item(KEY, value(withdrawn=True))
    assert item is not None
    assert as_shown(item) is None


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert as_shown(read_item(KEY, value(embedding=[1.0]))) is not None


@pytest.mark.parametrize(
    ("key", "record", "reason"),
    [
        (None, value(), "key of 0 bytes"),
        (b"", value(), "key of 0 bytes"),
        (b"m" * 257, None, "key of 257 bytes"),
        (KEY, b"{", "not an item"),
        (KEY, b"[]", "not an item"),
        (KEY, b'{"item_id": "m1", "title": "\xff"}', "not an item"),
        (KEY, b'{"item_id": "m1", "title": "\\ud83d"}', "not an item"),
        (KEY, b"[" * 100_000, "not an item"),
        (KEY, value(title=7), "title"),
        (KEY, value(attributes=[]), "attributes"),
        (KEY, value(written_by="cat"), "written_by"),
        (KEY, value(item_id=""), "item_id"),
        (b"m2", value(), "is not the item_id"),
    ],
)
def test_anything_else_is_no_item(key: bytes | None, record: bytes | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_item(key, record)
