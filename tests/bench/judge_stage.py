"""Cost of scoring the last prediction, alone: what the worker's stage ``judge`` costs a play, by the size of micro-batches.

    python -m tests.bench.judge_stage BUNDLE MEMBERS PLAYS

Members have full contexts, a table of counts says what is popular, and the chain of transitions is full. Plays are folded as a
worker folds them; nothing is encoded, and predictions are random, which changes no cost. The plain chain of
:mod:`tests.worlds.plain_markov` takes turns with it on the same plays. Times are processor time of the thread, which other
programs change least. The last line of stdout is JSON: seconds a play by size, median of rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from intentrec_core.engine.engine import Encoded
from intentrec_core.engine.item_counts import CountFold, ItemCounts
from intentrec_core.history.history import EventLayout, History
from intentrec_core.kernels import transitions
from stream.bundles.serving import Serving, load_serving
from stream.ops.metrics import Metrics
from stream.pipeline.answered_rows import AnsweredRows
from stream.pipeline.batch_rows import lay_out
from stream.pipeline.bundle_counts import BundleCounts
from stream.pipeline.coalescing import Coalescing
from stream.pipeline.folding import Folder
from stream.pipeline.live_quality.predictions import CUTOFF
from stream.pipeline.live_quality.scorer import PredictionScorer
from stream.pipeline.retrieval import RankedItems
from stream.pipeline.shown_items import ShownItems
from stream.pipeline.watched import WatchedCache
from stream.wire.deferred_counts import DeferredCounts
from tests.bench.worker_plays import START_MS, history, plays, user_id
from tests.worlds.bundle_world import Record
from tests.worlds.plain_markov import plain_among_top

SIZES = (8, 64, 256)
ROUNDS = 9
#: No context is encoded, so the cache may be small.
_POOL_BYTES = 64 << 20
#: So many plays of a random member each that nearly all are met, and the chain knows their contexts.
_WARM_PLAYS_A_MEMBER = 8
_NOW_MS = 1_800_000_000_000


def judged_batches(serving: Serving, num_active: int, size: int, *, first: int = 0) -> Iterator[AnsweredRows]:
    """Micro-batches of ``size`` plays as they are scored, from the log's play ``first`` on."""
    layout, rng = EventLayout(serving.domain), np.random.default_rng(first)
    histories = {user_id(number): history(layout, number) for number in range(num_active)}
    fold = CountFold()
    for held in histories.values():
        events = layout.view(held.events)
        fold.add(events["item_hash"].tolist(), events["ts_ms"].tolist())
    table = ItemCounts.of([fold.block(number) for number in range(fold.num_blocks)], 1, START_MS, 0.0)
    counts, items = BundleCounts.of(serving, table), ShownItems.of_bundle(serving)
    watched = WatchedCache(layout, serving.vocabulary, num_active)
    while True:
        given = enumerate(plays(size, num_active=num_active, first=first), 1 + first)
        records = [Record(number, value, key, 0, timestamp=_NOW_MS) for number, (key, value) in given]
        yield _answered(serving, layout, histories, records, counts, items, watched, rng)
        first += size


def _answered(
    serving: Serving,
    layout: EventLayout,
    histories: dict[str, History],
    records: Sequence[Record],
    counts: BundleCounts,
    items: ShownItems,
    watched: WatchedCache,
    rng: np.random.Generator,
) -> AnsweredRows:
    folder = Folder(layout, None)
    folder.fold(0, histories, records)
    folded = folder.batch()
    rows = lay_out(folded.waves, layout, serving.vocabulary)
    failed = np.zeros(len(rows), dtype=np.bool_)
    heads = [rng.random((len(rows), head.num_labels), dtype=np.float32) for head in serving.domain.heads]
    listed = rng.integers(1, len(serving.vocabulary), (len(rows), CUTOFF))
    none, first_labels = np.zeros((len(rows), 0), dtype=np.float32), np.zeros(len(rows), dtype=np.int64)
    return AnsweredRows(
        partitions=folded.partitions,
        rows_of=rows.of(partition.answers for partition in folded.partitions),
        counts=[DeferredCounts() for _ in folded.partitions],
        rows=rows,
        encoded=Encoded(none, tuple(heads), none, none, first_labels, first_labels),
        failed=failed,
        coalescing=Coalescing.none(folded.partitions, failed),
        items=items,
        watched=watched.of(rows, items),
        ranked=RankedItems(listed, np.zeros(listed.shape, dtype=np.float32), np.zeros_like(failed)),
        item_counts=counts,
    )


class _Measured:
    """A scorer with metrics of its own, and what it took."""

    def __init__(self, serving: Serving, among_top: Callable[..., Any]) -> None:
        self.metrics, self.costs_s = Metrics(), list[float]()
        self._scorer, self._among_top = PredictionScorer(serving, self.metrics), among_top

    def score(self, batches: Sequence[AnsweredRows]) -> None:
        """Adds the processor time of this thread, in seconds a play, to ``costs_s``."""
        own = [replace(one, counts=[DeferredCounts() for _ in one.counts]) for one in batches]
        with patch.object(transitions, "among_top", self._among_top):
            before_s = time.thread_time()
            for answered in own:
                self._scorer.score(answered)
            self.costs_s.append((time.thread_time() - before_s) / sum(len(answered.rows) for answered in own))
        for answered in own:
            for counts in answered.counts:
                counts.count()

    def hits(self, bundle: str) -> float | None:
        """Of the chain."""
        return self.metrics.registry.get_sample_value("intentrec_judged_markov_hits_total", {"bundle": bundle})


def measure(bundle: Path, num_active: int, num_plays: int) -> dict[str, float]:
    """Seconds a play by the size of micro-batches; those of the plain chain as ``SIZE_plain``."""
    serving = load_serving(bundle, device="cpu", pool_bytes=_POOL_BYTES)
    cost_s, num_warm = {}, -(-_WARM_PLAYS_A_MEMBER * num_active // max(SIZES))
    for size in SIZES:
        rows = {
            str(size): _Measured(serving, transitions.among_top),
            f"{size}_plain": _Measured(serving, plain_among_top),
        }
        for answered in islice(judged_batches(serving, num_active, max(SIZES)), num_warm):
            for row in rows.values():
                row.score([answered])
        for row in rows.values():
            row.costs_s.clear()
        batches = judged_batches(serving, num_active, size, first=num_warm * max(SIZES))
        for _ in range(ROUNDS):
            plays_now = list(islice(batches, -(-num_plays // size)))
            for row in rows.values():
                row.score(plays_now)
        assert len({row.hits(serving.version) for row in rows.values()}) == 1, "the two chains disagree"
        cost_s |= {name: statistics.median(row.costs_s) for name, row in rows.items()}
    return cost_s


def main() -> None:
    """See the module."""
    bundle, num_active, num_plays = sys.argv[1:]
    print(json.dumps(measure(Path(bundle), int(num_active), int(num_plays))))


if __name__ == "__main__":
    main()
