"""Answers from a bundle: what is popular, similar and found, and scores that are those of the worker's own index."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from index.conditioning import query
from intentrec_core.bundle.contents import item_vectors, load_bundle
from intentrec_core.features.catalogue import Item
from stream.gateway.bundle_view import BundleView
from stream.gateway.problems import Problem
from stream.gateway.rank_paths import _Queried, ranked
from stream.wire.messages import Source
from tests.worlds.bundle_world import make_bundle
from tests.worlds.tiny_world import START_MS, TinyWorld

VALUES = {"max_maturity": 4.0}


@pytest.fixture(scope="module")
def view(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> BundleView:
    return BundleView.of(load_bundle(make_bundle(tmp_path_factory.mktemp("store"), world, world.model(1)).path))


def test_similar_items_are_the_nearest_by_cosine_and_the_item_itself_is_none(view: BundleView) -> None:
    rows, cosines = view.similar(5, 4)
    lengths = np.linalg.norm(view.directions, axis=1)
    assert np.allclose(lengths[1:], 1.0, atol=1e-5)
    expected = {
        row: float(view.directions[row] @ view.directions[5]) for row in np.flatnonzero(view.available) if row != 5
    }
    best = sorted(expected, key=lambda row: -expected[row])[:4]
    assert rows == best
    assert np.allclose(cosines, [expected[row] for row in best], atol=1e-6)


def test_items_are_found_by_all_words_of_title_and_id_popular_ones_first(view: BundleView) -> None:
    everything = view.search([], 200)
    assert everything == sorted(everything, key=lambda row: (-view.appeal[row], row))
    assert 0 not in everything
    text = view.titles[3].split()
    assert 3 in view.search([word.upper() for word in text], 200)
    assert view.search([*text, "nothing-has-this"], 200) == []
    assert view.search([view.vocabulary.item_ids[3]], 200)[:1] != []


def test_a_member_of_whom_nothing_is_known_is_shown_nothing_by_a_filter_without_a_default(view: BundleView) -> None:
    rows, scores, hiding = view.popular(3)
    assert (rows, scores) == ([], [])
    assert [(f.key, f.reason.value) for f in hiding] == [("maturity", "member_unknown")]


def test_of_a_catalogue_that_is_followed_only_what_it_has_is_shown_with_its_data(view: BundleView) -> None:
    kept = [view.item(row) for row in (2, 5, 7)]
    renamed = Item(kept[0].item_id, "Another title", kept[0].attributes)
    unrated = Item(kept[1].item_id, kept[1].title, {k: v for k, v in kept[1].attributes.items() if k != "maturity"})
    followed = view.with_catalogue([renamed, unrated, kept[2], Item("new", "New", {})])
    assert sorted(followed.search([], 200)) == [2, 7], "an item without the data of a filter is shown to nobody"
    assert followed.titles[2] == "Another title"
    assert followed.row(view.vocabulary.item_ids[3]) == 0
    assert set(followed.similar(2, 9)[0]) == {7}


def test_ranking_everything_by_a_query_is_the_order_of_the_index(world: TinyWorld, view: BundleView) -> None:
    """The published query is what a worker searches its index with."""
    random = np.random.default_rng(3)
    width = view.directions.shape[1]
    scores = [random.normal(size=(1, num)).astype(np.float32) for num in (labels.shape[1] for labels in _labels(world))]
    asked = query(random.normal(size=(1, width)).astype(np.float32), scores)
    items = view.vocabulary.item_ids[1:]
    found = ranked("u", queried(asked[0].tobytes(), filter_values=VALUES), view, [*items, "nope", items[0]])
    allowed = view.filters.allowed(VALUES)
    exact = view.vectors @ asked[0]
    best = sorted(np.flatnonzero(allowed), key=lambda row: (-exact[row], row))
    assert [item.item_id for item in found.items] == [view.vocabulary.item_ids[row] for row in best]
    assert np.allclose([item.score for item in found.items], exact[best], atol=1e-4)
    assert found.unknown == ["nope"]
    assert set(found.filtered) == {view.vocabulary.item_ids[row] for row in np.flatnonzero(~allowed) if row}
    assert ranked("u", queried(asked[0].tobytes()), view, items).items == [], "the member's value is not known"


def test_a_query_of_another_width_is_refused(view: BundleView) -> None:
    with pytest.raises(Problem, match="numbers; allowed: "):
        ranked("u", queried(b"\0" * 8), view, ["item-1"])


def queried(vector: bytes, **fields: object) -> _Queried:
    return _Queried("e1", "2026-03-01T20:15:00.000Z", "b1", Source("plays", 0, 1), vector, **fields)  # type: ignore[arg-type]


def _labels(world: TinyWorld) -> list[NDArray[np.float32]]:
    return list(item_vectors(world.model(1).weights(), world.table, START_MS / 1000).labels.values())
