"""Faults in the score of an item: what is trained, evaluated and served must be one number."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

INTENT_SCORE, MODEL = "intentrec_core/model/intent_score.py", "intentrec_core/model/model.py"
CONTENTS, SAMPLED = "intentrec_core/bundle/contents.py", "intentrec_core/training/sampled_softmax.py"
RETRIEVAL, LIVE = "stream/pipeline/retrieval.py", "intentrec_core/engine/live.py"
TEST_SERVED = "tests/property/test_served_score.py"
TEST_TRAIN = "tests/unit/intentrec_core/training/test_train.py"
TEST_SAMPLED = "tests/unit/intentrec_core/training/test_sampled_softmax.py"
TEST_FORMAT = "tests/unit/intentrec_core/bundle/test_format.py"
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
                '            weights.setdefault("intent_beta", torch.zeros_like(model.intent_beta))\n',
                "            pass\n",
            ),
        ),
        (TEST_FORMAT,),
    ),
)
