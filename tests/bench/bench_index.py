"""Cost of a search, by kind of index and size of catalogue, and the recall of the approximate kinds.

    python -m tests.bench index [--only movielens|decaying|10k|100k|1m|kinds|worker]

The vectors and the queries are trained models' (:mod:`tests.bench.trained_items`), label dimensions included: of MovieLens, and
of simulated worlds. An index is planned with the queries of some members and asked those of others.

``movielens``, ``10k``, ``100k`` and ``1m`` are what new bundles hold, against exact search or the pruned index, on one thread
(:mod:`tests.bench.index_bars`). ``decaying`` is the same for vectors that no model made: their answers are anywhere.
``worker`` is the processor time of a whole play. ``kinds`` has all kinds with all threads, 256 queries at a time, the best 100,
each beside its bound: what it has to read at the bandwidth measured in this run, or its products at the speed of a large matrix
product.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import faiss
import numpy as np

from index import artifact
from index.exact import ExactIndex
from index.pruned import PrunedIndex
from index.recall import recall_at_k
from intentrec_core.training.config import TrainConfig
from tests.bench.harness import BenchOptions, Figures, Timing, in_turns
from tests.bench.index_bars import decaying_items, pooled_rare_recall, search_bars, worker_bars
from tests.bench.memory_bandwidth import read_bytes_per_s
from tests.bench.trained_items import MOVIELENS, Recipe, TrainedItems, recipe, trained_items

SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
PARTS = ("movielens", "decaying", *SIZES, "kinds", "worker")
BATCH, K, NUM_BATCHES = 256, 100, 4
#: Building takes minutes past it, and pruned searches are faster long before.
IVF_UP_TO = 100_000
#: Our exact search of a batch takes half a minute past it: once is enough to see that FAISS's is the baseline.
ROUNDS_UP_TO = 100_000


def measure(options: BenchOptions) -> Figures:
    """See the module."""
    figures: Figures = {"threads": faiss.omp_get_max_threads(), "batch": BATCH, "k": K}
    machine = Machine.measured(options.quick)
    figures["read_gb_per_s"] = round(machine.bytes_per_s / 1e9, 1)
    figures["matmul_gflop_per_s"] = round(machine.flops_per_s / 1e9, 1)
    print(
        f"reading memory: {machine.bytes_per_s / 1e9:.1f} GB/s; products: {machine.flops_per_s / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    names = [name for name in ("movielens", "decaying", *SIZES) if options.wants(name)]
    for name in names[:2] if options.quick else names:
        rounds = 3 if options.quick else 15 if name == "1m" else 40
        figures |= search_bars(
            name, _items(name, options), rounds=rounds, against="pruned" if name == "1m" else "exact"
        )
    trained = [name for name in names if name != "decaying" and f"{name}_rare_answers" in figures]
    figures |= pooled_rare_recall(figures, trained)
    for num_items in SIZES.values() if options.wants("kinds") and not options.quick else ():
        figures |= _catalogue(num_items, machine, options)
    if options.wants("worker"):
        if options.quick:
            figures |= worker_bars(TrainConfig(max_seconds=5.0), num_plays=2_000, rounds=5)
        else:
            figures |= worker_bars(TrainConfig(epochs=MOVIELENS.epochs), num_plays=20_000, rounds=20)
    return figures


def _items(name: str, options: BenchOptions) -> TrainedItems:
    if name == "decaying":
        return decaying_items(10_000)
    return trained_items(_recipe(SIZES[name], options) if name in SIZES else MOVIELENS)


@dataclass(frozen=True, slots=True)
class Machine:
    """What bounds a search: bytes read and operations of a large matrix product, a second, by all threads."""

    bytes_per_s: float
    flops_per_s: float

    @classmethod
    def measured(cls, quick: bool) -> Machine:
        """The medians of five."""
        threads, size = faiss.omp_get_max_threads(), 512 if quick else 2048
        reads = sorted(read_bytes_per_s(threads, quick=quick) for _ in range(5))
        square = np.ones((size, size), dtype=np.float32)
        product_s = in_turns({"product": lambda: square @ square}, rounds=5)["product"].median_s
        return cls(reads[2], 2 * size**3 / product_s)

    def bound_s(self, num_bytes: float, flops: float) -> float:
        """Seconds that this takes at least."""
        return max(num_bytes / self.bytes_per_s, flops / self.flops_per_s)


def _recipe(num_items: int, options: BenchOptions) -> Recipe:
    whole = recipe(num_items)
    return (
        replace(whole, num_plays=20_000, max_train_s=2.0, num_queries=1024, num_planning=256)
        if options.quick
        else whole
    )


def _catalogue(num_items: int, machine: Machine, options: BenchOptions) -> Figures:
    trained = trained_items(_recipe(num_items, options))
    vectors, dimension = trained.vectors, trained.vectors.shape[1]
    batches = [trained.queries[low : low + BATCH] for low in range(0, NUM_BATCHES * BATCH, BATCH)]
    print(f"{num_items:,} items of {dimension} dimensions, trained: {trained.facts}", flush=True)
    began_s = time.perf_counter()
    pruned = artifact.build(vectors, artifact.PRUNED, trained.planning)
    build_s = time.perf_counter() - began_s
    assert isinstance(pruned, PrunedIndex)
    exact = ExactIndex(vectors)
    calls = {
        "flat": each_batch(batches, lambda asked: faiss.knn(asked, vectors[1:], K, metric=faiss.METRIC_INNER_PRODUCT)),
        "pruned": each_batch(batches, lambda asked: pruned.search(asked, K)),
    }
    if num_items <= ROUNDS_UP_TO:
        calls["exact"] = each_batch(batches, lambda asked: exact.search(asked, K))
    # Whole turns of the batches, so that each kind is asked the same.
    timings = in_turns(calls, rounds=NUM_BATCHES if options.quick or num_items > ROUNDS_UP_TO else 4 * NUM_BATCHES)
    if num_items > ROUNDS_UP_TO:
        timings |= in_turns({"exact": lambda: exact.search(batches[0][:32], K)}, rounds=1, warm_up=0)
        timings["exact"] = Timing(
            *(seconds * BATCH / 32 for seconds in (timings["exact"].median_s, timings["exact"].p99_s))
        )
    plan = pruned.plan
    recall = _recall(pruned, vectors, batches[:1] if options.quick else batches)
    whole_s = machine.bound_s(vectors.nbytes, 2.0 * BATCH * vectors.size)
    kept, fetched = len(plan.rows) * plan.basis.shape[1], BATCH * plan.num_candidates * dimension
    bounds_s = {
        "exact": whole_s,
        "flat": whole_s,
        "pruned": machine.bound_s(4 * (kept + fetched), 2.0 * (BATCH * kept + fetched)),
    }
    rows: dict[str, tuple[float, int, float]] = {
        "exact": (0.0, 0, 1.0),
        "flat": (0.0, 0, 1.0),
        "pruned": (build_s, len(artifact.to_bytes(pruned)) + 4 * len(plan.rows) * plan.basis.shape[1], recall),
    }
    if num_items <= IVF_UP_TO and not options.quick:
        began_s = time.perf_counter()
        ivf = artifact.build(vectors, "ivf")
        rows["ivf"] = (
            time.perf_counter() - began_s,
            len(artifact.to_bytes(ivf)),
            recall_at_k(ivf, exact, batches[0], K),
        )
        timings |= in_turns({"ivf": each_batch(batches, lambda asked: ivf.search(asked, K))}, rounds=NUM_BATCHES)
        bounds_s["ivf"] = whole_s * ivf.faiss.nprobe / ivf.faiss.nlist
    fastest = min(timings["exact"].median_s, timings["flat"].median_s)
    figures: Figures = {f"trained_{num_items}": trained.facts}
    for kind, (seconds, held_bytes, found) in rows.items():
        timing = timings[kind]
        speed_up, bound_ms = fastest / timing.median_s, bounds_s[kind] * 1e3
        print(
            f"  {kind:<7} build {seconds:6.1f} s  {held_bytes / 1e6:7.1f} MB beside the vectors  "
            f"batch {timing.median_s * 1e3:8.1f} ms, p99 {timing.p99_s * 1e3:8.1f}  bound {bound_ms:6.1f}  "
            f"recall@{K} {found:.4f}  {speed_up:6.1f} times exact",
            flush=True,
        )
        figures[f"{kind}_{num_items}"] = {
            "build_s": round(seconds, 1),
            "bytes": held_bytes,
            "ms": round(timing.median_s * 1e3, 2),
            "p99_ms": round(timing.p99_s * 1e3, 2),
            "bound_ms": round(bound_ms, 2),
            "recall_at_100": round(found, 4),
            "speed_up": round(speed_up, 2),
        }
    print(
        f"  plan: {len(plan.rows):,} items, {plan.basis.shape[1]} directions, {plan.num_candidates} candidates, "
        f"recall {plan.recall:.4f} of the queries it was judged by",
        flush=True,
    )
    if num_items == 1_000_000:
        figures["index_speedup_1m"] = round(fastest / timings["pruned"].median_s, 2)
        figures["index_recall_1m"] = round(recall, 4)
    return figures


def each_batch(batches: Sequence[np.ndarray], search: Callable[[np.ndarray], object]) -> Callable[[], object]:
    """A search that is asked the next batch each time, from the first one on."""
    turns = itertools.cycle(batches)
    return lambda: search(next(turns))


def _recall(pruned: PrunedIndex, vectors: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the exact best found, over all batches."""
    shares = []
    for queries in batches:
        _, truth = faiss.knn(queries, vectors[1:], K, metric=faiss.METRIC_INNER_PRODUCT)
        rows, _ = pruned.search(queries, K)
        shares += [np.isin(best + 1, found).mean() for best, found in zip(truth, rows, strict=True)]
    return float(np.mean(shares))
