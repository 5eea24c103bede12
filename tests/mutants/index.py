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
    Mutant(
        "an index of other vectors is taken, as long as the first ones agree",
        (
            Edit(
                "index/faiss_index.py",
                "own = self.exact.vectors[1 + low : 1 + low + _COMPARED_AT_ONCE]",
                "own = self.exact.vectors[1 + low : 1 + low + 64]",
            ),
        ),
        (TEST_INDEX,),
    ),
    Mutant(
        "an item that is in no inverted list is taken for what the memory held before",
        (
            Edit(
                "index/faiss_index.py",
                "np.full((len(own), self.faiss.d), np.nan,",
                "np.empty((len(own), self.faiss.d),",
            ),
        ),
        (TEST_INDEX,),
    ),
    Mutant(
        "an item may be in the inverted lists twice",
        (Edit("index/faiss_index.py", "self.faiss.invlists.compute_ntotal() != self.num_items", "False"),),
        (TEST_INDEX,),
    ),
    Mutant(
        "one missed item sets off the alert on the index",
        (Edit(PROBE, "is_enough = wanted > 0 and len(probes) >= self._fewest", "is_enough = wanted > 0"),),
        (TEST_PROBE,),
    ),
    Mutant(
        "each item that is added begins the ratio of the index anew",
        (Edit(PROBE, "isinstance(own, ExtendedIndex | CountedIndex)", "isinstance(own, CountedIndex)"),),
        (TEST_PROBE,),
    ),
)
