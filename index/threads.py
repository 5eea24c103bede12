"""How many threads a search uses, and so what else computes in a worker."""

from __future__ import annotations

import faiss


def num_threads() -> int:
    """OpenMP's number: ``OMP_NUM_THREADS``, or without it a thread for each core that the process may use."""
    found: int = faiss.omp_get_max_threads()
    return found
