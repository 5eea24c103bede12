"""How well intent heads predict: accuracy, macro-F1, calibration, and skill over "the same label as last time".

Shapes: N targets, L labels of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from intentrec_core.model.model import IntentRec, ModelOutput
from intentrec_core.plays.batches import WindowBatch

#: Bins of equal width for the calibration error.
NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class HeadOutcomes:
    """What one head said at each target, and what was observed.

    Shapes: predicted i64[N] its most likely label; confidence f64[N] that label's probability; observed bool[N, L] the labels of
    the target, none where unknown; repeated f64[N] how likely a label of the member's play before is among them (NaN where one of
    the two is unknown): 0 or 1 where plays have one label.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    observed: NDArray[np.bool_]
    repeated: NDArray[np.float64]

    @classmethod
    def empty(cls, num_targets: int, num_labels: int) -> HeadOutcomes:
        """Arrays to be filled, with no label observed."""
        return cls(
            np.zeros(num_targets, dtype=np.int64),
            np.zeros(num_targets),
            np.zeros((num_targets, num_labels), dtype=np.bool_),
            np.full(num_targets, np.nan),
        )

    @property
    def correct(self) -> NDArray[np.float64]:
        """1 where the predicted label was observed, else 0; NaN where no label was observed. Shape: f64[N]."""
        hit = self.observed[np.arange(len(self.predicted)), self.predicted].astype(np.float64)
        return np.where(self.observed.any(axis=1), hit, np.nan)


@dataclass(frozen=True, slots=True)
class HeadQuality:
    """Figures of one head over the targets whose label is known; NaN where there are none.

    ``macro_f1``: mean F1 of the labels that were observed, each label counting the same. ``ece``: expected calibration error,
    the mean distance between confidence and accuracy over 15 bins of confidence (Guo et al., ICML 2017). ``skill``: the share of
    the errors of "the same label as last time" that the head avoids: 0 is no better than that, 1 is perfect.
    """

    accuracy: float
    macro_f1: float
    ece: float
    skill: float


def observe(
    heads: Mapping[str, HeadOutcomes],
    model: IntentRec,
    output: ModelOutput,
    batch: WindowBatch,
    which: NDArray[np.int64],
    window: Tensor,
    place: Tensor,
) -> None:
    """Writes what the heads said of the targets ``which``, at these places of the batch's windows, into ``heads``."""
    if not heads:
        return
    labels = model.head_targets(batch.context)
    for outcomes, logits, labels_BTL in zip(heads.values(), output.head_logits, labels, strict=True):
        confidence, predicted = torch.softmax(logits[window, place - 1], dim=-1).max(dim=-1)
        true_NL, last_NL = labels_BTL[window, place] > 0, labels_BTL[window, place - 1] > 0
        shared, num_last = (true_NL & last_NL).sum(dim=-1), last_NL.sum(dim=-1)
        repeated = (shared / num_last).masked_fill((num_last == 0) | (true_NL.sum(dim=-1) == 0), torch.nan)
        outcomes.predicted[which] = predicted.cpu().numpy()
        outcomes.confidence[which] = confidence.double().cpu().numpy()
        outcomes.observed[which] = true_NL.cpu().numpy()
        outcomes.repeated[which] = repeated.double().cpu().numpy()


def head_quality(outcomes: HeadOutcomes) -> HeadQuality:
    """Figures of one head."""
    known = outcomes.observed.any(axis=1)
    if not known.any():
        return HeadQuality(*[float("nan")] * 4)
    observed, predicted = outcomes.observed[known], outcomes.predicted[known]
    correct = outcomes.correct[known]
    comparable = ~np.isnan(outcomes.repeated[known])
    last_error = 1.0 - outcomes.repeated[known][comparable].mean() if comparable.any() else 0.0
    error = 1.0 - correct[comparable].mean() if comparable.any() else 0.0
    return HeadQuality(
        accuracy=float(correct.mean()),
        macro_f1=_macro_f1(observed, predicted),
        ece=_calibration_error(correct, outcomes.confidence[known]),
        skill=float(1.0 - error / last_error) if last_error > 0 else float("nan"),
    )


def _macro_f1(observed: NDArray[np.bool_], predicted: NDArray[np.int64]) -> float:
    said = np.eye(observed.shape[1], dtype=np.bool_)[predicted]
    both, either = (observed & said).sum(axis=0), observed.sum(axis=0) + said.sum(axis=0)
    occurs = observed.any(axis=0)
    return float((2.0 * both[occurs] / either[occurs]).mean())


def _calibration_error(correct: NDArray[np.float64], confidence: NDArray[np.float64]) -> float:
    which = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    distance = np.bincount(which, confidence - correct, NUM_BINS)
    return float(np.abs(distance).sum() / len(correct))
