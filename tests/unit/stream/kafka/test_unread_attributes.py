"""Items that anyone may write: what cannot be read of one is named once and counted, and the item stays shown."""

from __future__ import annotations

import logging

import pytest
from prometheus_client import CollectorRegistry

from intentrec_core.domain.toml import parse_domain
from intentrec_core.features.catalogue import Item
from intentrec_core.history.history import hash64
from stream.kafka import unread_attributes as subject
from stream.kafka.unread_attributes import UnreadAttributes
from stream.ops.metrics import Metrics
from stream.wire.catalogue_record import ItemChanges
from tests.worlds.tiny_world import DOMAIN

RELEASED_S = 1_704_067_200
GOOD = {"genre": ["drama"], "release_s": RELEASED_S, "made": "2024", "sold_ms": RELEASED_S * 1000}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def unread(metrics: Metrics) -> UnreadAttributes:
    return UnreadAttributes("items", parse_domain(DOMAIN.format(window=4), "tiny.toml"), metrics)


def changes(*items: Item, withdrawn: str = "", is_whole: bool = False) -> ItemChanges:
    by_hash: dict[int, Item | None] = {hash64(item.item_id): item for item in items}
    return ItemChanges(by_hash | ({hash64(withdrawn): None} if withdrawn else {}), 0, is_whole=is_whole)


def num_cut(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("intentrec_catalogue_cut_items")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("release_s", RELEASED_S * 1000, "'release_s': 1704067200000, which would fit in milliseconds (ms)"),
        (
            "release_s",
            "8706-01-16T00:00:00",
            "'release_s': 8706-01-16T00:00:00, which would fit as a number of another",
        ),
        ("release_s", {}, "'release_s': a nested value"),
        ("genre", [["drama"]], "'genre': a nested value"),
        ("note", {"x": 1}, "'note': a nested value"),
    ],
)
def test_an_item_with_an_attribute_that_cannot_be_read_is_named_once_and_counted(
    unread: UnreadAttributes, metrics: Metrics, caplog: pytest.LogCaptureFixture, name: str, value: object, said: str
) -> None:
    bad = Item("m\n1", "Heat", GOOD | {name: value})
    for _ in range(2):
        unread.look(changes(Item("m2", "Fine", GOOD), bad))
    (line,) = caplog.messages
    assert line.startswith("items: item 'm\\n1' is shown without attributes that cannot be read; write it again: ")
    assert said in line
    assert num_cut(metrics) == 1


def test_an_item_that_is_written_again_withdrawn_or_gone_is_counted_no_longer(
    unread: UnreadAttributes, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [Item(f"m{number}", "", {"genre": [[]]}) for number in range(4)]
    unread.look(changes(*bad))
    assert num_cut(metrics) == 4
    unread.look(changes(Item("m0", "", GOOD)))
    assert num_cut(metrics) == 3
    unread.look(changes(withdrawn="m1"))
    assert num_cut(metrics) == 2
    unread.look(changes(bad[3], is_whole=True))
    assert num_cut(metrics) == 1
    unread.look(changes(bad[0]))
    assert (num_cut(metrics), len(caplog.messages)) == (2, 5)


def test_of_many_items_the_first_are_named(
    unread: UnreadAttributes, metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_MAX_NAMED", 2)
    with caplog.at_level(logging.WARNING):
        unread.look(changes(*(Item(f"m{number}", "", {"genre": {}}) for number in range(5))))
    assert [line[:16] for line in caplog.messages] == ["items: item 'm0'", "items: item 'm1'", "items: 3 more it"]
    assert num_cut(metrics) == 5
