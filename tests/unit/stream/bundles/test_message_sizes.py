"""A bundle whose messages could not be sent is refused, and one whose titles would be cut says so."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import pytest

from intentrec_core.errors import BundleError, BundleFault
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.vocabulary import ItemTable
from stream.bundles.message_sizes import check_message_sizes
from stream.settings import MAX_RECOMMENDATIONS
from stream.wire.records import OutputKind
from stream.wire.sizes import DEFAULT_LIMITS, OVERHEAD_BYTES, TopicLimits, largest_intent_update, largest_recommendation
from tests.worlds.tiny_world import TinyWorld


def check(
    world: TinyWorld,
    items: ItemTable | None = None,
    num: int = MAX_RECOMMENDATIONS,
    limits: TopicLimits = DEFAULT_LIMITS,
) -> None:
    table = items or world.table
    check_message_sizes("b1", world.domain, world.vocabulary, table, num_recommendations=num, limits=limits)


def with_title(world: TinyWorld, title: str) -> ItemTable:
    """The items of the world, item-7 with a title of its own."""
    items = [Item("item-7", title) if item.item_id == "item-7" else item for item in world.items]
    return ItemTable(world.domain, world.vocabulary, Catalogue(items))


def test_a_usual_bundle_fits_at_the_longest_list_without_a_word(
    world: TinyWorld, caplog: pytest.LogCaptureFixture
) -> None:
    check(world)
    check(world, with_title(world, "x" * 1_200_000))
    assert not caplog.records


@pytest.mark.parametrize("room", [0, -1])
def test_published_vectors_count(world: TinyWorld, room: int) -> None:
    item_ids = world.vocabulary.item_ids[1:]
    bare = largest_recommendation(world.domain, item_ids, [""] * len(item_ids), 10, 4096)
    assert bare > 4 * 4096 + largest_recommendation(world.domain, item_ids, [""] * len(item_ids), 10)
    whole = largest_intent_update(world.domain, 4096)
    for intents, lists in ((whole + room, 10**6), (10**6, bare + room)):
        limits = TopicLimits(intents=intents + OVERHEAD_BYTES, recommendations=lists + OVERHEAD_BYTES)
        with nullcontext() if not room else pytest.raises(BundleError, match=r"message.bytes"):
            check_message_sizes(
                "b1",
                world.domain,
                world.vocabulary,
                world.table,
                num_recommendations=10,
                limits=limits,
                embedding_width=4096,
                query_width=4096,
            )


@pytest.mark.parametrize("room", [0, -1])
def test_intent_updates_fit_to_the_byte_or_the_bundle_is_refused(world: TinyWorld, room: int) -> None:
    limits = TopicLimits(intents=largest_intent_update(world.domain) + OVERHEAD_BYTES + room)
    if not room:
        check(world, limits=limits)
        return
    with pytest.raises(
        BundleError, match=r"an intent update can take .* raise the topic's max.message.bytes"
    ) as raised:
        check(world, limits=limits)
    assert raised.value.fault is BundleFault.MESSAGE_SIZE


@pytest.mark.parametrize("room", [0, -1])
def test_lists_without_titles_fit_to_the_byte_or_the_bundle_is_refused(
    world: TinyWorld, room: int, caplog: pytest.LogCaptureFixture
) -> None:
    item_ids = world.vocabulary.item_ids[1:]
    bare = largest_recommendation(world.domain, item_ids, [""] * len(item_ids), 10)
    limits = TopicLimits(recommendations=bare + OVERHEAD_BYTES + room)
    assert limits.of(OutputKind.RECOMMENDATION) == bare + room
    if room:
        with pytest.raises(BundleError, match=r"of 10 items can take .* without titles.* lower num_recommendations"):
            check(world, num=10, limits=limits)
        return
    with caplog.at_level(logging.WARNING):
        check(world, num=10, limits=limits)
    assert "titles are cut in such a list" in caplog.text


def test_the_item_with_the_longest_title_is_named(world: TinyWorld, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check(world, with_title(world, "\0" * 1024), num=10, limits=TopicLimits(recommendations=11_000))
    assert "the longest title is that of item item-7" in caplog.text
