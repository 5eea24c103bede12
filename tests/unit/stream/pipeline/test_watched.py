"""Watched rows as of each play equal those of the history, with and without the cache."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from intentrec_core.engine.member_key import MemberKey
from intentrec_core.features.catalogue import Item
from intentrec_core.features.features import ItemRows
from intentrec_core.history.history import History, hash64
from stream.pipeline.batch_rows import lay_out
from stream.pipeline.folding import Folder
from stream.pipeline.live_catalogue import LiveCatalogue
from stream.pipeline.shown_items import ShownItems
from stream.pipeline.watched import WatchedCache
from stream.wire.catalogue_record import ItemChanges
from tests.worlds.bundle_world import PlayLog, make_serving
from tests.worlds.tiny_plays import watched_hashes
from tests.worlds.tiny_world import TinyWorld


@pytest.mark.parametrize("max_members", [1, 100])
@pytest.mark.parametrize("seed", range(4))
def test_watched_rows_are_those_of_the_history(world: TinyWorld, tmp_path: Path, seed: int, max_members: int) -> None:
    rng, log, clock_s = random.Random(seed), PlayLog(), 10_000
    for _ in range(300):
        clock_s += rng.choice([1, 400, 3000])
        log.play(rng.choice(["ann", "ben", "cho"]), rng.randrange(34), clock_s - rng.choice([0, 0, 0, 2, 900]))
    cache = WatchedCache(world.layout, world.vocabulary, max_members)
    items = ShownItems.of_bundle(make_serving(tmp_path, world, world.model()))
    histories, reference, low = dict[str, History](), dict[str, History](), 0
    while low < len(log.records):
        high = low + rng.randint(1, 20)
        folder = Folder(world.layout, None)
        work = folder.fold(0, histories, log.records[low:high])
        batch = lay_out(folder.batch().waves, world.layout, world.vocabulary)
        watched = cache.of(batch, items)
        (rows,) = batch.of([work.answers])
        for answer, row in zip(work.answers, rows, strict=True):
            history = reference.setdefault(answer.play.user_id, History())
            packed = world.layout.pack(
                item_id=answer.play.item_id,
                event_id=answer.play.event_id,
                ts_ms=answer.play.ts_ms,
                duration_s=answer.play.duration_s,
                attributes=answer.play.attributes,
            )
            history.apply(world.layout, packed, answer.record.offset)
            expected = world.vocabulary.rows(np.array(watched_hashes(history, world.layout), dtype=np.uint64))
            np.testing.assert_array_equal(watched[row], expected)
        low = high
    assert len(cache) <= max_members


class CountingRows:
    """A vocabulary that counts the hashes it looks up."""

    def __init__(self, vocabulary: ItemRows) -> None:
        self.vocabulary = vocabulary
        self.num_looked_up = 0

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        self.num_looked_up += len(hashes)
        return self.vocabulary.rows(hashes)


def test_rows_of_added_items_that_change_cost_no_look_up_of_members_who_watched_none(
    world: TinyWorld, tmp_path: Path
) -> None:
    """With items that come and go the cache would never be warm."""
    serving, vocabulary, new = make_serving(tmp_path, world, world.model()), CountingRows(world.vocabulary), "new"
    without = ShownItems.of_catalogue(serving, LiveCatalogue())
    catalogue = LiveCatalogue()
    catalogue.apply(ItemChanges({hash64(new): Item(new, "A new one")}, 0))
    cache, log, histories = WatchedCache(world.layout, vocabulary, 10), PlayLog(), dict[str, History]()

    def watched(items: ShownItems, *plays: tuple[str, int | str]) -> list[list[int]]:
        first = len(log.records)
        for user, item in plays:
            log.play(user, item, 100.0 * len(log.records))
        folder = Folder(world.layout, None)
        folder.fold(0, histories, log.records[first:])
        batch = lay_out(folder.batch().waves, world.layout, world.vocabulary)
        vocabulary.num_looked_up = 0
        return [rows.tolist() for rows in cache.of(batch, items)]

    watched(without, ("ann", 1), ("ben", new))
    with_new = without.changed(catalogue.since(0))
    assert watched(with_new, ("ann", 2)) == [[2, 3]]
    assert vocabulary.num_looked_up == 0
    assert watched(with_new, ("ben", 2)) == [[with_new.added[hash64(new)], 3]]
    catalogue.apply(ItemChanges({hash64(new): None}, 1))
    withdrawn = with_new.changed(catalogue.since(with_new.version))
    assert watched(withdrawn, ("ann", 3)) == [[2, 3, 4]]
    assert vocabulary.num_looked_up == 0
    assert watched(withdrawn, ("ben", 3)) == [[0, 3, 4]]


def test_a_forgotten_member_is_forgotten(world: TinyWorld, tmp_path: Path) -> None:
    log, folder = PlayLog(), Folder(world.layout, None)
    log.play("ann", 1, 0)
    folder.fold(0, {}, log.records)
    cache = WatchedCache(world.layout, world.vocabulary, 10)
    items = ShownItems.of_bundle(make_serving(tmp_path, world, world.model()))
    cache.forget(MemberKey(0, "ann"))
    batch = lay_out(folder.batch().waves, world.layout, world.vocabulary)
    assert [rows.tolist() for rows in cache.of(batch, items)] == [[2]]
    cache.forget(MemberKey(0, "ann"))
    assert len(cache) == 0
