"""What follows the last plays, as it is served: by definition, in any batch, and beside what own items add."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine.successor_scores import SuccessorScorer
from intentrec_core.item_offsets import ItemOffsets, summed
from tests.worlds.naive_score import naive_successor_offsets
from tests.worlds.tiny_world import START_MS, TinyWorld, random_successors

WORLD = TinyWorld(num_items=12)
SUCCESSORS = random_successors(13, weight=1.7)
SCORER = SuccessorScorer(SUCCESSORS, WORLD.features)
#: Of a few float32 numbers, summed in another order.
TOLERANCE = 1e-5


def packed(items: Sequence[int]) -> bytes:
    """A context of plays of these items; 12 and above are unknown."""
    return b"".join(
        WORLD.layout.pack(f"item-{item}", f"e{number}", START_MS + 60_000 * number, None, {}).data
        for number, item in enumerate(items)
    )


@given(st.lists(st.lists(st.integers(0, 13), min_size=1, max_size=9), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_offsets_are_those_of_the_definition(histories: list[list[int]]) -> None:
    contexts = [packed(history) for history in histories]
    scores = SCORER.scores(contexts)
    keys = list(zip(scores.query.tolist(), scores.row.tolist(), strict=True))
    assert keys == sorted(set(keys))
    for n, context in enumerate(contexts):
        found, own = np.zeros(13), scores.query == n
        found[scores.row[own]] = scores.offset[own]
        wanted = naive_successor_offsets(SUCCESSORS, WORLD.features, context)
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_a_play_of_an_unknown_item_leads_nowhere_and_is_a_play_between() -> None:
    alone, behind = (SCORER.scores([packed(items)]) for items in ([1], [1, 99]))
    np.testing.assert_array_equal(alone.row, behind.row)
    assert len(alone.row)
    assert (behind.offset < alone.offset).all()
    assert not len(SCORER.scores([packed([99])]).row)
    assert not len(SCORER.scores([packed([1, 99, 99, 99, 99, 99])]).row)


def test_served_offsets_of_a_context_are_the_same_to_the_bit_alone_and_in_a_batch() -> None:
    random = np.random.default_rng(0)
    contexts = [packed(random.integers(14, size=random.integers(1, 9)).tolist()) for _ in range(64)]
    batch = SCORER.scores(contexts)
    for size in (1, 2, 3, 17, 63):
        for n in range(0, 64, size):
            part = SCORER.scores(contexts[n : n + size])
            same = (batch.query >= n) & (batch.query < n + size)
            np.testing.assert_array_equal(part.query, batch.query[same] - n)
            np.testing.assert_array_equal(part.row, batch.row[same])
            np.testing.assert_array_equal(part.offset, batch.offset[same])


sparse = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(-8, 8)), unique_by=lambda one: one[:2], max_size=12
)


def offsets_of(entries: list[tuple[int, int, int]]) -> ItemOffsets:
    """One query after another; the rows of a query in the order of the entries."""
    query, row, offset = np.array(sorted(entries, key=lambda one: one[0]), dtype=np.int64).reshape(-1, 3).T
    return ItemOffsets(query, row, offset.astype(np.float32))


@given(parts=st.lists(sparse, min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_a_row_of_several_parts_has_the_sum_and_no_other_changes(parts: list[list[tuple[int, int, int]]]) -> None:
    wanted: dict[tuple[int, int], int] = {}
    for query, row, offset in itertools.chain.from_iterable(parts):
        wanted[query, row] = wanted.get((query, row), 0) + offset
    found = summed(None, *(offsets_of(part) for part in parts))
    assert found is not None
    assert found.offset.dtype == np.float32
    pairs = zip(found.query.tolist(), found.row.tolist(), found.offset.tolist(), strict=True)
    assert (sorted(pairs) if len(parts) == 1 else list(pairs)) == [(*key, wanted[key]) for key in sorted(wanted)]


def test_no_part_is_nothing() -> None:
    assert summed(None, None) is None
