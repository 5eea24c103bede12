"""What a bundle shows of a catalogue: rows of items that it knows, and rows beside them for items that it does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.conditioning import augment
from intentrec_core.bundle.contents import item_vectors
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.features.vocabulary import ItemTable
from intentrec_core.history.history import hash64
from stream.bundles.serving import Serving
from stream.pipeline import shown_items as subject
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.shown_items import ShownItems
from stream.wire.catalogue_record import ItemChanges
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.item_log import ItemLog
from tests.worlds.networks import network_of
from tests.worlds.pipeline_results import lists, run
from tests.worlds.tiny_world import DOMAIN, START_MS, TinyWorld

NUM_NEW = 5


@pytest.fixture
def serving(world: TinyWorld, tmp_path: Path) -> Serving:
    return make_serving(tmp_path, world, world.model(3))


def catalogue_of(items: ItemLog) -> LiveCatalogue:
    catalogue = LiveCatalogue()
    catalogue.apply(items.changes(0))
    return catalogue


def all_items(world: TinyWorld) -> ItemLog:
    """The world's items, and some that no bundle knows."""
    items = ItemLog()
    for number in range(world.num_items + NUM_NEW):
        items.put(world.item(number))
    return items


def test_without_a_catalogue_nothing_is_made(serving: Serving) -> None:
    shown = ShownItems.of_bundle(serving)
    assert shown.index is serving.index
    assert shown.filters is serving.filters
    assert shown.titles is serving.items.titles
    assert shown.catalogue_offset is None


def test_a_new_item_has_the_vector_that_the_next_bundle_begins_with(world: TinyWorld, serving: Serving) -> None:
    """Grown by the same items, the model gives the same vectors, for the old rows and the new ones."""
    shown = ShownItems.of_catalogue(serving, catalogue_of(all_items(world)))
    new = [world.item(world.num_items + i) for i in range(NUM_NEW)]
    vocabulary = serving.vocabulary.extended(item.item_id for item in new)
    table = ItemTable(world.domain, vocabulary, Catalogue([*world.items, *new]))
    grown = copy.deepcopy(network_of(serving.engine))
    grown.grow(table)
    vectors = item_vectors(grown.weights(), table, START_MS / 1000)
    assert [shown.added[hash64(item.item_id)] for item in new] == list(range(len(serving.vocabulary), len(vocabulary)))
    assert shown.item_ids == vocabulary.item_ids
    wanted = augment(vectors.weights, vectors.bias, list(vectors.labels.values()))[len(serving.vocabulary) :]
    np.testing.assert_allclose(shown.added_vectors, wanted, atol=1e-6)
    for own, labels in zip(shown.labels, vectors.labels.values(), strict=True):
        np.testing.assert_array_equal(own, labels)


@pytest.fixture
def hiding(world: TinyWorld, tmp_path: Path) -> Serving:
    """A bundle whose domain hides watched items, whatever intent is predicted."""
    text = DOMAIN.format(window=world.window).replace('unless_head = "action"\nunless_values = ["continue"]\n', "")
    return make_serving(tmp_path, world, world.model(3), domain_text=text)


def test_a_new_item_is_on_lists_before_anybody_played_it_and_leaves_them_once_watched(
    world: TinyWorld, hiding: Serving
) -> None:
    new = f"item-{world.num_items}"
    pipeline, log = make_pipeline(hiding, catalogue=catalogue_of(all_items(world)), num_recommendations=50), PlayLog()
    (first,) = lists(run(pipeline, [log.play("ann", 1, 100.0)]))
    assert new in [item.item_id for item in first.items]
    for number, played in enumerate([new, 2, 5]):
        (answer,) = lists(run(pipeline, [log.play("ann", played, 200.0 + 100 * number)]))
        assert new not in [item.item_id for item in answer.items]
    (other,) = lists(run(pipeline, [log.play("ben", 1, 900.0)]))
    assert new in [item.item_id for item in other.items]


def test_an_item_watched_before_it_was_known_is_watched_afterwards(world: TinyWorld, hiding: Serving) -> None:
    new, items = f"item-{world.num_items}", ItemLog()
    for item in world.items:
        items.put(item)
    pipeline, log = make_pipeline(hiding, catalogue=catalogue_of(items), num_recommendations=50), PlayLog()
    run(pipeline, [log.play("ann", new, 100.0), log.play("ann", 2, 200.0)])
    first = len(items.records)
    items.put(world.item(world.num_items))
    pipeline.change_items(items.changes(first))
    (ann, ben) = lists(run(pipeline, [log.play("ann", 5, 300.0), log.play("ben", 5, 310.0)]))
    assert new not in [item.item_id for item in ann.items]
    assert new in [item.item_id for item in ben.items]


def test_new_items_beyond_the_limit_are_left_to_the_next_bundle(
    world: TinyWorld, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MAX_ADDED", 2)
    shown = ShownItems.of_catalogue(serving, catalogue_of(all_items(world)))
    assert len(shown.added) == len(shown.added_vectors) == 2
    assert len(shown.titles) == len(serving.vocabulary) + 2
    assert np.count_nonzero(shown.shown) == len(serving.vocabulary) - 1 + 2
    assert shown.num_left_out == NUM_NEW - 2


def listed_by(shown: ShownItems) -> dict[str, str]:
    """Titles by id of the items that the small world's filters let through."""
    rows = np.flatnonzero(shown.filters.allowed({"max_maturity": 3})).tolist()
    return {shown.item_ids[row]: shown.titles[row] for row in rows}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.lists(st.tuples(st.integers(26, 39), st.booleans(), st.booleans()), min_size=1, max_size=6), max_size=12
    )
)
def test_rows_of_withdrawn_items_are_those_of_others_that_inherit_nothing(
    world: TinyWorld, serving: Serving, steps: list[list[tuple[int, bool, bool]]]
) -> None:
    """However many new items come and go, the rows are never used up, and each has what its own item has alone."""
    limit, items, catalogue = 3, ItemLog(), LiveCatalogue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "MAX_ADDED", limit)
        shown, first_row = ShownItems.of_catalogue(serving, catalogue), len(serving.vocabulary)
        for step in steps:
            first = len(items.records)
            for number, is_put, is_available in step:
                item = world.item(number)
                if is_put:
                    items.put(item, title=f"Title {first}", attributes={**item.attributes, "available": is_available})
                else:
                    items.withdraw(item.item_id)
            catalogue.apply(items.changes(first))
            before, shown = shown, shown.changed(catalogue.since(shown.version))
            new = {item_id for item_id in items.as_of(len(items.records) - 1) if not serving.vocabulary.row(item_id)}
            assert sorted(shown.added) == sorted(hash64(item_id) for item_id in new)[:limit]
            assert len(shown.added) + shown.num_left_out == len(new)
            assert sorted(shown.added.values())[-1:] < [first_row + limit]
            assert (shown.added is before.added) == (shown.added == before.added)
            for row in shown.added.values():
                alone = LiveCatalogue()
                alone.apply(ItemChanges({(own := hash64(shown.item_ids[row])): catalogue.everything().items[own]}, 0))
                wanted = ShownItems.of_catalogue(serving, alone)
                assert shown.added[own] == row
                assert (shown.item_ids[row], shown.titles[row]) == (
                    wanted.item_ids[first_row],
                    wanted.titles[first_row],
                )
                assert (shown.item_ids[row] in listed_by(shown)) == (shown.item_ids[row] in listed_by(wanted))
                # float32 products of 30 numbers of size about 1, of one row or of many
                np.testing.assert_allclose(shown.added_vectors[row - first_row], wanted.added_vectors[0], atol=1e-5)
                for labels, wanted_labels in zip(shown.labels, wanted.labels, strict=True):
                    np.testing.assert_array_equal(labels[row], wanted_labels[first_row])
            hidden = [item_id for item_id in listed_by(shown) if item_id not in items.as_of(len(items.records) - 1)]
            assert not hidden


def test_an_item_is_not_watched_because_another_one_in_its_row_was(
    world: TinyWorld, hiding: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one lose that it was watched when it comes back in another row."""
    monkeypatch.setattr(subject, "MAX_ADDED", 1)
    watched, other, items = world.item(world.num_items), world.item(world.num_items + 1), ItemLog()
    for item in [*world.items, watched]:
        items.put(item)
    pipeline, log = make_pipeline(hiding, catalogue=catalogue_of(items), num_recommendations=50), PlayLog()

    def listed(at_s: float, played: int | str) -> list[str]:
        (answer,) = lists(run(pipeline, [log.play("ann", played, at_s)]))
        return [item.item_id for item in answer.items]

    assert watched.item_id not in listed(100.0, watched.item_id)
    first = len(items.records)
    items.withdraw(watched.item_id)
    items.put(other, attributes={**other.attributes, "available": True})
    pipeline.change_items(items.changes(first))
    assert other.item_id in listed(200.0, 1)
    first = len(items.records)
    items.withdraw(other.item_id)
    items.put(watched)
    pipeline.change_items(items.changes(first))
    assert not {watched.item_id, other.item_id} & set(listed(300.0, 2))


def test_a_coming_bundle_has_rows_for_the_items_of_the_catalogue_alone(
    world: TinyWorld, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MAX_ADDED", NUM_NEW)
    items = all_items(world)
    for number in range(NUM_NEW - 1):
        items.withdraw(f"item-{world.num_items + number}")
    shown = ShownItems.of_catalogue(serving, catalogue_of(items))
    assert len(shown.added_vectors) == len(shown.added) == 1


def test_step_by_step_is_the_same_as_all_at_once(world: TinyWorld, serving: Serving) -> None:
    items = all_items(world)
    for number in (3, 31, 8):
        items.withdraw(f"item-{number}")
    items.put(world.item(31), title="Again")
    stepwise, catalogue = ShownItems.of_catalogue(serving, LiveCatalogue()), LiveCatalogue()
    for first in range(len(items.records)):
        catalogue.apply(items.changes(first, first + 1))
        stepwise = stepwise.changed(catalogue.since(stepwise.version))
    whole = ShownItems.of_catalogue(serving, catalogue)
    assert stepwise.catalogue_offset == whole.catalogue_offset == len(items.records) - 1
    assert stepwise.num_hidden == whole.num_hidden == 2
    assert listed_by(stepwise) == listed_by(whole)
    places = [[shown.added[item] - len(serving.vocabulary) for item in whole.added] for shown in (stepwise, whole)]
    # float32 products of 30 numbers of size about 1, of one row or of many
    np.testing.assert_allclose(stepwise.added_vectors[places[0]], whole.added_vectors[places[1]], atol=1e-5)


def test_which_new_items_are_shown_follows_from_the_catalogue_alone(
    world: TinyWorld, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the order in which they came, nor from an update: the same on every worker and after a restart."""
    monkeypatch.setattr(subject, "MAX_ADDED", 2)
    numbers = range(world.num_items, world.num_items + NUM_NEW)
    for order in (numbers, reversed(numbers)):
        items, catalogue = ItemLog(), LiveCatalogue()
        for number in order:
            items.put(world.item(number))
        items.put(world.item(numbers[0]), title="Again")
        stepwise = ShownItems.of_catalogue(serving, catalogue)
        for first in range(len(items.records)):
            catalogue.apply(items.changes(first, first + 1))
            stepwise = stepwise.changed(catalogue.since(stepwise.version))
        at_once, restarted = LiveCatalogue(), LiveCatalogue()
        at_once.apply(items.changes(0))
        restarted.apply(items.compacted())
        for shown in (stepwise, *(ShownItems.of_catalogue(serving, known) for known in (at_once, restarted))):
            assert sorted(shown.added) == sorted(hash64(f"item-{number}") for number in numbers)[:2]
            assert {shown.item_ids[row] for row in shown.added.values()} == {
                item.item_id for own, item in shown.new.items() if own in shown.added
            }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("release_s", START_MS),
        ("release_s", str(START_MS)),
        ("release_s", "8706-01-16T00:00:00"),
        ("release_s", {"at": 1}),
        ("genre", [["drama"]]),
    ],
)
@pytest.mark.parametrize("number", [4, 30], ids=["of the bundle", "new to it"])
def test_an_attribute_that_cannot_be_read_is_missing_and_its_item_is_shown(
    serving: Serving, world: TinyWorld, name: str, value: Any, number: int
) -> None:
    """A release in milliseconds would otherwise be the newest of all."""
    item = world.item(number)
    labels = []
    for attributes in ({**item.attributes, name: value}, {k: v for k, v in item.attributes.items() if k != name}):
        catalogue = LiveCatalogue()
        catalogue.apply(ItemChanges({hash64(item.item_id): Item(item.item_id, "Title", attributes)}, 7))
        shown = ShownItems.of_catalogue(serving, catalogue)
        (row,) = np.flatnonzero(shown.shown)
        assert shown.item_ids[row] == item.item_id
        labels.append([own[row] for own in shown.labels])
    for cut, missing in zip(*labels, strict=True):
        np.testing.assert_array_equal(cut, missing)


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attributes=st.dictionaries(
        st.sampled_from(["genre", "year", "release_s", "available", "maturity"]),
        anything
        | st.dates().map(str)
        | st.datetimes(timezones=st.timezones() | st.none()).map(lambda at: at.isoformat()),
    ),
    number=st.integers(0, 34),
)
def test_no_attribute_of_an_item_stops_a_worker(serving: Serving, attributes: dict[str, Any], number: int) -> None:
    item = Item(f"item-{number}", "Title", attributes)
    catalogue = LiveCatalogue()
    catalogue.apply(ItemChanges({hash64(item.item_id): item}, 7))
    shown = ShownItems.of_catalogue(serving, catalogue)
    assert shown.catalogue_offset == 7
    assert np.isfinite(shown.added_vectors).all()
    assert np.count_nonzero(shown.filters.allowed({"max_maturity": 3})) <= 1
