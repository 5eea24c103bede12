"""What a training run is told and what it answers, as JSON between the trainer and its child process.

Light on purpose: the trainer follows plays and announces bundles without ever loading torch.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from stream.ops.metrics import TrainerOutcome


class GateReason(StrEnum):
    """Why a candidate was let through or not; a metric label, so the set only grows."""

    PASSED = "passed"
    NOT_FINITE = "not_finite"
    WORSE_ITEMS = "worse_items"
    WORSE_INTENTS = "worse_intents"
    BUNDLE = "bundle"


class RetrainJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one run is to do; a line of JSON on its standard input.

    ``running`` are bundles to start from, version and store, the one that serves first; the first that is sound is taken.
    Empty: a first bundle. ``budget_s`` is the time for learning.
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
    seed: int = 0


class RetrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended; the last line of its standard output.

    ``outcome`` published means: in the store, ready to be announced. Figures are HR@10 on the held-out plays.
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
