"""The predicted intents in the score of an item.

    score(i) = ⟨E, w_i⟩ + b_i + Σ_m β_m · mean over the labels l of item i of (log p_m(l) − Σ_l' p_m(l') · log p_m(l'))
             = ⟨ [E, β·(log p − Σ p log p)], [w_i, labels_i] ⟩ + b_i

β is learnt with the item loss, one number per head, from 0: the paper's model. An item whose label is missing gets what a
label drawn from p would get on average, which is 0 after the subtraction. The subtraction is the same for all items, so it
changes no probability and no order.

Only heads whose label the catalogue alone gives take part. The label of a play is not known before the play, and the age of
an item changes with every moment.

Functions of ``Array`` take tensors and NumPy arrays, so training and serving share one definition. This module imports
neither torch nor the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from intentrec_core.domain.spec import Domain, Field, FieldSource

#: A less likely label counts as one this likely, so that the score of an item is always finite.
MIN_PROBABILITY = 1e-6

#: A tensor or a NumPy array.
Array = TypeVar("Array")


def scored_heads(domain: Domain) -> tuple[Field, ...]:
    """The heads that take part in the score of an item, in the domain's order."""
    return tuple(head for head in domain.heads if head.source is FieldSource.CATALOGUE)


def label_scores(probabilities: Array, log: Callable[[Array], Array]) -> Array:
    """For each label its log probability, less the mean of these under the probabilities themselves.

    ``log`` is the natural logarithm: ``torch.log`` or ``np.log``. Shapes: f32[..., L] -> f32[..., L].
    """
    p: Any = probabilities
    logs: Any = log(p.clip(MIN_PROBABILITY))
    scores: Array = logs - (p * logs).sum(-1)[..., None]
    return scores


def weighted_scores(probabilities: Iterable[NDArray[np.float32]], betas: Iterable[float]) -> list[NDArray[np.float32]]:
    """What each head adds to the score of an item with a label, for heads with these β. Shapes: f32[..., L] each."""
    return [np.float32(beta) * label_scores(p, np.log) for p, beta in zip(probabilities, betas, strict=True)]


def label_shares(indicators: Array) -> Array:
    """Labels of items as shares: an item with several labels of a head has an equal share in each.

    Shapes: f32[V, L] of zeros and ones -> f32[V, L], rows with sum 1, or 0 where the label is missing.
    """
    ones: Any = indicators
    shares: Array = ones / ones.sum(-1)[..., None].clip(1.0)
    return shares
