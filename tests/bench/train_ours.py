"""Training of a SASRec in a process of its own: the product's model without its intent stage, and the product's loop.

    python -m tests.bench.train_ours PLAYS.csv '{"width": 64, ...}'
    python -m tests.bench.train_ours movielens '{"epochs": 3, ...}'      all of IntentRec, as `intentrec train` trains it

The last line of stdout is one JSON object, as of the program it is compared with (tests/bench/baselines/rectools/sasrec.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import warnings
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.csv
import torch

from intentrec_core.datasets.movielens import fetch_movielens
from intentrec_core.domain.spec import Domain
from intentrec_core.domain.toml import load_domain
from intentrec_core.features.catalogue import Catalogue, Item
from intentrec_core.model.config import ModelConfig
from intentrec_core.plays.table import check_plays
from intentrec_core.training.config import TrainConfig
from intentrec_core.training.first_model import learn
from intentrec_core.training.reports import EpochCallback, Trained
from stream.settings import Settings

MATMUL_SIZE = 1024


def main() -> None:
    """See the module."""
    source, settings = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(settings["threads"])
    cpu_s = [time.process_time()]
    learner = _intentrec if source == "movielens" else _sasrec
    trained = learner(source, settings, lambda _: cpu_s.append(time.process_time()))
    ends_s = [0.0, *(report.elapsed_s for report in trained.curve)]
    found = {
        "epoch_s": [after - before for before, after in pairwise(ends_s)],
        "epoch_cpu_s": [after - before for before, after in pairwise(cpu_s)],
        "loss": [report.loss["item"] for report in trained.curve],
        "plays": trained.num_targets,
        "matmul_flops_per_s": _matmul_flops_per_s(),
    }
    print(json.dumps(found))


def _sasrec(path: str, settings: dict[str, Any], epoch_done: EpochCallback) -> Trained:
    """No fields and no heads; times stay, as biases of attention: they are what our model has in place of positions."""
    texts = {name: pa.string() for name in ("user_id", "item_id")}
    plays = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=texts))
    plays = plays.append_column("event_id", pa.array(map(str, range(plays.num_rows))))
    domain: Domain = dataclasses.replace(
        load_domain("movielens"), fields=(), filters=(), window=settings["length"] // 2
    )
    config = TrainConfig(
        epochs=settings["epochs"],
        batch_windows=settings["batch_windows"],
        learning_rate=settings["learning_rate"],
        seed=settings["seed"],
        weight_decay=0.0,  # AdamW without it is Adam
        warmup_ratio=0.0,
        final_ratio=1.0,
        patience=settings["epochs"],
    )
    model_config = ModelConfig(
        width=settings["width"],
        num_heads=settings["num_heads"],
        num_layers=settings["num_layers"],
        dropout=settings["dropout"],
        intent_stage=False,
    )
    items = Catalogue(Item(item_id, item_id, {}) for item_id in plays.column("item_id").unique().to_pylist())
    warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # of fields that are not there
    return learn(
        domain, check_plays(plays), items, config, model_config=model_config, device="cpu", epoch_done=epoch_done
    ).trained


def _intentrec(_: str, settings: dict[str, Any], epoch_done: EpochCallback) -> Trained:
    """The shipped domain, and the model and the training that are the defaults."""
    found = fetch_movielens(Settings.load().cache_dir)
    plays = found.plays.slice(0, settings["max_plays"])
    config = TrainConfig(epochs=settings["epochs"], patience=settings["epochs"], seed=settings["seed"])
    return learn(load_domain("movielens"), plays, found.catalogue, config, device="cpu", epoch_done=epoch_done).trained


def _matmul_flops_per_s() -> float:
    """The best of a few square products: what the machine gives, with as many threads as training had."""
    square, best_s = torch.rand(MATMUL_SIZE, MATMUL_SIZE), float("inf")
    for _ in range(10):
        began_s = time.perf_counter()
        torch.mm(square, square)
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * MATMUL_SIZE**3 / best_s


if __name__ == "__main__":
    main()
