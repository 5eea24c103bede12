"""Lists of rows, and the same rows in one array."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from intentrec_core.history.history import History
from stream.pipeline.batch_rows import lay_out
from stream.pipeline.folding import Folder
from stream.pipeline.row_lists import RowLists
from tests.worlds.bundle_world import PlayLog
from tests.worlds.tiny_world import TinyWorld


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def flat_lists(found: RowLists) -> list[list[int]]:
    return [found.flat[start:end].tolist() for start, end in pairwise(found.starts.tolist())]


def test_rows_from_a_number_on_are_left_out() -> None:
    for num_rows, expected in ((10, [[9, 1], [], [3]]), (9, [[1], [], [3]]), (1, [[], [], []])):
        found = RowLists.below([rows(9, 1), rows(), rows(3)], num_rows)
        assert [own.tolist() for own in found.lists] == flat_lists(found) == expected
    assert flat_lists(RowLists.below([], 9)) == []
    assert flat_lists(RowLists.none(2)) == [[], []]


def test_the_plays_before_each_play_are_those_of_its_own_context(world: TinyWorld) -> None:
    folder, histories, log = Folder(world.features.layout, None), dict[str, History](), PlayLog()
    for i in range(40):
        log.play(f"user-{i % 3}", (i * i) % 33, 400.0 * i)
    folder.fold(0, histories, log.records)
    batch = lay_out(folder.batch().waves, world.features.layout, world.vocabulary)
    found = batch.item_rows_before(np.arange(len(batch)), 4, world.features.layout, world.vocabulary)
    expected = []
    for run_of, nth in zip(batch.run.tolist(), batch.nth.tolist(), strict=True):
        run = batch.runs[run_of]
        played = world.vocabulary.rows(world.features.layout.view(run.context)["item_hash"]).tolist()
        place = len(played) - run.num_outputs + nth
        expected.append(played[max(0, place - 4) : place])
    assert [own.tolist() for own in found.lists] == flat_lists(found) == expected
    assert {len(own) for own in expected} == {0, 1, 2, 3, 4}
    nothing = batch.item_rows_before(rows(), 4, world.features.layout, world.vocabulary)
    assert flat_lists(nothing) == []
