"""Full recomputation of contexts: the result that the incremental engine must equal, and the cost it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from intentrec_core.engine.engine import Encoded
from intentrec_core.engine.output_rows import primary_labels
from intentrec_core.engine.slots import NO_LABEL
from intentrec_core.features.context_batch import collate
from intentrec_core.features.features import FeatureBuilder
from intentrec_core.model.attention import Attend, FullAttend
from intentrec_core.model.model import IntentRec


@torch.inference_mode()
def recompute(
    model: IntentRec,
    features: FeatureBuilder,
    contexts: Sequence[bytes],
    make_attend: Callable[[Tensor, float], Attend] = FullAttend,
) -> Encoded:
    """Encodes whole contexts without a cache, with one output each: for the last play.

    ``make_attend`` makes the attention of the times f64[B, T] and the short-term window, in seconds; with
    :class:`~intentrec_core.engine.quantised.QuantisedAttend`, keys and values are quantised as an int8 cache keeps them.

    Shapes: as :class:`~intentrec_core.engine.engine.Encoded`, N = the number of contexts.
    """
    model.eval()
    batch = collate(features.columns(contexts, [0] * len(contexts))).to(model.device)
    output = model(batch, make_attend(batch.ts_s, model.domain.short_term_window_s))
    last = (torch.arange(len(contexts), device=model.device), batch.lengths - 1)
    if output.head_logits:
        primary_BT = primary_labels(model, output)
        before = primary_BT[last[0], (last[1] - 1).clamp(min=0)].masked_fill(batch.lengths == 1, NO_LABEL)
        primary, previous = primary_BT[last].cpu().numpy(), before.cpu().numpy()
    else:
        primary = previous = np.full(len(contexts), NO_LABEL)
    return Encoded(
        item_NW=output.item_BTW[last].cpu().numpy(),
        heads=tuple(torch.softmax(logit[last], dim=-1).cpu().numpy() for logit in output.head_logits),
        alpha_NM=output.alpha_BTM[last].cpu().numpy(),
        intent_NP=output.intent_BTP[last].cpu().numpy(),
        primary_N=primary,
        previous_primary_N=previous,
    )
