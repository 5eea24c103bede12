"""The learning rate schedule: linear warm-up, then a cosine; and the progress of a run."""

from __future__ import annotations

import math


def rate_factor(done: float, *, warmup_ratio: float, final_ratio: float) -> float:
    """The share of the peak learning rate when the share ``done`` (0 to 1) of the run is over."""
    if done < warmup_ratio:
        return done / warmup_ratio
    span = 1.0 - warmup_ratio
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, (done - warmup_ratio) / span))) if span > 0 else 1.0
    return final_ratio + (1.0 - final_ratio) * cosine


def run_done(steps: float, elapsed_s: float, max_seconds: float | None) -> float:
    """The share of the run that is over, 0 to 1: by steps or by time, whichever is larger."""
    return min(1.0, steps if max_seconds is None else max(steps, elapsed_s / max_seconds))
