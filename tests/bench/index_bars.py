"""What the index of new bundles costs and misses, against exact search and the pruned index: the bars of the bench of the index.

One thread, batches of 8 and 64, the best 10. Times are processor times of the calling thread, in turns: other processes on this
machine slow all kinds alike. Answers are compared with the exact ones of all queries, each item of an answer counted once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import numpy as np
from numpy.typing import NDArray

from index import artifact
from index.base import ItemIndex
from index.exact import ExactIndex
from index.refined import one_faiss_thread
from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.plays.table import play_rows
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.first_model import fit
from stream.bundles.builder import build_bundle
from stream.bundles.serving import load_serving
from stream.kafka.replay import play_message
from stream.pipeline.pipeline import Pipeline
from stream.settings import Settings
from stream.wire.codec import encode
from tests.bench.harness import Figures, in_turns
from tests.bench.trained_items import TrainedItems
from tests.worlds.bundle_world import Record, make_pipeline

K = 10
BATCHES = (8, 64)
#: Queries a round: enough for exact search of many items to take a millisecond, few enough for turns to be short.
_QUERIES_A_ROUND = 128
_ANSWERED_AT_ONCE = 64


def search_bars(name: str, trained: TrainedItems, *, rounds: int, against: str = artifact.EXACT) -> Figures:
    """Times of ``auto`` and of the kind it is held ``against``, and what they find of the exact answers."""
    kinds: dict[str, ItemIndex] = {
        kind: artifact.build(trained.vectors, kind, trained.planning) for kind in (artifact.AUTO, against)
    }
    figures: Figures = {
        f"auto_kind_{name}": artifact.kind_of(kinds[artifact.AUTO]),
        f"queries_{name}": len(trained.queries),
        f"trained_{name}": trained.facts,
    }
    for batch in BATCHES:
        micros = _micros(kinds, trained.queries, batch, rounds)
        figures |= {f"{kind}_{name}_us_{batch}": round(of, 2) for kind, of in micros.items()}
        figures[f"index_{name}_over_{against}_{batch}"] = round(micros[artifact.AUTO] / micros[against], 3)
    _, truth = faiss.knn(trained.queries, trained.vectors[1:], K, metric=faiss.METRIC_INNER_PRODUCT)
    truth += 1
    rare = _least_popular_half(trained.popularity)[truth]
    for kind in [kind for kind in kinds if kind != artifact.EXACT]:
        rows = _answers(kinds[kind], trained.queries)
        hits = np.array([np.isin(best, found) for best, found in zip(truth, rows, strict=True)])
        figures[f"{kind}_{name}_recall"] = round(float(hits.mean()), 4)
        figures[f"{kind}_{name}_rare_recall"] = round(float(hits[rare].mean()), 4) if rare.any() else None
    figures |= {
        f"index_{name}_recall": figures[f"{artifact.AUTO}_{name}_recall"],
        f"{name}_rare_hits": round(float(rare.sum() * (figures[f"{artifact.AUTO}_{name}_rare_recall"] or 0.0)), 1),
        f"{name}_rare_answers": int(rare.sum()),
    }
    print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    return figures


def decaying_items(num_items: int, dimension: int = 144) -> TrainedItems:
    """Vectors of a decaying spectrum with a bias, and queries all over it: answers are anywhere in the catalogue."""
    random = np.random.default_rng(20240811)
    spectrum = np.arange(1, dimension + 1) ** -0.7
    vectors = random.normal(size=(num_items + 1, dimension)) * spectrum
    popularity = random.zipf(1.6, size=num_items + 1)
    vectors[:, -1] = random.normal(size=num_items + 1) * 0.3
    vectors[0] = 0.0
    queries = random.normal(size=(21_024, dimension)) * 2.0 * np.sqrt(spectrum)
    queries[:, -1] = 1.0
    queries = queries.astype(np.float32)
    return TrainedItems(vectors.astype(np.float32), queries[:20_000], queries[20_000:], popularity, {})


def pooled_rare_recall(figures: Mapping[str, object], names: list[str]) -> Figures:
    """The recall of the answers in the least popular half of each catalogue, over all of these catalogues."""
    hits = sum(float(str(figures[f"{name}_rare_hits"])) for name in names)
    answers = sum(int(str(figures[f"{name}_rare_answers"])) for name in names)
    return {"index_rare_recall": round(hits / answers, 4)} if answers else {}


def _micros(kinds: Mapping[str, ItemIndex], queries: NDArray[np.float32], batch: int, rounds: int) -> dict[str, float]:
    asked = [queries[low : low + batch] for low in range(0, _QUERIES_A_ROUND, batch)]

    def search(index: ItemIndex) -> None:
        with one_faiss_thread():
            for part in asked:
                index.search(part, K)

    calls = {kind: (lambda index=index: search(index)) for kind, index in kinds.items()}
    timings = in_turns(calls, rounds=rounds, clock=time.thread_time)
    return {kind: timing.median_s / (len(asked) * batch) * 1e6 for kind, timing in timings.items()}


def _answers(index: ItemIndex, queries: NDArray[np.float32]) -> NDArray[np.int64]:
    parts = [
        index.search(queries[low : low + _ANSWERED_AT_ONCE], K)[0] for low in range(0, len(queries), _ANSWERED_AT_ONCE)
    ]
    return np.concatenate(parts)


def _least_popular_half(popularity: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Shape: i64[V] -> bool[V]."""
    rare = np.zeros(len(popularity), dtype=np.bool_)
    rare[1 + np.argsort(popularity[1:], kind="stable")[: len(popularity) // 2]] = True
    return rare


def worker_bars(config: TrainConfig, *, num_plays: int, rounds: int) -> Figures:
    """Processor time of a play from bytes to bytes at 1,600 items: the index of new bundles, and the exact one.

    Both pipelines get the same plays, in turns. Reading and publishing are left out: they cost the same. The model must have
    learned: another one asks for popular items alone, which members have watched, and falls back to the exact search more often.
    """
    found = fetch_movielens(Settings.load().cache_dir)
    earlier = found.plays.slice(0, 70_000)
    model = fit(earlier, found.catalogue, domain="movielens", config=config)
    figures: Figures = {}
    with TemporaryDirectory() as folder:
        built = build_bundle(Path(folder), model, earlier)
        figures["worker_index"] = built.index_kind
        records = [
            Record(offset, encode(play_message(row)), row.user_id.encode(), timestamp=row.ts_ms)
            for offset, row in enumerate(play_rows(found.plays.slice(70_000, num_plays)))
        ]
        for batch in BATCHES:
            pipelines: dict[str, Pipeline] = {}
            for kind in ("auto", "exact"):
                serving = load_serving(built.ref, device="cpu", pool_bytes=1 << 28)
                if kind == "exact":
                    serving = replace(serving, index=ExactIndex(serving.index.exact.vectors))
                pipelines[kind] = make_pipeline(serving)
            micros = _plays_in_turns(pipelines, records, batch, rounds)
            figures |= {f"worker_play_us_{kind}_{batch}": round(of, 1) for kind, of in micros.items()}
            figures[f"worker_cpu_over_exact_{batch}"] = round(micros["auto"] / micros["exact"], 3)
    print("  worker: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    return figures


def _plays_in_turns(
    pipelines: Mapping[str, Pipeline], records: Sequence[Record], batch: int, rounds: int
) -> dict[str, float]:
    """Microseconds of processor time a play; the first tenth of the plays warms up."""
    size = max(1, len(records) // (rounds * batch)) * batch
    totals_s, num = dict.fromkeys(pipelines, 0.0), 0
    for number, low in enumerate(range(0, len(records) - size + 1, size)):
        # The one that begins changes, so that neither is always the one whose caches the other has emptied.
        for kind in list(pipelines)[:: 1 if number % 2 else -1]:
            began_s = time.process_time()
            for first in range(low, low + size, batch):
                pipelines[kind].process({0: records[first : first + batch]})
            if number >= rounds // 10:
                totals_s[kind] += time.process_time() - began_s
        num += size if number >= rounds // 10 else 0
    return {kind: total_s / num * 1e6 for kind, total_s in totals_s.items()}
