"""`intentrec`, as a module, with a model that fails where it meets certain items, as an assertion on a device would make it.

TEST_FAULTS says how, as JSON: ``{"item-13": "raise", "item-17": "nan", "*": "raise"}``; the star is every context. Each call
of the model that raised adds a line to the file TEST_CALLS: the number of contexts in it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from stream import hot_swap, worker
from stream.serving import Serving, load_serving


def main() -> None:
    """Puts the faults into every bundle that is loaded, then runs the command line."""
    faults: dict[str, str] = json.loads(os.environ["TEST_FAULTS"])
    calls = Path(os.environ["TEST_CALLS"])
    worker._MAX_FAILURES = int(os.environ.get("TEST_MAX_FAILURES", worker._MAX_FAILURES))

    def load(*args: Any, **options: Any) -> Serving:
        serving = load_serving(*args, **options)
        raising = [serving.vocabulary.row(item) for item, how in faults.items() if how == "raise"]
        spoiling = [serving.vocabulary.row(item) for item, how in faults.items() if how == "nan"]

        def crash(_: Any, inputs: tuple[Any, ...]) -> None:
            rows = inputs[0].item_row
            if "*" in faults or any(bool((rows == row).any()) for row in raising):
                with calls.open("a") as file:
                    file.write(f"{len(rows)}\n")
                raise RuntimeError("device-side assert triggered")

        def spoil(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
            for row in spoiling:
                since_BT = (inputs[0].item_row == row).cumsum(dim=1) > 0  # nothing before it, as attention is causal
                output.item_BTW[since_BT] = torch.nan

        serving.engine.model.register_forward_pre_hook(crash)
        serving.engine.model.register_forward_hook(spoil)
        return serving

    hot_swap.load_serving = load
    from stream.cli import main as run

    run()


if __name__ == "__main__":
    sys.exit(main())
