"""How well the probabilities of a head mean what they say: its plays by how sure it was.

Shapes: N targets.
"""

from __future__ import annotations

import numpy as np

from intentrec_core.evaluation.heads import NUM_BINS, HeadOutcomes
from intentrec_core.evaluation.results import CalibrationBin


def calibration_bins(outcomes: HeadOutcomes) -> tuple[CalibrationBin, ...]:
    """The bins that hold a play, least sure first: those that the calibration error of a head is computed over."""
    known = outcomes.observed.any(axis=1)
    confidence, correct = outcomes.confidence[known], outcomes.correct[known]
    which = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num, sure, right = (np.bincount(which, values, NUM_BINS) for values in (None, confidence, correct))
    return tuple(
        CalibrationBin(int(num[i]), float(sure[i] / num[i]), float(right[i] / num[i])) for i in np.flatnonzero(num)
    )
