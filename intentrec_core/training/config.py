"""How a model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from intentrec_core.errors import ConfigError

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_windows": (1, 65_536),
    "learning_rate": (1e-7, 1.0),
    "warmup_ratio": (0.0, 1.0),
    "final_ratio": (0.0, 1.0),
    "weight_decay": (0.0, 10.0),
    "clip_norm": (1e-3, 1e6),
    "num_negatives": (0, 1_000_000),
    "intent_weight": (0.0, 1e3),
    "unknown_ratio": (0.0, 0.9),
    "validation_ratio": (0.0, 0.9),
    "patience": (1, 10_000),
}
#: Up to here scoring all items of a step costs no more than the rest of it.
_ALL_UP_TO_ROWS = 100_000
_MANY_NEGATIVES = 2048


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run.

    ``warmup_ratio`` of all steps the learning rate rises, then it falls as a cosine to ``final_ratio`` of its peak.
    With ``shuffle_ties`` each epoch sees a member's plays of one moment in another order: it is not known which came first.
    ``intent_weight`` is lambda of the paper's Eq. 4. ``unknown_ratio`` of the input plays have their item replaced by row 0, so
    that the row of unknown items means something. The last ``validation_ratio`` of the plays, by time, is held out to choose the
    best epoch; training stops after ``patience`` epochs without a better one. With 0 nothing is held out and all epochs run.
    ``num_negatives`` items are drawn a step to stand for all (:mod:`intentrec_core.training.sampled_softmax`); 0
    scores all of them, and
    None takes what suits the catalogue (:meth:`negatives`).
    ``max_seconds`` ends training early, with the whole schedule squeezed into that time (such a run is not repeatable).

    Raises: ConfigError naming the value and what is allowed.
    """

    epochs: int = 15
    batch_windows: int = 16
    learning_rate: float = 5e-3
    warmup_ratio: float = 0.05
    final_ratio: float = 0.02
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    intent_weight: float = 0.1
    unknown_ratio: float = 0.05
    shuffle_ties: bool = True
    validation_ratio: float = 0.0
    patience: int = 5
    num_negatives: int | None = None
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"training {name} is {value}; allowed: {low:g} to {high:g}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ConfigError(f"training max_seconds is {self.max_seconds}; allowed: above 0")

    def negatives(self, num_rows: int) -> int:
        """Items to draw a step with a catalogue of ``num_rows``; 0: score all."""
        if self.num_negatives is not None:
            return self.num_negatives
        return 0 if num_rows <= _ALL_UP_TO_ROWS else _MANY_NEGATIVES
