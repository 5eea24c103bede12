"""The quality table: every model and baseline on every data set, by one harness. ``make quality`` runs it.

    python -m tests.bench.quality --data-root ../shared/data        run what is not done yet, append to the history
    python -m tests.bench.quality --quick                           a small world, minutes, nothing kept: does it all still work?
    python -m tests.bench.quality --only world --rows Markov        some of it

- data_sets.py says what is measured on, rows.py with what, plan.py which of them together.
- oracle.py, forward_filter.py and discovery.py are the ceiling of the simulated world: what its process itself plays next.
- checks.py looks at each trained model: incremental = batch, and a probe of the hidden intent.
- fair.py gives baselines what ours has.
- freshness.py asks what refreshes and late plays change.
- runs.py makes one run and keeps it under a hash of configuration, code and seed, so the table fills over several sittings.
- same_answers.py lets figures stand after a change of code that leaves every answer as it was.
- figures.py turns finished runs into rows of tests/bench/history/quality.jsonl; document.py turns these into docs/quality.md.
"""

from __future__ import annotations

import os

# Before torch comes: a thread that spins until its fellows come back makes training slow where a core is busy.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
