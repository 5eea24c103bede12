"""Faults in the evaluation: what makes a table look better than the truth."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

PROTOCOLS, RANKERS = "intentrec_core/evaluation/protocols.py", "intentrec_core/evaluation/rankers.py"
TARGETS, METRICS = "intentrec_core/evaluation/targets.py", "intentrec_core/evaluation/metrics.py"
HEADS, TUNING = "intentrec_core/evaluation/heads.py", "intentrec_core/evaluation/tuning.py"
MODEL_RANKS, TRAIN = "intentrec_core/evaluation/model_ranks.py", "intentrec_core/training/train.py"
NEURAL, RUNS = "tests/bench/quality/neural.py", "tests/bench/quality/runs.py"
DOCUMENT, CHECKS = "tests/bench/quality/document.py", "tests/bench/quality/checks.py"
DISCOVERY, FILTER = "tests/bench/quality/discovery.py", "tests/bench/quality/forward_filter.py"
FRESHNESS, AIMS = "tests/bench/quality/freshness.py", "tests/bench/quality/targets.py"
EVAL_FRESHNESS = "intentrec_core/experiment/freshness.py"

TEST_PROTOCOLS = "tests/unit/intentrec_core/evaluation/test_protocols.py"
TEST_RANKS, TEST_FIGURES = (
    "tests/unit/intentrec_core/evaluation/test_ranks.py",
    "tests/unit/intentrec_core/evaluation/test_figures.py",
)
TEST_QUALITY, TEST_TRAINED = "tests/unit/bench/test_quality.py", "tests/unit/bench/test_quality_trained.py"
TEST_ORACLE, TEST_CHECKS = "tests/unit/bench/test_oracle.py", "tests/unit/bench/test_quality_checks.py"
TEST_AIMS, TEST_EVAL = "tests/unit/bench/test_quality_targets.py", "tests/unit/stream/cli/test_evaluation.py"
TEST_GOLDEN = "tests/unit/intentrec_core/evaluation/test_golden.py"

SEQUENCE_MODELS, TEST_SEQUENCE_MODELS = (
    "intentrec_core/baselines/sequence_models.py",
    "tests/unit/intentrec_core/baselines/test_sequence_models.py",
)

EVALUATION = (
    Mutant(
        "SASRec sees the play that it predicts",
        (Edit(SEQUENCE_MODELS, "place[:, None] < place[None, :]", "place[:, None] < place[None, :] - 1"),),
        (TEST_SEQUENCE_MODELS,),
    ),
    Mutant(
        "a stream learns plays before it is asked for them",
        (Edit(PROTOCOLS, "// refresh_plays * refresh_plays", "// refresh_plays * refresh_plays + 1"),),
        (TEST_PROTOCOLS,),
    ),
    Mutant(
        "popularity counts the play that is asked for",
        (Edit(PROTOCOLS, "live, now_s = (place, ts_s[play])", "live, now_s = (place + 1, ts_s[play])"),),
        (TEST_PROTOCOLS,),
    ),
    Mutant(
        "leave-one-out learns the play of its validation",
        (Edit(PROTOCOLS, "learnable[last] = learnable[last - 1] = False", "learnable[last] = False"),),
        (TEST_PROTOCOLS,),
    ),
    Mutant(
        "a frozen chain learns what an online one does",
        (Edit(RANKERS, "if self.online else task.learned)", "if True else task.learned)"),),
        (TEST_RANKS,),
    ),
    Mutant(
        "a list that was made at the play before counts everything up to the last refresh",
        (Edit(RANKERS, "known = task.countable if math", "known = np.maximum(task.live, task.learned) if math"),),
        (TEST_PROTOCOLS,),
    ),
    Mutant(
        "rows of a grown model are those of what it learned",
        (Edit(NEURAL, "whole.item.weight.data = whole.item.weight.data[own]", "pass"),),
        (TEST_TRAINED,),
    ),
    Mutant(
        "a refresh has learned the span that is asked next",
        (Edit(NEURAL, "self.known(task, until), number", "self.known(task, until + 60), number"),),
        (TEST_TRAINED,),
    ),
    Mutant(
        "what is asked again was trained by a shorter schedule than what was validated",
        (Edit(TRAIN, "self._config.last_epoch or self._config.epochs", "self._config.epochs"),),
        (TEST_TRAINED,),
    ),
    Mutant(
        "a choice at the end of what was tried is not named",
        (Edit(TUNING, "and value not in self.ends", "and value in self.ends"),),
        (TEST_PROTOCOLS,),
    ),
    Mutant(
        "a run is named by the protocol alone",
        (Edit(RUNS, "asked = (task.targets.play, task.learnable, task.learned)", "asked = (task.targets.play,)"),),
        (TEST_QUALITY,),
    ),
    Mutant(
        "figures of other code stand in the document",
        (Edit(DOCUMENT, "if is_current(row, code)", "if True"),),
        (TEST_QUALITY,),
    ),
    Mutant(
        "the oracle has seen the play that it is asked for",
        (
            Edit(
                FILTER,
                "            if wanted:\n                yield belief.forecast()\n            belief.see(play)",
                "            belief.see(play)\n            if wanted:\n                yield belief.forecast()",
            ),
        ),
        (TEST_ORACLE,),
    ),
    Mutant(
        "the oracle lets one candidate less compete",
        (Edit(DISCOVERY, "= total**others", "= total ** (others - 1)"),),
        (TEST_ORACLE,),
    ),
    Mutant(
        "the oracle learns nothing of an intent from a session that goes on",
        (
            Edit(
                FILTER,
                "weight = self._continued(self.weight * script.stay[:, None])",
                "weight = self._continued(self.weight)",
            ),
        ),
        (TEST_ORACLE,),
    ),
    Mutant(
        "the probe reads a Z that has seen the play",
        (Edit(CHECKS, "z_BTP[row, first - 1 : length - 1]", "z_BTP[row, first:length]"),),
        (TEST_CHECKS,),
    ),
    Mutant(
        "a cache that gives other scores passes",
        (Edit(CHECKS, "if found.largest < EQUAL", "if True"),),
        (TEST_CHECKS,),
    ),
    Mutant(
        "plays that have not arrived are known",
        (Edit(FRESHNESS, "return play - int(lag[0])", "return play"),),
        (TEST_CHECKS,),
    ),
    Mutant(
        "a gain where intents say nothing passes",
        (Edit(DOCUMENT, "if by > 0 and p < 0.05", "if False"),),
        (TEST_CHECKS,),
    ),
    Mutant(
        "a head of one model lifts the filter of all rankers",
        (Edit(MODEL_RANKS, "self.heads, successors", "self.heads, task.targets.lifted, successors"),),
        (TEST_FIGURES,),
    ),
    Mutant(
        "ranking with one model lifts the filter of the next ranker",
        (
            Edit(
                MODEL_RANKS,
                "decided = replace(targets, lifted=targets.lifted.copy())\n"
                "        for which, scores in self.scores(model, targets, heads",
                "decided = targets\n        for which, scores in self.scores(model, targets, heads",
            ),
        ),
        (TEST_RANKS,),
    ),
    Mutant(
        "only the last w plays of a history are hidden",
        (Edit(TARGETS, "if not self.whole_history:", "if True:"),),
        (TEST_RANKS,),
    ),
    Mutant(
        "members are drawn for each ranker alone",
        (
            Edit(
                METRICS,
                "    ours, theirs = _resampled_sums(member, [values, reference], rounds, seed)\n    below",
                "    ours = _resampled_sums(member, [values], rounds, seed)[0]\n"
                "    theirs = _resampled_sums(member, [reference], rounds, seed + 1)[0]\n    below",
            ),
        ),
        (TEST_FIGURES,),
    ),
    Mutant(
        "NDCG takes its logarithm of the rank",
        (Edit(METRICS, "1.0 / np.log2(1.0 + ranks)", "1.0 / np.maximum(1.0, np.log2(ranks))"),),
        (TEST_GOLDEN,),
    ),
    Mutant(
        "macro-F1 counts labels that never occur",
        (Edit(HEADS, "occurs = observed.any(axis=0)", "occurs = either > -1"),),
        (TEST_FIGURES,),
    ),
    Mutant(
        "every lag is answered by the run without one",
        (Edit(RUNS, "lag = [protocol.name] if protocol.name.startswith(PREFIX) else []", "lag = []"),),
        (TEST_CHECKS,),
    ),
    Mutant(
        "a target is met by a difference that may be chance",
        (Edit(AIMS, "is_above = found.value >= wanted and found.is_certain", "is_above = found.value >= wanted"),),
        (TEST_AIMS,),
    ),
    Mutant(
        "of several rows the one that is farthest below is shown",
        (Edit(AIMS, "return min(found, key=", "return max(found, key="),),
        (TEST_AIMS,),
    ),
    Mutant(
        "every interval between refreshes is answered by the same stream",
        (Edit(EVAL_FRESHNESS, "if plays == NEVER else plays)", "if True else plays)"),),
        (TEST_EVAL,),
    ),
)
