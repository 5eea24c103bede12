"""What is popular now: counts, fallback lists, and the reference that predictions are compared with."""

from __future__ import annotations

import random

import numpy as np

from intentrec_core.baselines.popularity import WEEK_S
from stream.pipeline.popular import MAX_SEEDED_PLAYS, PopularNow, ranked

NONE = np.zeros(0, dtype=np.int64)


def rows_of(
    popular: PopularNow, k: int = 3, excluded: np.ndarray = NONE, allowed: np.ndarray | None = None
) -> list[int]:
    return ranked(popular.appeal(), [], [], k, excluded=[excluded], allowed=[allowed])[0][0].tolist()


def test_a_bundle_s_counts_and_live_plays_add_up() -> None:
    popular = PopularNow(np.array([0, 5, 3, 1, 0], dtype=np.float32), 0.0)
    assert rows_of(popular) == [1, 2, 3]
    popular.add([(4, 10.0)] * 2000)
    assert rows_of(popular) == [4, 1, 2]


def test_filters_hold_and_short_lists_are_padded() -> None:
    popular = PopularNow(np.array([0, 5, 3, 1], dtype=np.float32), 0.0)
    allowed = np.array([True, True, True, False])
    rows, scores = ranked(popular.appeal(), [], [], 3, excluded=[np.array([1])], allowed=[allowed])
    assert rows.tolist() == [[2, -1, -1]]
    assert np.isneginf(scores[0, 1:]).all()


def test_intents_decide_between_equally_popular_items() -> None:
    popular = PopularNow(np.array([0, 5, 5, 5], dtype=np.float32), 0.0)
    labels = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], dtype=np.float32)
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1]], dtype=np.float32)
    rows, _ = ranked(popular.appeal(), [probabilities], [labels], 3, excluded=[NONE, NONE], allowed=[None, None])
    assert rows.tolist() == [[2, 1, 3], [1, 2, 3]]


def test_several_labels_of_an_item_count_with_their_sum() -> None:
    popular = PopularNow(np.array([0, 10, 11], dtype=np.float32), 0.0)
    shares = np.array([[0, 0], [0.5, 0.5], [1, 0]], dtype=np.float32)
    rows, scores = ranked(
        popular.appeal(), [np.array([[0.5, 0.5]], dtype=np.float32)], [shares], 2, excluded=[NONE], allowed=[None]
    )
    assert rows.tolist() == [[1, 2]]
    np.testing.assert_allclose(scores[0], [np.log1p(10.0) + 1.0, np.log1p(11.0) + 0.5], rtol=1e-6)


def test_plays_counted_by_a_bundle_expire_after_the_week() -> None:
    popular = PopularNow(np.array([0, 5, 0, 0], dtype=np.float32), 0.0)
    popular.add([(2, WEEK_S + 1)])
    assert popular.window.top(3) == [2]
    assert rows_of(popular, k=1) == [2]


def test_a_play_of_the_bundle_counts_as_much_as_a_live_one_also_for_the_next_bundle() -> None:
    popular = PopularNow(np.array([0, 5, 0], dtype=np.float32), 0.0)
    popular.add([(2, 10.0)] * 6)
    for one in (popular, popular.sharing_plays(np.array([0, 9, 0, 0], dtype=np.float32))):
        assert rows_of(one, k=2) == [2, 1]


def test_the_counts_of_a_bundle_without_a_time_are_not_used() -> None:
    popular = PopularNow(np.array([0, 5, 0, 0], dtype=np.float32), float("-inf"))
    assert popular.window.top(3) == []
    assert rows_of(popular)[0] == 1  # its own counts still make a list
    popular = popular.sharing_plays(np.array([0, 0, 5, 0], dtype=np.float32))
    popular.add([(3, 10.0)])
    assert rows_of(popular) == [2, 3, 1]


def test_a_large_bundle_is_scaled_down() -> None:
    counts = np.array([0, 3 * MAX_SEEDED_PLAYS, MAX_SEEDED_PLAYS], dtype=np.float32)
    popular = PopularNow(counts, 0.0)
    assert len(popular.window) <= MAX_SEEDED_PLAYS + 2
    assert popular.window.top(2) == [1, 2]


def test_hits_equal_those_of_a_plain_ranking() -> None:
    rng = random.Random(3)
    popular = PopularNow(np.array([0, *range(40)], dtype=np.float32), 0.0)
    items = np.array([rng.randrange(45) for _ in range(200)])
    watched = [np.array([rng.randrange(41) for _ in range(rng.randrange(30))], dtype=np.int64) for _ in items]
    watched[0] = np.array([10_000_000])  # a row of a vocabulary that has grown meanwhile
    for hide in (True, False):
        hits = popular.window.among_top(items, 10, watched if hide else None)
        for item, seen, hit in zip(items.tolist(), watched, hits.tolist(), strict=True):
            top = popular.window.top(10, set(seen.tolist()) if hide else ())
            assert hit == (item in top)
