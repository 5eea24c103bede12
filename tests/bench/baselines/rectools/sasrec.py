"""RecTools' SASRec trained through its public API, as its documentation shows it; runs in a venv of its own.

    python sasrec.py PLAYS.csv '{"width": 64, ...}'

The last line of stdout is one JSON object: seconds and mean loss of every epoch, and the plays predicted in one.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class Stopwatch(Callback):
    """Seconds, CPU seconds and loss of every epoch."""

    def __init__(self) -> None:
        self.epoch_s: list[float] = []
        self.epoch_cpu_s: list[float] = []
        self.loss: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: object) -> None:
        self.epoch_s.append(time.perf_counter() - self._began_s)
        self.epoch_cpu_s.append(time.process_time() - self._began_cpu_s)
        self.loss.append(float(trainer.callback_metrics["train_loss"]))


def main() -> None:
    """See the module."""
    settings = json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    warnings.filterwarnings(
        "ignore"
    )  # of a data loader without worker processes: on two cores they only get in the way
    plays = pd.read_csv(sys.argv[1]).rename(columns={"user_id": Columns.User, "item_id": Columns.Item})
    plays[Columns.Datetime] = pd.to_datetime(plays.pop("ts_ms"), unit="ms")
    plays[Columns.Weight] = 1
    stopwatch = Stopwatch()
    model = SASRecModel(
        n_blocks=settings["num_layers"],
        n_heads=settings["num_heads"],
        n_factors=settings["width"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["length"],
        batch_size=settings["batch_windows"],
        lr=settings["learning_rate"],
        loss="softmax",
        get_trainer_func=lambda: Trainer(
            max_epochs=settings["epochs"],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[stopwatch],
        ),
    )
    model.fit(Dataset.construct(plays))
    # fit works on a copy of the trainer, and of the callbacks in it
    watched = next(c for c in model.fit_trainer.callbacks if isinstance(c, Stopwatch))
    targets = int((plays.groupby(Columns.User).size().clip(upper=settings["length"] + 1) - 1).sum())
    found = {"epoch_s": watched.epoch_s, "epoch_cpu_s": watched.epoch_cpu_s, "loss": watched.loss, "plays": targets}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
