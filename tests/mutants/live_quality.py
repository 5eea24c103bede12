"""Faults in what the worker measures of its own predictions and of the references beside them."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

SCORER = "stream/pipeline/live_quality/scorer.py"
REFERENCE = "stream/pipeline/live_quality/markov_reference.py"
CHAIN = "intentrec_core/kernels/transitions.py"
TEST_LIVE = "tests/unit/stream/pipeline/live_quality/test_predictions.py"
TEST_REFERENCE = "tests/unit/stream/pipeline/live_quality/test_markov_reference.py"
TEST_CHAIN = "tests/unit/intentrec_core/baselines/test_online_markov.py"

LIVE_QUALITY = (
    Mutant(
        "the Markov reference knows the play that it is asked for",
        (
            Edit(
                SCORER,
                "        if len(scored):\n",
                "        self._markov.learn(batch, added, last_rows, serving)\n        if len(scored):\n",
            ),
        ),
        (f"{TEST_LIVE}::test_the_markov_reference_uses_earlier_plays_only",),
    ),
    Mutant(
        "the Markov reference forgets what members had played before this worker saw them",
        (Edit(REFERENCE, "            if hash(run.member) not in self._met:\n", "            if False:\n"),),
        (f"{TEST_LIVE}::test_the_markov_reference_learns_the_whole_context_of_a_member_who_is_new_to_the_worker",),
    ),
    Mutant(
        "the Markov reference learns a member's context again whenever the member comes back",
        (Edit(REFERENCE, "                self._met.add(hash(run.member))\n", ""),),
        (f"{TEST_REFERENCE}::test_each_transition_is_learned_once_however_often_members_come_back",),
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
