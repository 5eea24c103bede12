"""Faults in what the worker measures of its own predictions and of the references beside them."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

SCORER = "stream/pipeline/live_quality/scorer.py"
REFERENCE = "stream/pipeline/live_quality/markov_reference.py"
CHAIN = "intentrec_core/kernels/transitions.py"
POPULAR = "intentrec_core/kernels/most_played.py"
LISTS = "stream/pipeline/row_lists.py"
PREDICTIONS, COMMON = "stream/pipeline/live_quality/predictions.py", "stream/pipeline/live_quality/common_labels.py"
JUDGED = "intentrec_core/kernels/judged.py"
TEST_LIVE = "tests/unit/stream/pipeline/live_quality/test_predictions.py"
TEST_REFERENCE = "tests/unit/stream/pipeline/live_quality/test_markov_reference.py"
TEST_CHAIN = "tests/unit/intentrec_core/baselines/test_online_markov.py"
TEST_KERNEL = "tests/unit/intentrec_core/kernels/test_transitions.py"
TEST_POPULAR = "tests/unit/stream/pipeline/live_quality/test_popular_reference.py"
TEST_COMMON = "tests/unit/stream/pipeline/live_quality/test_common_labels.py"
TEST_LISTS = "tests/unit/stream/pipeline/test_row_lists.py"

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
                "oldest, max_last = max(0, num_added - len(ring)), 0",
                "oldest, max_last = 0, 0",
            ),
        ),
        (f"{TEST_CHAIN}::test_hits_equal_those_of_a_plain_ranking",),
    ),
    Mutant(
        "the Markov reference ranks hidden items",
        (Edit(CHAIN, "flag(is_hidden, own_hidden, True)", "flag(is_hidden, own_hidden, False)"),),
        (f"{TEST_CHAIN}::test_hits_equal_those_of_a_plain_ranking",),
    ),
    Mutant(
        "the Markov reference ends early for rows that are hidden",
        (Edit(CHAIN, "after > own and row != target and not is_hidden[row]", "after > own and row != target"),),
        (f"{TEST_KERNEL}::test_answers_are_those_of_the_plain_form",),
    ),
    Mutant(
        "the Markov reference ends one row too early",
        (Edit(CHAIN, "if num_above >= k:", "if num_above >= k - 1:"),),
        (f"{TEST_KERNEL}::test_answers_are_those_of_the_plain_form",),
    ),
    Mutant(
        "the Markov reference ends early for rows that score the same",
        (Edit(CHAIN, "if before <= own and after > own", "if before < own and after >= own"),),
        (f"{TEST_KERNEL}::test_rows_that_score_the_same_do_not_end_the_pass",),
    ),
    Mutant(
        "a row's own score is rounded otherwise than in the whole pass",
        (Edit(CHAIN, "own = repeated_sum(own, shares[chain], num)", "own += shares[chain] * np.float32(num)"),),
        (f"{TEST_KERNEL}::test_a_row_s_own_score_is_rounded_as_the_whole_pass_rounds_it",),
    ),
    Mutant(
        "the score of a row is left for the next play",
        (Edit(CHAIN, "                    scores[row] = 0\n", "                    pass\n"),),
        (f"{TEST_KERNEL}::test_answers_are_those_of_the_plain_form",),
    ),
    Mutant(
        "a member without a prediction has that of another one",
        (
            Edit(
                PREDICTIONS,
                "Predictions.empty(min(_FIRST_MEMBERS, max_members) + 1, num_heads)",
                "Predictions.empty(min(_FIRST_MEMBERS, max_members), num_heads)",
            ),
            Edit(PREDICTIONS, "held = len(self._kept.values) - 1", "held = len(self._kept.values)"),
        ),
        (f"{TEST_LIVE}::test_kept_predictions_are_bounded_and_the_oldest_are_dropped",),
    ),
    Mutant(
        "the labels of each batch of one play are kept for a week",
        (Edit(COMMON, "if not spans or newest_s >=", "if True or newest_s >="),),
        (f"{TEST_COMMON}::test_batches_of_one_play_share_a_span",),
    ),
    Mutant(
        "a head's labels are counted as another one's",
        (Edit(JUDGED, "counts[label], label - first[head]", "counts[label], label"),),
        (f"{TEST_COMMON}::test_each_head_has_its_own_commonest_label",),
    ),
    Mutant(
        "the intents of members who predicted another label count as right",
        (Edit(JUDGED, "to[at + 1] += own[label]", "to[at + 1] += 1"),),
        (TEST_LIVE,),
    ),
    Mutant(
        "hidden rows take places among the most played",
        (Edit(POPULAR, "num_before += not is_hidden[order[at]]", "num_before += 1"),),
        (f"{TEST_POPULAR}::test_hits_equal_those_of_a_plain_list",),
    ),
    Mutant(
        "what is hidden from one play is hidden from the next",
        (Edit(POPULAR, "        flag(is_hidden, own_hidden, False)\n", ""),),
        (f"{TEST_POPULAR}::test_hits_equal_those_of_a_plain_list",),
    ),
    Mutant(
        "a row of an item that is new to the bundle hides an item of the next one",
        (Edit(LISTS, "flat.max() >= num_rows", "False"),),
        (f"{TEST_LISTS}::test_rows_from_a_number_on_are_left_out",),
    ),
)
