"""Faults in what ``intentrec eval`` asks, states and draws."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

LEARNER, EVALUATE = "intentrec_core/experiment/learner.py", "intentrec_core/experiment/evaluate.py"
PROTOCOLS, INSIGHT = "intentrec_core/experiment/named_protocols.py", "intentrec_core/experiment/insight.py"
MAP, ATTENTION = "intentrec_core/evaluation/intent_map.py", "intentrec_core/evaluation/attention_examples.py"
ELEMENTS, CALIBRATION = "intentrec_core/evaluation/html/elements.py", "intentrec_core/evaluation/calibration.py"

_TESTS = "tests/unit/intentrec_core"
TEST_LEARNER, TEST_EVALUATE = f"{_TESTS}/experiment/test_learner.py", f"{_TESTS}/experiment/test_evaluate.py"
TEST_INSIGHT, TEST_MAP = f"{_TESTS}/experiment/test_insight.py", f"{_TESTS}/evaluation/test_intent_map.py"
TEST_PAGE = f"{_TESTS}/evaluation/html/test_page.py"

EXPERIMENT = (
    Mutant(
        "the last epoch answers in place of the best on the validation",
        (Edit(LEARNER, "last_epoch=chosen.best_epoch)", "last_epoch=len(chosen.curve))"),),
        (TEST_LEARNER,),
    ),
    Mutant(
        "training goes on long after its best epoch",
        (Edit("intentrec_core/experiment/compared_rankers.py", ", patience=PATIENCE)", ")"),),
        (TEST_EVALUATE,),
    ),
    Mutant(
        "the epoch is chosen on the test",
        (Edit(LEARNER, "known.vocabulary, protocol.validation)", "known.vocabulary, protocol.test)"),),
        (TEST_LEARNER,),
    ),
    Mutant(
        "the answer is of the model that was validated, which has not learned the plays of the validation",
        (Edit(LEARNER, "if protocol.test.learnable.all():", "if False:"),),
        (TEST_LEARNER,),
    ),
    Mutant(
        "items that only the model knows are ranked",
        (Edit("intentrec_core/experiment/data.py", "(row > 0) & (row < len(played))", "row > 0"),),
        (TEST_LEARNER,),
    ),
    Mutant(
        "seeds are taken for members of their own",
        (Edit(EVALUATE, "mean_of_seeds([v[name] for v in values])", "values[0][name]"),),
        (TEST_EVALUATE,),
    ),
    Mutant(
        "a bundle is asked for a play that it has learned",
        (Edit(PROTOCOLS, "(learned + 0.5)", "(learned - 0.5)"),),
        (TEST_EVALUATE,),
    ),
    Mutant(
        "the picture of the calibration counts plays without a label",
        (Edit(CALIBRATION, "outcomes.observed.any(axis=1)", "outcomes.observed.any(axis=1) | True"),),
        (TEST_EVALUATE,),
    ),
    Mutant(
        "the map shows the intent at the play that is predicted",
        (Edit(INSIGHT, "first - 1 + np.flatnonzero", "first + np.flatnonzero"),),
        (TEST_INSIGHT,),
    ),
    Mutant(
        "the attention that is shown is without its biases",
        (Edit(ATTENTION, "score + self._geometry.bias(layer, slopes_2H)", "score"),),
        (TEST_INSIGHT,),
    ),
    Mutant(
        "an example shows the oldest plays",
        (Edit(ATTENTION, "range(last, max(-1, last - MAX_PLAYS), -1)", "range(min(last, MAX_PLAYS - 1), -1, -1)"),),
        (TEST_INSIGHT,),
    ),
    Mutant(
        "K-means begins with points drawn evenly",
        (Edit(MAP, "p=nearest / nearest.sum()", "p=None"),),
        (TEST_MAP,),
    ),
    Mutant(
        "a cluster is called by what everybody plays next",
        (Edit(MAP, "if here[code] > max(everywhere[code], MIN_SHARE):", "if here[code] > MIN_SHARE:"),),
        (TEST_MAP,),
    ),
    Mutant(
        "a title becomes markup",
        (Edit(ELEMENTS, 'html.escape(_NOT_ALLOWED.sub("\\ufffd", value), quote=True)', "value"),),
        (TEST_PAGE,),
    ),
)
