"""Faults in successors: counted otherwise than defined, weighed on what was learnt, or not served as it was judged."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

TABLE, KERNELS = "intentrec_core/successors.py", "intentrec_core/kernels/successors.py"
WEIGHING, RANKS = "intentrec_core/training/weighing.py", "intentrec_core/evaluation/model_ranks.py"
OFFSETS, SCORES = "intentrec_core/item_offsets.py", "intentrec_core/engine/successor_scores.py"
RETRIEVAL, LIVE, CANDIDATES = "stream/pipeline/retrieval.py", "intentrec_core/engine/live.py", "index/candidates.py"
RETRAIN, FIT, REPORT = (
    "stream/trainer/retrain.py",
    "intentrec_core/training/first_model.py",
    "intentrec_core/evaluation/report.py",
)
CONTENTS, FORMAT, FOLDER = (
    "intentrec_core/bundle/contents.py",
    "intentrec_core/bundle/format.py",
    "intentrec_core/bundle/model_folder.py",
)
GATE, COMPARED = "stream/trainer/gate.py", "intentrec_core/experiment/compared_rankers.py"
TEST_GATE, TEST_EVALUATE = (
    "tests/unit/stream/trainer/test_gate.py",
    "tests/unit/intentrec_core/experiment/test_evaluate.py",
)
LEARNER, PARTS = "intentrec_core/experiment/learner.py", "stream/pipeline/score_parts.py"
BUNDLE_COUNTS, TEST_COUNTS = "stream/pipeline/bundle_counts.py", "tests/unit/stream/pipeline/test_bundle_counts.py"
TEST_TABLE = "tests/unit/intentrec_core/test_successors.py"
TEST_WEIGHING = "tests/unit/intentrec_core/training/test_weighing.py"
TEST_SCORES = "tests/unit/intentrec_core/engine/test_successor_scores.py"
TEST_RANKS = "tests/unit/intentrec_core/evaluation/test_ranks.py"
TEST_REPORT = "tests/unit/intentrec_core/evaluation/test_report.py"
TEST_RETRIEVAL, TEST_INDEX = "tests/unit/stream/pipeline/test_retrieval.py", "tests/unit/index/test_index.py"
TEST_SERVED = "tests/property/test_served_score.py"
TEST_FORMAT = "tests/unit/intentrec_core/bundle/test_format.py"
TEST_FOLDER = "tests/unit/intentrec_core/bundle/test_model_folder.py"
TEST_RETRAIN = "tests/unit/stream/trainer/test_retrain.py"
TEST_FIT = "tests/unit/intentrec_core/training/test_fit.py"
TEST_LEARNER = "tests/unit/intentrec_core/experiment/test_learner.py"
TEST_EXPLAIN = "tests/unit/stream/repair/test_explain.py"

SUCCESSORS = (
    Mutant(
        "a pair of two members' plays is a transition",
        (Edit(TABLE, "(member[:-gap] == member[gap:]) & (rows[:-gap] > 0)", "(rows[:-gap] > 0)"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "plays that are in the table are counted again",
        (Edit(TABLE, "is_pair if is_new is None else is_pair & is_new[gap:]", "is_pair"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a pair counts as new where its first play is",
        (Edit(TABLE, "is_pair & is_new[gap:]", "is_pair & is_new[:-gap]"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a share is of the successors that are kept",
        (
            Edit(
                KERNELS,
                "            total += weight[place]\n",
                "            total += weight[place] if num <= most else 0.0\n",
            ),
        ),
        (TEST_TABLE,),
    ),
    Mutant(
        "of equally frequent successors the older items are kept",
        (
            Edit(
                KERNELS,
                'np.argsort(count, kind="mergesort")[max(0, num - most) :]',
                'np.argsort(-count, kind="mergesort")[:most]',
            ),
        ),
        (TEST_TABLE,),
    ),
    Mutant(
        "a count that fades away stays in the table",
        (Edit(KERNELS, "            if count[i] >= least_count:\n", "            if True:\n"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a successor that is not among the most frequent is no longer counted",
        (Edit(TABLE, "            KEPT,\n            LARGEST,\n", "            MOST,\n            LARGEST,\n"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a repeated row of an item is taken",
        (Edit(TABLE, " or not ascends.all():", ":"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "old transitions never fade",
        (Edit(KERNELS, "scale = min(1.0, largest / max(total, 1.0))", "scale = 1.0"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a row that follows several plays has the share of one",
        (Edit(KERNELS, "                total += share[order[end]]\n", "                total = share[order[end]]\n"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "a table in other rows leads to the rows of before",
        (Edit(TABLE, "to = new_of[self.rows[place]]", "to = self.rows[place] % len(rows)"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "the oldest of the last plays counts as the newest in what is served",
        (
            Edit(
                SCORES,
                "np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(rows))",
                "np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)",
            ),
        ),
        (TEST_SCORES,),
    ),
    Mutant(
        "an own item that follows the last play has one of two offsets",
        (
            Edit(
                OFFSETS,
                "np.add.reduceat(np.concatenate(offsets)[order], first)",
                "np.concatenate(offsets)[order][first]",
            ),
        ),
        (TEST_SCORES,),
    ),
    Mutant(
        "the table is counted up to the plays that choose its weight",
        (Edit(WEIGHING, "    known = ts_ms < from_ms\n", "    known = ts_ms > 0\n"),),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "a refreshed table counts all plays of the log again",
        (Edit(WEIGHING, "ts_ms[known] >= counted_until_ms if before else None", "None"),),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "a refreshed table forgets what the log no longer has",
        (
            Edit(
                WEIGHING,
                "SuccessorTable.empty(network.num_rows) if before is None else before.table.extended(network.num_rows)",
                "SuccessorTable.empty(network.num_rows)",
            ),
        ),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "the weight with the lowest NDCG is chosen",
        (Edit(WEIGHING, "quality(one[1]).ndcg_at_10, -one[0]", "-quality(one[1]).ndcg_at_10, -one[0]"),),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "a handful of plays chooses a weight",
        (Edit(WEIGHING, "if num_targets(members, from_ms) < MIN_TARGETS:", "if not num_targets(members, from_ms):"),),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "evaluation ranks without what follows",
        (Edit(RANKS, "            if successors is not None:\n", "            if False:\n"),),
        (TEST_RANKS,),
    ),
    Mutant(
        "evaluation looks at plays that the served context has dropped",
        (Edit(RANKS, "np.where(play >= self._first_play[which][:, None], ", "np.where(play >= 0, "),),
        (TEST_RANKS,),
    ),
    Mutant(
        "weights are tried one on top of the other",
        (
            Edit(
                RANKS,
                "decided.ranks(which, scores + weight * added)",
                "decided.ranks(which, scores.add_(weight * added))",
            ),
        ),
        (TEST_RANKS,),
    ),
    Mutant(
        "a comparison leaves out successors",
        (Edit(REPORT, "ranker.rank(model, targets, ours.successors)", "ranker.rank(model, targets)"),),
        (TEST_REPORT,),
    ),
    Mutant(
        "the library scores items without what follows the last plays",
        (Edit(LIVE, "            scores[following.row] += following.offset\n", ""),),
        (TEST_SERVED,),
    ),
    Mutant(
        "a worker leaves successors out of its lists",
        (Edit(RETRIEVAL, "hides[rows]), self.successor_scores(batch, rows, counts)", "hides[rows])"),),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "an item that the index found keeps its place beside its own offset",
        (Edit(CANDIDATES, "if row > 0 and not marks[row]:", "if row > 0:"),),
        (TEST_INDEX,),
    ),
    Mutant(
        "items whose offset lowers their score hide better ones",
        (Edit(RETRIEVAL, "    lowered = beside.offset < 0\n", "    lowered = beside.offset < -1e9\n"),),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "what follows gets its popularity twice",
        (Edit(TABLE, "(_logarithm(share + beside) - _logarithm(beside))", "_logarithm(share + beside)"),),
        (TEST_TABLE,),
    ),
    Mutant(
        "evaluation leaves popularity out beside what follows",
        (
            Edit(
                RANKS,
                "            added += torch.from_numpy(successors.of_popular(popular)).to(scores.device)\n",
                "            pass\n",
            ),
        ),
        (TEST_RANKS,),
    ),
    Mutant(
        "a worker leaves popularity out beside what follows",
        (
            Edit(
                RETRIEVAL,
                "np.ones((len(queries), 1), dtype=np.float32)",
                "np.zeros((len(queries), 1), dtype=np.float32)",
            ),
        ),
        (TEST_COUNTS,),
    ),
    Mutant(
        "a published query has the weight of popularity",
        (Edit(RETRIEVAL, "kept[rows] = queries\n", "kept[rows] = searched[:, -queries.shape[1] :]\n"),),
        (TEST_COUNTS,),
    ),
    Mutant(
        "the share of an item that is new to the bundle is of the new items' plays",
        (
            Edit(
                BUNDLE_COUNTS,
                "popular_shares(of_added[:, DAY_COLUMN], self.day)",
                "popular_shares(of_added[:, DAY_COLUMN])",
            ),
        ),
        (TEST_COUNTS,),
    ),
    Mutant(
        "explain: successors are no part of the score",
        (Edit(PARTS, '        "successors": retrieval.successor_scores(batch, row, counts),\n', ""),),
        (TEST_EXPLAIN,),
    ),
    Mutant(
        "a bundle takes successors of other items",
        (Edit(CONTENTS, "            if table.num_rows != num_rows:\n", "            if False:\n"),),
        (TEST_FORMAT,),
    ),
    Mutant(
        "a bundle without successors is refused",
        (Edit(FORMAT, "- set(OPTIONAL_FILES) != set(BUNDLE_FILES)", "!= {*BUNDLE_FILES, *OPTIONAL_FILES}"),),
        (TEST_FORMAT,),
    ),
    Mutant(
        "a saved model comes back without its successors",
        (Edit(FOLDER, "            successors=self.successors,\n", ""),),
        (TEST_FOLDER,),
    ),
    Mutant(
        "the gate leaves successors out",
        (
            Edit(
                GATE,
                "ranker.rank(contender.model, targets, contender.successors)",
                "ranker.rank(contender.model, targets)",
            ),
        ),
        (TEST_GATE,),
    ),
    Mutant(
        "an evaluation chooses the weight of successors on the test",
        (
            Edit(
                LEARNER,
                "self._weight(learned, known, protocol.validation)",
                "self._weight(learned, known, protocol.test)",
            ),
        ),
        (TEST_LEARNER,),
    ),
    Mutant(
        "an evaluation of ours has no successors",
        (Edit(COMPARED, "weighs=build is IntentRec", "weighs=False"),),
        (TEST_EVALUATE,),
    ),
    Mutant(
        "a first model holds plays out though too few can be asked for",
        (Edit(FIT, "if num_targets(members, until_ms) >= MIN_TARGETS", "if num_held_out >= MIN_TARGETS"),),
        (TEST_FIT,),
    ),
    Mutant(
        "of a large catalogue all held-out plays are asked for",
        (Edit(WEIGHING, "return from_ms if len(ts_ms) <= num else int(ts_ms[-num])", "return from_ms"),),
        (TEST_WEIGHING,),
    ),
    Mutant(
        "the gate judges a candidate without successors",
        (Edit(RETRAIN, "Contender(model, inputs.features, successors)", "Contender(model, inputs.features)"),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the gate judges the running bundle without successors",
        (
            Edit(
                RETRAIN,
                "Contender(network, _features(running), running.successors)",
                "Contender(network, _features(running))",
            ),
        ),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the trainer counts the plays of the running bundle again",
        (Edit(RETRAIN, "        counted_until_ms=_trained_until_ms(running),\n", ""),),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "the trainer publishes without what it counted",
        (
            Edit(
                RETRAIN,
                "        trained_until_ms=cut_ms,\n        successors=successors,\n",
                "        trained_until_ms=cut_ms,\n",
            ),
        ),
        (TEST_RETRAIN,),
    ),
    Mutant(
        "a first model learns the plays that weigh successors",
        (Edit(FIT, '    learnt = plays.filter(pc.less(plays.column("ts_ms"), until_ms))\n', "    learnt = plays\n"),),
        (TEST_FIT,),
    ),
    Mutant(
        "a first model has no rows for items that were held out",
        (Edit(FIT, "    if len(vocabulary) > len(table):\n", "    if False:\n"),),
        (TEST_FIT,),
    ),
    Mutant(
        "an evaluation numbers successors by the rows of the model",
        (
            Edit(
                LEARNER,
                "self.successors.table.extended(len(extended)).renumbered(extended.rows(data.vocabulary.hashes))",
                "self.successors.table.extended(len(extended))",
            ),
        ),
        (TEST_LEARNER,),
    ),
    Mutant(
        "a refresh of an evaluation keeps the counts of before",
        (
            Edit(
                LEARNER,
                "before.successors and Successors(successors_of(known), before.successors.weight)",
                "before.successors",
            ),
        ),
        (TEST_LEARNER,),
    ),
)
