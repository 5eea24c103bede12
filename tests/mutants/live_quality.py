"""Faults in what the worker measures of its own predictions and of the references beside them."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

SCORER = "stream/pipeline/live_quality/scorer.py"
CHAIN = "intentrec_core/baselines/online_markov.py"
TEST_LIVE = "tests/unit/stream/pipeline/live_quality/test_predictions.py"
TEST_CHAIN = "tests/unit/intentrec_core/baselines/test_online_markov.py"

LIVE_QUALITY = (
    Mutant(
        "the Markov reference knows the play that it is asked for",
        (
            Edit(
                SCORER,
                "        if len(scored):\n",
                "        self._add_transitions(batch, added, before, first_seen)\n        if len(scored):\n",
            ),
        ),
        (f"{TEST_LIVE}::test_the_markov_reference_uses_earlier_plays_only",),
    ),
    Mutant(
        "the Markov reference forgets what members had played before this worker saw them",
        (Edit(SCORER, "for run in first_seen.values():", "for run in ():"),),
        (f"{TEST_LIVE}::test_the_markov_reference_learns_the_whole_context_of_a_member_who_is_new_to_the_worker",),
    ),
    Mutant(
        "transitions that were overwritten still count",
        (
            Edit(
                CHAIN,
                "oldest, num_rows = max(0, num_added - len(ring)), len(scores)",
                "oldest, num_rows = 0, len(scores)",
            ),
        ),
        (f"{TEST_CHAIN}::test_hits_equal_those_of_a_plain_ranking",),
    ),
    Mutant(
        "the Markov reference ranks hidden items",
        (Edit(CHAIN, "is_hidden[hidden[at]] = True", "is_hidden[hidden[at]] = False"),),
        (f"{TEST_CHAIN}::test_hits_equal_those_of_a_plain_ranking",),
    ),
)
