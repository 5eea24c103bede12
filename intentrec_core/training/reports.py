"""Progress and results of training as plain values. The caller decides how to print them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from intentrec_core.evaluation.metrics import Quality
from intentrec_core.model.model import IntentRec


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """State after one step. ``loss`` are means over the epoch so far: "total", "item", and one per head."""

    epoch: int
    num_epochs: int
    step: int
    num_steps: int
    elapsed_s: float
    learning_rate: float
    loss: dict[str, float]


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One point of the learning curve. ``validation`` is measured on the held-out plays, None if nothing is held out."""

    epoch: int
    elapsed_s: float
    loss: dict[str, float]
    validation: Quality | None
    accuracy: dict[str, float]

    def line(self) -> str:
        """The point as one line of text."""
        parts = "  ".join(f"{name} {value:.3f}" for name, value in self.loss.items())
        text = f"epoch {self.epoch:3d}  {self.elapsed_s:6.1f} s  {parts}"
        if self.validation is not None:
            text += f"  | held out: NDCG@10 {self.validation.ndcg_at_10:.4f}  HR@10 {self.validation.hr_at_10:.4f}"
        return text


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, in evaluation mode on its device, with its learning curve.

    The weights are those of epoch ``best_epoch``. ``stopped`` is the reason why training ended: "epochs", "patience" or
    "time".
    """

    model: IntentRec
    curve: tuple[EpochReport, ...]
    best_epoch: int
    stopped: str
    num_targets: int
    elapsed_s: float


ProgressCallback = Callable[[TrainingProgress], None]
EpochCallback = Callable[[EpochReport], None]
