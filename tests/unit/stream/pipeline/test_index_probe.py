"""The live probe of the index: which queries it asks again, what it says, and that it delays no answer."""

from __future__ import annotations

import math
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import artifact
from index.base import ItemIndex
from index.exact import ExactIndex
from index.extended import ExtendedIndex
from index.faiss_index import FaissIndex
from index.recall import recall_at_k
from stream.ops.metrics import Metrics
from stream.pipeline import responder
from stream.pipeline.index_probe import PROBED_EVERY, IndexProbe
from tests.worlds.bundle_world import PlayLog, make_pipeline, make_serving
from tests.worlds.tiny_world import TinyWorld

K = 10


def shown(metrics: Metrics) -> float:
    value = metrics.registry.get_sample_value("intentrec_index_recall_ratio")
    assert value is not None
    return value


def misleading_index() -> FaissIndex:
    """A graph that takes some items for others."""
    vectors = np.random.default_rng(5).normal(size=(3000, 8)).astype(np.float32)
    index = FaissIndex(vectors, "hnsw")
    moved = vectors[1:].copy()
    moved[:500] = moved[:500][::-1]
    index.faiss.reset()
    index.faiss.add(np.c_[moved, np.zeros(2999, dtype=np.float32)])
    return index


def offer(probe: IndexProbe, index: ItemIndex, queries: np.ndarray, batch: int) -> None:
    for low in range(0, len(queries), batch):
        part = queries[low : low + batch]
        nothing = [np.zeros(0, dtype=np.int64)] * len(part)
        probe.offer(index, part, index.search(part, K), nothing, [None] * len(part))
        probe.wait()


@pytest.mark.parametrize("batch", [1, 7, 20])
def test_every_so_many_queries_one_is_compared_with_the_exact_search(batch: int) -> None:
    metrics, index = Metrics(), misleading_index()
    queries = np.random.default_rng(6).normal(size=(400, 8)).astype(np.float32)
    probe = IndexProbe(metrics.index_recall, every=20, fewest=1)
    assert math.isnan(shown(metrics))
    offer(probe, index, queries[:19], batch)
    assert math.isnan(shown(metrics)), "none of 19"
    offer(probe, index, queries[19:], batch)
    expected = recall_at_k(index, index.exact, queries[19::20], K)
    assert 0.0 < expected < 1.0
    assert shown(metrics) == pytest.approx(expected)


def test_the_ratio_is_of_the_index_that_was_probed_last() -> None:
    metrics, good = Metrics(), FaissIndex(np.eye(64, 8, dtype=np.float32) + 1.0, "hnsw")
    probe, queries = IndexProbe(metrics.index_recall, every=1, fewest=20), np.ones((20, 8), dtype=np.float32)
    offer(probe, misleading_index(), np.random.default_rng(6).normal(size=(20, 8)).astype(np.float32), 1)
    assert shown(metrics) < 1.0
    offer(probe, good, queries[:19], 1)
    assert math.isnan(shown(metrics)), "too few to say anything, and the other index's are not its own"
    offer(probe, good, queries[19:], 1)
    assert shown(metrics) == 1.0


def test_one_missed_item_is_no_ratio_that_an_alert_could_fire_for() -> None:
    metrics, index = Metrics(), misleading_index()
    probe, queries = IndexProbe(metrics.index_recall, every=1), np.random.default_rng(6).normal(size=(100, 8))
    offer(probe, index, queries[:99].astype(np.float32), 1)
    assert math.isnan(shown(metrics))
    offer(probe, index, queries[99:].astype(np.float32), 1)
    assert 0.0 < shown(metrics) < 1.0


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="threads have priorities of their own on Linux")
def test_a_probe_runs_on_a_thread_of_the_lowest_priority_and_changes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    index, before, seen = misleading_index(), os.getpriority(os.PRIO_PROCESS, 0), []
    search = index.exact.search

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append((threading.current_thread(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        return search(*arguments, **options)

    probe, queries = IndexProbe(Metrics().index_recall, every=1), np.ones((1, 8), dtype=np.float32)
    found = index.search(queries, K)
    monkeypatch.setattr(index.exact, "search", watched)
    probe.offer(index, queries, found, [np.zeros(0, dtype=np.int64)], [None])
    probe.wait()
    [(thread, priority)] = seen
    assert thread is not threading.main_thread()
    assert priority == 19
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_an_index_with_added_items_is_compared_with_the_exact_search_over_all_of_them() -> None:
    metrics, base = Metrics(), misleading_index()
    queries = np.random.default_rng(6).normal(size=(30, 8)).astype(np.float32)
    index = ExtendedIndex(base, queries[:5])
    probe, nothing = IndexProbe(metrics.index_recall, every=1, fewest=30), [np.zeros(0, dtype=np.int64)]
    for query in range(len(queries)):
        one = queries[query : query + 1]
        grown = ExtendedIndex(base, queries[:5])  # as after each change of the catalogue: it is the same bundle's index
        probe.offer(grown, one, index.search(one, K), nothing, [None])
        probe.wait()
    whole = ExactIndex(np.concatenate([base.exact.vectors, queries[:5]]))
    expected = recall_at_k(index, whole, queries, K)
    assert 0.0 < expected < 1.0
    assert shown(metrics) == pytest.approx(expected)


def test_an_exact_index_is_not_probed() -> None:
    metrics, vectors = Metrics(), np.eye(64, 8, dtype=np.float32)
    probe, queries = IndexProbe(metrics.index_recall, every=1), np.ones((3, 8), dtype=np.float32)
    for kind in ("exact", "flat"):
        index = artifact.build(vectors, kind)
        probe.offer(index, queries, index.search(queries, K), [np.zeros(0, dtype=np.int64)] * 3, [None] * 3)
        probe.wait()
    assert math.isnan(shown(metrics))


def test_a_pipeline_probes_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, metrics = TinyWorld(), Metrics()
    monkeypatch.setattr(responder, "IndexProbe", partial(IndexProbe, fewest=1))
    pipeline = make_pipeline(make_serving(tmp_path, world, world.model(), index_kind="hnsw"), metrics)
    log = PlayLog()
    for number in range(PROBED_EVERY + 10):
        log.play(f"user-{number % 40}", number % 9, at_s=number)
    for low in range(0, len(log.records), 64):
        pipeline.process({0: log.records[low : low + 64]})
    for thread in [thread for thread in threading.enumerate() if thread.name == "index-probe"]:
        thread.join()
    assert shown(metrics) == 1.0
