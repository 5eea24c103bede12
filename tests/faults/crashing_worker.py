"""`intentrec`, as a module, with a model that fails where it meets certain items.

TEST_FAULTS says how, as JSON: ``{"item-13": "raise", "item-17": "nan", "*": "raise"}``; the star is every context, and
``{"*": "lost"}`` a device that is lost. Each call
of the model that raised adds a line to the file TEST_CALLS: the number of contexts in it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.bundles import hot_swap
from stream.bundles.serving import Serving, load_serving
from stream.delivery import worker
from tests.worlds.faulty_encoder import FaultyEncoder, device_lost, out_of_range


def main() -> None:
    """Puts the faults into every bundle that is loaded, then runs the command line."""
    faults: dict[str, str] = json.loads(os.environ["TEST_FAULTS"])
    calls = Path(os.environ["TEST_CALLS"])
    worker.MAX_FAILURES = int(os.environ.get("TEST_MAX_FAILURES", worker.MAX_FAILURES))

    def load(*args: Any, **options: Any) -> Serving:
        serving = load_serving(*args, **options)
        raising = [serving.vocabulary.row(item) for item, how in faults.items() if how == "raise"]
        spoiling = [serving.vocabulary.row(item) for item, how in faults.items() if how == "nan"]

        def crash(rows: NDArray[np.int64], num_contexts: int) -> bool:
            if "*" not in faults and not np.isin(rows, raising).any():
                return False
            with calls.open("a") as file:
                file.write(f"{num_contexts}\n")
            return True

        serving.engine.encoder = FaultyEncoder(
            serving.engine.encoder,
            raises=crash,
            spoils=spoiling,
            error=device_lost if faults.get("*") == "lost" else out_of_range,
        )
        return serving

    hot_swap.load_serving = load
    from stream.cli import main as run

    run()


if __name__ == "__main__":
    sys.exit(main())
