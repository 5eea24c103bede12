"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intentrec_core.domain.spec import DEFAULT_EPOCHS, MAX_EPOCHS, Domain
from intentrec_core.errors import ConfigError

_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, MAX_EPOCHS),
    "last_epoch": (1, MAX_EPOCHS),
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
#: Up to this size, scoring all items in a step costs no more than the rest of the step.
_ALL_UP_TO_ROWS = 100_000
_MANY_NEGATIVES = 2048


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run.

    The learning rate rises during the first ``warmup_ratio`` of all steps, then falls as a cosine to ``final_ratio`` of
    its peak. With ``last_epoch``, training ends after that epoch of the schedule: the weights are those that the whole run
    would have had there.
    ``shuffle_ties``: in each epoch, plays of a member at the same time are in a different order, because their true
    order is not known.
    ``intent_weight`` is lambda of the paper's Eq. 4.
    ``unknown_ratio`` of the input plays have their item replaced by row 0, so that the row of unknown items learns a
    useful value.
    The last ``validation_ratio`` of the plays, by time, is held out to choose the best epoch; training stops after
    ``patience`` epochs without improvement. With 0 nothing is held out and all epochs run.
    ``num_negatives`` items are drawn per step to represent the whole catalogue
    (:mod:`intentrec_core.training.sampled_softmax`). 0 scores all items; None chooses by the size of the catalogue
    (:meth:`negatives`).
    ``max_seconds`` ends training early, with the whole schedule compressed into that time. It counts from the end of the first
    step, which also loads and compiles what the others use. Such a run is not repeatable.

    Raises: ConfigError with the name, the value and the allowed range.
    """

    epochs: int = DEFAULT_EPOCHS
    last_epoch: int | None = None
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

    @classmethod
    def for_domain(cls, domain: Domain, **given: Any) -> TrainConfig:
        """Settings of a first model's run: those ``given``, then what the domain declares, then the defaults. None: not given.

        Raises: ConfigError with the name, the value and the allowed range.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        return cls(**{"epochs": domain.first_model.epochs} | chosen)

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"training {name} is {value}; allowed: {low:g} to {high:g}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ConfigError(f"training max_seconds is {self.max_seconds}; allowed: above 0")

    def negatives(self, num_rows: int) -> int:
        """Number of items to draw per step for a catalogue of ``num_rows`` rows; 0 means score all."""
        if self.num_negatives is not None:
            return self.num_negatives
        return 0 if num_rows <= _ALL_UP_TO_ROWS else _MANY_NEGATIVES
