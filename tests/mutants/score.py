"""Faults in the score of an item: what is trained, evaluated and served must be one number."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

INTENT_SCORE, MODEL = "intentrec_core/model/intent_score.py", "intentrec_core/model/model.py"
CONTENTS, SAMPLED = "intentrec_core/bundle/contents.py", "intentrec_core/training/sampled_softmax.py"
RETRIEVAL, LIVE = "stream/pipeline/retrieval.py", "intentrec_core/engine/live.py"
CANDIDATES = "index/candidates.py"
COUNTS, COUNT_KERNEL = "intentrec_core/features/play_counts.py", "intentrec_core/kernels/decayed_counts.py"
SOFTMAX, RANKS = "intentrec_core/training/item_softmax.py", "intentrec_core/evaluation/model_ranks.py"
TEST_COUNTS = "tests/unit/intentrec_core/features/test_play_counts.py"
TEST_PATHS = "tests/unit/intentrec_core/training/test_fast_paths.py"
TEST_RANKS = "tests/unit/intentrec_core/evaluation/test_ranks.py"
TEST_BUILDER = "tests/unit/stream/bundles/test_builder.py"
TEST_SERVED = "tests/property/test_served_score.py"
TEST_TRAIN = "tests/unit/intentrec_core/training/test_train.py"
TEST_SAMPLED = "tests/unit/intentrec_core/training/test_sampled_softmax.py"
TEST_FORMAT = "tests/unit/intentrec_core/bundle/test_format.py"
OWN, SAME_ROW = "intentrec_core/model/own_items.py", "(row_BT[:, :, None] == row_BT[:, None, :])"
OWN_SCORES = "intentrec_core/engine/own_scores.py"
TEST_OWN = "tests/unit/intentrec_core/model/test_own_items.py"
TEST_LOSS = f"{TEST_TRAIN}::test_the_loss_is_that_of_the_targets_alone_each_seen_from_its_served_context"
TEST_RETRIEVAL = "tests/unit/stream/pipeline/test_retrieval.py"
TEST_LISTS = "tests/parity/test_live_encoder_and_worker.py"

SCORE = (
    Mutant(
        "an item without a label is scored as if every label were certain",
        (Edit(INTENT_SCORE, "= logs - (p * logs).sum(-1)[..., None]\n", "= logs\n"),),
        (TEST_SERVED,),
    ),
    Mutant(
        "an item with several labels is scored by the sum over them",
        (
            Edit(
                INTENT_SCORE,
                "= ones / ones.sum(-1)[..., None].clip(1.0)\n",
                "= ones\n",
            ),
        ),
        (TEST_SERVED,),
    ),
    Mutant(
        "a label without probability makes a score that is not finite",
        (Edit(INTENT_SCORE, "log(p.clip(MIN_PROBABILITY))", "log(p)"),),
        (TEST_SERVED,),
    ),
    Mutant(
        "the index holds labels that were not trained with",
        (Edit(CONTENTS, "label_shares(items.labels(head, at_s))", "items.labels(head, at_s)"),),
        (TEST_SERVED,),
    ),
    Mutant(
        "the item loss bends the heads through the score",
        (
            Edit(
                MODEL,
                "torch.softmax(output.head_logits[m].detach(), dim=-1)",
                "torch.softmax(output.head_logits[m], dim=-1)",
            ),
        ),
        (TEST_TRAIN,),
    ),
    Mutant(
        "a sampled softmax scores items without their labels",
        (
            Edit(
                SAMPLED,
                "torch.cat([weight, model.item_labels(rows)], dim=-1)",
                "torch.cat([weight, 0 * model.item_labels(rows)], dim=-1)",
            ),
        ),
        (TEST_SAMPLED,),
    ),
    Mutant(
        "lists ignore how much intents add to the score",
        (Edit(RETRIEVAL, "np.float32(beta) * serving.label_betas", "np.float32(beta) + 0 * serving.label_betas"),),
        (TEST_LISTS,),
    ),
    Mutant(
        "the library scores items without the intents",
        (Edit(LIVE, "for m in self._scored], self._betas)", "for m in self._scored], 0 * self._betas)"),),
        (TEST_SERVED,),
    ),
    Mutant(
        "a bundle of a release without intents in the score is refused",
        (
            Edit(
                CONTENTS,
                '            arrays.setdefault("intent_beta", np.zeros(wanted["intent_beta"], dtype=np.float32))\n',
                "            pass\n",
            ),
        ),
        (TEST_FORMAT,),
    ),
    Mutant(
        "a play is counted before serving could know of it",
        (Edit(COUNTS, "return np.floor(ts_s / self._refresh_s) * self._refresh_s", "return ts_s"),),
        (TEST_COUNTS,),
    ),
    Mutant(
        "a play at the moment itself is counted",
        (
            Edit(
                COUNT_KERNEL,
                "while event < end and at_s[event] < moments_s[n]:",
                "while event < end and at_s[event] <= moments_s[n]:",
            ),
        ),
        (TEST_COUNTS,),
    ),
    Mutant(
        "the sampled loss forgets the counts",
        (
            Edit(
                "intentrec_core/training/losses.py",
                "sampled_cross_entropy(model, query, target, sampler, gate, at, logits)",
                "sampled_cross_entropy(model, query, target, sampler, own=logits)",
            ),
        ),
        (TEST_LOSS,),
    ),
    Mutant(
        "biases of a model with counts begin with the popularity of the training span",
        (Edit("intentrec_core/training/train.py", "    if model.count_gate is not None:\n", "    if False:\n"),),
        (f"{TEST_TRAIN}::test_biases_are_what_counts_do_not_explain",),
    ),
    Mutant(
        "a new item of a model with counts begins with the lowest bias",
        (Edit(MODEL, "        if self.count_gate is not None:  # counts say", "        if False:  # counts say"),),
        (f"{TEST_TRAIN}::test_biases_are_what_counts_do_not_explain",),
    ),
    Mutant(
        "queries of a bundle ignore the trained weights of intents",
        (
            Edit(
                "stream/bundles/builder.py",
                "weighted_scores(probabilities, betas)",
                "weighted_scores(probabilities, [3.0] * len(betas))",
            ),
        ),
        (TEST_BUILDER,),
    ),
    Mutant(
        "the popular list counts a bundle's plays twice",
        (
            Edit(
                "stream/pipeline/popular.py",
                "bundle_counts if np.isneginf(counted_at_s) else None",
                "bundle_counts",
            ),
        ),
        ("tests/unit/stream/pipeline/test_popular.py",),
    ),
    Mutant(
        "of several labels the popular list counts the mean",
        (Edit("stream/pipeline/popular.py", "probs @ (shares > 0).astype(np.float32).T", "probs @ shares.T"),),
        ("tests/unit/stream/pipeline/test_popular.py",),
    ),
    Mutant(
        "the gate of the counts learns nothing",
        (Edit(SOFTMAX, "        d_gate = None if d_gate is None else d_gate * d_loss\n", "        d_gate = None\n"),),
        (TEST_PATHS,),
    ),
    Mutant(
        "evaluation ranks without the counts that were trained",
        (Edit(RANKS, "                    scores += torch.bmm(", "                    torch.bmm("),),
        (TEST_RANKS,),
    ),
    Mutant(
        "an untrained gate of own items changes scores",
        (Edit(OWN, "        nn.init.zeros_(self.gate.weight)\n", ""),),
        (TEST_OWN,),
    ),
    Mutant(
        "an item that was played twice adds to its score twice",
        (Edit(OWN, " & (next_place_BT[:, None] > now_BQ1)", ""),),
        (TEST_OWN,),
    ),
    Mutant(
        "plays after a target add to the score of their items",
        (Edit(OWN, "(place <= now_BQ1) & ", ""),),
        (TEST_OWN,),
    ),
    Mutant(
        "how often an item was played counts later plays too",
        (Edit(OWN, "(row_BT[:, :, None] == row_BT[:, None, :]) & (place <= place[:, None])", SAME_ROW),),
        (TEST_OWN,),
    ),
    Mutant(
        "the offsets of own items learn nothing",
        (Edit(SOFTMAX, "        d_own = None if d_own is None else d_own * d_loss\n", "        d_own = None\n"),),
        (TEST_PATHS,),
    ),
    Mutant(
        "the sampled loss counts an own item that is drawn twice",
        (Edit(SAMPLED, 'drawn_NC.masked_fill(_are_own(row_C, own.offsets), float("-inf"))', "drawn_NC"),),
        (TEST_LOSS,),
    ),
    Mutant(
        "the sampled loss scores the target without its offset",
        (Edit(SAMPLED, "target_N + (own.offsets.offset * ", "target_N + (0 * own.offsets.offset * "),),
        (TEST_LOSS,),
    ),
    Mutant(
        "the sampled loss scores own items without the counts",
        (Edit(SAMPLED, "(gate_NC[of_target] * column_PC)", "(0 * gate_NC[of_target] * column_PC)"),),
        (TEST_LOSS,),
    ),
    Mutant(
        "own items are counted as of another target",
        (Edit(SAMPLED, "counts.ts_s[of_target.cpu().numpy()]", "counts.ts_s[nth.cpu().numpy() % len(counts.ts_s)]"),),
        (TEST_LOSS,),
    ),
    Mutant(
        "an item that the encoder did not see is an own item in training",
        (Edit("intentrec_core/training/train.py", "entered=entered,", "entered=batch.context,"),),
        (f"{TEST_TRAIN}::test_an_item_that_the_encoder_did_not_see_is_no_own_item",),
    ),
    Mutant(
        "evaluation ranks without the own items that were trained",
        (Edit(RANKS, "own.at(chunk_rows).add_to(scores)", "pass"),),
        (TEST_RANKS,),
    ),
    Mutant(
        "the gate of own items bends the heads",
        (
            Edit(
                MODEL,
                "[torch.softmax(logit.detach(), dim=-1) for logit in output.head_logits]",
                "[torch.softmax(logit, dim=-1) for logit in output.head_logits]",
            ),
        ),
        (TEST_OWN,),
    ),
    Mutant(
        "how often an item was played is not served",
        (Edit(OWN_SCORES, "np.diff(places, prepend=-1)", "np.ones(len(places))"),),
        (TEST_SERVED,),
    ),
    Mutant(
        "a worker leaves own items out of its lists",
        (
            Edit(
                RETRIEVAL,
                "            if beside is not None:\n                found = _merged",
                "            if False:\n                found = _merged",
            ),
        ),
        (TEST_LISTS,),
    ),
    Mutant(
        "a worker ranks own items as the index does",
        (Edit(CANDIDATES, "            score += offset_of[i]\n", ""),),
        (TEST_LISTS,),
    ),
    Mutant(
        "a worker lists own items that are hidden",
        (Edit(RETRIEVAL, "            shown[part] &= ~is_hidden[beside.row[part]]\n", "            pass\n"),),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "a worker lists own items that a filter does not allow",
        (Edit(RETRIEVAL, "            shown[part] &= mask[beside.row[part]]\n", "            pass\n"),),
        (TEST_LISTS,),
    ),
    Mutant(
        "a worker scores own items although all of them are hidden",
        (Edit(RETRIEVAL, "np.flatnonzero(~hides | (num_held > self._layout.watched))", "np.arange(len(contexts))"),),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "own items older than what the filter hides are not scored",
        (
            Edit(
                RETRIEVAL,
                "if own is None or (self._hides_whole_context and hides.all()):",
                "if own is None or hides.all():",
            ),
        ),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "a worker forgets own items that are older than those it hides",
        (Edit(RETRIEVAL, "np.flatnonzero(~hides | (num_held > self._layout.watched))", "np.flatnonzero(~hides)"),),
        (TEST_RETRIEVAL,),
    ),
    Mutant(
        "offsets of own items depend on the size of the micro-batch",
        (Edit(OWN_SCORES, 'np.einsum("ng,gc->nc", seen_NG, self._gate_GC)', "seen_NG @ self._gate_GC"),),
        (TEST_OWN,),
    ),
    Mutant(
        "the library scores items without the member's own",
        (Edit(LIVE, "            scores[own.row] += own.offset\n", ""),),
        (TEST_SERVED,),
    ),
)
