"""Counts kept play by play are those that training computes at once, in whatever order plays come, wherever folding was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from intentrec_core.engine import item_counts
from intentrec_core.engine.item_counts import ENTRY, CountFold, ItemCounts
from intentrec_core.features.play_counts import PlayCounts

START_S = 1_772_323_200
NUM_ITEMS = 6

PLAYS = st.lists(st.tuples(st.integers(1, NUM_ITEMS), st.integers(0, 90 * 86_400)), min_size=1, max_size=60)


def table(fold: CountFold, at_ms: int) -> ItemCounts:
    return ItemCounts.of([fold.block(number) for number in range(fold.num_blocks)], 1, at_ms, 0.0)


@settings(max_examples=60, deadline=None)
@given(plays=PLAYS, cuts=st.lists(st.integers(0, 60), max_size=3), later_s=st.integers(1, 40 * 86_400))
def test_sums_of_plays_in_any_order_are_those_of_training(
    plays: list[tuple[int, int]], cuts: list[int], later_s: int
) -> None:
    """The columns at a moment after all plays, with the fold packed and taken up again at each cut."""
    fold, before = CountFold(), item_counts.BLOCK_ITEMS
    item_counts.BLOCK_ITEMS = 2
    try:
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(plays)], strict=True):
            part = plays[start:end]
            fold.add([item for item, _ in part], [1000 * (START_S + at_s) for _, at_s in part])
            fold = CountFold.of([fold.block(number) for number in range(fold.num_blocks)], fold.newest_ms)
        moment_s = START_S + max(at_s for _, at_s in plays) + later_s
        found = table(fold, 1000 * moment_s).columns_of(np.arange(NUM_ITEMS + 2, dtype=np.uint64))
    finally:
        item_counts.BLOCK_ITEMS = before
    rows, ts_s = (
        np.array([item for item, _ in plays]),
        np.array([START_S + at_s for _, at_s in plays], dtype=np.float64),
    )
    trained = PlayCounts(rows, ts_s, NUM_ITEMS + 2, refresh_s=1).columns(np.array([float(moment_s)]))[0].T
    np.testing.assert_allclose(found, trained, rtol=1e-5, atol=1e-7)
    assert fold.newest_ms == 1000 * (START_S + max(at_s for _, at_s in plays))


def test_only_blocks_with_new_plays_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_counts, "BLOCK_ITEMS", 2)
    fold = CountFold()
    fold.add([7, 8, 9], [1000, 2000, 3000])
    assert {number: len(block) // ENTRY.itemsize for number, block in fold.take_changed().items()} == {0: 2, 1: 1}
    fold.add([9, 9], [4000, 500])
    assert fold.take_changed().keys() == {1}
    assert not fold.take_changed()
    entry = np.frombuffer(fold.block(1), dtype=ENTRY)[0]
    assert (entry["item_hash"], entry["first_ms"], entry["newest_ms"]) == (9, 500, 4000)


@pytest.mark.parametrize("broken", ["twice", "nan", "later"])
def test_a_table_that_plays_do_not_give_is_refused(broken: str) -> None:
    fold = CountFold()
    fold.add([7, 8], [1000, 2000])
    entries = np.frombuffer(fold.block(0), dtype=ENTRY).copy()
    if broken == "twice":
        entries["item_hash"] = 7
    elif broken == "nan":
        entries["sums"][1, 2] = np.nan
    else:
        entries["first_ms"][0] = 90_000_000_000
    with pytest.raises(ValueError, match="is there twice, or a sum"):
        ItemCounts.of([entries.tobytes()], 1, 2000, 0.0)
    with pytest.raises(ValueError, match="multiple of element size"):
        ItemCounts.of([entries.tobytes()[:-1]], 1, 2000, 0.0)
