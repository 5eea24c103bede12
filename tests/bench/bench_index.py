"""Cost of a search, by kind of index and size of catalogue, and the recall of the approximate kinds.

    python -m tests.bench index [--only 1700|20000|100000|1000000|worker]

The vectors and the queries are a trained model's (:mod:`tests.bench.trained_items`), label dimensions included. An index is
planned with the queries of some members and asked those of others, 256 at a time, for the best 100. Exact search is ours or
FAISS's flat one, whichever is faster, with the same threads and the same batches. The bound beside a search is what it has to
read, at the bandwidth measured in this run, or for an exact one its products at the speed of a large matrix product, if that
takes longer: all vectors once, or the kept items and the candidates' vectors of a pruned one.

``worker`` is what a worker asks: 10,000 items, the best 10, with 200 watched rows of each member left out.
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
from tests.bench.harness import BenchOptions, Figures, Timing, in_turns
from tests.bench.memory_bandwidth import read_bytes_per_s
from tests.bench.trained_items import Recipe, TrainedItems, recipe, trained_items

SIZES = (1_700, 20_000, 100_000, 1_000_000)
PARTS = (*(str(size) for size in SIZES), "worker")
BATCH, K, NUM_BATCHES = 256, 100, 4
#: Of the members, whose queries an index is planned with; those before them are asked.
PLANNED_FROM = BATCH * NUM_BATCHES
WORKER_ITEMS, WORKER_K, NUM_WATCHED = 10_000, 10, 200
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
    for num_items in (20_000,) if options.quick else SIZES:
        if options.wants(str(num_items)):
            figures |= _catalogue(num_items, machine, options)
    if options.wants("worker"):
        figures |= _worker(options)
    return figures


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
    return replace(whole, num_plays=20_000, max_train_s=2.0, num_queries=1280) if options.quick else whole


def _catalogue(num_items: int, machine: Machine, options: BenchOptions) -> Figures:
    trained = trained_items(_recipe(num_items, options))
    vectors, dimension = trained.vectors, trained.vectors.shape[1]
    batches = [trained.queries[low : low + BATCH] for low in range(0, PLANNED_FROM, BATCH)]
    print(f"{num_items:,} items of {dimension} dimensions, trained: {trained.facts}", flush=True)
    began_s = time.perf_counter()
    pruned = artifact.build(vectors, artifact.PRUNED, trained.queries[PLANNED_FROM:])
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


def _worker(options: BenchOptions) -> Figures:
    trained: TrainedItems = trained_items(_recipe(WORKER_ITEMS, options))
    random = np.random.default_rng(20240811)
    queries = trained.queries[:BATCH]
    watched = [random.integers(1, WORKER_ITEMS + 1, size=NUM_WATCHED) for _ in queries]
    index = ExactIndex(trained.vectors)
    timing = in_turns(
        {"search": lambda: index.search(queries, WORKER_K, excluded=watched)}, rounds=5 if options.quick else 50
    )["search"]
    micros = timing.median_s / BATCH * 1e6
    print(
        f"worker: {WORKER_ITEMS:,} items, best {WORKER_K}, {NUM_WATCHED} left out: {micros:.1f} us a query", flush=True
    )
    return {"worker_search_us": round(micros, 2), "worker_search_p99_us": round(timing.p99_s / BATCH * 1e6, 2)}
