"""Faults in the index: what it fetches, hides and reads back, and the probe of it."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

REFINED, CANDIDATES, ARTIFACT = "index/refined.py", "index/candidates.py", "index/artifact.py"
PROBE = "stream/pipeline/index_probe.py"
TEST_INDEX, TEST_QUANTISED = "tests/unit/index/test_index.py", "tests/unit/index/test_quantised.py"
TEST_PROBE = "tests/unit/stream/pipeline/test_index_probe.py"

INDEX = (
    Mutant(
        "answers of the exact search go to other queries of the batch",
        (Edit(REFINED, "            rest = np.sort(rest)\n", ""),),
        (TEST_INDEX,),
    ),
    Mutant(
        "what one member has watched is hidden from the next one too",
        (
            Edit(
                CANDIDATES,
                "        for place in range(hidden_from, hidden_ends[b]):\n            marks[hidden[place]] = False\n",
                "",
            ),
        ),
        (TEST_QUANTISED,),
    ),
    Mutant(
        "a list is made of the few candidates that the filters left",
        (
            Edit(
                REFINED,
                "        has_enough = has_all | (found.num_fetched >= self.num_needed(asked.k))\n",
                "        has_enough = has_all | (found.num_fetched >= asked.k)\n",
            ),
        ),
        (TEST_QUANTISED,),
    ),
    Mutant(
        "codes of other vectors are taken",
        (
            Edit(
                ARTIFACT,
                "(int(few), int(many)), recall))\n    _check_digest(arrays, index)\n",
                "(int(few), int(many)), recall))\n",
            ),
        ),
        (TEST_QUANTISED,),
    ),
    Mutant(
        "the probe of the index runs at the priority of the worker",
        (Edit(PROBE, "            _lower_priority()\n", ""),),
        (TEST_PROBE,),
    ),
    Mutant(
        "an index that never misses is assumed: the probe compares it with itself",
        (Edit(PROBE, "true_rows, true_scores = exact.search(", "true_rows, true_scores = index.search("),),
        (TEST_PROBE,),
    ),
)
