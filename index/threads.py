"""How many threads compute in a worker."""

from __future__ import annotations

import faiss


def num_threads() -> int:
    """FAISS's number: ``OMP_NUM_THREADS``, or without it a thread for each logical core that the process may use."""
    found: int = faiss.omp_get_max_threads()
    return found
