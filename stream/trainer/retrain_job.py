"""The job and the result of a training run, exchanged as JSON between the trainer and its child process.

This module imports nothing heavy: the trainer must not load torch.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stream.ops.metrics import TrainerOutcome


class GateReason(StrEnum):
    """Why a candidate passed the gate or was refused; a metric label, so the set only grows."""

    PASSED = "passed"
    NOT_FINITE = "not_finite"
    WORSE_ITEMS = "worse_items"
    WORSE_INTENTS = "worse_intents"
    BUNDLE = "bundle"
    DATA = "data"


class RetrainJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The task of one run, sent as a line of JSON on the child's standard input.

    ``running``: bundles to start from, as (version, store URL), the serving bundle first; the run uses the first one that
    verifies. Empty for a first bundle. ``catalogue_is_whole``: the file has every item that may be shown, and each of them gets a
    row, played or not. ``budget_s`` limits the time spent on training.
    """

    event_log_dir: str
    topic: str
    domain: str
    bundle_url: str
    cache_dir: str
    running: tuple[tuple[str, str], ...]
    catalogue: str | None
    device: str
    budget_s: float
    min_plays: int
    max_plays: int
    gate_margin: float
    index: str = "auto"
    seed: int = 0
    catalogue_is_whole: bool = False


class RetrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run, read from the last line of the child's standard output.

    Outcome ``published`` means that the bundle is in the store, ready to be announced. The ratios are HR@10 on held-out plays.
    ``drift``: how far the data are from those of the running bundle, by field and filter, from 0 to 1.
    """

    outcome: TrainerOutcome
    detail: str
    reason: GateReason | None = None
    bundle: str | None = None
    parent: str | None = None
    num_new_plays: int = 0
    num_new_items: int = 0
    candidate_hr_at_10: float | None = None
    running_hr_at_10: float | None = None
    drift: dict[str, float] = {}
